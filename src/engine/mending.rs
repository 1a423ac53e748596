//! Looking after the state at rest: one range at a time is compared with its kept sum, with the rows of
//! the checkpoint and, where these differ, with what rows and log say it should be.
//!
//! Run by the checkpointer's worker alone: no checkpoint and no merge may come between. The algorithm and its
//! argument stand in `docs/architecture.md`, "Audit and repair".

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use crate::codec::reader::Reader;
use crate::codec::vector::frontier;
use crate::codec::{DecodeError, block};
use crate::crdt::dot::Dot;
use crate::crdt::fingerprint::Fingerprint;
use crate::crdt::frontier::Frontier;
use crate::crdt::likers::Likers;
use crate::crdt::ranges::RangeSet;
use crate::crdt::version_vector::VersionVector;
use crate::engine::commit::{Demand, OutcomeUnknown, Refused};
use crate::engine::freeze::Frozen;
use crate::engine::post::Post;
use crate::engine::published::Published;
use crate::engine::rebuild::{Gap, RebuiltRange};
use crate::engine::record;
use crate::engine::replacement::Difference;
use crate::engine::rows::{self, PostKey, RowError, StoredFigures};
use crate::engine::section::Section;
use crate::engine::snapshot::{Chunk, ChunkPart, Course, CourseError, Part};
use crate::engine::stored::{Assembly, Place, StoredPost};
use crate::engine::{Engine, Settlement};
use crate::ids::{PostId, UserId};
use crate::log::{LogReader, Position, ReadError};
use crate::seams::CheckpointStore;

/// Rows that are read at a time.
const ROWS_AT_ONCE: usize = 64;
/// Bytes of log that are read at a time.
const LOG_BYTES_AT_ONCE: usize = 1 << 20;

