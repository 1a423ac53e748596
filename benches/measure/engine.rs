//! The engine on its log, without gRPC: what a stream does, less the wire.

use std::path::Path;
use std::sync::Arc;

use likewise::adapters::threads::ThreadWorkers;
use likewise::config::Config;
use likewise::engine::Engine;
use likewise::engine::commit::Refused;
use likewise::node::{engine_options, storage};
use likewise::seams::{WorkerHandle, Workers};
use likewise::wire::batch;
use likewise::wire::v1::WriteBatch;

/// An engine with the default configuration, and the threads of its log.
pub struct Inside {
    pub engine: Arc<Engine>,
    writer: WorkerHandle,
    spare: WorkerHandle,
}

impl Inside {
    /// Opens an engine on an empty folder; must be called within a runtime.
    pub async fn open(folder: &Path) -> anyhow::Result<Self> {
        let mut config = Config::default();
        config.node.data_dir = folder.join("data");
        let storage = storage::open(&config, engine_options(&config)).await?;
        let recovered = storage.recovered;
        let committer = recovered.committer;
        let workers = ThreadWorkers::new(tokio::runtime::Handle::current());
        let writing = async move {
            if let Err(error) = committer.run().await {
                eprintln!("the log failed: {error}");
            }
        };
        Ok(Self {
            engine: recovered.engine,
            writer: workers.spawn("log-writer", Box::pin(writing)),
            spare: workers.spawn("log-spare", Box::pin(recovered.preparer.run())),
        })
    }

    /// Ends the log's threads once all that was written is synced.
    pub async fn close(self) -> anyhow::Result<()> {
        self.engine.queue().close(Refused::Stopping);
        self.writer.await?;
        self.spare.await?;
        Ok(())
    }
}

/// Checks a batch as if it had come over the wire, applies it and waits for its sync. Returns how many items
/// were done.
pub async fn write(engine: &Engine, batch: WriteBatch) -> anyhow::Result<u64> {
    let checked = batch::check(engine.cluster(), Some(batch))?;
    let written = engine.write(&checked.write).await?;
    Ok(written.done.len() as u64)
}
