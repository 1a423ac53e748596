//! A snapshot: the whole state under one frontier F, read while writes go on, and the log from F to E.
//!
//! Its parts in order: frontier, lineage and orphan removals of one instant → all posts in the order of their
//! names, each with its likers for the whole range of hashes and then its figures → the log from that
//! instant to the last read. [`Snapshot`] reads one; [`Course`] checks what comes from a peer, part by part,
//! and knows where to go on when it breaks off. What is merged how is told in `engine::merge`.

mod course;
mod reading;

use bytes::Bytes;

use crate::codec::DecodeError;
use crate::crdt::dot::{Dots, ReplicaIndex};
use crate::crdt::fingerprint::Fingerprint;
use crate::crdt::frontier::{Lineage, ShortForm};
use crate::crdt::orphan_removals::OrphanRemovals;
use crate::crdt::ranges::RangeSet;
use crate::crdt::version_vector::VersionVector;
use crate::engine::commit::OutcomeUnknown;
use crate::engine::rows::StoredFigures;
use crate::ids::{PostId, UserId};
use crate::log::ReadError;

pub use course::{Course, CourseError, Progress};
pub use reading::Snapshot;

/// A part of a post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkPart {
    /// All likers whose hash lies in `from..=to`.
    Likers {
        from: u64,
        to: u64,
        likers: Vec<(UserId, Dots)>,
    },
    Figures(StoredFigures),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub post: PostId,
    pub part: ChunkPart,
}

/// Chunks that were read together.
#[derive(Debug, Clone, Default)]
pub struct Chunks {
    pub chunks: Vec<Chunk>,
    /// The sender's durable frontier after they were read: what they may show.
    pub shows: ShortForm,
    /// The lineage of replicas that were not described before.
    pub lineage: Lineage,
}

/// Everything of the instant before the first post was read.
#[derive(Debug, Clone, Default)]
pub struct Beginning {
    pub vector: VersionVector,
    pub lineage: Lineage,
    /// None where a broken snapshot goes on: they are those of its beginning.
    pub orphans: OrphanRemovals,
    /// Ranges that are left out, for the asker holds the same in them.
    pub equal: RangeSet,
    /// Replicas that have been retired.
    pub retired: Vec<ReplicaIndex>,
}

/// What closes a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The end frontier E.
    pub vector: VersionVector,
    /// Chunks and blocks since the last beginning.
    pub chunks: u64,
    pub blocks: u64,
}

/// A part of a snapshot. They come in this order.
#[derive(Debug, Clone)]
pub enum Part {
    Begin(Box<Beginning>),
    /// Further orphan removals of the beginning.
    Orphans(OrphanRemovals),
    Chunks(Chunks),
    Tail(Bytes),
    End(Ending),
}

/// What of a post comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Likers from this hash on.
    Likers(u64),
    Figures,
}

/// How far the posts of a snapshot have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub post: PostId,
    /// None where the post is whole.
    pub next: Option<Next>,
}

/// How far a snapshot came before it broke off.
#[derive(Debug, Clone, Default)]
pub struct Resume {
    /// The frontier F of its beginning.
    pub frontier: VersionVector,
    /// What its chunks may show.
    pub shows: VersionVector,
    /// What F and the blocks that are there cover.
    pub reached: VersionVector,
    /// None before the first post.
    pub place: Option<Place>,
    /// Ranges that are left out.
    pub equal: RangeSet,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Posts of other ranges are left out, with their orphan removals. The tail is not filtered: it is the
    /// log from F to E, whole.
    pub ranges: RangeSet,
    /// Sums of ranges that the asker holds, settled and durable. Ranges with the same sum here are left out.
    pub held: Vec<(usize, Fingerprint)>,
    /// The rest of a snapshot that broke off; else a new one.
    pub resume: Option<Resume>,
}

impl Wanted {
    /// The whole state.
    pub fn everything() -> Self {
        Self::of(RangeSet::all())
    }

    /// Whether somebody asks for one range to put it in place of their own, and knows what they do: a majority or
    /// an operator has decided.
    pub fn is_repair(&self) -> bool {
        self.ranges.iter().count() == 1 && self.resume.is_none()
    }

    /// The whole of some ranges.
    pub fn of(ranges: RangeSet) -> Self {
        Self {
            ranges,
            held: Vec::new(),
            resume: None,
        }
    }
}

/// Why a snapshot is not served, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("this node is merging a snapshot itself and holds more than its frontier says")]
    Unsettled,
    #[error("this node's state of range {range} is disputed, and not known to be right")]
    Doubted { range: usize },
    /// Another sender may go on, or this one later.
    #[error("this node lacks events that the snapshot covers or shows")]
    NotCovered,
    /// This node will never be able to go on with it.
    #[error("this node's log does not reach back to the snapshot's frontier")]
    Cut,
    #[error("the log failed: what memory shows may not be durable")]
    Log(#[from] OutcomeUnknown),
    #[error("the tail of the log cannot be read")]
    Tail(#[from] ReadError),
    #[error("the log holds a record that cannot be read")]
    Record(#[from] DecodeError),
    #[error("{bytes} bytes of log had to be kept for it; the limit is {max}")]
    TooMuchLog { bytes: u64, max: u64 },
}

/// Sizes of a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotOptions {
    /// Bytes of chunks that travel together, roughly.
    pub chunk_bytes: usize,
    /// Bytes of log that are kept for one snapshot.
    pub log_bytes_max: u64,
}
