//! A snapshot that was received whole and lies in the stage's folder, read back for its merge.

use std::sync::Arc;

use crate::engine::Engine;
use crate::engine::merge::{MergeError, Parts, StagedSource};
use crate::engine::snapshot::Part;
use crate::engine::stage::{self, StageReader};
use crate::replication::parts;
use crate::seams::Files;
use crate::wire::replication::SnapshotResponse;

/// The snapshot in the stage's folder.
pub struct StagedSnapshot {
    pub engine: Arc<Engine>,
    pub files: Arc<dyn Files>,
}

impl StagedSource for StagedSnapshot {
    type Parts = StagedParts;

    async fn open(&self) -> Result<StagedParts, MergeError> {
        let mut reader = stage::open(self.files.as_ref()).await?;
        // The request that began it.
        let request = reader.next().await?;
        request.ok_or(MergeError::Form("it is empty"))?;
        let engine = self.engine.clone();
        Ok(StagedParts { engine, reader })
    }
}

/// The parts of the staged snapshot.
pub struct StagedParts {
    engine: Arc<Engine>,
    reader: StageReader,
}

impl Parts for StagedParts {
    async fn next(&mut self) -> Result<Option<Part>, MergeError> {
        let Some(frame) = self.reader.next().await? else {
            return Ok(None);
        };
        let form = |_| MergeError::Form("a frame is no message");
        let message: SnapshotResponse = prost::Message::decode(frame).map_err(form)?;
        Ok(Some(parts::read(message, &mut self.engine.replicas())?))
    }
}
