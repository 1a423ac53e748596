//! Whole nodes on simulated disks that speak to each other over real connections on loopback.

#[path = "support/replicating.rs"]
mod replicating;
mod support;

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use likewise::adapters::tcp::TcpTransport;
use likewise::engine::Engine;
use likewise::engine::checkpoint::LogHolds;
use likewise::engine::snapshot::{Snapshot, SnapshotOptions, Wanted};
use likewise::ids::{Region, Replica};
use likewise::log::LogReader;
use likewise::replication::catch_up::{
    Ask, SnapshotBroken, SnapshotFault, SnapshotParts, SnapshotReceiver, SnapshotRefused,
    SnapshotServer, SnapshotStream,
};
use likewise::replication::links::{LinkBoard, LinkView};
use likewise::replication::session::Agreement;
use likewise::replication::{PeerEndpoint, RunningReplication, parts, start};
use likewise::seams::{Established, IoFuture, Transport};
use likewise::versions::{PROTOCOL_MAX, PROTOCOL_MIN};
use likewise::wire::frames::write_replica;
use likewise::wire::replication::SnapshotRequest;
use support::{Cutting, Machine, Node, assert_equal, unlike};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, MutexGuard, watch};

/// What a link does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// Connections are ended and refused.
    Cut,
    /// Connections stay, and nothing passes.
    Silent,
}

/// Dials through a gate.
struct Gated {
    tcp: TcpTransport,
    gate: watch::Receiver<Gate>,
}

impl Transport for Gated {
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        expected: Option<&'a Region>,
    ) -> IoFuture<'a, Established> {
        Box::pin(async move {
            let mut gate = self.gate.clone();
            let now = *gate.borrow();
            match now {
                Gate::Open => {}
                Gate::Cut => return Err(io::ErrorKind::ConnectionRefused.into()),
                Gate::Silent => return pending().await,
            }
            let mut far = self.tcp.connect(host, port, expected).await?.io;
            let (near, mut middle) = tokio::io::duplex(64 << 10);
            tokio::spawn(async move {
                tokio::select! {
                    copied = tokio::io::copy_bidirectional(&mut middle, &mut far) => return drop(copied),
                    changed = gate.wait_for(|gate| *gate != Gate::Open) => drop(changed),
                }
                // A silent link keeps both sides open and passes nothing.
                let cut = gate.wait_for(|gate| *gate == Gate::Cut).await;
                drop(cut);
            });
            Ok(Established::anonymous(near))
        })
    }
}

/// Snapshots of a node, straight from its engine.
struct Served {
    engine: Arc<Engine>,
    reader: LogReader,
    holds: Arc<LogHolds>,
}

impl SnapshotServer for Served {
    fn open(&self, _asker: &Replica, wanted: Wanted) -> Result<SnapshotStream, SnapshotRefused> {
        let options = SnapshotOptions {
            chunk_bytes: 4_096,
            log_bytes_max: 1 << 30,
        };
        let (engine, reader) = (self.engine.clone(), self.reader.clone());
        let begun = Snapshot::begin(engine.clone(), reader, &self.holds, options, wanted);
        let snapshot = begun.map_err(|_| SnapshotRefused::Unsettled)?;
        let stream =
            futures_util::stream::unfold((snapshot, engine), |(mut snapshot, engine)| async {
                let part = match snapshot.next().await {
                    Ok(part) => Ok(parts::write(part?, &engine.replicas().all())),
                    Err(error) => Err(SnapshotFault(error.to_string())),
                };
                Some((part, (snapshot, engine)))
            });
        Ok(Box::pin(stream))
    }
}

type Answering<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Merges snapshots into a node.
struct Received(Arc<Mutex<Node>>);

