//! A fourth region joins a cluster of 1,000,000 likes while it is written to, and both the node that sends it a
//! snapshot and the one that takes it are killed on the way.
//!
//! `cargo bench --bench join_under_load [-- LIKES]`. Real processes of the release binary. At least 5,000
//! writes a second are acknowledged meanwhile, a third of them unlikes and likes again of users that are being
//! transferred. Prints the figures; the exit code is 1 where a demand is not met.

#[path = "../tests/support/process/mod.rs"]
mod process;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use likewise::client::{Batch, Client};
use likewise::wire::v1::GetStatusResponse;
use process::node::{Node, Setup};
use process::world::converge;
use process::{Wire, count, eventually};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

const LIKES: u64 = 1_000_000;
const POSTS: u64 = 1_000;
const FILL_BATCH: u64 = 4_000;
/// Each region's writers: one batch a turn. Two regions alone are above what is demanded.
const TURN: Duration = Duration::from_millis(50);
const BATCH: u64 = 175;
const WRITES_A_SECOND_MIN: f64 = 5_000.0;
/// Slow enough that there is a way to be killed on.
const CATCH_UP_BYTES_PER_SECOND: u64 = 4 << 20;
const WITHIN: Duration = Duration::from_secs(300);
const REGIONS: [&str; 3] = ["ap", "eu", "us"];
const FOURTH: &str = "sa";

fn main() -> ExitCode {
    let likes = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let code = runtime.block_on(join(likes.unwrap_or(LIKES)));
    runtime.shutdown_background();
    code
}

