//! Reading a snapshot, or the rest of one, part by part.
//!
//! Each part leaves when the log is synced through all that it may show. Ranges in which the asker holds the
//! same are left out: if two settled states of a range are equal, whatever the asker applies later, merging
//! ours into its would change nothing (docs/architecture.md has the argument).

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::codec::block;
use crate::crdt::dot::{Dots, ReplicaIndex};
use crate::crdt::fingerprint::PostHash;
use crate::crdt::frontier::Lineage;
use crate::crdt::orphan_removals::OrphanRemovals;
use crate::crdt::ranges::RangeSet;
use crate::crdt::version_vector::VersionVector;
use crate::engine::checkpoint::{LogHold, LogHolds};
use crate::engine::post::{Post, shard_of_hash};
use crate::engine::published::Published;
use crate::engine::record;
use crate::engine::rows::StoredFigures;
use crate::engine::snapshot::{
    Beginning, Chunk, ChunkPart, Chunks, Ending, Next, Part, Place, Resume, SnapshotError,
    SnapshotOptions, Wanted,
};
use crate::engine::{Engine, Settlement};
use crate::ids::UserId;
use crate::limits::SNAPSHOT_ORPHANS_MAX;
use crate::log::{LogReader, Position};
use crate::planted::{Bug, is_planted};

enum Phase {
    Begin(Box<Beginning>),
    /// What is left of the orphan removals.
    Orphans(VecDeque<OrphanRemovals>),
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
    wanted: Wanted,
    hold: LogHold,
    posts: std::vec::IntoIter<Arc<Post>>,
    /// The post being read, and what of it comes next.
    current: Option<(Arc<Post>, Next)>,
    phase: Phase,
    /// What the asker has of the log from F on.
    reached: VersionVector,
    /// Replicas whose lineage the asker was told.
    described: HashSet<ReplicaIndex>,
    chunks: u64,
    blocks: u64,
    /// Merges that this node had begun at the beginning.
    merges: u64,
}

impl Snapshot {
    /// Begins a new snapshot, or goes on with one that broke off: where this node's durable frontier covers
    /// F and all that was shown, and its log reaches back to F.
    pub fn begin(
        engine: Arc<Engine>,
        reader: LogReader,
        holds: &Arc<LogHolds>,
        options: SnapshotOptions,
        wanted: Wanted,
    ) -> Result<Self, SnapshotError> {
        let merges = engine.merges.load(Ordering::Acquire);
        if engine.settlement() != Settlement::Settled {
            return Err(SnapshotError::Unsettled);
        }
        engine.check_doubts(&wanted)?;
        let from = match &wanted.resume {
            Some(resume) => engine.place_of(resume, &reader)?,
            None => engine.board().newest().position,
        };
        let hold = holds.hold(from);
        let instant = engine.instant();
        let described = instant.frontier.lineage().iter();
        let described = described.map(|(replica, _)| replica).collect();
        let beginning = Beginning {
            vector: instant.frontier.vector().clone(),
            lineage: instant.frontier.lineage().clone(),
            orphans: instant.orphans,
            equal: RangeSet::default(),
            retired: instant.regions.retired().iter().copied().collect(),
        };
        let mut snapshot = Self {
            posts: engine.directory.sorted().into_iter(),
            current: None,
            phase: Phase::Done,
            reached: beginning.vector.clone(),
            engine,
            reader,
            options,
            wanted,
            hold,
            described,
            chunks: 0,
            blocks: 0,
            merges,
        };
        snapshot.phase = Phase::Begin(Box::new(snapshot.go_on(beginning)?));
        snapshot.check_hold()?;
        Ok(snapshot)
    }

    /// Where a snapshot broke off, it goes on under its own beginning.
    fn go_on(&mut self, instant: Beginning) -> Result<Beginning, SnapshotError> {
        let Some(resume) = &self.wanted.resume else {
            return Ok(instant);
        };
        self.reached = resume.reached.clone();
        self.wanted.held = Vec::new();
        let beginning = Beginning {
            vector: resume.frontier.clone(),
            lineage: instant.lineage,
            orphans: OrphanRemovals::default(),
            equal: resume.equal,
            retired: instant.retired,
        };
        if let Some(Place { post, next }) = &resume.place {
            let posts = self.posts.as_slice();
            let at = posts.partition_point(|other| other.id < *post);
            let here = posts.get(at).filter(|found| found.id == *post);
            self.current = match (here, next) {
                (Some(found), Some(next)) => Some((found.clone(), *next)),
                (None, Some(_)) => return Err(SnapshotError::NotCovered),
                (_, None) => None,
            };
            let done = at + usize::from(here.is_some());
            self.posts.by_ref().take(done).for_each(drop);
        }
        Ok(beginning)
    }

    /// The log from here on is kept for this snapshot.
    pub fn into_hold(self) -> LogHold {
        self.hold
    }

    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// The next part; none after the end.
    pub async fn next(&mut self) -> Result<Option<Part>, SnapshotError> {
        self.check_hold()?;
        let part = self.read_next().await?;
        // What a merge brought is not in the tail of this node's log, so the receiver would never get it.
        if self.engine.merges.load(Ordering::Acquire) != self.merges {
            return Err(SnapshotError::Unsettled);
        }
        self.engine.check_doubts(&self.wanted)?;
        Ok(part)
    }

