//! A snapshot: the whole state under one frontier F, read while writes go on, and the log from F to E.
//!
//! Order: frontier, orphan removals and lineage of one instant → all posts in the order of their
//! names, each with its likers for the whole range of hashes and then its figures → the log from that
//! instant to the last read. Each part leaves when the log is synced through all that it may show.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::codec::DecodeError;
use crate::crdt::dot::{Dots, ReplicaIndex};
use crate::crdt::frontier::{Frontier, Lineage};
use crate::crdt::orphan_removals::OrphanRemovals;
use crate::crdt::version_vector::VersionVector;
use crate::engine::checkpoint::{LogHold, LogHolds};
use crate::engine::commit::OutcomeUnknown;
use crate::engine::post::{Post, shard_of_hash};
use crate::engine::record;
use crate::engine::rows::StoredFigures;
use crate::engine::{Engine, Settlement};
use crate::ids::{PostId, UserId};
use crate::log::{LogReader, Position, ReadError};

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

/// Everything of the instant before the first post was read.
#[derive(Debug, Clone, Default)]
pub struct Beginning {
    pub vector: VersionVector,
    pub lineage: Lineage,
    pub orphans: OrphanRemovals,
    /// Replicas that have been retired.
    pub retired: Vec<ReplicaIndex>,
}

/// What closes a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The end frontier E.
    pub vector: VersionVector,
    pub chunks: u64,
    pub blocks: u64,
}

/// A part of a snapshot. They come in this order.
#[derive(Debug, Clone)]
pub enum Part {
    Begin(Box<Beginning>),
    Chunks(Vec<Chunk>),
    Tail(Bytes),
    End(Ending),
}

/// Why a snapshot is not served, or ended early.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("this node is merging a snapshot itself and holds more than its frontier says")]
    Unsettled,
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

enum Phase {
    Begin,
    Posts,
    Tail {
        next: Position,
        to: Position,
        open: Vec<Bytes>,
        end: VersionVector,
    },
    Done,
}

/// A snapshot being read.
pub struct Snapshot {
    engine: Arc<Engine>,
    reader: LogReader,
    options: SnapshotOptions,
    hold: LogHold,
    beginning: Option<Box<Beginning>>,
    posts: std::vec::IntoIter<Arc<Post>>,
    /// The post being read, and the next hash.
    current: Option<(Arc<Post>, u64)>,
    phase: Phase,
    chunks: u64,
    blocks: u64,
    /// Merges that this node had begun at the beginning.
    merges: u64,
}

impl Snapshot {
    pub fn begin(
        engine: Arc<Engine>,
        reader: LogReader,
        holds: &Arc<LogHolds>,
        options: SnapshotOptions,
    ) -> Result<Self, SnapshotError> {
        let merges = engine.merges.load(Ordering::Acquire);
        if engine.settlement() != Settlement::Settled {
            return Err(SnapshotError::Unsettled);
        }
        let hold = holds.hold(engine.board().newest().position);
        let instant = engine.instant();
        let (vector, lineage) = parts_of(&instant.frontier);
        let beginning = Beginning {
            vector,
            lineage,
            orphans: instant.orphans,
            retired: instant.regions.retired().iter().copied().collect(),
        };
        let posts = engine.directory.sorted().into_iter();
        Ok(Self {
            engine,
            reader,
            options,
            hold,
            beginning: Some(Box::new(beginning)),
            posts,
            current: None,
            phase: Phase::Begin,
            chunks: 0,
            blocks: 0,
            merges,
        })
    }

    /// The next part; none after the end.
    pub async fn next(&mut self) -> Result<Option<Part>, SnapshotError> {
        self.check_hold()?;
        let part = self.read_next().await?;
        // What a merge brought is not in the tail of this node's log, so the receiver would never get it.
        if self.engine.merges.load(Ordering::Acquire) != self.merges {
            return Err(SnapshotError::Unsettled);
        }
        Ok(part)
    }