/// The nodes, each reached over a wire that leads to where it listens now.
struct Cluster {
    folder: tempfile::TempDir,
    wires: Vec<(&'static str, Wire)>,
    nodes: Vec<(&'static str, Node)>,
    clients: Vec<(&'static str, watch::Sender<Option<Client>>)>,
}

impl Cluster {
    async fn start() -> Self {
        let mut cluster = Self {
            folder: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder"),
            wires: Vec::new(),
            nodes: Vec::new(),
            clients: Vec::new(),
        };
        for region in REGIONS {
            cluster.wires.push((region, Wire::lay().await));
            cluster.clients.push((region, watch::Sender::new(None)));
        }
        for region in REGIONS {
            cluster.start_node(region).await;
        }
        cluster
    }

    fn setup(&self, region: &'static str) -> Setup {
        let setup = Setup::new(region, self.folder.path().join(region))
            .set("LOG__RETAIN_BYTES", 24 << 20)
            .set("CHECKPOINT__LOG_BYTES", 12 << 20)
            .set("CHECKPOINT__INTERVAL_MS", 500)
            .set(
                "REPLICATION__CATCH_UP_BYTES_PER_SECOND",
                CATCH_UP_BYTES_PER_SECOND,
            );
        let others = self.wires.iter().filter(|(other, _)| *other != region);
        others.fold(setup, |setup, (other, wire)| {
            setup.peer(other, wire.address())
        })
    }

    async fn start_node(&mut self, region: &'static str) {
        let node = self.setup(region).start().await;
        if let Some((_, wire)) = self.wires.iter().find(|(other, _)| *other == region) {
            wire.lead_to(Some(node.peer_address));
        }
        if let Some((_, client)) = self.clients.iter().find(|(other, _)| *other == region) {
            client.send_replace(Some(node.client.session()));
        }
        self.nodes.push((region, node));
    }

    async fn kill(&mut self, region: &str) {
        if let Some((_, client)) = self.clients.iter().find(|(other, _)| *other == region) {
            client.send_replace(None);
        }
        let at = self.nodes.iter().position(|(other, _)| *other == region);
        let (_, node) = self.nodes.remove(at.expect("it runs"));
        node.kill().await;
    }

    fn node(&self, region: &str) -> &Node {
        let found = self.nodes.iter().find(|(other, _)| *other == region);
        &found.expect("it runs").1
    }

    /// Waits until the fourth region has staged so much, and returns whom it takes it from.
    async fn taking(&self, bytes: u64) -> &'static str {
        let node = self.node(FOURTH);
        eventually("a snapshot is being taken", WITHIN, || async {
            let status = node.status().await;
            let taking = status.warnings.iter().find_map(|line| taken_from(line));
            match taking {
                Some((from, taken)) if taken >= bytes => Ok(from),
                _ => Err(format!("{:?}", status.warnings)),
            }
        })
        .await
    }
}

/// From whom a snapshot is being taken, and how many bytes are there.
fn taken_from(line: &str) -> Option<(&'static str, u64)> {
    let rest = line.strip_prefix("a snapshot from ")?;
    let from = REGIONS.iter().find(|region| rest.starts_with(**region))?;
    let (before, _) = rest.split_once(" bytes")?;
    let bytes = before.rsplit(' ').next()?.parse().ok()?;
    Some((from, bytes))
}

fn post(number: u64) -> String {
    format!("post-{:04}", number % POSTS)
}

fn user(number: u64) -> String {
    format!("user-with-a-long-name-{number:030}")
}

async fn fill(cluster: &Cluster, likes: u64) {
    for (turn, first) in (0..likes).step_by(FILL_BATCH as usize).enumerate() {
        let client = &cluster.node(REGIONS[turn % 3]).client;
        let mut batch = Batch::new();
        for number in first..(first + FILL_BATCH).min(likes) {
            batch.like(&post(number), &user(number));
        }
        let result = client.batch_write(batch).await.expect("taken");
        assert!(result.errors.is_empty());
    }
}

/// Batches in a fixed rhythm, for as long as the process runs: a third unlikes and likes again of what was
/// there before, the rest new likes.
async fn write(
    (region, seed): (&'static str, u64),
    mut client: watch::Receiver<Option<Client>>,
    (likes, acknowledged): (u64, Arc<AtomicU64>),
) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut next = 0;
    loop {
        turns.tick().await;
        let current = client.wait_for(Option::is_some).await;
        let Ok(Some(current)) = current.map(|current| current.clone()) else {
            return;
        };
        let mut batch = Batch::new();
        for item in 0..BATCH {
            match item % 6 {
                0 => {
                    let number = rng.random_range(0..likes);
                    batch.unlike(&post(number), &user(number));
                }
                1 => {
                    let number = rng.random_range(0..likes);
                    batch.like(&post(number), &user(number));
                }
                _ => {
                    next += 1;
                    batch.like(&post(next), &format!("{region}-{next}"));
                }
            }
        }
        let items = batch.len() as u64;
        let gone = client.wait_for(Option::is_none);
        tokio::select! {
            written = current.batch_write(batch) => if written.is_ok() {
                acknowledged.fetch_add(items, Ordering::Relaxed);
            },
            _ = gone => {}
        }
    }
}

/// Waits until the node's log no longer reaches back to its beginning: else logs serve who joins.
async fn is_cut(region: &str, node: &Node) {
    let what = format!("the log of {region} is cut");
    eventually(&what, WITHIN, || async {
        match node.has_cut_its_log() {
            true => Ok(()),
            false => Err("all of it is there".to_owned()),
        }
    })
    .await;
}

async fn join(likes: u64) -> ExitCode {
    let mut cluster = Cluster::start().await;
    let begun = Instant::now();
    fill(&cluster, likes).await;
    println!("likes={likes} filled_in={:.1?}", begun.elapsed());
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    for (seed, (region, client)) in cluster.clients.iter().enumerate() {
        let counted = (likes, acknowledged.clone());
        writers.spawn(write((region, seed as u64), client.subscribe(), counted));
    }
    for (region, node) in &cluster.nodes {
        is_cut(region, node).await;
    }

    let (begun, before) = (Instant::now(), acknowledged.load(Ordering::Relaxed));
    cluster.start_node(FOURTH).await;
    let bytes = likes * 60;
    let sender = cluster.taking(bytes / 4).await;
    cluster.kill(sender).await;
    println!("{:.1?}: {sender}, which sends, is killed", begun.elapsed());
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.start_node(sender).await;
    let next = cluster.taking(bytes / 2).await;
    cluster.kill(FOURTH).await;
    println!(
        "{:.1?}: {FOURTH} is killed while it takes from {next}",
        begun.elapsed()
    );
    cluster.start_node(FOURTH).await;
    let fourth = cluster.node(FOURTH);
    let is_in =
        |status: &GetStatusResponse| status.settled && count(status, "snapshots_merged") > 0;
    let status = fourth
        .status_where("the snapshot is in", WITHIN, is_in)
        .await;
    let (took, after) = (begun.elapsed(), acknowledged.load(Ordering::Relaxed));
    let rate = (after - before) as f64 / took.as_secs_f64();
    let resumed = count(&status, "snapshots_resumed");
    println!("{took:.1?}: merged; {rate:.0} writes/s acknowledged meanwhile; resumed={resumed}");
    writers.shutdown().await;
    let nodes: Vec<&Node> = cluster.nodes.iter().map(|(_, node)| node).collect();
    let equal = converge(&nodes).await;
    println!(
        "{:.1?}: all four are equal; fingerprint={} likers={}",
        begun.elapsed(),
        equal.fingerprint,
        equal.likers
    );
    for (_, node) in cluster.nodes {
        node.kill().await;
    }
    match rate >= WRITES_A_SECOND_MIN && resumed > 0 {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
