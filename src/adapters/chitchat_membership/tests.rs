mod talkative;

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::datagram::{Datagram, Delta, Digest, Value};
use super::*;
use crate::address::PeerAddress;
use crate::ids::Epoch;
use crate::limits::GOSSIP_NODES_MAX;
use crate::seams::membership::Member;

fn replica(region: &str, epoch: u128) -> Replica {
    Replica {
        region: Region::new(region).expect("valid"),
        epoch: Epoch(epoch),
    }
}

fn options() -> GossipOptions {
    GossipOptions {
        cluster: ClusterId::new("test").expect("valid"),
        regions: None,
        interval: Duration::from_millis(50),
        dead_after: Duration::from_millis(500),
        forget_after: Duration::from_secs(600),
    }
}

fn announcement(own: &Replica, frontier: u64) -> Announcement {
    Announcement {
        own: own.clone(),
        address: "127.0.0.1:7401".parse::<PeerAddress>().ok(),
        frontier,
        fingerprint: Some([7; 16]),
        protocol: (1, 1),
    }
}

/// Longer than anything that is waited for, most of it in paused time.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// A node with nothing but its membership.
struct Node {
    own: Replica,
    membership: Arc<ChitchatMembership>,
    counts: Arc<Counts>,
}

impl Node {
    fn of(membership: ChitchatMembership, own: Replica, counts: Arc<Counts>) -> Self {
        membership.announce(announcement(&own, 1));
        Self {
            own,
            membership: Arc::new(membership),
            counts,
        }
    }

    fn task(region: &str, epoch: u128) -> Self {
        let counts = Arc::new(Counts::default());
        let membership = ChitchatMembership::start(Home::Task, options(), counts.clone());
        let membership = membership.expect("no thread is needed");
        Self::of(membership, replica(region, epoch), counts)
    }

    async fn until(&self, what: &str, is_so: impl Fn(&[Member]) -> bool) -> Members {
        let mut members = self.membership.members();
        let found = members.wait_for(|members| is_so(members));
        let found = tokio::time::timeout(PATIENCE, found).await;
        match found {
            Ok(found) => found.expect("it runs").clone(),
            Err(_) => panic!("{what}: {:#?}", self.membership.members().borrow()),
        }
    }

    async fn alive(&self, peer: &Replica) -> Member {
        let is = |member: &Member| {
            member.region == peer.region
                && member.epoch == Some(peer.epoch)
                && member.liveness == Liveness::Alive
                && member.frontier.is_some()
        };
        let members = self.until("alive", |members| members.iter().any(is)).await;
        members.iter().find(|one| is(one)).expect("found").clone()
    }
}

/// Carries messages between two nodes until it is aborted.
fn connect(one: &Node, other: &Node) -> [JoinHandle<()>; 2] {
    let to_other = one.membership.correspond(&other.own).expect("room");
    let to_one = other.membership.correspond(&one.own).expect("room");
    let (to_other, to_one) = (Arc::new(to_other), Arc::new(to_one));
    let carry = |from: Arc<Box<dyn Correspondence>>, to: Arc<Box<dyn Correspondence>>| {
        tokio::spawn(async move {
            while let Some(message) = from.next().await {
                to.deliver(message);
            }
        })
    };
    [
        carry(to_other.clone(), to_one.clone()),
        carry(to_one, to_other),
    ]
}

