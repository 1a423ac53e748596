//! What the session's machine asks and is told of the engine and its log.

use crate::codec::{DecodeError, block};
use crate::crdt::dot::ReplicaIndex;
use crate::crdt::frontier::ShortForm;
use crate::engine::Engine;
use crate::engine::audit::Audited;
use crate::engine::commit::Refused;
use crate::engine::record::{COMMIT_RECORD, blocks};
use crate::engine::remote::{Applied, RemoteError};
use crate::engine::replicas::ReplicaTable;
use crate::log::{LogReader, Position, ReadError, RecordKind};
use crate::replication::session::{
    Durable, Knowledge, LogBlock, LogFault, LogPiece, LogSurvey, Verdict,
};

impl Knowledge for Engine {
    fn table(&self) -> &ReplicaTable {
        self.replicas()
    }

    fn own(&self) -> (ReplicaIndex, u64) {
        self.made()
    }

    fn predecessors(&self, replica: ReplicaIndex) -> Option<ShortForm> {
        Engine::predecessors(self, replica)
    }

    fn audited(&self, ranges: &[usize]) -> Option<Audited> {
        Engine::audited(self, ranges)
    }
}

/// What is durable, with its fingerprint where the node is settled.
pub fn durable(engine: &Engine) -> Durable {
    let complete_until_ms = engine.complete_until_ms();
    match engine.audited(&[]) {
        Some(Audited { published, .. }) => Durable {
            fingerprint: Some(published.sums.total()),
            complete_until_ms,
            published,
        },
        None => Durable {
            fingerprint: None,
            complete_until_ms,
            published: engine.board().newest(),
        },
    }
}

/// What the log holds, for who looks for a place to begin. None if a segment's beginning cannot be read.
pub fn survey(engine: &Engine, log: &LogReader) -> Option<LogSurvey> {
    let kept = log.segments().into_iter();
    let segments: Option<_> = kept
        .map(|segment| Some((segment.base, engine.read_context(&segment.context)?)))
        .collect();
    Some(LogSurvey {
        segments: segments?,
        floor: engine.log_floor(),
    })
}

/// A piece of the log, as soon as it is synced.
pub async fn read_log(
    log: &LogReader,
    mut table: &ReplicaTable,
    from: Position,
    bytes_max: usize,
) -> Result<LogPiece, LogFault> {
    let chunk = log
        .read(from, bytes_max)
        .await
        .map_err(|error| match error {
            ReadError::Cut { .. } => LogFault::Cut,
            other => LogFault::Broken(other.to_string()),
        })?;
    let broken = |error: DecodeError| LogFault::Broken(error.to_string());
    let commits = chunk.records.iter();
    let commits = commits.filter(|record| record.kind == RecordKind(COMMIT_RECORD));
    let mut found = Vec::new();
    for record in commits {
        for bytes in blocks(&record.payload).map_err(broken)? {
            found.push(LogBlock {
                position: record.position,
                head: block::head(&bytes, &mut table).map_err(broken)?,
                bytes,
            });
        }
    }
    Ok(LogPiece {
        blocks: found,
        next: chunk.next,
    })
}

/// The engine's verdict on a block that it was handed.
pub fn verdict(applied: &Result<Applied, RemoteError>) -> Verdict {
    match applied {
        Ok(Applied::New(_)) => Verdict::New,
        Ok(Applied::Known) => Verdict::Known,
        Ok(Applied::NotYet) => Verdict::NotYet,
        Err(RemoteError::Decode(DecodeError::UnknownKind { kind, .. })) => {
            Verdict::UnknownKind { kind: *kind }
        }
        Err(RemoteError::Decode(error)) => Verdict::Malformed(error.to_string()),
        Err(RemoteError::Alarm { claimed, made }) => Verdict::Alarm {
            claimed: *claimed,
            made: *made,
        },
        Err(RemoteError::Refused(
            Refused::BatchFull | Refused::Frozen | Refused::RoomComing { .. },
        )) => Verdict::Busy,
        Err(RemoteError::Refused(Refused::DiskFull)) => Verdict::NoRoom,
        Err(RemoteError::Refused(why @ (Refused::Poisoned | Refused::Stopping))) => {
            Verdict::Stopped(why.to_string())
        }
    }
}
