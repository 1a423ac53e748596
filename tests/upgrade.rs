//! One region at a time: nodes of an older and a newer build beside one another, under load.

#[path = "support/replicating.rs"]
mod replicating;
mod support;

use std::collections::BTreeSet;
use std::future::ready;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use likewise::adapters::tcp::TcpTransport;
use likewise::engine::Engine;
use likewise::engine::command::Write;
use likewise::engine::snapshot::Wanted;
use likewise::ids::{Region, Replica};
use likewise::replication::catch_up::{
    Ask, SnapshotBroken, SnapshotFault, SnapshotParts, SnapshotReceiver, SnapshotRefused,
    SnapshotServer, SnapshotStream,
};
use likewise::replication::links::LinkBoard;
use likewise::replication::{PeerEndpoint, RunningReplication, start};
use likewise::seams::Transport;
use likewise::seams::files::read_whole;
use likewise::versions::Dialect;
use support::{Machine, Node, assert_equal, like};
use tokio::task::JoinHandle;

/// The kind of event that the older build does not know: a retirement.
const RETIRE: u8 = 4;

fn older() -> Dialect {
    Dialect {
        protocol: 1..=1,
        kind_max: RETIRE - 1,
    }
}

fn newer() -> Dialect {
    Dialect {
        protocol: 1..=2,
        kind_max: RETIRE,
    }
}

/// No test here needs snapshots.
struct NoSnapshots;

impl SnapshotServer for NoSnapshots {
    fn open(&self, _: &Replica, _: Wanted) -> Result<SnapshotStream, SnapshotRefused> {
        Err(SnapshotRefused::Busy)
    }
}

impl SnapshotReceiver for NoSnapshots {
    fn ask(&self) -> BoxFuture<'_, Result<Ask, SnapshotFault>> {
        ready(Err(SnapshotFault("not here".to_owned()))).boxed()
    }

    fn begin_anew(&self) -> BoxFuture<'_, Result<(), SnapshotFault>> {
        ready(Ok(())).boxed()
    }

    fn receive<'a>(
        &'a self,
        _: &'a Replica,
        _: Ask,
        _: SnapshotStream,
    ) -> BoxFuture<'a, Result<(), SnapshotBroken>> {
        panic!("nothing was asked for");
    }
}

/// A region: its disk, and the address that it keeps over restarts.
struct Site {
    machine: Machine,
    listener: TcpListener,
    running: Option<Running>,
}

struct Running {
    node: Node,
    replication: RunningReplication,
    links: Arc<LinkBoard>,
    load: JoinHandle<()>,
}

