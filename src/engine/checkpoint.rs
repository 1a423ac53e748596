//! Checkpoints: what changed since the last one goes to the store, then the metadata, then the log is cut.
//!
//! A checkpoint is read while writes go on. What makes that harmless: frontier, orphan removals and
//! requests are of the instant before the first row was read; a row goes to the store only when the log
//! is synced through all that it may show; increments are read after the likers; the metadata is
//! written when all rows are durable.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::codec::vector::{put_entries, put_frontier};
use crate::crdt::dot::{ReplicaIndex, Replicas};
use crate::crdt::fingerprint::{PostHash, RANGES};
use crate::crdt::likers::Likers;
use crate::crdt::version_vector::VersionVector;
use crate::engine::commit::OutcomeUnknown;
use crate::engine::packs;
use crate::engine::post::Post;
use crate::engine::record::put_done;
use crate::engine::requests::Remembered;
use crate::engine::rows::{
    self, MetaRow, OrphanRow, PackedPost, ReplicaRow, RequestRow, RowError, StoredFigures,
};
use crate::engine::{Engine, Instant, Settlement};
use crate::ids::RequestId;
use crate::limits::BUCKET_LIKERS_MAX;
use crate::log::{LogReader, LogTrimmer, Position, RemoveError};
use crate::seams::CheckpointStore;

/// The default of [`Checkpointer::group_bytes`].
const GROUP_BYTES: usize = 1 << 20;
/// A post with more likers is not looked at for a pack.
const PACKED_LIKERS_MAX: u64 = BUCKET_LIKERS_MAX as u64;

/// Why a checkpoint was not finished. The one before it stays, and the next writes everything.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("the checkpoint store failed")]
    Store(#[from] io::Error),
    #[error("a row cannot be written: {0}")]
    Row(#[from] RowError),
    #[error("the log failed: what memory shows may not be durable")]
    Log(#[from] OutcomeUnknown),
    /// The node holds more than its frontier says; only the merge that brought it makes a checkpoint.
    #[error("a snapshot is being merged")]
    Unsettled,
    #[error("the log cannot be cut")]
    Cut(#[from] RemoveError),
}

/// What must be asked before the log is cut.
pub trait Retention: Send + Sync {
    /// Whether everything that this vector covers may go from the log.
    fn may_cut(&self, covered: &VersionVector, kept: Kept) -> bool;
}

/// How much of the log is kept, as the oldest segment is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// From that segment on.
    pub bytes: u64,
    /// Of the newest record in that segment, at least: what is in the next one is younger.
    pub age_ms: u64,
}

/// Positions from which the log must be kept, because somebody is reading on from there.
#[derive(Default)]
pub struct LogHolds {
    held: Mutex<BTreeMap<Position, usize>>,
}

/// Keeps the log from a position on until it is dropped.
pub struct LogHold {
    holds: Arc<LogHolds>,
    pub from: Position,
}

impl LogHolds {
    pub fn hold(self: &Arc<Self>, from: Position) -> LogHold {
        *self.held.lock().entry(from).or_default() += 1;
        let holds = self.clone();
        LogHold { holds, from }
    }

    fn first(&self) -> Option<Position> {
        self.held.lock().keys().next().copied()
    }
}

impl Drop for LogHold {
    fn drop(&mut self) {
        let mut held = self.holds.held.lock();
        if let Some(count) = held.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.from);
            }
        }
    }
}

/// What a checkpoint did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckpointReport {
    pub rows: usize,
    pub bytes: usize,
    pub segments_removed: usize,
}

pub struct Checkpointer {
    engine: Arc<Engine>,
    store: Arc<dyn CheckpointStore>,
    reader: LogReader,
    trimmer: LogTrimmer,
    holds: Arc<LogHolds>,
    retention: Arc<dyn Retention>,
    /// Bytes of rows that are gathered before they go to the store together. No order of rows depends on it.
    pub group_bytes: usize,
    /// Rows that an unfinished checkpoint took from memory and may not have stored.
    unsure: bool,
    /// Where the newest checkpoint's replay begins.
    replay_from: Option<Position>,
}

/// Rows on their way to the store.
#[derive(Default)]
struct Group {
    rows: Vec<(Vec<u8>, Option<Bytes>)>,
    bytes: usize,
    report: CheckpointReport,
}

