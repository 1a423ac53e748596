//! The log as the session asks for it: what it holds, and pieces of it.

use std::future::Future;
use std::pin::Pin;

use crate::codec::{DecodeError, block};
use crate::engine::record::{COMMIT_RECORD, blocks};
use crate::engine::replicas::ReplicaTable;
use crate::log::{LogReader, Position, ReadError, RecordKind};
use crate::replication::driver::Driver;
use crate::replication::frame::CloseReason;
use crate::replication::session::{Input, LogBlock, LogFault, LogPiece, LogSurvey};

pub(super) type Reading = Pin<Box<dyn Future<Output = Input> + Send>>;

impl Driver {
    pub(super) fn survey(&self) -> Input {
        let engine = &self.exchange.engine;
        let kept = self.exchange.log.segments().into_iter();
        let segments: Option<_> = kept
            .map(|segment| Some((segment.base, engine.read_context(&segment.context)?)))
            .collect();
        match segments {
            Some(segments) => Input::Survey(LogSurvey {
                segments,
                floor: engine.log_floor(),
            }),
            None => {
                let message = "the frontier at the beginning of a log segment cannot be read";
                Input::Stop(CloseReason::Fault, message.to_owned())
            }
        }
    }

    /// Reads a piece of the log, as soon as it may go out.
    pub(super) fn read(&self, generation: u64, from: Position, bytes_max: usize) -> Reading {
        let exchange = self.exchange.clone();
        Box::pin(async move {
            let behind = exchange.log.synced().0.saturating_sub(from.0);
            let table = exchange.engine.replicas();
            let result = read_log(&exchange.log, table, from, bytes_max).await;
            // The newest goes out at once; what is old leaves room for it.
            if behind > exchange.options.window_bytes as u64
                && let Ok(piece) = &result
            {
                let blocks = piece.blocks.iter();
                exchange
                    .pace
                    .take(blocks.map(|block| block.bytes.len()).sum())
                    .await;
            }
            Input::LogRead { generation, result }
        })
    }
}

async fn read_log(
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
