//! Whether a node that was started a thousand times, with a write in each life, still reads and writes
//! like a fresh one: both run side by side, and take turns.
//!
//! `cargo bench --bench thousand_starts [-- STARTS]`. Prints the medians, their ratio, and the length of
//! the token; the exit code is 1 where a ratio is beyond a tenth or a token beyond its bound.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use likewise::adapters::chitchat_membership::Home;
use likewise::adapters::tcp::TcpTransport;
use likewise::adapters::threads::ThreadWorkers;
use likewise::client::{Batch, Client, Read};
use likewise::config::Config;
use likewise::node::storage::{self, Storage};
use likewise::node::{self, Network, RunningNode, engine_options};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const STARTS: usize = 1_000;
const TOKEN_CHARS_MAX: usize = 512;
/// "Within a tenth of a fresh cluster's speed".
const RATIO_MIN: f64 = 0.9;

const RELEASED_WITHIN: Duration = Duration::from_secs(10);

const ROUNDS: usize = 41;
const CALLERS: usize = 16;
const UNARY_CALLS: usize = 60;
const READ_CALLS: usize = 150;
const BATCHES: usize = 8;
const BATCH_ITEMS: usize = 2_000;

fn main() -> anyhow::Result<ExitCode> {
    let starts = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let code = runtime.block_on(compare(starts.unwrap_or(STARTS)))?;
    runtime.shutdown_background();
    Ok(code)
}

async fn compare(starts: usize) -> anyhow::Result<ExitCode> {
    let folder = tempfile::tempdir()?;
    let begun = Instant::now();
    let old = live(&folder.path().join("old"), starts).await?;
    let took = begun.elapsed();
    println!(
        "starts={starts} took={took:.1?} each={:.1?}",
        took / starts as u32
    );
    let fresh = live(&folder.path().join("fresh"), 1).await?;
    let clients = [client(&fresh)?, client(&old)?];
    for (client, missing) in clients.iter().zip([starts - 1, 0]) {
        let mut batch = Batch::new();
        (0..missing).for_each(|number| batch.like("p", &format!("more-{number}")));
        if missing > 0 {
            client.batch_write(batch).await?;
        }
        let count = client.get_post("p", None, Read::default()).await?.count;
        ensure!(
            count == starts as u64,
            "{count} likers after {starts} starts"
        );
    }
    let token = clients[1].like("p", "the-last").await?.token;
    println!(
        "token_chars={} replicas={}",
        token.len(),
        clients[1].status().await?.replicas
    );
    let mut is_good = token.len() <= TOKEN_CHARS_MAX;
    for kind in [Kind::UnaryLikes, Kind::StreamedLikes, Kind::Reads] {
        is_good &= side_by_side(kind, &clients).await?;
    }
    old.stop().await?;
    fresh.stop().await?;
    Ok(ExitCode::from(u8::from(!is_good)))
}

/// Starts and stops a node on the folder, with a like in each life, and leaves the last one running.
async fn live(folder: &Path, starts: usize) -> anyhow::Result<RunningNode> {
    for number in 1..starts {
        let node = start(folder).await?;
        client(&node)?.like("p", &format!("u{number}")).await?;
        node.stop().await?;
    }
    let node = start(folder).await?;
    client(&node)?.like("p", "u0").await?;
    Ok(node)
}

async fn start(folder: &Path) -> anyhow::Result<RunningNode> {
    let mut config = Config::default();
    config.node.data_dir = folder.to_owned();
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let clients = TcpListener::bind(loopback).await?;
    let network = Network {
        client_address: clients.local_addr()?,
        clients: Box::new(clients),
        peer_address: loopback,
        peers: Box::new(TcpListener::bind(loopback).await?),
        gossip: Home::Task,
        transport: Arc::new(TcpTransport::default()),
    };
    let storage = open(&config).await?;
    let workers = Arc::new(ThreadWorkers::new(tokio::runtime::Handle::current()));
    node::start(&config, storage, workers, network).await
}

/// sled's own threads hold its folder for a moment after it was closed; between processes that is no matter.
async fn open(config: &Config) -> anyhow::Result<Storage> {
    let until = Instant::now() + RELEASED_WITHIN;
    loop {
        match storage::open(config, engine_options(config)).await {
            Err(error) if error.to_string().contains("in use") && Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            outcome => return outcome,
        }
    }
}

fn client(node: &RunningNode) -> anyhow::Result<Client> {
    let builder = Client::builder().endpoints([node.client_address.to_string()]);
    builder.connect_lazy().context("a client")
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    UnaryLikes,
    StreamedLikes,
    Reads,
}

/// Prints one line. False if the node of many starts is slower by more than a tenth.
async fn side_by_side(kind: Kind, clients: &[Client; 2]) -> anyhow::Result<bool> {
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        // Turns are taken in both orders, and the first round is for warming up.
        for turn in 0..2 {
            let at = (round + turn) % 2;
            let (operations, took) = once(kind, &clients[at], round).await?;
            if round > 0 {
                rates[at].push(operations as f64 / took.as_secs_f64());
            }
        }
    }
    let [fresh, old] = rates.map(median);
    let ratio = old / fresh;
    println!("{kind:?}: fresh={fresh:.0}/s after_the_starts={old:.0}/s ratio={ratio:.3}");
    Ok(ratio >= RATIO_MIN)
}

async fn once(kind: Kind, client: &Client, round: usize) -> anyhow::Result<(usize, Duration)> {
    let mut callers = JoinSet::new();
    let begun = Instant::now();
    let operations = match kind {
        Kind::StreamedLikes => {
            stream(client, round).await?;
            BATCHES * BATCH_ITEMS
        }
        Kind::UnaryLikes => {
            for caller in 0..CALLERS {
                callers.spawn(likes(client.session(), format!("{round}-{caller}")));
            }
            CALLERS * UNARY_CALLS
        }
        Kind::Reads => {
            for _ in 0..CALLERS {
                callers.spawn(reads(client.session()));
            }
            CALLERS * READ_CALLS
        }
    };
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    Ok((operations, begun.elapsed()))
}

async fn likes(client: Client, prefix: String) -> anyhow::Result<()> {
    for number in 0..UNARY_CALLS {
        client
            .like(&format!("q{}", number % 10), &format!("{prefix}-{number}"))
            .await?;
    }
    Ok(())
}

async fn reads(client: Client) -> anyhow::Result<()> {
    let read = Read {
        include_regions: true,
        ..Read::default()
    };
    for _ in 0..READ_CALLS {
        client.get_post("p", Some("u0"), read.clone()).await?;
    }
    Ok(())
}

async fn stream(client: &Client, round: usize) -> anyhow::Result<()> {
    let (sender, mut receiver) = client.stream_writes(BATCHES).await?;
    for number in 0..BATCHES {
        let mut batch = Batch::new();
        for item in 0..BATCH_ITEMS {
            batch.like(
                &format!("r{}", item % 50),
                &format!("{round}-{number}-{item}"),
            );
        }
        sender
            .send(batch)
            .await
            .map_err(|_| anyhow::anyhow!("the stream ended"))?;
    }
    for _ in 0..BATCHES {
        let answer = receiver.next().await.context("the stream ended")??;
        let refused = |error| anyhow::anyhow!("a batch was refused: {error:?}");
        let result = answer.outcome.map_err(refused)?;
        ensure!(result.errors.is_empty(), "an item was refused");
    }
    Ok(())
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