/// Why a range was not looked at or mended. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    #[error("a snapshot is being merged")]
    Unsettled,
    #[error("the checkpoint store failed")]
    Store(#[from] io::Error),
    #[error("a row of the checkpoint is damaged: {0}")]
    Row(#[from] RowError),
    #[error("the log cannot be read")]
    Read(#[from] ReadError),
    #[error("the log holds a record that cannot be read")]
    Decode(#[from] DecodeError),
    #[error("the log failed: what memory shows may not be durable")]
    Log(#[from] OutcomeUnknown),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Gap(#[from] Gap),
    /// What was taken from another region shows events that have not arrived here.
    #[error("events have not arrived yet that the other region's state shows")]
    Ahead,
    #[error("this node's log does not reach back to what the other region's state covers")]
    LogCut,
    #[error("what came is no snapshot of the range: {0}")]
    Course(#[from] CourseError),
    /// The state that was taken is not the one that was meant.
    #[error("the other region's state is not what its sum said")]
    Unexpected,
}

/// What other regions are known to hold of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hearsay {
    /// One of them has the sum that is kept here.
    pub is_shared: bool,
    /// By how much the sums of others differ from the one kept here.
    pub differences: Vec<Fingerprint>,
}

/// What was wrong with a range, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Memory, kept sum, rows and log agree.
    Sound,
    /// Memory was put right from checkpoint and log.
    MemoryMended,
    /// Memory is right; the next checkpoint writes the rows again.
    RowsMended,
    /// The kept sum was put right.
    SumMended,
    /// Not to be told from what this node has.
    Unclear,
}

/// A look at a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    pub range: usize,
    /// The sum over the entries in memory.
    pub memory: Fingerprint,
    /// The sum that follows the changes.
    pub kept: Fingerprint,
    /// The sum over what checkpoint and log say, where it was asked for and can be told.
    pub rebuilt: Option<Fingerprint>,
    /// Posts whose rows will be written again.
    pub rows: usize,
    pub outcome: Outcome,
}

impl Checked {
    /// Whether the kept sum is another one afterwards.
    pub fn changes_sum(&self) -> bool {
        match self.outcome {
            Outcome::MemoryMended => self.rebuilt != Some(self.kept),
            Outcome::SumMended => true,
            Outcome::Sound | Outcome::RowsMended | Outcome::Unclear => false,
        }
    }
}

/// What became of a range that was taken from another region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub range: usize,
    pub before: Fingerprint,
    pub after: Fingerprint,
    pub difference: Difference,
}

pub struct Mender {
    pub engine: Arc<Engine>,
    pub store: Arc<dyn CheckpointStore>,
    pub log: LogReader,
}

/// A frozen range as memory has it, and its kept sum, of one moment.
struct Still {
    frozen: Frozen,
    memory: Fingerprint,
    kept: Fingerprint,
    published: Arc<Published>,
}

impl Mender {
    /// Compares the range with its kept sum, and the rows of what did not change since the checkpoint with
    /// memory. Rows are trusted to be comparable only after a checkpoint that was finished.
    pub async fn scrub(&self, range: usize, are_rows_sure: bool) -> Result<Checked, MendError> {
        let bad = match are_rows_sure {
            true => self.posts_with_bad_rows(range).await?,
            false => Vec::new(),
        };
        let still = self.still(range).await?;
        let outcome = match (still.memory == still.kept, bad.is_empty()) {
            (true, true) => Outcome::Sound,
            (true, false) => Outcome::RowsMended,
            (false, _) => Outcome::Unclear,
        };
        let mut checked = still.checked(None, outcome);
        if outcome == Outcome::RowsMended {
            bad.iter()
                .for_each(|post| self.engine.mark_post_changed(post));
            checked.rows = bad.len();
        }
        Ok(checked)
    }

    /// Rebuilds the range from the last checkpoint and the log, and puts right what can be told to be wrong.
    pub async fn check(&self, range: usize, hearsay: &Hearsay) -> Result<Checked, MendError> {
        let rebuilt = self.rebuilt(range).await;
        let still = self.still(range).await?;
        let rebuilt = match rebuilt {
            Ok((mut rebuilt, next)) => {
                self.follow(&mut rebuilt, next, &still.published).await?;
                Some(rebuilt)
            }
            Err(error @ (MendError::Row(_) | MendError::Decode(_) | MendError::Gap(_))) => {
                tracing::warn!(range, %error, "checkpoint and log do not say what the range should be");
                None
            }
            Err(error) => return Err(error),
        };
        let replicas = self.engine.replicas.all();
        let sum = rebuilt.as_ref().map(|rebuilt| rebuilt.sum(&replicas));
        let outcome = still.judge(sum, hearsay);
        let mut checked = still.checked(sum, outcome);
        match (outcome, rebuilt) {
            (Outcome::MemoryMended, Some(rebuilt)) => {
                self.engine.replace_range(&still.frozen, rebuilt);
                drop(self.correct(&still, sum.expect("rebuilt"))?);
            }
            (Outcome::SumMended, _) => drop(self.correct(&still, still.memory)?),
            (Outcome::RowsMended, _) => {
                self.engine.mark_range_changed(range);
                checked.rows = self.engine.directory.in_range(range).len();
            }
            _ => {}
        }
        Ok(checked)
    }

    /// Puts a range from another region in the place of what is here. Where it is known by how much the sum must
    /// change, nothing else is taken.
    pub async fn take(
        &self,
        mut other: RebuiltRange,
        expected: Option<Fingerprint>,
    ) -> Result<Taken, MendError> {
        let range = other.range;
        let shown = other.frontier.vector().clone();
        if !self.engine.board.newest().vector.covers_all(&shown) {
            return Err(MendError::Ahead);
        }
        let from = self.log_before(&shown).ok_or(MendError::LogCut)?;
        let next = self.replay(&mut other, from, self.log.synced()).await?;
        let still = self.still(range).await?;
        self.follow(&mut other, next, &still.published).await?;
        let after = other.sum(&self.engine.replicas.all());
        let mut by = after;
        by -= still.kept;
        if expected.is_some_and(|expected| expected != by) {
            return Err(MendError::Unexpected);
        }
        if self.engine.own_would_fall(&still.frozen, &other) {
            let fresh = self.engine.rotate_epoch();
            tracing::info!(range, %fresh, "figures of the running replica fall: it goes on under a fresh epoch");
        }
        let difference = self.engine.replace_range(&still.frozen, other);
        let before = still.kept;
        let waits = self.correct(&still, after)?;
        drop(still);
        waits.await?;
        Ok(Taken {
            range,
            before,
            after,
            difference,
        })
    }

    /// Freezes the range, and waits until its kept sum is published.
    async fn still(&self, range: usize) -> Result<Still, MendError> {
        if self.engine.settlement() != Settlement::Settled {
            return Err(MendError::Unsettled);
        }
        let frozen = self.engine.freeze(range);
        let durable = self.engine.barrier();
        let scanned = self.engine.scan(&frozen);
        if !scanned.misplaced.is_empty() {
            let posts = scanned.misplaced.len();
            tracing::error!(
                range,
                posts,
                "figures did not follow from the likers; put right"
            );
            self.engine.put_right(&frozen, &scanned.misplaced);
        }
        let published = durable.await?;
        Ok(Still {
            frozen,
            memory: scanned.sum,
            kept: published.sums.range(range),
            published,
        })
    }

    /// Lets the kept sum follow what was put in place. It belongs to the same events as before.
    fn correct(
        &self,
        still: &Still,
        sum: Fingerprint,
    ) -> Result<crate::engine::commit::CommitWait, MendError> {
        let mut change = sum;
        change -= still.kept;
        let demand = Demand {
            events: 0,
            bytes: 0,
        };
        let section = Section {
            prints: vec![(still.frozen.range, change)],
            ..Section::default()
        };
        Ok(self.engine.queue.reserve(demand)?.fill(section))
    }

    /// Posts of which a row cannot be read, is missing, or differs from an unchanged bucket.
    async fn posts_with_bad_rows(&self, range: usize) -> Result<Vec<Arc<Post>>, MendError> {
        let mut unseen = self.posts_of(range);
        let mut bad = Vec::new();
        let mut see = |id: PostId, stored: StoredPost| {
            if let Some(post) = unseen.remove(&id)
                && !self.fits(&post, &stored)
            {
                bad.push(post);
            }
        };
        let damaged = self.read_range(range, &mut see).await?;
        for (key, error) in damaged {
            tracing::error!(range, ?key, %error, "a row of the checkpoint is damaged");
            let (PostKey::Figures(id) | PostKey::Likers(id, _)) = key else {
                continue;
            };
            bad.extend(self.engine.directory.get(&id));
        }
        // What no row speaks of was never stored, or its row is lost.
        let nothing = StoredPost::default();
        bad.extend(
            unseen
                .into_values()
                .filter(|post| !self.fits(post, &nothing)),
        );
        bad.sort_unstable_by_key(|post| post.number);
        bad.dedup_by_key(|post| post.number);
        Ok(bad)
    }

    fn posts_of(&self, range: usize) -> HashMap<PostId, Arc<Post>> {
        let posts = self.engine.directory.in_range(range).into_iter();
        posts.map(|post| (post.id.clone(), post)).collect()
    }

    fn fits(&self, post: &Arc<Post>, stored: &StoredPost) -> bool {
        let figures_fit = || {
            let figures = StoredFigures::of(&post.figures()).essential();
            post.has_changed() || figures == stored.figures.clone().essential()
        };
        // A write notes that it changed the figures after it did, but before it gives its shard back.
        let mut fit = figures_fit() || {
            let _shards = self.engine.lock_all();
            figures_fit()
        };
        for shard in &self.engine.shards {
            let shard = shard.lock();
            let unchanged = shard.likers(post).into_iter().flat_map(Likers::unchanged);
            for (from, to, likers) in unchanged {
                let likers = likers.map(|liker| (&liker.user, &liker.dots));
                fit &= stored.says(from, to, likers);
            }
        }
        for (from, _) in &stored.likers {
            fit &= !self.engine.begin_bucket_at(post, *from);
        }
        if stored.place != Place::Pack && !post.owns_rows() {
            post.set_owns_rows();
            fit = false;
        }
        fit
    }

    /// Hands over the posts of a range as the store has them. Returns the rows that cannot be read, which are
    /// passed over.
    async fn read_range(
        &self,
        range: usize,
        see: &mut impl FnMut(PostId, StoredPost),
    ) -> Result<Vec<(PostKey, RowError)>, MendError> {
        let prefix = rows::range_prefix(range);
        let mut after = prefix.to_vec();
        let mut assembly = Assembly::default();
        let mut damaged = Vec::new();
        loop {
            let page = self.store.scan(Some(after), ROWS_AT_ONCE).await?;
            let rows = page.iter().take_while(|(key, _)| key.starts_with(&prefix));
            let mut read = 0;
            for (key, row) in rows {
                read += 1;
                let Some(key) = rows::post_key(key)? else {
                    continue;
                };
                if let PostKey::Pack(from) = key {
                    self.engine.packs.begin_at(from);
                }
                let added = assembly.add(key.clone(), row, &self.engine.replicas, see);
                damaged.extend(added.err().map(|error| (key, error)));
            }
            match page.into_iter().next_back() {
                Some((last, _)) if read == ROWS_AT_ONCE => after = last,
                _ => break,
            }
        }
        assembly.finish(see);
        Ok(damaged)
    }

    /// The range as the last checkpoint and the log up to now have it, and where to read on.
    async fn rebuilt(&self, range: usize) -> Result<(RebuiltRange, Position), MendError> {
        let (mut rebuilt, from) = self.beginning(range).await?;
        let mut add = |id: PostId, stored: StoredPost| {
            let replicas = self.engine.replicas.all();
            let (figures, buckets) = stored.into_parts();
            rebuilt.add_figures(&id, &figures, &replicas);
            for (range, likers) in buckets {
                rebuilt.add_likers(&id, range, likers, &replicas);
            }
        };
        let damaged = self.read_range(range, &mut add).await?;
        if let Some((_, error)) = damaged.into_iter().next() {
            return Err(error.into());
        }
        let next = self.replay(&mut rebuilt, from, self.log.synced()).await?;
        Ok((rebuilt, next))
    }

    /// The instant of the last checkpoint, and where replay begins.
    async fn beginning(&self, range: usize) -> Result<(RebuiltRange, Position), MendError> {
        let key = self.engine.key;
        let Some(row) = self.store.get(rows::META_KEY).await? else {
            return Ok((
                RebuiltRange::new(range, key, Frontier::default()),
                Position::START,
            ));
        };
        let meta = rows::decode_meta(&row)?;
        let mut reader = Reader::new(&meta.frontier);
        let frontier = frontier(&mut reader, &mut &self.engine.replicas)?;
        let mut rebuilt = RebuiltRange::new(range, key, frontier);
        for row in &meta.orphans {
            let replica = row.replica.replica()?;
            let replica = self.engine.replicas.intern(&replica)?;
            let dot = Dot {
                seq: row.seq,
                replica,
            };
            let post = PostId::new(&row.post).map_err(RowError::from)?;
            let user = UserId::new(&row.user).map_err(RowError::from)?;
            rebuilt.add_orphan(dot, &post, &user);
        }
        Ok((rebuilt, Position(meta.replay_from)))
    }

    /// Applies the log from a position up to `to`. Returns where to read on.
    async fn replay(
        &self,
        rebuilt: &mut RebuiltRange,
        from: Position,
        to: Position,
    ) -> Result<Position, MendError> {
        let mut next = from;
        while next < to {
            let chunk = self.log.read(next, LOG_BYTES_AT_ONCE).await?;
            for read in &chunk.records {
                for bytes in record::blocks(&read.payload)? {
                    let block = block::decode(&bytes, &mut &self.engine.replicas)?;
                    rebuilt.apply(&block, &self.engine.replicas.all())?;
                }
            }
            next = chunk.next;
            tokio::task::yield_now().await;
        }
        Ok(next)
    }

    /// The last bit, under the freeze: afterwards all is there that memory shows of the range.
    async fn follow(
        &self,
        rebuilt: &mut RebuiltRange,
        next: Position,
        published: &Published,
    ) -> Result<(), MendError> {
        self.replay(rebuilt, next, published.position).await?;
        match rebuilt.frontier.vector().covers_all(&published.vector) {
            true => Ok(()),
            false => Err(Gap.into()),
        }
    }

    /// Where to begin so that everything beyond a vector is read.
    fn log_before(&self, vector: &VersionVector) -> Option<Position> {
        let segments = self.log.segments().into_iter().rev();
        let mut covered = segments.filter(|segment| {
            let context = self.engine.read_context(&segment.context);
            context.is_some_and(|context| vector.covers_all(&context))
        });
        covered.next().map(|segment| segment.base)
    }
}

impl Still {
    fn checked(&self, rebuilt: Option<Fingerprint>, outcome: Outcome) -> Checked {
        Checked {
            range: self.frozen.range,
            memory: self.memory,
            kept: self.kept,
            rebuilt,
            rows: 0,
            outcome,
        }
    }

    /// What is wrong. The table is that of `docs/architecture.md`.
    fn judge(&self, rebuilt: Option<Fingerprint>, hearsay: &Hearsay) -> Outcome {
        let (memory, kept) = (self.memory, self.kept);
        let is_heard = |sum: Fingerprint| {
            let mut difference = sum;
            difference -= kept;
            hearsay.differences.contains(&difference)
        };
        match rebuilt {
            Some(rebuilt) if memory == kept && rebuilt == kept => Outcome::Sound,
            Some(rebuilt) if rebuilt == kept => Outcome::MemoryMended,
            Some(rebuilt) if is_heard(rebuilt) => Outcome::MemoryMended,
            _ if memory == kept => Outcome::RowsMended,
            _ if is_heard(memory) => Outcome::SumMended,
            _ => Outcome::Unclear,
        }
    }
}

/// A range that comes from another region, part by part.
pub struct Arriving {
    engine: Arc<Engine>,
    range: usize,
    course: Course,
    rebuilt: Option<RebuiltRange>,
}

impl Arriving {
    pub fn new(engine: Arc<Engine>, range: usize) -> Self {
        let wanted: RangeSet = [range].into_iter().collect();
        Self {
            course: Course::new(engine.clone(), wanted, RangeSet::default()),
            engine,
            range,
            rebuilt: None,
        }
    }

    /// Takes a part of the snapshot, in their order. Returns the range after the last.
    pub fn take(&mut self, part: Part) -> Result<Option<RebuiltRange>, MendError> {
        self.course.push(&part)?;
        let replicas = self.engine.replicas.all();
        match part {
            Part::Begin(beginning) => {
                let frontier = Frontier::part(&beginning.vector, &beginning.lineage);
                let rebuilt = RebuiltRange::new(self.range, self.engine.key, frontier);
                self.begun(rebuilt).add_orphans(&beginning.orphans);
            }
            Part::Orphans(orphans) => self.rebuilt()?.add_orphans(&orphans),
            Part::Chunks(chunks) => {
                let rebuilt = self.rebuilt()?;
                for Chunk { post, part } in chunks.chunks {
                    match part {
                        ChunkPart::Likers { from, to, likers } => {
                            rebuilt.add_likers(&post, (from, to), likers, &replicas);
                        }
                        ChunkPart::Figures(stored) => {
                            rebuilt.add_figures(&post, &stored, &replicas)
                        }
                    }
                }
            }
            Part::Tail(bytes) => {
                let block = block::decode(&bytes, &mut &self.engine.replicas)?;
                let replicas = self.engine.replicas.all();
                self.rebuilt()?.apply(&block, &replicas)?;
            }
            Part::End(_) => return Ok(self.rebuilt.take()),
        }
        Ok(None)
    }

    fn begun(&mut self, rebuilt: RebuiltRange) -> &mut RebuiltRange {
        self.rebuilt.insert(rebuilt)
    }

    fn rebuilt(&mut self) -> Result<&mut RebuiltRange, MendError> {
        self.rebuilt.as_mut().ok_or(Gap.into())
    }
}
