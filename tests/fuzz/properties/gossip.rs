//! Datagrams of peers' gossip: what the reader makes of them, and what chitchat makes of that.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chitchat::{ChitchatMessage, Deserializable};
use likewise::adapters::chitchat_membership::datagram::{Datagram, Delta, Digest, NodeName, Value};
use likewise::adapters::chitchat_membership::{ChitchatMembership, GossipOptions, Home};
use likewise::counts::Counts;
use likewise::ids::{ClusterId, Epoch, Region, Replica};
use likewise::limits::{
    GOSSIP_BURST_MAX, GOSSIP_DATAGRAM_BYTES_MAX, GOSSIP_NODES_MAX, GOSSIP_UNPACKED_BYTES_MAX,
    GOSSIP_VALUES_MAX,
};
use likewise::seams::membership::{Announcement, Membership};

const CLUSTER: &str = "c";
/// Nodes of which a script speaks in one datagram, and values of each.
const NODES_MAX: u8 = 15;
const VALUES_MAX: u8 = 6;
/// The keys that nodes announce, and one that this version does not know.
const KEYS: [&str; 5] = ["address", "frontier", "fingerprint", "protocol", "other"];

/// The bytes as one datagram, and as a script of several: names and addresses are right in it, or nothing behind
/// them would be reached. A node that is sent them says nothing that its peers would refuse, and goes on gossiping.
pub fn gossip(bytes: &[u8]) {
    read(bytes);
    let mut told = vec![Bytes::copy_from_slice(bytes)];
    let mut script = Script(bytes);
    while !script.0.is_empty() && told.len() < GOSSIP_BURST_MAX as usize - 1 {
        told.push(script.datagram().write().into());
    }
    // Who knows nothing asks for everything.
    let question = Datagram::Syn {
        cluster: CLUSTER.to_owned(),
        digests: Vec::new(),
    };
    told.push(question.write().into());
    told.iter().skip(1).for_each(|datagram| read(datagram));
    tell(&told);
}

/// What is read is within its bounds, says the same after it was written again, and can be read by chitchat.
fn read(bytes: &[u8]) {
    let Ok(datagram) = Datagram::read(bytes) else {
        return;
    };
    let (digests, deltas): (&[Digest], &[Delta]) = match &datagram {
        Datagram::Syn { digests, .. } => (digests, &[]),
        Datagram::SynAck { digests, deltas } => (digests, deltas),
        Datagram::Ack { deltas } => (&[], deltas),
        Datagram::BadCluster => (&[], &[]),
    };
    assert!(digests.len() <= GOSSIP_NODES_MAX && deltas.len() <= GOSSIP_NODES_MAX);
    let is_small = |delta: &Delta| delta.values.len() <= GOSSIP_VALUES_MAX;
    assert!(deltas.iter().all(is_small));
    let written = datagram.write();
    // What was packed is written unpacked, with its maximum where that was left out.
    assert!(written.len() <= GOSSIP_DATAGRAM_BYTES_MAX + 2 * GOSSIP_UNPACKED_BYTES_MAX);
    let mut rest = written.as_slice();
    ChitchatMessage::deserialize(&mut rest).expect("a form that chitchat knows");
    assert!(rest.is_empty());
    if written.len() <= GOSSIP_DATAGRAM_BYTES_MAX {
        assert_eq!(Datagram::read(&written).as_ref(), Ok(&datagram));
    }
}

fn cluster() -> ClusterId {
    ClusterId::new(CLUSTER).expect("valid")
}

/// The first is the node under test, the second its peer; there are several of each region.
fn node(number: u8) -> NodeName {
    let replica = Replica {
        region: Region::new(&format!("r{}", number % 32)).expect("valid"),
        epoch: Epoch(number.into()),
    };
    NodeName {
        replica,
        generation: 0,
    }
}

/// Sends all of it to a node with nothing but its membership, and reads every answer.
fn tell(datagrams: &[Bytes]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("a runtime").block_on(async {
        let counts = Arc::new(Counts::default());
        let options = GossipOptions {
            cluster: cluster(),
            regions: None,
            // Nothing happens by itself meanwhile, and what has ended stays so.
            interval: Duration::from_secs(3_600),
            dead_after: Duration::from_secs(36_000),
            forget_after: Duration::from_secs(360_000),
        };
        let membership = ChitchatMembership::start(Home::Task, options, counts.clone());
        let membership = membership.expect("no thread is needed");
        membership.announce(Announcement {
            own: node(0).replica,
            address: None,
            frontier: 1,
            fingerprint: None,
            protocol: (1, 1),
        });
        let way = membership.correspond(&node(1).replica).expect("room");
        for datagram in datagrams {
            way.deliver(datagram.clone());
        }
        let mut answers_left = datagrams.iter().filter(|one| is_answered(one)).count();
        while answers_left > 0 {
            let said = tokio::select! {
                biased;
                said = way.next() => said.expect("no other way takes its place"),
                () = ended(&counts) => panic!("chitchat's task has ended"),
            };
            match Datagram::read(&said).expect("what every peer reads") {
                Datagram::SynAck { .. } | Datagram::Ack { .. } => answers_left -= 1,
                // What it says of itself to a peer that it did not know.
                Datagram::Syn { .. } => {}
                Datagram::BadCluster => panic!("of another cluster, and yet it got there"),
            }
        }
    });
}

fn is_answered(datagram: &[u8]) -> bool {
    let read = Datagram::read(datagram);
    read.is_ok_and(|read| {
        let asks = matches!(read, Datagram::Syn { .. } | Datagram::SynAck { .. });
        asks && read.check_cluster(&cluster()).is_ok()
    })
}

async fn ended(counts: &Counts) {
    while counts.gossip_restarts.get() == 0 {
        tokio::task::yield_now().await;
    }
}

/// Reads bytes as what to say; what is missing is nought.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// Versions and the like: small ones meet each other, the largest are at their limit.
    fn number(&mut self) -> u64 {
        match self.byte() {
            u8::MAX => 1 << 48,
            number => number.into(),
        }
    }

    fn many<T>(&mut self, max: u8, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.byte() % (max + 1);
        (0..count).map(|_| one(self)).collect()
    }

    fn datagram(&mut self) -> Datagram {
        match self.byte() % 8 {
            0..3 => Datagram::Syn {
                cluster: CLUSTER.to_owned(),
                digests: self.many(NODES_MAX, Self::digest),
            },
            3..6 => Datagram::SynAck {
                digests: self.many(NODES_MAX, Self::digest),
                deltas: self.many(NODES_MAX, Self::delta),
            },
            6 => Datagram::Ack {
                deltas: self.many(NODES_MAX, Self::delta),
            },
            _ => Datagram::BadCluster,
        }
    }

    fn digest(&mut self) -> Digest {
        Digest {
            node: node(self.byte()),
            heartbeat: self.number(),
            collected: self.number(),
            version: self.number(),
        }
    }

    fn delta(&mut self) -> Delta {
        Delta {
            node: node(self.byte()),
            collected: self.number(),
            after: self.number(),
            values: self.many(VALUES_MAX, Self::value),
            version: self.number(),
        }
    }

    fn value(&mut self) -> Value {
        Value {
            key: KEYS[usize::from(self.byte()) % KEYS.len()].to_owned(),
            text: "x".repeat(2 * usize::from(self.byte())),
            version: self.number(),
            status: self.byte() % 4,
        }
    }
}