#[tokio::test(start_paused = true)]
async fn nodes_hear_of_each_other_and_of_what_they_announce_over_one_connection_each() {
    let nodes = [
        Node::task("ap", 1),
        Node::task("eu", 2),
        Node::task("us", 3),
    ];
    let [ap, eu, us] = &nodes;
    let _ways = [connect(ap, eu), connect(eu, us)];
    let member = ap.alive(&us.own).await;
    assert_eq!(
        member.address.map(|a| a.to_string()).as_deref(),
        Some("127.0.0.1:7401")
    );
    assert_eq!(
        (member.fingerprint, member.protocol),
        (Some([7; 16]), Some((1, 1)))
    );
    us.membership.announce(announcement(&us.own, 9));
    ap.until("news", |members| {
        members.iter().any(|member| member.frontier == Some(9))
    })
    .await;
    for node in &nodes {
        assert_eq!(node.counts.gossip_refused.get(), 0, "{}", node.own);
        assert_eq!(node.counts.gossip_restarts.get(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_falls_silent_is_gone_and_its_next_run_takes_its_place() {
    let (eu, us) = (Node::task("eu", 2), Node::task("us", 3));
    let ways = connect(&eu, &us);
    eu.alive(&us.own).await;
    ways.iter().for_each(JoinHandle::abort);
    drop(us);
    let gone = |members: &[Member]| members.iter().all(|m| m.liveness == Liveness::Gone);
    let members = eu.until("gone", gone).await;
    assert_eq!(members.len(), 1);
    assert!(members[0].address.is_some(), "where it was is remembered");
    // chitchat forgets it; the list does not.
    tokio::time::sleep(options().dead_after * (KEPT_GONE + 4)).await;
    assert_eq!(eu.membership.members().borrow().len(), 1);
    let again = Node::task("us", 4);
    let _ways = connect(&eu, &again);
    eu.alive(&again.own).await;
    let members = eu.membership.members().borrow().clone();
    assert_eq!(members.len(), 1, "{members:#?}");
    tokio::time::sleep(options().forget_after * 2).await;
    assert_eq!(eu.membership.members().borrow().len(), 1, "it is alive");
    // chitchat still knows the run before, which is gone, when the next is there.
    eu_sees_one_run_after_another(&eu).await;
}

async fn eu_sees_one_run_after_another(eu: &Node) {
    for epoch in 100..104 {
        let sa = Node::task("sa", epoch);
        let ways = connect(eu, &sa);
        eu.alive(&sa.own).await;
        ways.iter().for_each(JoinHandle::abort);
        drop(sa);
        let is_gone = |member: &Member| member.liveness == Liveness::Gone;
        eu.until("gone", |members| members.iter().any(is_gone))
            .await;
        let members = eu.membership.members().borrow().clone();
        let runs = members
            .iter()
            .filter(|member| member.region.as_str() == "sa");
        let runs: Vec<_> = runs.map(|member| member.epoch).collect();
        assert_eq!(runs, [Some(Epoch(epoch))], "the newest alone");
    }
}

#[tokio::test(start_paused = true)]
async fn a_region_that_is_gone_for_long_is_forgotten_also_before_chitchat_does() {
    let forget_after = options().dead_after * 2;
    let counts = Arc::new(Counts::default());
    let options = GossipOptions {
        forget_after,
        ..options()
    };
    let eu = ChitchatMembership::start(Home::Task, options, counts.clone());
    let eu = Node::of(eu.expect("no thread"), replica("eu", 2), counts);
    let us = Node::task("us", 3);
    let ways = connect(&eu, &us);
    eu.alive(&us.own).await;
    ways.iter().for_each(JoinHandle::abort);
    drop(us);
    eu.until("forgotten", |members| members.is_empty()).await;
    let mut members = eu.membership.members();
    members.borrow_and_update();
    let later = forget_after * 4;
    let changed = tokio::time::timeout(later, members.changed()).await;
    assert!(changed.is_err(), "it stays forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_on_under_a_fresh_epoch_is_followed() {
    let (eu, us) = (Node::task("eu", 2), Node::task("us", 3));
    let _ways = connect(&eu, &us);
    eu.alive(&us.own).await;
    let fresh = Node {
        own: replica("us", 77),
        membership: us.membership.clone(),
        counts: us.counts.clone(),
    };
    fresh.membership.announce(announcement(&fresh.own, 1));
    let _ways = connect(&eu, &fresh);
    eu.alive(&fresh.own).await;
    assert_eq!(us.counts.gossip_restarts.get(), 0);
}

/// The two messages by which a peer could end chitchat's task, and what only looks like them.
fn killing(victim: &Replica) -> Vec<Vec<u8>> {
    let invented = |number: u128| NodeName {
        replica: replica(&format!("r{}", number % 60), number),
        generation: 0,
    };
    let digest = |node: NodeName| Digest {
        node,
        heartbeat: 9,
        collected: 0,
        version: 9,
    };
    let value = Value {
        key: "address".to_owned(),
        text: "here:1".to_owned(),
        version: 8,
        status: 0,
    };
    let delta = |node: NodeName, version| Delta {
        node,
        collected: 0,
        after: 0,
        values: vec![value.clone()],
        version,
    };
    let below = Datagram::SynAck {
        digests: vec![digest(invented(1))],
        deltas: vec![delta(invented(1), 3)],
    };
    let of_itself = Datagram::SynAck {
        digests: Vec::new(),
        deltas: vec![delta(
            NodeName {
                replica: victim.clone(),
                generation: 0,
            },
            1 << 48,
        )],
    };
    let mut all = vec![below.write(), of_itself.write()];
    for batch in 0..10u128 {
        let from = batch * GOSSIP_NODES_MAX as u128;
        let flood = (from..from + GOSSIP_NODES_MAX as u128).map(|number| digest(invented(number)));
        let flood = Datagram::Syn {
            cluster: "test".to_owned(),
            digests: flood.collect(),
        };
        all.push(flood.write());
    }
    all
}

#[tokio::test(start_paused = true)]
async fn killing_messages_end_nothing() {
    let (eu, us) = (Node::task("eu", 2), Node::task("us", 3));
    let _ways = connect(&eu, &us);
    us.alive(&eu.own).await;
    let hostile = us.membership.correspond(&replica("ap", 1)).expect("room");
    for message in killing(&us.own) {
        hostile.deliver(Bytes::from(message));
        tokio::time::sleep(options().interval).await;
    }
    us.membership.announce(announcement(&us.own, 5));
    eu.until("news", |members| {
        members.iter().any(|member| member.frontier == Some(5))
    })
    .await;
    us.alive(&eu.own).await;
    assert!(us.counts.gossip_refused.get() > 2);
    assert_eq!(us.counts.gossip_restarts.get(), 0);
    assert_eq!(eu.counts.gossip_restarts.get(), 0);
}

/// What chitchat does when it reads such a message after all.
async fn survives_a_panic(us: Node) {
    let eu = Node::task("eu", 2);
    let _ways = connect(&eu, &us);
    eu.alive(&us.own).await;
    let office = &us.membership.shared.office;
    office.panic_planted.store(true, Ordering::SeqCst);
    let mut restarted = us.counts.gossip_restarts.get();
    while restarted == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        restarted = us.counts.gossip_restarts.get();
    }
    us.membership.announce(announcement(&us.own, 6));
    eu.until("news after it", |members| {
        members.iter().any(|member| member.frontier == Some(6))
    })
    .await;
    us.alive(&eu.own).await;
    assert_eq!(us.counts.gossip_restarts.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_chitchat_is_survived_by_a_task() {
    survives_a_panic(Node::task("us", 3)).await;
}

static SEEN_INSIDE: AtomicUsize = AtomicUsize::new(0);

#[tokio::test]
async fn a_panic_of_chitchat_is_survived_by_a_thread_and_known_to_the_hook() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() == Some("gossip") && is_inside() {
            SEEN_INSIDE.fetch_add(1, Ordering::SeqCst);
        }
        before(panic);
    }));
    let counts = Arc::new(Counts::default());
    let membership = ChitchatMembership::start(Home::Thread, options(), counts.clone());
    let membership = membership.expect("a thread");
    assert!(!is_inside());
    survives_a_panic(Node::of(membership, replica("us", 3), counts)).await;
    assert_eq!(SEEN_INSIDE.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_has_one_way_and_peers_are_bounded() {
    let us = Node::task("us", 3);
    let peer = replica("eu", 1);
    let first = us.membership.correspond(&peer).expect("room");
    let second = us.membership.correspond(&peer).expect("room");
    while first.next().await.is_some() {}
    drop(first);
    assert!(second.next().await.is_some(), "the newer goes on");
    let mut held = vec![second];
    let refused = (0..200).find_map(|epoch| {
        let peer = replica("ap", epoch);
        us.membership
            .correspond(&peer)
            .map(|way| held.push(way))
            .err()
    });
    assert!(matches!(refused, Some(Uncorresponding::TooMany { .. })));
}
