//! The commit log: checksummed records in segment files that were allocated ahead of their use.
//!
//! Writing goes one way: [`LogWriter::append`] encodes a group, writes it with one write, syncs once,
//! and only then says so, to its caller and to every [`LogReader`]. Nothing that is not synced is
//! ever read. A [`SparePreparer`] allocates the next segment meanwhile, on a worker of its own.
//!
//! Opening replays what is there ([`open`]): a torn tail is cut off, for nobody was told of it;
//! damage before the end is refused, for somebody was. The layout of the bytes, and the argument why
//! the two can be told apart, stand in `docs/protocol.md`. The log knows nothing of what its
//! records mean.

mod error;
mod format;
mod judgement;
mod reader;
mod recent;
mod recovery;
mod repair;
mod replay;
mod segment;
mod space;
mod survey;
mod trimmer;
mod writer;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

pub use error::{AppendError, OpenError, ReadError, RefusedRecord, RemoveError, VisitError};
pub use format::{RECORD_HEADER_BYTES, framed_bytes};
pub use reader::{LogChunk, LogReader, SegmentInfo};
pub use recovery::{LogReport, OpenedLog, TornTail, open};
pub use replay::Visitor;
pub use space::{LogEnded, Room, SparePreparer};
pub use survey::check_owner;
pub use trimmer::LogTrimmer;
pub use writer::{Appended, LogWriter};

use crate::ids::{ClusterId, Region};
use crate::limits;
use crate::seams::{Files, Randomness};

/// A place in the log: bytes from its beginning, over all segments, removed ones included. Grows
/// only. A place where a segment's header is stands for the segment's first record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl Position {
    /// The beginning of every log.
    pub const START: Self = Self(0);

    pub(self) fn after(self, bytes: usize) -> Self {
        Self(self.0.saturating_add(bytes as u64))
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log position {}", self.0)
    }
}

/// What the owner calls this sort of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordKind(pub u8);

/// One record as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub position: Position,
    pub kind: RecordKind,
    pub payload: Bytes,
}

impl Record {
    /// Where the record after it is, unless that is in the next segment.
    pub fn end(&self) -> Position {
        self.position.after(framed_bytes(self.payload.len()))
    }
}

/// Whose log it is; in each segment, and checked at the opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogIdentity {
    pub cluster: ClusterId,
    pub region: Region,
}

/// What the log stands on.
#[derive(Clone)]
pub struct LogSeams {
    pub files: Arc<dyn Files>,
    /// Draws the nonces of segments.
    pub randomness: Arc<dyn Randomness>,
}

/// Sizes of a log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The folder of the segments, in the data folder.
    pub folder: String,
    /// Bytes of a segment. Larger ones are removed later and take longer to allocate; smaller ones
    /// roll more often, and each roll wastes up to a group. A multiple of 4096. Existing segments
    /// keep their size.
    pub segment_bytes: u64,
    /// Bytes of one append, framed. It lies in one segment wholly.
    pub group_bytes_max: u64,
    /// Bytes of the context in a segment's header.
    pub context_bytes_max: usize,
    /// Bytes of the newest records that are kept in memory, so that readers who keep up touch no
    /// file. Overstepped by up to one append.
    pub recent_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            folder: "log".to_owned(),
            segment_bytes: 64 << 20,
            group_bytes_max: GROUP_BYTES_MAX,
            context_bytes_max: 1 << 20,
            recent_bytes: 16 << 20,
        }
    }
}

/// No group is larger, however large the segments are.
const GROUP_BYTES_MAX: u64 = framed_bytes(limits::RECORD_BYTES_MAX) as u64;

impl LogOptions {
    /// A log with segments of this size, in each of which a group may take all the room there is.
    pub fn with_segments_of(segment_bytes: u64) -> Self {
        let mut options = Self {
            segment_bytes,
            ..Self::default()
        };
        options.group_bytes_max = options.segment_record_bytes().min(GROUP_BYTES_MAX);
        options
    }

    /// Bytes of records that surely fit into an empty segment.
    pub fn segment_record_bytes(&self) -> u64 {
        let front = format::BIRTH_BYTES + format::header_bytes_max(self.context_bytes_max);
        self.segment_bytes.saturating_sub(front as u64)
    }

    fn check(&self) -> Result<(), OpenError> {
        if self.folder.is_empty() {
            return Err(OpenError::Options("the folder has no name"));
        }
        if !self.segment_bytes.is_multiple_of(4096) {
            return Err(OpenError::Options("segment_bytes is no multiple of 4096"));
        }
        if self.group_bytes_max > self.segment_record_bytes() {
            return Err(OpenError::Options(
                "group_bytes_max and the header do not fit into segment_bytes",
            ));
        }
        Ok(())
    }
}
