//! What is sent again of a snapshot of about 200 MB that breaks off when nine tenths have arrived.
//!
//! `cargo bench --bench broken_transfer [-- MEGABYTES]`. Real processes of the release binary over real TCP: a
//! node with so much state, and a log cut so short that a new region must take a snapshot. A first region
//! takes it whole, which says how much that is; a second one's connections are broken at nine tenths of it.
//! Prints the bytes that arrived; the exit code is 1 where more than a tenth of the whole came again.

#[path = "../tests/support/process/mod.rs"]
mod process;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use likewise::client::{Batch, Client};
use process::counted::Counted;
use process::node::{Node, Setup};
use process::{count, eventually};

const MEGABYTES: u64 = 200;
const BATCH_USERS: u64 = 4_000;
/// Bytes that one liker is in a snapshot, about.
const LIKER_BYTES: u64 = 213;
const LIKERS_A_POST: u64 = 20_000;
const WITHIN: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let megabytes = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let code = runtime.block_on(measure(megabytes.unwrap_or(MEGABYTES)));
    runtime.shutdown_background();
    code
}

async fn measure(megabytes: u64) -> ExitCode {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let setup = |region: &str| {
        Setup::new(region, folder.path().join(region))
            .set("LOG__RETAIN_BYTES", 24 << 20)
            .set("CHECKPOINT__LOG_BYTES", 12 << 20)
            .set("CHECKPOINT__INTERVAL_MS", 500)
    };
    let sender = setup("eu").start().await;
    // Its acknowledgements let the sender cut its log.
    let witness = setup("us").peer("eu", sender.peer_address).start().await;
    let begun = Instant::now();
    fill(&sender.client, megabytes * 1_000_000 / LIKER_BYTES).await;
    cut(&sender).await;
    println!("state={megabytes}MB filled_in={:.1?}", begun.elapsed());
    witness.kill().await;

    let (whole, _) = take(&sender, setup("ap"), None).await;
    println!("whole transfer: {whole} bytes");
    let (sent, before) = take(&sender, setup("sa"), Some(whole / 10 * 9)).await;
    let (after, again) = (sent - before, sent.saturating_sub(whole));
    println!("broken at {before} bytes; {after} bytes after it; {again} bytes sent again");
    let resumed = count(&sender.status().await, "snapshots_resumed");
    println!(
        "resumed={resumed} again/whole={:.4}",
        again as f64 / whole as f64
    );
    sender.kill().await;
    match again <= whole / 10 && resumed > 0 {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

async fn fill(client: &Client, likers: u64) {
    for first in (0..likers).step_by(BATCH_USERS as usize) {
        let mut batch = Batch::new();
        for number in first..(first + BATCH_USERS).min(likers) {
            batch.like(
                &format!("post-{:05}", number / LIKERS_A_POST),
                &format!("{number:0>200}"),
            );
        }
        let result = client.batch_write(batch).await.expect("taken");
        assert!(result.errors.is_empty());
    }
}

/// Writes a little until the log no longer reaches back to its beginning.
async fn cut(node: &Node) {
    eventually("the log is cut", WITHIN, || async {
        node.client.like("pulse", "again").await.expect("taken");
        match node.has_cut_its_log() {
            true => Ok(()),
            false => Err(node.setup.stderr()),
        }
    })
    .await;
}

/// A new region takes all of it. Returns the bytes that arrived, and how many had when the wire broke.
async fn take(sender: &Node, setup: Setup, break_at: Option<u64>) -> (u64, u64) {
    let wire = Counted::lay().await;
    wire.lead_to(sender.peer_address);
    if let Some(bytes) = break_at {
        wire.break_at(bytes);
    }
    let begun = Instant::now();
    let node = setup.peer("eu", wire.address).start().await;
    let mut before = 0;
    let wanted = sender.status().await.fingerprint;
    eventually("the state is here", WITHIN, || {
        if wire.has_broken() && before == 0 {
            before = wire.arrived();
        }
        let (client, wanted) = (node.client.session(), wanted.clone());
        async move {
            let status = client.status().await.expect("it runs");
            match status.settled && status.fingerprint == wanted {
                true => Ok(()),
                false => Err(format!("{status:#?}")),
            }
        }
    })
    .await;
    println!("{} took {:.1?}", node.setup.region, begun.elapsed());
    let arrived = wire.arrived();
    node.kill().await;
    (arrived, before)
}