impl SnapshotReceiver for Received {
    fn ask(&self) -> Answering<'_, Result<Ask, SnapshotFault>> {
        Box::pin(async {
            let engine = self.0.lock().await.engine.clone();
            let request = SnapshotRequest {
                protocol_min: PROTOCOL_MIN,
                protocol_max: PROTOCOL_MAX,
                cluster: engine.cluster().to_string(),
                replica: Some(write_replica(&engine.own())),
                ..SnapshotRequest::default()
            };
            let needs = None;
            Ok(Ask { request, needs })
        })
    }

    fn begin_anew(&self) -> Answering<'_, Result<(), SnapshotFault>> {
        Box::pin(async { Ok(()) })
    }

    fn receive<'a>(
        &'a self,
        _from: &'a Replica,
        _ask: Ask,
        mut stream: SnapshotStream,
    ) -> Answering<'a, Result<(), SnapshotBroken>> {
        let broken = |why| SnapshotBroken {
            why,
            has_progressed: false,
        };
        Box::pin(async move {
            let mut all = Vec::new();
            while let Some(part) = stream.next().await {
                all.push(part.map_err(broken)?);
            }
            let merged = self.0.lock().await.merge(&all).await;
            merged.map_err(|error| broken(SnapshotFault(error.to_string())))
        })
    }
}

/// A node with its listener, not yet speaking.
struct Seat {
    node: Arc<Mutex<Node>>,
    engine: Arc<Engine>,
    listener: TcpListener,
    endpoint: PeerEndpoint,
}

impl Seat {
    async fn new(machine: &Machine) -> Self {
        let node = machine.start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("bound").port();
        Self {
            engine: node.engine.clone(),
            node: Arc::new(Mutex::new(node)),
            listener,
            endpoint: PeerEndpoint {
                region: Region::new(machine.region).expect("valid"),
                host: "127.0.0.1".to_owned(),
                port,
            },
        }
    }

    async fn speak(self, peers: Vec<PeerEndpoint>, gate: &watch::Sender<Gate>) -> Speaking {
        let options = replicating::options(peers);
        let node = self.node.lock().await;
        let served = Served {
            engine: self.engine.clone(),
            reader: node.reader.clone(),
            holds: node.holds.clone(),
        };
        let transport = Arc::new(Gated {
            tcp: TcpTransport::default(),
            gate: gate.subscribe(),
        });
        let snapshots = SnapshotParts {
            server: Arc::new(served),
            receiver: Arc::new(Received(self.node.clone())),
        };
        let log = (self.engine.clone(), node.reader.clone());
        let network = (self.listener, transport as Arc<dyn Transport>);
        let parts = replicating::parts(log, network, snapshots, &options);
        let links = parts.links.clone();
        drop(node);
        Speaking {
            replication: start(parts, options),
            links,
            node: self.node,
            engine: self.engine,
            endpoint: self.endpoint,
        }
    }
}

struct Speaking {
    replication: RunningReplication,
    links: Arc<LinkBoard>,
    node: Arc<Mutex<Node>>,
    engine: Arc<Engine>,
    endpoint: PeerEndpoint,
}

impl Speaking {
    async fn node(&self) -> MutexGuard<'_, Node> {
        self.node.lock().await
    }

    fn links(&self) -> Vec<LinkView> {
        self.links.all()
    }

    fn connected(&self) -> usize {
        self.links().iter().filter(|link| link.connected).count()
    }

    fn agrees(&self) -> bool {
        let equal = |link: &LinkView| link.standing.agreement == Agreement::Equal;
        self.links().iter().filter(|link| link.connected).all(equal)
    }
}

/// Waits until it is so.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{what}: not within 20 s"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn equal(speaking: &[&Speaking]) -> bool {
    let mut said = Vec::new();
    for one in speaking {
        let node = one.node().await;
        said.push((node.durable(), node.fingerprint()));
    }
    said.iter().all(|one| *one == said[0])
}

fn open_gate() -> watch::Sender<Gate> {
    watch::Sender::new(Gate::Open)
}

