//! How the log fails, by what the caller does next.

use std::io;

use super::Position;
use crate::versions::LOG_FORMAT;

/// What a visitor may answer.
pub type VisitError = Box<dyn std::error::Error + Send + Sync>;

/// A record that was shown cannot be taken.
#[derive(Debug)]
pub struct RefusedRecord {
    pub position: Position,
    pub source: VisitError,
}

impl From<RefusedRecord> for OpenError {
    fn from(refused: RefusedRecord) -> Self {
        let RefusedRecord { position, source } = refused;
        Self::Refused { position, source }
    }
}

/// Why a log does not open. Nothing was changed, except where the error is [`OpenError::Io`].
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("log options: {0}")]
    Options(&'static str),
    #[error("{file}: {action} failed")]
    Io {
        file: String,
        action: &'static str,
        source: io::Error,
    },
    #[error(
        "{file} is damaged at byte {offset}: {what}; records after it were synced, so it is no torn \
         tail. Restore the data folder from a backup, or move it away: with an empty one the node \
         takes its state from its peers"
    )]
    Damaged {
        file: String,
        offset: u64,
        what: &'static str,
    },
    #[error(
        "the log begins at {first:?}, but is needed from {wanted:?}: segments are missing. Restore \
         them from a backup, or move the data folder away: with an empty one the node takes its \
         state from its peers"
    )]
    Missing { wanted: Position, first: Position },
    #[error(
        "the log ends at {end:?}, but the checkpoint was made with it up to {wanted:?}: its end is \
         lost. Restore the data folder from a backup, or move it away: with an empty one the node \
         takes its state from its peers"
    )]
    EndsBefore { wanted: Position, end: Position },
    #[error("{file} belongs to cluster {found}; check the data folder and `cluster.id`")]
    OtherCluster { file: String, found: String },
    #[error("{file} belongs to region {found}; check the data folder and `node.region`")]
    OtherRegion { file: String, found: String },
    #[error("{file} has format version {found}; this program reads up to {LOG_FORMAT}: upgrade it")]
    NewerFormat { file: String, found: u16 },
    #[error("a record at {position:?} was refused")]
    Refused {
        position: Position,
        source: VisitError,
    },
}

/// Why records were not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Nothing changed. Wait for room.
    #[error("the log has no room for {bytes} bytes; {room} are left")]
    NoRoom { bytes: u64, room: u64 },
    /// Nothing changed.
    #[error("{bytes} bytes in one append; the limit is {max}")]
    TooLarge { bytes: u64, max: u64 },
    /// Nothing changed.
    #[error("a segment's context has {bytes} bytes; the limit is {max}")]
    ContextTooLarge { bytes: usize, max: usize },
    /// Whether the records will be there after a restart is unknown. The log takes no more.
    #[error("the log failed in {action} of {file}; it takes nothing more until a restart")]
    Failed {
        file: String,
        action: &'static str,
        source: io::Error,
    },
    /// Nothing changed: an earlier append failed.
    #[error("the log failed earlier; it takes nothing more until a restart")]
    Poisoned,
}

/// Why records were not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// They were removed: take a snapshot instead.
    #[error("the log was cut; it begins at {first:?}")]
    Cut { first: Position },
    #[error("{file} is damaged at byte {offset}; restore it, or rebuild from a peer")]
    Damaged { file: String, offset: u64 },
    #[error("{file}: reading failed")]
    Io { file: String, source: io::Error },
    /// No more will come: the log was poisoned.
    #[error("the log failed and ends here")]
    Poisoned,
    /// No more will come: the writer is gone.
    #[error("the log was closed")]
    Closed,
}

/// Why segments were not removed. Some may have been, the oldest first.
#[derive(Debug, thiserror::Error)]
#[error("removing {file} failed")]
pub struct RemoveError {
    pub file: String,
    pub source: io::Error,
}
