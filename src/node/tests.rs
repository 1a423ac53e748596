//! Whole nodes in one process, on real folders and real connections, damaged on purpose.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::adapters::chitchat_membership::Home;
use crate::adapters::tasks::TaskWorkers;
use crate::adapters::tcp::TcpTransport;
use crate::address::PeerAddress;
use crate::client::{Client, Read, RepairOf};
use crate::config::{Config, StaticPeer};
use crate::crdt::fingerprint::PostHash;
use crate::engine::rows;
use crate::ids::{ClusterId, PostId, Region, UserId};
use crate::node::{Network, RunningNode, engine_options, start, storage};
use crate::seams::CheckpointStore;
use crate::wire::frames::write_replica;
use crate::wire::replication::SnapshotRequest;
use crate::wire::replication::replication_service_client::ReplicationServiceClient;
use crate::wire::v1::{Agreement, GetStatusResponse};

const PATIENCE: Duration = Duration::from_secs(30);
/// So long that it does not happen in a test.
const NEVER_MS: u64 = 30 * 86_400_000;
/// All ranges in this time.
const OFTEN_MS: u64 = 1_280;

/// A node that can be stopped and started again under its address.
struct Seat {
    config: Config,
    _folder: TempDir,
    running: Option<Running>,
}

struct Running {
    node: RunningNode,
    client: Client,
    store: Arc<dyn CheckpointStore>,
}

fn post(name: &str) -> PostId {
    PostId::new(name).expect("valid")
}

fn user(name: &str) -> UserId {
    UserId::new(name).expect("valid")
}

fn range() -> usize {
    PostHash::of(&post("p")).range()
}

impl Seat {
    async fn start(&mut self, peers: Option<TcpListener>) {
        let config = &self.config;
        let peers = match peers {
            Some(listener) => listener,
            None => TcpListener::bind(config.peers.listen)
                .await
                .expect("the same port"),
        };
        let clients = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let storage = storage::open(config, engine_options(config))
            .await
            .expect("opens");
        let store = storage.seams.store.clone();
        let network = Network {
            client_address: clients.local_addr().expect("bound"),
            clients: Box::new(clients),
            peer_address: peers.local_addr().expect("bound"),
            peers: Box::new(peers),
            gossip: Home::Task,
            transport: Arc::new(TcpTransport::default()),
        };
        let workers = Arc::new(TaskWorkers);
        let node = start(config, storage, workers, network)
            .await
            .expect("starts");
        let client = Client::builder()
            .endpoints([format!("http://{}", node.client_address)])
            .connect()
            .await
            .expect("connects");
        self.running = Some(Running {
            node,
            client,
            store,
        });
    }

    async fn stop(&mut self) {
        let running = self.running.take().expect("runs");
        running.node.stop().await.expect("stops");
    }

    fn is(&self) -> &Running {
        self.running.as_ref().expect("runs")
    }
}

impl Running {
    async fn status(&self) -> GetStatusResponse {
        self.client.status().await.expect("answers")
    }

    async fn count(&self, name: &str) -> u64 {
        let likes = self.client.get_post(name, None, Read::default());
        likes.await.expect("answers").count
    }

    /// Whether the entries are those that the kept sums speak of.
    fn is_whole(&self) -> bool {
        self.node.engine.recompute_sums() == self.node.engine.board().newest().sums
    }

    async fn counted(&self, name: &str) -> u64 {
        let counts = self.status().await.counts;
        let count = counts.iter().find(|count| count.name == name);
        count.expect("is counted").value
    }

    fn lose_liker(&self, name: &str) {
        self.node.engine.damage_liker(&post("p"), &user(name), &[]);
    }
}

/// Nodes of these regions, each told where the others are, with some likes that all have.
async fn cluster(regions: &[&str], (round_ms, scrub_ms): (u64, u64)) -> Vec<Seat> {
    let mut listeners = Vec::new();
    for _ in regions {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.expect("a port"));
    }
    let addresses = listeners
        .iter()
        .map(|listener| listener.local_addr().expect("bound"));
    let addresses: Vec<_> = addresses.collect();
    let mut seats = Vec::new();
    for (at, listener) in listeners.into_iter().enumerate() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::default();
        config.cluster.id = ClusterId::new("test").expect("valid");
        config.node.region = Region::new(regions[at]).expect("valid");
        config.node.data_dir = folder.path().join("data");
        config.peers.listen = addresses[at];
        let others = (0..regions.len()).filter(|other| *other != at);
        config.peers.static_peers = others
            .map(|other| StaticPeer {
                region: Region::new(regions[other]).expect("valid"),
                address: addresses[other]
                    .to_string()
                    .parse::<PeerAddress>()
                    .expect("valid"),
            })
            .collect();
        config.log.segment_bytes = 12 << 20;
        config.checkpoint.interval_ms = 100;
        config.checkpoint.sled_cache_bytes = 1 << 20;
        config.audit.round_ms = round_ms;
        config.audit.scrub_ms = scrub_ms;
        let mut seat = Seat {
            config,
            _folder: folder,
            running: None,
        };
        seat.start(Some(listener)).await;
        seats.push(seat);
    }
    for (at, seat) in seats.iter().enumerate() {
        for number in 0..20 {
            let name = format!("{}{number}", regions[at]);
            seat.is().client.like("p", &name).await.expect("taken");
            let other = format!("p{number}");
            seat.is().client.like(&other, &name).await.expect("taken");
        }
    }
    converged(&seats).await;
    seats
}