impl Checkpointer {
    pub fn new(
        engine: Arc<Engine>,
        store: Arc<dyn CheckpointStore>,
        (reader, trimmer): (LogReader, LogTrimmer),
        holds: Arc<LogHolds>,
        retention: Arc<dyn Retention>,
    ) -> Self {
        Self {
            engine,
            store,
            reader,
            trimmer,
            holds,
            retention,
            group_bytes: GROUP_BYTES,
            unsure: false,
            replay_from: None,
        }
    }

    /// Whether every row is as the last checkpoint meant it, so that memory may be compared with it.
    pub fn is_sure(&self) -> bool {
        !self.unsure
    }

    /// Makes a checkpoint and cuts the log.
    pub async fn checkpoint(&mut self) -> Result<CheckpointReport, CheckpointError> {
        if self.engine.settlement() != Settlement::Settled {
            return Err(CheckpointError::Unsettled);
        }
        self.checkpoint_of_merge().await
    }

    /// The checkpoint with which the raised frontier of a merge first exists.
    pub(super) async fn checkpoint_of_merge(
        &mut self,
    ) -> Result<CheckpointReport, CheckpointError> {
        if self.unsure {
            self.engine.mark_all_changed();
        }
        self.unsure = true;
        let instant = self.engine.instant();
        let mut group = Group::default();
        self.store_posts(&mut group).await?;
        self.flush(&mut group).await?;
        self.store.sync().await?;
        let replay_from = instant.published.position;
        self.store_meta(instant).await?;
        self.unsure = false;
        let finished = self.engine.now_ms();
        self.engine
            .checkpointed_at_ms
            .store(finished, Ordering::Release);
        self.replay_from = Some(replay_from);
        // The checkpoint stands all the same, and the cut is tried again.
        group.report.segments_removed = self.cut().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the log is not cut");
            0
        });
        Ok(group.report)
    }

    /// Everything that changed. Packs come last: a post that has outgrown its pack has all its own rows before
    /// the pack is stored without it.
    async fn store_posts(&mut self, group: &mut Group) -> Result<(), CheckpointError> {
        let engine = self.engine.clone();
        let _all_stay = engine.pause_spreading();
        let mut packed = BTreeSet::new();
        self.store_likers(group, &mut packed).await?;
        self.store_figures(group, &mut packed).await?;
        self.store_packs(group, packed).await
    }

    /// Shards from the last to the first, and ranges likewise: where a bucket was split or a post
    /// spread since the last checkpoint, the upper parts are stored before the row shrinks that held them.
    async fn store_likers(
        &mut self,
        group: &mut Group,
        packed: &mut BTreeSet<u64>,
    ) -> Result<(), CheckpointError> {
        for index in (0..self.engine.shards.len()).rev() {
            let changed = self.engine.shards[index].lock().take_changed();
            for post in changed {
                if !post.owns_rows() {
                    packed.insert(post.hash.order());
                    continue;
                }
                let ranges = self.engine.shards[index].lock().take_changed_ranges(&post);
                for range in ranges.into_iter().rev() {
                    self.store_bucket(index, &post, range, group).await?;
                }
            }
        }
        Ok(())
    }

    async fn store_bucket(
        &mut self,
        index: usize,
        post: &Post,
        (from, to): (u64, u64),
        group: &mut Group,
    ) -> Result<(), CheckpointError> {
        let likers = {
            let shard = self.engine.shards[index].lock();
            let likers = shard.likers(post).into_iter();
            let likers = likers.flat_map(|likers| likers.in_range(from, to));
            let likers: Vec<_> = likers.map(|liker| (liker.user, liker.dots)).collect();
            likers
        };
        let row = rows::encode_likers(&likers, &self.engine.replicas.all())?;
        group.push(rows::likers_key(&post.id, from), row);
        self.flush_full(group).await
    }

    async fn store_figures(
        &mut self,
        group: &mut Group,
        packed: &mut BTreeSet<u64>,
    ) -> Result<(), CheckpointError> {
        let changed = std::mem::take(&mut *self.engine.changed_figures.lock());
        for post in changed {
            match post.owns_rows() {
                true => self.store_figures_of(&post, group).await?,
                false => drop(packed.insert(post.hash.order())),
            }
        }
        Ok(())
    }

    async fn store_figures_of(
        &mut self,
        post: &Post,
        group: &mut Group,
    ) -> Result<(), CheckpointError> {
        post.take_changed();
        let figures = StoredFigures::of(&post.figures());
        let row = rows::encode_figures(&figures, &self.engine.replicas.all())?;
        group.push(rows::figures_key(&post.id), row);
        self.flush_full(group).await
    }

    /// Packs from the last to the first: where one is split, the upper parts are stored before it shrinks.
    async fn store_packs(
        &mut self,
        group: &mut Group,
        mut packed: BTreeSet<u64>,
    ) -> Result<(), CheckpointError> {
        let mut posts: Vec<Arc<Post>> = Vec::new();
        let mut read = RANGES;
        while let Some(hash) = packed.pop_last() {
            let range = PostHash::range_of_order(hash);
            if range != read {
                posts = self.small_posts(range);
                read = range;
            }
            let (from, to) = self.engine.packs.around(hash);
            drop(packed.split_off(&from));
            let begin = posts.partition_point(|post| post.hash.order() < from);
            let end = posts.partition_point(|post| post.hash.order() <= to);
            self.store_pack(from, &posts[begin..end], group).await?;
        }
        Ok(())
    }

    /// Posts of a range without rows of their own, in the order of their hashes.
    fn small_posts(&self, range: usize) -> Vec<Arc<Post>> {
        let mut posts = self.engine.directory.in_range(range);
        posts.retain(|post| post.is_kept() && !post.owns_rows());
        posts.sort_unstable_by(|a, b| (a.hash.order(), &a.id).cmp(&(b.hash.order(), &b.id)));
        posts
    }

    async fn store_pack(
        &mut self,
        from: u64,
        posts: &[Arc<Post>],
        group: &mut Group,
    ) -> Result<(), CheckpointError> {
        let mut packed = Vec::with_capacity(posts.len());
        for post in posts.iter().rev() {
            match self.engine.take_for_pack(post) {
                Some(small) => packed.push(small),
                None => self.store_whole(post, group).await?,
            }
        }
        for (from, posts) in packs::split(from, packed) {
            self.engine.packs.begin_at(from);
            let row = rows::encode_pack(&posts, &self.engine.replicas.all())?;
            group.push(rows::pack_key(from), row);
            self.flush_full(group).await?;
        }
        Ok(())
    }

    /// The post gets rows of its own: all that it has, the upper parts first.
    async fn store_whole(&mut self, post: &Post, group: &mut Group) -> Result<(), CheckpointError> {
        post.set_owns_rows();
        let mut is_begun = false;
        for index in (0..self.engine.shards.len()).rev() {
            let ranges = {
                let mut shard = self.engine.shards[index].lock();
                drop(shard.take_changed_ranges(post));
                shard.likers(post).map_or_else(Vec::new, Likers::ranges)
            };
            for (from, to) in ranges.into_iter().rev() {
                self.store_bucket(index, post, (from, to), group).await?;
                is_begun |= from == 0;
            }
        }
        if !is_begun {
            // Without a row from the first hash on, what the pack last had would speak.
            let home = post.home(self.engine.shards.len());
            self.store_bucket(home, post, (0, 0), group).await?;
        }
        self.store_figures_of(post, group).await
    }

    async fn flush_full(&mut self, group: &mut Group) -> Result<(), CheckpointError> {
        match group.bytes >= self.group_bytes {
            true => self.flush(group).await,
            false => Ok(()),
        }
    }

    /// Waits until the log is synced through all that the rows may show, then stores them.
    async fn flush(&mut self, group: &mut Group) -> Result<(), CheckpointError> {
        let published = self.engine.barrier().await?;
        if group.rows.is_empty() {
            return Ok(());
        }
        let shows = rows::encode_shows(published.position.0)?;
        group.rows.push((rows::SHOWS_KEY.to_vec(), Some(shows)));
        group.report.rows += group.rows.len();
        group.report.bytes += group.bytes;
        group.bytes = 0;
        self.store.apply(std::mem::take(&mut group.rows)).await?;
        Ok(())
    }

    async fn store_meta(&mut self, instant: Instant) -> Result<(), CheckpointError> {
        let shows = self.engine.barrier().await?.position;
        let row = self.meta_row(&instant, shows)?;
        self.store
            .apply(vec![(rows::META_KEY.to_vec(), Some(row))])
            .await?;
        self.store.sync().await?;
        Ok(())
    }

    fn meta_row(&self, instant: &Instant, shows: Position) -> Result<Bytes, RowError> {
        let replicas = self.engine.replicas.all();
        let mut frontier = Vec::new();
        put_frontier(&mut frontier, &replicas, &instant.frontier);
        let mut floor = Vec::new();
        let entries: Vec<_> = self.engine.log_floor().iter().collect();
        put_entries(&mut floor, &replicas, &entries);
        let orphans = instant.orphans.iter().map(|(dot, orphan)| OrphanRow {
            replica: ReplicaRow::of(replicas.id(dot.replica)),
            seq: dot.seq,
            post: orphan.post.to_string(),
            user: orphan.user.to_string(),
            by_client: instant.client_orphans.contains(&dot),
        });
        let row = |replica: &ReplicaIndex| ReplicaRow::of(replicas.id(*replica));
        let mut retired: Vec<_> = instant.regions.retired().iter().collect();
        retired.sort_unstable();
        let requests = instant.requests.iter();
        rows::encode_meta(&MetaRow {
            frontier,
            floor,
            orphans: orphans.collect(),
            requests: requests
                .map(|(id, known)| request_row(id, known, &replicas))
                .collect(),
            replay_from: instant.published.position.0,
            shows: shows.0,
            finished_at_ms: self.engine.now_ms(),
            retired: retired.into_iter().map(row).collect(),
            met: instant.regions.met().values().map(row).collect(),
        })
    }

    /// Removes segments that replay, readers and peers no longer need, as far as a checkpoint of this process
    /// allows. Returns how many.
    pub async fn cut(&mut self) -> Result<usize, CheckpointError> {
        let Some(replay_from) = self.replay_from else {
            return Ok(0);
        };
        let bound = self
            .holds
            .first()
            .map_or(replay_from, |held| held.min(replay_from));
        let segments = self.reader.segments();
        let end = self.reader.synced();
        let mut cut = None;
        for pair in segments.windows(2) {
            let (first, next) = (&pair[0], &pair[1]);
            let (Some(covered), Some(ended_ms)) = (
                self.engine.read_context(&next.context),
                self.engine.read_context_time(&next.context),
            ) else {
                break;
            };
            let kept = Kept {
                bytes: end.0 - first.base.0,
                age_ms: self.engine.now_ms().saturating_sub(ended_ms),
            };
            if next.base > bound || !self.retention.may_cut(&covered, kept) {
                break;
            }
            cut = Some(next.base);
        }
        match cut {
            Some(position) => Ok(self.trimmer.remove_before(position).await?),
            None => Ok(0),
        }
    }
}