    async fn read_next(&mut self) -> Result<Option<Part>, SnapshotError> {
        if let Phase::Begin(beginning) = &mut self.phase {
            let beginning = std::mem::take(beginning);
            let published = self.engine.barrier().await?;
            return Ok(Some(self.begun(*beginning, &published)));
        }
        if let Phase::Orphans(rest) = &mut self.phase {
            if let Some(orphans) = rest.pop_front() {
                return Ok(Some(Part::Orphans(orphans)));
            }
            self.phase = Phase::Posts;
        }
        if matches!(self.phase, Phase::Posts) {
            let chunks = self.read_chunks();
            let published = match is_planted(Bug::UnsyncedSnapshot) {
                true => self.engine.board().newest(),
                false => self.engine.barrier().await?,
            };
            if !chunks.is_empty() {
                self.chunks += chunks.len() as u64;
                return Ok(Some(self.shown(chunks, &published)));
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

    /// The beginning. What it leaves out is decided by sums of a frontier that covers F.
    fn begun(&mut self, mut beginning: Beginning, published: &Published) -> Part {
        let same = self.wanted.held.iter().filter(|(range, sum)| {
            self.wanted.ranges.contains(*range) && published.sums.range(*range) == *sum
        });
        same.for_each(|(range, _)| beginning.equal.insert(*range));
        let sent = self.wanted.ranges.without(&beginning.equal);
        let posts = self.posts.as_slice().iter();
        let posts = posts.filter(|post| sent.contains(post.hash.range()));
        self.posts = posts.cloned().collect::<Vec<_>>().into_iter();
        beginning
            .orphans
            .retain(|post| sent.contains(PostHash::of(post).range()));
        let mut parts = std::mem::take(&mut beginning.orphans).split(SNAPSHOT_ORPHANS_MAX);
        beginning.orphans = parts.pop_front().unwrap_or_default();
        self.phase = Phase::Orphans(parts);
        Part::Begin(Box::new(beginning))
    }

    fn shown(&mut self, chunks: Vec<Chunk>, published: &Published) -> Part {
        let mut lineage = Lineage::default();
        for (replica, _) in published.vector.iter() {
            if self.described.insert(replica)
                && let Some(predecessors) = self.engine.predecessors(replica)
            {
                lineage.insert(replica, predecessors);
            }
        }
        Part::Chunks(Chunks {
            chunks,
            shows: published.short.clone(),
            lineage,
        })
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
            let current = self.current.take();
            let Some((post, next)) =
                current.or_else(|| Some((self.posts.next()?, Next::Likers(0))))
            else {
                break;
            };
            let (part, size) = match next {
                Next::Likers(from) => {
                    let (to, likers) = self.engine.read_bucket(&post, from);
                    let users = likers.iter().map(|(user, _)| 24 + user.bytes_len());
                    let size = users.sum::<usize>();
                    let next = to.checked_add(1).map_or(Next::Figures, Next::Likers);
                    self.current = Some((post.clone(), next));
                    (ChunkPart::Likers { from, to, likers }, size)
                }
                Next::Figures => {
                    let figures = StoredFigures::of(&post.figures());
                    let size = 24 * figures.likes.len();
                    (ChunkPart::Figures(figures), size)
                }
            };
            bytes += 64 + size;
            let post = post.id.clone();
            chunks.push(Chunk { post, part });
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
                for bytes in record::blocks(&read.payload)? {
                    let head = block::head(&bytes, &mut self.engine.replicas())?;
                    if head.last_seq() > self.reached.get(head.replica) {
                        open.push(bytes);
                    }
                }
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

impl Engine {
    /// A state that is disputed, and not known to be right, is not given to anybody who would merge it.
    fn check_doubts(&self, wanted: &Wanted) -> Result<(), SnapshotError> {
        match self.doubted(&wanted.ranges) {
            Some(range) if !wanted.is_repair() => Err(SnapshotError::Doubted { range }),
            _ => Ok(()),
        }
    }

    /// From where this node's log holds everything beyond the F of a broken snapshot.
    fn place_of(&self, resume: &Resume, reader: &LogReader) -> Result<Position, SnapshotError> {
        let durable = self.board().newest();
        let covers = |vector: &VersionVector| durable.vector.covers_all(vector);
        if !covers(&resume.frontier) || !covers(&resume.shows) {
            return Err(SnapshotError::NotCovered);
        }
        if !resume.frontier.covers_all(&self.log_floor()) {
            return Err(SnapshotError::Cut);
        }
        let segments = reader.segments();
        let is_before = |context: &Bytes| {
            let context = self.read_context(context);
            context.is_some_and(|context| resume.frontier.covers_all(&context))
        };
        let newest = segments
            .iter()
            .rev()
            .find(|segment| is_before(&segment.context));
        match newest {
            Some(segment) => Ok(segment.base),
            None if segments.is_empty() => Ok(Position::START),
            None => Err(SnapshotError::Cut),
        }
    }

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
            return (to, held.map(|liker| (liker.user, liker.dots)).collect());
        }
    }
}
