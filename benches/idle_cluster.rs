//! What a cluster costs that nobody uses: three nodes with 100,000 posts, a minute of rest, then a minute in which
//! the bytes on each link and the processor time of each node are counted.
//!
//! `cargo bench --bench idle_cluster`. Real processes of the release binary with the default configuration. The exit
//! code is 1 where a link carries more than 10 KB/s, or a node takes more than 2 % of a core.

#[path = "../tests/support/process/mod.rs"]
mod process;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use likewise::client::Batch;
use process::counted::Counted;
use process::node::{Node, Setup};
use process::world::converge;

const REGIONS: [&str; 3] = ["ap", "eu", "us"];
const POSTS: u64 = 100_000;
const BATCH: u64 = 5_000;
const REST: Duration = Duration::from_secs(60);
const LINK_BYTES_A_SECOND_MAX: f64 = 10_000.0;
const CORE_SHARE_MAX: f64 = 0.02;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let code = runtime.block_on(measure());
    runtime.shutdown_background();
    code
}

type Links = BTreeMap<(&'static str, &'static str), Counted>;

async fn measure() -> ExitCode {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let mut links = Links::new();
    for from in REGIONS {
        for to in REGIONS.into_iter().filter(|to| *to != from) {
            links.insert((from, to), Counted::lay().await);
        }
    }
    let mut nodes = Vec::new();
    for region in REGIONS {
        let mut setup = Setup::new(region, folder.path().join(region))
            .set("LOG__SEGMENT_BYTES", 64 << 20)
            .set("CHECKPOINT__SLED_CACHE_BYTES", 64 << 20)
            .set("ENGINE__SHARDS", 16);
        for ((_, to), link) in links.iter().filter(|((from, _), _)| *from == region) {
            setup = setup.peer(to, link.address);
        }
        let node = setup.start().await;
        for ((_, to), link) in &links {
            if *to == region {
                link.lead_to(node.peer_address);
            }
        }
        nodes.push(node);
    }
    fill(&nodes).await;
    let all: Vec<&Node> = nodes.iter().collect();
    let equal = converge(&all).await;
    println!("posts={} fingerprint={}", equal.posts, equal.fingerprint);
    tokio::time::sleep(REST).await;
    let within_bounds = observe(&nodes, &links).await;
    for node in nodes {
        node.kill().await;
    }
    match within_bounds {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

async fn fill(nodes: &[Node]) {
    for (turn, first) in (0..POSTS).step_by(BATCH as usize).enumerate() {
        let mut batch = Batch::new();
        for number in first..first + BATCH {
            batch.like(&format!("post-{number}"), "somebody");
        }
        let written = nodes[turn % nodes.len()].client.batch_write(batch).await;
        assert!(written.expect("taken").errors.is_empty());
    }
}

/// Counts for a minute, prints what it found, and tells whether all of it is within bounds.
async fn observe(nodes: &[Node], links: &Links) -> bool {
    let crossed = |a: &str, b: &str| -> u64 {
        let between = links.iter();
        let between =
            between.filter(|((from, to), _)| [*from, *to] == [a, b] || [*to, *from] == [a, b]);
        between.map(|(_, link)| link.crossed()).sum()
    };
    let pairs = [("ap", "eu"), ("ap", "us"), ("eu", "us")];
    let bytes = pairs.map(|(a, b)| crossed(a, b));
    let cpu: Vec<Duration> = nodes.iter().map(Node::cpu).collect();
    let begun = Instant::now();
    tokio::time::sleep(REST).await;
    let seconds = begun.elapsed().as_secs_f64();
    let mut within_bounds = true;
    for ((a, b), before) in pairs.into_iter().zip(bytes) {
        let rate = (crossed(a, b) - before) as f64 / seconds;
        println!("link {a}-{b}: {rate:.0} bytes/s, both ways");
        within_bounds &= rate < LINK_BYTES_A_SECOND_MAX;
    }
    for (node, before) in nodes.iter().zip(cpu) {
        let share = (node.cpu() - before).as_secs_f64() / seconds;
        println!(
            "node {}: {:.2} % of a core",
            node.setup.region,
            share * 100.0
        );
        within_bounds &= share < CORE_SHARE_MAX;
    }
    within_bounds
}
