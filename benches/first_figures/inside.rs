//! Measured inside this process, without gRPC: the log alone, and the engine on its log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use likewise::adapters::os_files::OsFiles;
use likewise::adapters::system::OsRandomness;
use likewise::adapters::threads::ThreadWorkers;
use likewise::engine::Engine;
use likewise::ids::{ClusterId, Region};
use likewise::log::{
    self, LogIdentity, LogOptions, LogSeams, LogWriter, Position, Record, RecordKind,
};
use likewise::seams::Workers;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::client::{IN_FLIGHT, users};
use crate::measure::engine::{self, Inside};
use crate::measure::latencies;
use crate::measure::machine::Watch;
use crate::measure::stream::likes_of;
use crate::node::folder;
use crate::report::Measured;

/// About what the record of a single like takes.
const RECORD_BYTES: usize = 100;

/// Appends one small record after the other, each with a sync of its own, on a thread of its own.
pub async fn syncs(span: Duration) -> anyhow::Result<Measured> {
    let folder = folder()?;
    let seams = LogSeams {
        files: Arc::new(OsFiles::new(folder.path())?),
        randomness: Arc::new(OsRandomness),
    };
    let identity = LogIdentity {
        cluster: ClusterId::new("bench")?,
        region: Region::new("bench")?,
    };
    let start = Position::START;
    let opened = log::open(
        seams,
        LogOptions::default(),
        identity,
        None,
        start,
        |_: Record| Ok(()),
    )
    .await?;
    let workers = ThreadWorkers::new(tokio::runtime::Handle::current());
    let spare = workers.spawn("log-spare", Box::pin(opened.preparer.run()));
    let (tx, rx) = tokio::sync::oneshot::channel();
    let writing = async move {
        let measured = sync_for(opened.writer, span).await;
        if tx.send(measured).is_err() {
            eprintln!("nobody waits for the syncs' figures");
        }
    };
    let writer = workers.spawn("log-writer", Box::pin(writing));
    let measured = rx.await??;
    writer.await?;
    spare.await?;
    Ok(measured)
}

async fn sync_for(mut writer: LogWriter, span: Duration) -> anyhow::Result<Measured> {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut latency = latencies()?;
    let watch = Watch::start(None)?;
    let end = Instant::now() + span;
    while Instant::now() < end {
        let record: [u8; RECORD_BYTES] = std::array::from_fn(|_| rng.random());
        let payload = vec![Bytes::copy_from_slice(&record)];
        let since = Instant::now();
        writer
            .append(vec![(RecordKind(1), payload)], Bytes::new)
            .await?;
        latency.record(since.elapsed().as_micros() as u64)?;
    }
    Measured::new(latency.len(), latency, watch.stop()?)
}

/// Which users like.
#[derive(Clone, Copy)]
pub struct Likes {
    pub seed: u64,
}

/// Batches of likes of one post, checked from the wire's columns, applied and synced: what the stream
/// does less gRPC.
pub async fn likes(likes: Likes, span: Duration) -> anyhow::Result<Measured> {
    let folder = folder()?;
    let inside = Inside::open(folder.path()).await?;
    let watch = Watch::start(None)?;
    let end = Instant::now() + span;
    let writers = (0..IN_FLIGHT as u64).map(|number| {
        let seed = likes.seed << 8 | number;
        tokio::spawn(write_for(inside.engine.clone(), seed, end))
    });
    let writers: Vec<_> = writers.collect();
    let mut latency = latencies()?;
    let mut items = 0;
    for writer in writers {
        let (written, times) = writer.await??;
        items += written;
        latency.add(times)?;
    }
    let took = watch.stop()?;
    inside.close().await?;
    Measured::new(items, latency, took)
}

async fn write_for(
    engine: Arc<Engine>,
    seed: u64,
    end: Instant,
) -> anyhow::Result<(u64, Histogram<u64>)> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut latency = latencies()?;
    let mut items = 0;
    while Instant::now() < end {
        let users = users(&mut rng);
        let since = Instant::now();
        items += engine::write(&engine, likes_of("hot", users)).await?;
        latency.record(since.elapsed().as_micros() as u64)?;
    }
    Ok((items, latency))
}