    async fn read_next(&mut self) -> Result<Option<Part>, SnapshotError> {
        if let Some(beginning) = self.beginning.take() {
            self.phase = Phase::Posts;
            self.engine.barrier().await?;
            return Ok(Some(Part::Begin(beginning)));
        }
        if matches!(self.phase, Phase::Posts) {
            let chunks = self.read_chunks();
            let published = self.engine.barrier().await?;
            if !chunks.is_empty() {
                self.chunks += chunks.len() as u64;
                return Ok(Some(Part::Chunks(chunks)));
            }
            self.phase = Phase::Tail {
                next: self.hold.from,
                to: published.position,
                open: Vec::new(),
                end: published.vector.clone(),
            };
        }
        self.next_tail().await
    }

    fn check_hold(&self) -> Result<(), SnapshotError> {
        let bytes = self.reader.synced().0.saturating_sub(self.hold.from.0);
        let max = self.options.log_bytes_max;
        match bytes > max {
            true => Err(SnapshotError::TooMuchLog { bytes, max }),
            false => Ok(()),
        }
    }

    /// Chunks up to about the size that travels together; empty after the last post.
    fn read_chunks(&mut self) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let mut bytes = 0;
        while bytes < self.options.chunk_bytes {
            let Some((post, from)) = self
                .current
                .take()
                .or_else(|| Some((self.posts.next()?, 0)))
            else {
                break;
            };
            let (to, likers) = self.engine.read_bucket(&post, from);
            bytes += 64
                + likers
                    .iter()
                    .map(|(user, _)| 24 + user.as_bytes().len())
                    .sum::<usize>();
            chunks.push(Chunk {
                post: post.id.clone(),
                part: ChunkPart::Likers { from, to, likers },
            });
            match to.checked_add(1) {
                Some(next) => self.current = Some((post, next)),
                None => {
                    let figures = StoredFigures::of(&post.figures());
                    bytes += 64 + 24 * figures.likes.len();
                    chunks.push(Chunk {
                        post: post.id.clone(),
                        part: ChunkPart::Figures(figures),
                    });
                }
            }
        }
        chunks
    }

    async fn next_tail(&mut self) -> Result<Option<Part>, SnapshotError> {
        let Phase::Tail {
            next,
            to,
            open,
            end,
        } = &mut self.phase
        else {
            return Ok(None);
        };
        while open.is_empty() && *next < *to {
            let chunk = self.reader.read(*next, self.options.chunk_bytes).await?;
            for read in chunk.records.iter().filter(|read| read.position < *to) {
                open.extend(record::blocks(&read.payload)?);
            }
            // They are handed out from the back.
            open.reverse();
            *next = chunk.next;
        }
        if let Some(block) = open.pop() {
            self.blocks += 1;
            return Ok(Some(Part::Tail(block)));
        }
        let vector = std::mem::take(end);
        self.phase = Phase::Done;
        Ok(Some(Part::End(Ending {
            vector,
            chunks: self.chunks,
            blocks: self.blocks,
        })))
    }
}

fn parts_of(frontier: &Frontier) -> (VersionVector, Lineage) {
    (frontier.vector().clone(), frontier.lineage().clone())
}

impl Engine {
    /// The likers of the bucket that holds `from`, from there on, and the last hash of its range.
    fn read_bucket(&self, post: &Arc<Post>, from: u64) -> (u64, Vec<(UserId, Dots)>) {
        loop {
            let was_wide = post.is_wide();
            let index = match was_wide {
                true => shard_of_hash(from, self.shards.len()),
                false => post.home(self.shards.len()),
            };
            let shard = self.shards[index].lock();
            if post.is_wide() != was_wide {
                continue;
            }
            let Some(likers) = shard.likers(post) else {
                return (shard.range_of(post).1, Vec::new());
            };
            let (_, to) = likers.range_around(from);
            let held = likers.in_range(from, to);
            return (
                to,
                held.map(|liker| (liker.user.clone(), liker.dots.clone()))
                    .collect(),
            );
        }
    }
}
