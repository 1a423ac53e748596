//! Snapshots between the engine and the peers' protocol: the stream that is served, and the staging of
//! one that is received.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::checkpoint::LogHolds;
use crate::engine::snapshot::{Snapshot, SnapshotError, SnapshotOptions, Wanted};
use crate::engine::stage::StageWriter;
use crate::engine::{Engine, Settlement};
use crate::ids::Replica;
use crate::limits::SNAPSHOTS_SERVED_MAX;
use crate::log::LogReader;
use crate::node::checkpoints::Checkpoints;
use crate::replication::catch_up::{
    SnapshotFault, SnapshotReceiver, SnapshotRefused, SnapshotServer, SnapshotStream,
};
use crate::replication::parts;
use crate::seams::Files;
use crate::wire::replication::SnapshotResponse;
use crate::wire::replication::snapshot_response::Body;

/// Serves snapshots of the engine.
pub struct Server {
    engine: Arc<Engine>,
    log: LogReader,
    holds: Arc<LogHolds>,
    options: SnapshotOptions,
    places: Arc<Semaphore>,
}

impl Server {
    pub fn new(
        engine: Arc<Engine>,
        log: LogReader,
        holds: Arc<LogHolds>,
        options: SnapshotOptions,
    ) -> Self {
        let places = Arc::new(Semaphore::new(SNAPSHOTS_SERVED_MAX));
        Self {
            engine,
            log,
            holds,
            options,
            places,
        }
    }
}

/// A snapshot on its way to a peer.
struct Serving {
    engine: Arc<Engine>,
    snapshot: Snapshot,
    _place: OwnedSemaphorePermit,
}

impl SnapshotServer for Server {
    fn open(&self, asker: &Replica, wanted: &Wanted) -> Result<SnapshotStream, SnapshotRefused> {
        let place = self
            .places
            .clone()
            .try_acquire_owned()
            .map_err(|_| SnapshotRefused::Busy)?;
        let (engine, log) = (self.engine.clone(), self.log.clone());
        let snapshot = Snapshot::begin(engine.clone(), log, &self.holds, self.options, wanted)
            .map_err(|_| SnapshotRefused::Unsettled)?;
        tracing::info!(peer = %asker, "serving a snapshot");
        let serving = Serving {
            engine,
            snapshot,
            _place: place,
        };
        Ok(Box::pin(stream::unfold(Some(serving), next_part)))
    }
}

/// The next part; an error is the last.
async fn next_part(
    serving: Option<Serving>,
) -> Option<(Result<SnapshotResponse, SnapshotFault>, Option<Serving>)> {
    let mut serving = serving?;
    match serving.snapshot.next().await {
        Ok(None) => None,
        Ok(Some(part)) => {
            let replicas = serving.engine.replicas().all();
            Some((Ok(parts::write(part, &replicas)), Some(serving)))
        }
        Err(error) => Some((Err(fault(&error)), None)),
    }
}

fn fault(error: &SnapshotError) -> SnapshotFault {
    tracing::warn!(%error, "a snapshot that was being served ended early");
    SnapshotFault(error.to_string())
}

/// Stages snapshots and has them merged.
pub struct Receiver {
    pub engine: Arc<Engine>,
    pub files: Arc<dyn Files>,
    pub checkpoints: Checkpoints,
}

impl Receiver {
    async fn stage(&self, mut stream: SnapshotStream) -> Result<(), SnapshotFault> {
        let broken = |error: std::io::Error| SnapshotFault(format!("the stage failed: {error}"));
        let mut stage = StageWriter::create(self.files.clone())
            .await
            .map_err(broken)?;
        loop {
            let part = match stream.next().await {
                Some(Ok(part)) => self.check(part),
                Some(Err(error)) => Err(error),
                None => Err(SnapshotFault(
                    "the snapshot ended before its end".to_owned(),
                )),
            };
            let (frame, is_end) = match part {
                Ok(part) => part,
                Err(error) => {
                    stage.abandon().await.map_err(broken)?;
                    return Err(error);
                }
            };
            stage.push(&frame).await.map_err(broken)?;
            if is_end {
                return stage.finish().await.map_err(broken);
            }
        }
    }

    /// A part that cannot be read is refused before it is stored. Returns its bytes, and whether it is the last.
    fn check(&self, part: SnapshotResponse) -> Result<(Vec<u8>, bool), SnapshotFault> {
        let is_end = matches!(part.body, Some(Body::End(_)));
        let frame = prost::Message::encode_to_vec(&part);
        match parts::read(part, &mut self.engine.replicas()) {
            Ok(_) => Ok((frame, is_end)),
            Err(error) => Err(SnapshotFault(format!("the peer sent a bad part: {error}"))),
        }
    }
}

impl SnapshotReceiver for Receiver {
    fn receive<'a>(
        &'a self,
        _from: &'a Replica,
        stream: SnapshotStream,
    ) -> Pin<Box<dyn Future<Output = Result<(), SnapshotFault>> + Send + 'a>> {
        Box::pin(async move {
            if self.engine.settlement() != Settlement::Settled {
                return Err(SnapshotFault("another snapshot is being merged".to_owned()));
            }
            self.stage(stream).await?;
            let merged = self.checkpoints.merge().await;
            let merged = merged.map_err(|error| SnapshotFault(error.to_string()))?;
            merged.map_err(|error| SnapshotFault(error.to_string()))
        })
    }
}