/// Likes of one post a region, one after the other, for as long as it runs.
async fn write_on(engine: Arc<Engine>, region: &'static str) {
    for number in 0.. {
        let commands = vec![like(region, &format!("{}-{number}", engine.own().epoch))];
        let request = None;
        let written = engine.write(&Write { commands, request }).await;
        written.expect("taken");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl Site {
    fn new(region: &'static str, seed: u64, dialect: Dialect) -> Self {
        let mut machine = Machine::new(region, seed);
        machine.dialect = dialect;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        Self {
            machine,
            listener,
            running: None,
        }
    }

    fn endpoint(&self) -> PeerEndpoint {
        PeerEndpoint {
            region: Region::new(self.machine.region).expect("valid"),
            host: "127.0.0.1".to_owned(),
            port: self.listener.local_addr().expect("bound").port(),
        }
    }

    async fn start(&mut self, peers: Vec<PeerEndpoint>) {
        let node = self.machine.start().await;
        let options = replicating::options(peers);
        let listener = self.listener.try_clone().expect("a socket");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        let snapshots = SnapshotParts {
            server: Arc::new(NoSnapshots),
            receiver: Arc::new(NoSnapshots),
        };
        let log = (node.engine.clone(), node.reader.clone());
        let network = (
            listener,
            Arc::new(TcpTransport::default()) as Arc<dyn Transport>,
        );
        let parts = replicating::parts(log, network, snapshots, &options);
        let links = parts.links.clone();
        self.running = Some(Running {
            replication: start(parts, options),
            links,
            load: tokio::spawn(write_on(node.engine.clone(), self.machine.region)),
            node,
        });
    }

    async fn stop(&mut self) {
        let running = self.running.take().expect("it runs");
        running.load.abort();
        running.replication.shutdown().await;
        running.node.kill().await;
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs")
    }

    fn node(&self) -> &Node {
        &self.running().node
    }

    /// Likes of a region's post, as this one counts them.
    fn count(&self, region: &str) -> u64 {
        self.node().count(region)
    }

    fn problem(&self, peer: &str) -> String {
        let links = self.running().links.all();
        let link = links.into_iter().find(|link| link.region.as_str() == peer);
        link.expect("a link").standing.problem
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{what}: not within 30 s"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

struct Sites([Site; 3]);

impl Sites {
    async fn start() -> Self {
        let site = |(region, seed)| Site::new(region, seed, older());
        let mut sites = Self([("ap", 1), ("eu", 2), ("us", 3)].map(site));
        for at in 0..3 {
            let peers = sites.peers(at);
            sites.0[at].start(peers).await;
        }
        sites
    }

    fn peers(&self, at: usize) -> Vec<PeerEndpoint> {
        let others = self.0.iter().enumerate().filter(|(other, _)| *other != at);
        others.map(|(_, site)| site.endpoint()).collect()
    }

    async fn upgrade(&mut self, at: usize) {
        let peers = self.peers(at);
        self.0[at].stop().await;
        self.0[at].machine.dialect = newer();
        self.0[at].start(peers).await;
    }

    /// Writes of each of these regions arrive at each other of them.
    async fn flow(&self, among: &[usize]) {
        for from in among {
            let region = self.0[*from].machine.region;
            let written = self.0[*from].count(region) + 20;
            for to in among {
                let what = format!("{region} at {}", self.0[*to].machine.region);
                until(&what, || self.0[*to].count(region) >= written).await;
            }
        }
    }
}

#[tokio::test]
async fn one_region_at_a_time_is_upgraded_under_load() {
    let gone = Machine::new("sa", 4).start().await;
    gone.like("p", "ann").await;
    let mut sites = Sites::start().await;
    assert!(sites.0[0].node().pull(&gone).await);
    sites.flow(&[0, 1, 2]).await;

    sites.upgrade(0).await;
    sites.flow(&[0, 1, 2]).await;
    // The newer one makes an event that the others do not know.
    let retired = sites.0[0]
        .node()
        .engine
        .retire(&BTreeSet::from([gone.engine.own()]))
        .await;
    assert_eq!(retired.expect("taken").replicas, 1);
    for at in [1, 2] {
        let told = || sites.0[at].problem("ap").contains("kind 4 came from ap");
        until("the older ones say so", told).await;
        println!("{}", sites.0[at].problem("ap"));
    }
    until("the newer one says so", || {
        sites.0[0].problem("us").contains("upgrade the peer")
    })
    .await;
    let paused = [sites.0[1].count("ap"), sites.0[2].count("ap")];
    // All other events go on, also to the newer one.
    sites.flow(&[1, 2]).await;
    let at_others = [sites.0[1].count("eu"), sites.0[2].count("us")];
    until("eu and us at ap", || {
        sites.0[0].count("eu") >= at_others[0] && sites.0[0].count("us") >= at_others[1]
    })
    .await;
    assert_eq!(
        paused,
        [sites.0[1].count("ap"), sites.0[2].count("ap")],
        "only that waits"
    );
    assert!(sites.0[0].count("ap") > paused[0]);

    // A restart makes a new replica that follows on the one that is passed over: it waits too.
    sites.upgrade(0).await;
    sites.flow(&[1, 2]).await;
    assert_eq!(paused, [sites.0[1].count("ap"), sites.0[2].count("ap")]);

    sites.upgrade(1).await;
    sites.flow(&[0, 1]).await;
    sites.flow(&[1, 2]).await;
    assert_eq!(
        sites.0[2].count("ap"),
        paused[1],
        "the last one still waits"
    );
    let told = || sites.0[2].problem("eu").contains("kind 4 came from ap");
    until("by the relay of eu as well", told).await;

    sites.upgrade(2).await;
    sites.flow(&[0, 1, 2]).await;
    converge(&mut sites).await;
}

/// The writers end, and all say the same.
async fn converge(sites: &mut Sites) {
    for site in &sites.0 {
        site.running().load.abort();
    }
    let said = |site: &Site| {
        let newest = site.node().engine.board().newest();
        let retired: BTreeSet<Replica> = newest
            .retired
            .iter()
            .map(|one| newest.replicas.id(*one).clone())
            .collect();
        (site.node().durable(), site.node().fingerprint(), retired)
    };
    // What a writer began may be in memory and not yet durable.
    let is_quiet = |site: &Site| {
        let engine = &site.node().engine;
        let (own, made) = engine.made();
        engine.board().newest().vector.get(own) == made
    };
    until("all are equal", || {
        let first = said(&sites.0[0]);
        let mut all = sites.0.iter();
        all.all(|site| is_quiet(site) && said(site) == first)
    })
    .await;
    assert_eq!(said(&sites.0[0]).2.len(), 1);
    for site in &sites.0 {
        let links = site.running().links.all();
        until("no problem is left", || {
            links.iter().all(|link| link.standing.problem.is_empty())
                || site
                    .running()
                    .links
                    .all()
                    .iter()
                    .all(|link| link.standing.problem.is_empty())
        })
        .await;
    }
    let nodes: Vec<&Node> = sites.0.iter().map(Site::node).collect();
    assert_equal(&nodes, &["ap", "eu", "us", "p"]);
}

#[tokio::test]
async fn builds_without_a_version_in_common_say_so() {
    let mut eu = Site::new("eu", 5, older());
    let beyond = Dialect {
        protocol: 2..=3,
        ..newer()
    };
    let mut us = Site::new("us", 6, beyond);
    let (to_eu, to_us) = (eu.endpoint(), us.endpoint());
    eu.start(vec![to_us]).await;
    us.start(vec![to_eu]).await;
    let told = "the peer speaks protocol versions 2 to 3, this node 1 to 1";
    until("told", || eu.problem("us").contains(told)).await;
    let told = "this node 2 to 3; upgrade the older of the two";
    until("told", || us.problem("eu").contains(told)).await;
    assert_eq!((eu.count("us"), us.count("eu")), (0, 0));
}

/// A machine whose process has ended, with an event in its log that older builds do not know.
async fn with_a_retirement(seed: u64) -> Machine {
    let gone = Machine::new("sa", seed).start().await;
    gone.like("p", "ann").await;
    let machine = Machine::new("eu", seed + 1);
    let node = machine.start().await;
    assert!(node.pull(&gone).await);
    let retired = BTreeSet::from([gone.engine.own()]);
    node.engine.retire(&retired).await.expect("taken");
    node.kill().await;
    machine
}

#[tokio::test]
async fn a_downgrade_over_events_of_a_newer_kind_is_refused() {
    let mut machine = with_a_retirement(7).await;
    machine.dialect = older();
    let refused = machine.try_start().await.err().expect("refused");
    let told = likewise::causes::told(&refused);
    println!("{told}");
    assert!(
        told.contains("kind 4") && told.contains("kinds up to 3"),
        "{told}"
    );
    assert!(told.contains(env!("CARGO_PKG_VERSION")), "{told}");
    machine.dialect = newer();
    assert_eq!(machine.start().await.count("p"), 1, "the newer one starts");
}

/// The log's files with their bytes.
async fn log_of(machine: &Machine) -> Vec<(String, Bytes)> {
    let files = machine.disk.files();
    let names = files.list("log").await.expect("a folder");
    let mut all = Vec::new();
    for name in names {
        let whole = read_whole(files.as_ref(), &format!("log/{name}")).await;
        all.push((name, whole.expect("a file")));
    }
    all
}

#[tokio::test]
async fn a_log_with_an_event_that_a_build_does_not_know_is_left_alone() {
    let mut machine = with_a_retirement(9).await;
    // What follows the last record is mended by a start that succeeds.
    let (name, _) = log_of(&machine).await.pop().expect("a segment");
    let (files, path) = (machine.disk.files(), format!("log/{name}"));
    let file = files.open(&path).await.expect("the segment");
    let end = file.len().await.expect("a length");
    let torn = file.write_at(end - 1, Bytes::from_static(b"x")).await;
    torn.expect("written");
    let before = log_of(&machine).await;
    machine.dialect = older();
    let refused = machine.try_start().await.err().expect("refused");
    let told = likewise::causes::told(&refused);
    assert!(told.contains("a record at log position"), "{told}");
    assert!(before == log_of(&machine).await, "nothing was changed");
    machine.dialect = newer();
    assert_eq!(machine.start().await.count("p"), 1);
    assert!(before != log_of(&machine).await, "a start mends it");
}