/// Everything equal, in all that anybody can see.
async fn are_equal(seats: &[Seat]) -> bool {
    let first = seats[0]
        .is()
        .node
        .engine
        .board()
        .newest()
        .token(seats[0].is().node.engine.cluster());
    let mut statuses = Vec::new();
    for seat in seats {
        statuses.push(seat.is().status().await);
    }
    let heads = |status: &GetStatusResponse| {
        let heads = status.heads.iter();
        let heads: Vec<_> = heads.map(|head| (head.epoch.clone(), head.seq)).collect();
        heads
    };
    let same = statuses.windows(2).all(|pair| {
        heads(&pair[0]) == heads(&pair[1]) && pair[0].fingerprint == pair[1].fingerprint
    });
    let calm = statuses
        .iter()
        .all(|status| status.diverged.is_empty() && status.settled);
    !first.is_empty() && same && calm && seats.iter().all(|seat| seat.is().is_whole())
}

async fn converged(seats: &[Seat]) {
    let until = Instant::now() + PATIENCE;
    while !are_equal(seats).await {
        if Instant::now() > until {
            for seat in seats {
                eprintln!("{:#?}", seat.is().status().await);
            }
            panic!("the nodes do not become equal");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn checkpointed(running: &Running) {
    let before = running.node.engine.checkpointed_at_ms();
    running.client.like("tick", "tock").await.expect("taken");
    let engine = &running.node.engine;
    until("a checkpoint", async || {
        engine.checkpointed_at_ms() > before
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_memory_is_found_by_the_scrub_and_mended_by_the_node_itself() {
    let seats = cluster(&["ap", "eu", "us"], (OFTEN_MS, OFTEN_MS)).await;
    let eu = seats[1].is();
    eu.lose_liker("us3");
    until("mended", async || eu.counted("ranges_mended").await == 1).await;
    converged(&seats).await;
    assert_eq!(eu.count("p").await, 60);
    let own = eu.node.engine.own();
    eu.node.engine.damage_figure(&post("p3"), &own, 900);
    until("mended", async || eu.counted("ranges_mended").await == 2).await;
    converged(&seats).await;
    for seat in &seats {
        assert_eq!(seat.is().counted("ranges_diverged").await, 0);
    }
    assert_eq!(eu.node.engine.own(), own);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_row_is_found_by_the_scrub_and_written_again() {
    let mut seats = cluster(&["ap", "eu", "us"], (OFTEN_MS, OFTEN_MS)).await;
    let eu = seats[1].is();
    checkpointed(eu).await;
    let key = rows::pack_key(PostHash::orders_of_range(range()).0);
    let row = eu.store.get(&key).await.expect("reads").expect("stored");
    let mut bad = row.to_vec();
    bad[20] ^= 1;
    let bad = vec![(key.clone(), Some(bad.into()))];
    eu.store.apply(bad).await.expect("written");
    until("the row as it was", async || {
        let again = eu.store.get(&key).await.expect("reads");
        again.is_some_and(|again| rows::decode_pack(&again, eu.node.engine.replicas()).is_ok())
    })
    .await;
    until("told", async || eu.counted("ranges_mended").await == 1).await;
    seats[1].stop().await;
    seats[1].start(None).await;
    converged(&seats).await;
    assert_eq!(seats[1].is().count("p").await, 60);
}

/// Takes a whole snapshot of some ranges of the first node, as if the second asked.
async fn take_snapshot(seats: &[Seat], only: Vec<u32>) -> Result<(), tonic::Status> {
    let asker = seats[1].is().node.engine.own();
    let protocol = &seats[0].is().node.engine.options().dialect.protocol;
    let request = SnapshotRequest {
        protocol_min: *protocol.start(),
        protocol_max: *protocol.end(),
        cluster: "test".to_owned(),
        replica: Some(write_replica(&asker)),
        only,
        ..SnapshotRequest::default()
    };
    let address = format!("http://{}", seats[0].config.peers.listen);
    let client = ReplicationServiceClient::connect(address).await;
    let mut client = client.expect("connects");
    let mut parts = client.snapshot(request).await?.into_inner();
    while parts.message().await?.is_some() {}
    Ok(())
}

/// Neither audit nor scrub has come by. A peer is not given what memory has lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_are_looked_at_before_a_snapshot_is_served() {
    let seats = cluster(&["eu", "us"], (NEVER_MS, NEVER_MS)).await;
    let eu = seats[0].is();
    eu.lose_liker("us3");
    // Where the range is mended before the first part is read, there is nothing to refuse.
    if let Err(refused) = take_snapshot(&seats, Vec::new()).await {
        assert!(refused.message().contains("is disputed"), "{refused}");
    }
    until("mended", async || eu.counted("ranges_mended").await == 1).await;
    assert!(eu.is_whole());
    let whole = take_snapshot(&seats, Vec::new()).await;
    whole.expect("a whole snapshot");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_ask_for_snapshots_keep_no_node_from_its_checkpoints() {
    let seats = cluster(&["eu", "us"], (NEVER_MS, NEVER_MS)).await;
    let asking = async {
        let mut given = 0;
        for range in (0..255).cycle() {
            given += usize::from(take_snapshot(&seats, vec![range, range + 1]).await.is_ok());
            assert!(given > 0 || range < 254, "no snapshot was given");
        }
    };
    tokio::select! {
        () = checkpointed(seats[0].is()) => {}
        () = asking => {}
    }
}

/// Memory and disk alike: damaged, in a checkpoint, and after a restart also in the kept sum. A scrub would find the damage
/// while it is done, and mend it.
async fn damage_both(seat: &mut Seat) {
    seat.is().lose_liker("us3");
    seat.is().lose_liker("ap1");
    seat.is().node.engine.spread_to_disk();
    checkpointed(seat.is()).await;
    seat.stop().await;
    seat.start(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_disk_alike_are_mended_by_the_majority() {
    let mut seats = cluster(&["ap", "eu", "us"], (OFTEN_MS, NEVER_MS)).await;
    damage_both(&mut seats[1]).await;
    converged(&seats).await;
    for seat in &seats {
        assert_eq!(seat.is().count("p").await, 60);
    }
    assert_eq!(seats[1].is().counted("ranges_mended").await, 1);
    assert_eq!(seats[0].is().counted("ranges_mended").await, 0);
    assert_eq!(seats[1].is().counted("ranges_diverged").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_disk_alike_are_mended_under_writes() {
    let mut seats = cluster(&["ap", "eu", "us"], (OFTEN_MS, NEVER_MS)).await;
    let stop = CancellationToken::new();
    let writers = [0, 2].map(|at| {
        let (client, stop) = (seats[at].is().client.session(), stop.clone());
        tokio::spawn(async move {
            let mut written = 0_u64;
            while !stop.is_cancelled() {
                // Also in the damaged range, now and then: a range that is written more often than news takes to come is
                // not comparable.
                let name = match written % 1_000 {
                    0 => "p".to_owned(),
                    other => format!("q{}", other % 50),
                };
                let user = format!("w{at}-{written}");
                client.like(&name, &user).await.expect("taken");
                written += 1;
            }
            written
        })
    });
    damage_both(&mut seats[1]).await;
    let eu = seats[1].is();
    until("mended", async || eu.counted("ranges_mended").await >= 1).await;
    stop.cancel();
    for writer in writers {
        assert!(writer.await.expect("written") > 50);
    }
    converged(&seats).await;
}

/// Damage in memory that went to disk, and no restart: the kept sum is still right, and others know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_went_to_disk_is_mended_from_a_region_that_knows_the_sum() {
    let seats = cluster(&["eu", "us"], (OFTEN_MS, OFTEN_MS)).await;
    let eu = seats[0].is();
    eu.lose_liker("us3");
    eu.node.engine.spread_to_disk();
    until("mended", async || eu.counted("ranges_mended").await == 1).await;
    converged(&seats).await;
    assert_eq!(eu.count("p").await, 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_regions_that_differ_stay_so_until_an_operator_chooses() {
    let mut seats = cluster(&["eu", "us"], (OFTEN_MS, NEVER_MS)).await;
    damage_both(&mut seats[0]).await;
    let (eu, us) = (seats[0].is(), seats[1].is());
    for (here, other) in [(eu, "us"), (us, "eu")] {
        until("an operator is asked", async || {
            let diverged = here.status().await.diverged;
            diverged
                .iter()
                .any(|one| one.regions == [other] && one.state.contains("no majority"))
        })
        .await;
        let status = here.status().await;
        assert_eq!(status.diverged.len(), 1);
        assert_eq!(status.diverged[0].range as usize, range());
        until("the link says so", async || {
            let links = here.status().await.links;
            links
                .iter()
                .all(|link| link.agreement() == Agreement::Diverged)
        })
        .await;
        let all = crate::crdt::ranges::RangeSet::all();
        assert_eq!(here.node.engine.doubted(&all), Some(range()));
    }
    // Writes go on, and change nothing of it.
    us.client.like("p", "new").await.expect("taken");
    until("the like is everywhere", async || eu.count("p").await == 40).await;
    assert_eq!(us.count("p").await, 41);
    let refused = eu
        .client
        .repair(RepairOf::Range(range() as u32), "nobody")
        .await;
    assert!(refused.is_err());
    let refused = eu.client.repair(RepairOf::Post("p".to_owned()), "us").await;
    let repaired = refused.expect("the operator chose");
    assert_eq!(
        (repaired.range as usize, repaired.added, repaired.removed),
        (range(), 1, 0)
    );
    converged(&seats).await;
    assert_eq!(eu.count("p").await, 41);
    assert_eq!(
        eu.node
            .engine
            .doubted(&crate::crdt::ranges::RangeSet::all()),
        None
    );
}