/// Two nodes, both of which dial.
async fn pair(gate: &watch::Sender<Gate>) -> ([Machine; 2], [Speaking; 2]) {
    let machines = [Machine::new("eu", 1), Machine::new("us", 2)];
    let (eu, us) = (Seat::new(&machines[0]).await, Seat::new(&machines[1]).await);
    let (to_eu, to_us) = (eu.endpoint.clone(), us.endpoint.clone());
    let eu = eu.speak(vec![to_us], gate).await;
    let us = us.speak(vec![to_eu], gate).await;
    (machines, [eu, us])
}

#[tokio::test]
async fn three_regions_converge_and_agree() {
    let machines = [
        Machine::new("ap", 1),
        Machine::new("eu", 2),
        Machine::new("us", 3),
    ];
    let gate = open_gate();
    let seats = [
        Seat::new(&machines[0]).await,
        Seat::new(&machines[1]).await,
        Seat::new(&machines[2]).await,
    ];
    let endpoints: Vec<_> = seats.iter().map(|seat| seat.endpoint.clone()).collect();
    let mut all = Vec::new();
    for seat in seats {
        let others = endpoints.iter().filter(|peer| **peer != seat.endpoint);
        let others = others.cloned().collect();
        all.push(seat.speak(others, &gate).await);
    }
    for number in 0..300 {
        let user = format!("u{}", number % 120);
        all[number % 3].node().await.like("p", &user).await;
        if number % 7 == 0 {
            all[(number + 1) % 3]
                .node()
                .await
                .write(unlike("p", &user))
                .await;
        }
    }
    let all: Vec<_> = all.iter().collect();
    until("equal", async || equal(&all).await).await;
    until("agreement", async || all.iter().all(|one| one.agrees())).await;
    assert!(all.iter().all(|one| one.connected() == 2));
    let (ap, eu, us) = (
        all[0].node().await,
        all[1].node().await,
        all[2].node().await,
    );
    assert_equal(&[&ap, &eu, &us], &["p"]);
}

#[tokio::test]
async fn two_who_dial_each_other_keep_one_session() {
    let gate = open_gate();
    let (_machines, [eu, us]) = pair(&gate).await;
    until("sessions", async || {
        eu.connected() == 1 && us.connected() == 1
    })
    .await;
    eu.node().await.like("p", "ann").await;
    until("equal", async || equal(&[&eu, &us]).await).await;
    assert_eq!((eu.links().len(), us.links().len()), (1, 1));
    let answers = eu.replication.answers.borrow().clone();
    assert_eq!(answers.len(), 1);
}

#[tokio::test]
async fn both_sides_of_a_cut_write_on_and_converge_after_it() {
    let gate = open_gate();
    let (_machines, [eu, us]) = pair(&gate).await;
    eu.node().await.like("p", "before").await;
    until("acknowledged", async || {
        // What is shown may be older than the like, but not where it was sent.
        let acknowledged = |link: LinkView| {
            link.standing.traffic.sent_events > 0 && link.standing.events_behind == 0
        };
        equal(&[&eu, &us]).await && eu.links().into_iter().any(acknowledged)
    })
    .await;
    gate.send_replace(Gate::Cut);
    until("the cut is seen", async || {
        eu.connected() + us.connected() == 0
    })
    .await;
    for number in 0..100 {
        let user = format!("u{number}");
        eu.node().await.like("p", &user).await;
        us.node().await.like("p", &user).await;
        if number % 2 == 0 {
            us.node().await.write(unlike("p", &user)).await;
        }
    }
    until("what the other lacks is shown", async || {
        let standing = eu.links().remove(0).standing;
        standing.events_behind == 100 && standing.lag_ms > 0
    })
    .await;
    gate.send_replace(Gate::Open);
    until("equal", async || equal(&[&eu, &us]).await).await;
    assert_eq!(eu.node().await.count("p"), 101);
    assert_equal(&[&*eu.node().await, &*us.node().await], &["p"]);
}

