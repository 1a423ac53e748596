//! In process: the engine without gRPC, alone and while it is read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use likewise::engine::Engine;
use likewise::ids::PostId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::figures;
use crate::measure::engine::{self, Inside};
use crate::measure::latencies;
use crate::measure::machine::Watch;
use crate::measure::stream::likes_of;

const POST: &str = "hot";
const USERS: u64 = 10_000_000;

#[derive(clap::Args)]
pub struct Likes {
    /// Where the log goes; a folder in memory leaves the disk out
    #[arg(long)]
    folder: PathBuf,
    #[arg(long, default_value_t = 1_000)]
    batch: usize,
    /// Batches under way
    #[arg(long, default_value_t = 16)]
    in_flight: usize,
    #[arg(long)]
    seconds: f64,
}

/// Likes of one post by users drawn among all, checked, applied, fingerprinted and logged.
pub async fn likes(likes: Likes) -> anyhow::Result<Value> {
    let inside = Inside::open(&likes.folder).await?;
    let watch = Watch::start(None)?;
    let end = Instant::now() + Duration::from_secs_f64(likes.seconds);
    let mut writers = write(&inside.engine, likes.in_flight, likes.batch, end);
    let mut items = 0;
    while let Some(writer) = writers.join_next().await {
        items += writer??;
    }
    let took = watch.stop()?;
    inside.close().await?;
    Ok(figures::rate(items, took))
}

#[derive(clap::Args)]
pub struct Counts {
    /// Where the log goes
    #[arg(long)]
    folder: PathBuf,
    #[arg(long, default_value_t = 200)]
    writers: usize,
    #[arg(long)]
    seconds: f64,
}

/// Reads the exact count as often as one thread can, while tasks write one like at a time.
pub async fn counts(counts: Counts) -> anyhow::Result<Value> {
    let inside = Inside::open(&counts.folder).await?;
    let watch = Watch::start(None)?;
    let end = Instant::now() + Duration::from_secs_f64(counts.seconds);
    let mut writers = write(&inside.engine, counts.writers, 1, end);
    let engine = inside.engine.clone();
    let reader = tokio::task::spawn_blocking(move || read(&engine, end));
    let mut items = 0;
    while let Some(writer) = writers.join_next().await {
        items += writer??;
    }
    let took = watch.stop()?;
    let ns = reader.await??;
    inside.close().await?;
    let reads = json!({
        "reads": ns.len(),
        "p50_ns": ns.value_at_quantile(0.5),
        "p99_ns": ns.value_at_quantile(0.99),
        "max_ns": ns.max(),
    });
    Ok(figures::joined(figures::rate(items, took), reads))
}

fn write(
    engine: &Arc<Engine>,
    tasks: usize,
    batch: usize,
    end: Instant,
) -> JoinSet<anyhow::Result<u64>> {
    let mut writers = JoinSet::new();
    for seed in 0..tasks as u64 {
        let engine = engine.clone();
        let mut rng = SmallRng::seed_from_u64(seed);
        writers.spawn(async move {
            let mut items = 0;
            while Instant::now() < end {
                let users = (0..batch).map(|_| rng.random_range(0..USERS)).collect();
                items += engine::write(&engine, likes_of(POST, users)).await?;
            }
            Ok(items)
        });
    }
    writers
}

fn read(engine: &Engine, end: Instant) -> anyhow::Result<Histogram<u64>> {
    let post = PostId::new(POST)?;
    let mut ns = latencies()?;
    let mut now = Instant::now();
    let mut least = 0;
    while now < end {
        let since = Instant::now();
        let count = std::hint::black_box(engine.count(&post));
        now = Instant::now();
        ns.record((now - since).as_nanos() as u64)?;
        anyhow::ensure!(count >= least, "a count went back, though nobody unlikes");
        least = count;
    }
    Ok(ns)
}