impl Engine {
    /// What a pack holds of the post; none if it has outgrown packs. Likers first, then figures, so that
    /// increments are never behind the users they are credited with.
    fn take_for_pack(&self, post: &Post) -> Option<PackedPost> {
        if post.is_wide() || post.likers() > PACKED_LIKERS_MAX {
            return None;
        }
        let mut shard = self.shards[post.home(self.shards.len())].lock();
        drop(shard.take_changed_ranges(post));
        let likers = shard.likers(post);
        if likers.is_some_and(|likers| likers.ranges().len() > 1) {
            return None;
        }
        let likers = likers.into_iter().flat_map(Likers::iter);
        let likers = likers.map(|liker| (liker.user, liker.dots));
        let likers = likers.collect();
        drop(shard);
        post.take_changed();
        let packed = PackedPost {
            id: post.id.clone(),
            figures: StoredFigures::of(&post.figures()),
            likers,
        };
        packs::fits(&packed).then_some(packed)
    }
}

impl Group {
    fn push(&mut self, key: Vec<u8>, row: Bytes) {
        self.bytes += key.len() + row.len();
        self.rows.push((key, Some(row)));
    }
}

fn request_row(id: &RequestId, known: &Remembered, replicas: &Replicas) -> RequestRow {
    let items = known.items.iter().map(|item| {
        item.as_ref().map(|done| {
            let mut out = Vec::new();
            put_done(&mut out, done, replicas);
            out
        })
    });
    RequestRow {
        id: id.to_string(),
        digest: known.digest,
        at_ms: known.at_ms,
        items: items.collect(),
        token: known.token.as_deref().map(str::to_owned),
    }
}