#[tokio::test]
async fn a_silent_link_is_noticed_within_five_seconds() {
    let gate = open_gate();
    let (_machines, [eu, us]) = pair(&gate).await;
    until("sessions", async || {
        eu.connected() == 1 && us.connected() == 1
    })
    .await;
    gate.send_replace(Gate::Silent);
    let begun = Instant::now();
    until("noticed", async || eu.connected() + us.connected() == 0).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(!eu.links()[0].standing.problem.is_empty());
    gate.send_replace(Gate::Cut);
    gate.send_replace(Gate::Open);
    until("healed", async || {
        eu.connected() == 1 && us.connected() == 1
    })
    .await;
}

#[tokio::test]
async fn a_chain_of_three_converges() {
    let machines = [
        Machine::new("ap", 1),
        Machine::new("eu", 2),
        Machine::new("us", 3),
    ];
    let gate = open_gate();
    let ap = Seat::new(&machines[0]).await;
    let eu = Seat::new(&machines[1]).await;
    let us = Seat::new(&machines[2]).await;
    let to_eu = eu.endpoint.clone();
    let ap = ap.speak(vec![to_eu.clone()], &gate).await;
    let eu = eu.speak(vec![], &gate).await;
    let us = us.speak(vec![to_eu], &gate).await;
    for number in 0..50 {
        ap.node().await.like("p", &format!("a{number}")).await;
        us.node().await.like("p", &format!("u{number}")).await;
    }
    until("equal", async || equal(&[&ap, &eu, &us]).await).await;
    assert_eq!(eu.connected(), 2);
}

#[tokio::test]
async fn behind_the_cut_log_a_snapshot_is_taken_under_writes() {
    let mut eu = Machine::new("eu", 1);
    eu.cutting = Cutting::Always;
    let us = Machine::new("us", 2);
    let gate = open_gate();
    let eu = Seat::new(&eu).await;
    for number in 0..1_500 {
        let long = format!("{}-{number}", "x".repeat(100));
        eu.node.lock().await.like("p", &long).await;
    }
    let report = eu.node.lock().await.checkpointer.checkpoint().await;
    assert!(report.expect("checkpoint").segments_removed > 0);
    let us = Seat::new(&us).await;
    us.node.lock().await.like("p", "mine").await;
    let (to_eu, to_us) = (eu.endpoint.clone(), us.endpoint.clone());
    let eu = eu.speak(vec![to_us], &gate).await;
    let us = us.speak(vec![to_eu], &gate).await;
    for number in 0..50 {
        eu.engine
            .write(&likewise::engine::command::Write {
                commands: vec![support::like("q", &format!("u{number}"))],
                request: None,
            })
            .await
            .expect("taken");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    until("equal", async || equal(&[&eu, &us]).await).await;
    assert_eq!(us.node().await.count("p"), 1_501);
    assert_equal(&[&*eu.node().await, &*us.node().await], &["p", "q"]);
}

#[tokio::test]
async fn a_restarted_node_and_a_wiped_one_are_whole_again() {
    let gate = open_gate();
    let (machines, [eu, us]) = pair(&gate).await;
    for number in 0..50 {
        eu.node().await.like("p", &format!("u{number}")).await;
    }
    until("equal", async || equal(&[&eu, &us]).await).await;
    let Speaking {
        replication, node, ..
    } = eu;
    replication.shutdown().await;
    until("told", async || us.connected() == 0).await;
    let problem = us.links()[0].standing.problem.clone();
    assert!(!problem.is_empty(), "{problem}");
    let before = node.lock().await.durable();
    drop((node, machines));
    let wiped = Machine::new("eu", 77);
    let seat = Seat::new(&wiped).await;
    let eu = seat.speak(vec![us.endpoint.clone()], &gate).await;
    until("whole", async || equal(&[&eu, &us]).await).await;
    assert_eq!(eu.node().await.durable(), before);
}

#[tokio::test]
async fn goodbye_is_said_and_all_tasks_end() {
    let gate = open_gate();
    let (_machines, [eu, us]) = pair(&gate).await;
    until("sessions", async || {
        eu.connected() == 1 && us.connected() == 1
    })
    .await;
    let begun = Instant::now();
    eu.replication.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    until("told", async || us.connected() == 0).await;
}
