//! Merging a staged snapshot by the snapshot rule.
//!
//! From the beginning of the merge until a checkpoint holds its result, the replicas that the snapshot
//! raises are held: none of their events is applied from streams, else one could be applied after its
//! post was merged, whose removal F already covers, and live for ever. Increments are merged before likers. The
//! raised frontier is published, and announced, only when that checkpoint is durable; a crash before it
//! leaves the old frontier and the stage, which is merged again from its first chunk.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::codec::DecodeError;
use crate::crdt::changes::Changes;
use crate::crdt::dot::{Dots, ReplicaIndex};
use crate::crdt::merge::{self, Knowledge, Other, Target};
use crate::crdt::orphan_removals::OrphanRemovals;
use crate::crdt::ranges::RangeSet;
use crate::crdt::user_key::{UserHash, Who};
use crate::crdt::version_vector::VersionVector;
use crate::engine::checkpoint::{CheckpointError, Checkpointer};
use crate::engine::commit::{Demand, OutcomeUnknown, Refused};
use crate::engine::post::{Post, shard_of_hash};
use crate::engine::remote::Replayed;
use crate::engine::section::{Raise, Section};
use crate::engine::snapshot::{Beginning, Chunk, ChunkPart, Course, CourseError, Part};
use crate::engine::{Engine, Settlement};
use crate::ids::{PostId, UserId};
use crate::planted::{Bug, is_planted};

/// Why a staged snapshot was not merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error("the stage cannot be read")]
    Stage(#[from] io::Error),
    #[error("the stage is no snapshot: {0}")]
    Form(&'static str),
    #[error("the stage holds a block that cannot be read")]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Log(#[from] OutcomeUnknown),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("the stage is not in order: {0}")]
    Course(#[from] CourseError),
}

impl MergeError {
    /// The stage itself is at fault, and was refused before anything was merged.
    pub fn is_of_the_stage(&self) -> bool {
        matches!(self, Self::Form(_) | Self::Decode(_) | Self::Course(_))
    }
}

/// Reads the parts of a staged snapshot, from the beginning.
pub trait Parts: Send {
    fn next(&mut self) -> impl Future<Output = Result<Option<Part>, MergeError>> + Send;
}

/// Gives the parts of a staged snapshot from the beginning, each time.
pub trait StagedSource: Sync {
    type Parts: Parts;

    fn open(&self) -> impl Future<Output = Result<Self::Parts, MergeError>> + Send;
}

/// Merges a whole, staged snapshot, for good.
pub async fn merge_stage(
    engine: &Arc<Engine>,
    checkpointer: &mut Checkpointer,
    staged: &impl StagedSource,
) -> Result<(), MergeError> {
    let course = judge(engine, staged.open().await?).await?;
    let (beginning, reached) = (course.beginning(), course.reached());
    if engine.hold(reached).covers_all(reached) {
        // Merged and checkpointed already; only the stage was left.
        engine.release();
        return Ok(());
    }
    if !is_planted(Bug::RemovesForgotten) {
        engine.take_orphans(&beginning.orphans)?;
    }
    let mut parts = staged.open().await?;
    while let Some(part) = parts.next().await? {
        if let Part::Chunks(group) = part {
            group
                .chunks
                .iter()
                .try_for_each(|chunk| engine.merge_figures(chunk))?;
        }
    }
    let mut named = HashSet::new();
    let mut parts = staged.open().await?;
    while let Some(part) = parts.next().await? {
        if let Part::Chunks(group) = part {
            for chunk in &group.chunks {
                engine.merge_likers(beginning, chunk)?;
                named.insert(chunk.post.clone());
            }
            // Clients come first: between two parts they get the shards' locks and the core.
            engine.barrier().await?;
        }
    }
    engine.empty_the_rest(beginning, &named)?;
    if is_planted(Bug::RaisedAfterCheckpoint) {
        checkpointer.checkpoint_of_merge().await?;
    }
    engine.raise(beginning)?;
    apply_tail(engine, staged.open().await?).await?;
    engine.raise_log_floor(reached);
    if !is_planted(Bug::RaisedAfterCheckpoint) {
        checkpointer.checkpoint_of_merge().await?;
    }
    engine
        .publish_raise(reached, beginning.retired.clone())
        .await?;
    engine.release();
    engine.renew_if_retired();
    Ok(())
}

/// Reads all of it: every part can be read and has its place, and the tail leads to an end that covers all
/// that the chunks show; else nothing is merged.
async fn judge(engine: &Arc<Engine>, mut parts: impl Parts) -> Result<Course, MergeError> {
    let (all, offered) = (RangeSet::all(), RangeSet::all());
    let mut course = Course::new(engine.clone(), all, offered);
    while let Some(part) = parts.next().await? {
        course.push(&part)?;
    }
    match course.has_ended() {
        true => Ok(course),
        false => Err(MergeError::Form("it has no end")),
    }
}

/// The log from F to E. It came with the snapshot, so it is applied without being logged here.
async fn apply_tail(engine: &Engine, mut parts: impl Parts) -> Result<(), MergeError> {
    let mut blocks = Vec::new();
    while let Some(part) = parts.next().await? {
        if let Part::Tail(bytes) = part {
            blocks.push(bytes);
        }
    }
    for bytes in blocks {
        let decoded = engine.decode_block(&bytes)?;
        match engine.replay(&decoded) {
            Replayed::Applied(section) => engine.push_prints(*section)?,
            Replayed::Covered => {}
            Replayed::Missing => return Err(MergeError::Form("its tail has a gap")),
        }
    }
    Ok(())
}

impl Engine {
    /// Begins the merge: from here on the replicas that it raises are held. Returns what was durable before; the
    /// frontier in memory may be that of a merge whose checkpoint failed.
    fn hold(&self, raised: &VersionVector) -> VersionVector {
        let _one_at_a_time = self.remote.lock();
        let before = self.board.newest().vector.clone();
        let held = raised
            .iter()
            .filter(|(replica, seq)| before.get(*replica) < *seq);
        *self.held.write() = match is_planted(Bug::HeldEventsApplied) {
            true => None,
            false => Some(held.collect()),
        };
        self.set_settlement(Settlement::Merging);
        self.merges.fetch_add(1, Ordering::AcqRel);
        before
    }

    fn release(&self) {
        *self.held.write() = None;
        self.set_settlement(Settlement::Settled);
    }

    /// Hands changes of the fingerprint to the committer, in the order in which they were made.
    fn push_prints(&self, section: Section) -> Result<(), Refused> {
        let demand = Demand {
            events: 0,
            bytes: 0,
        };
        self.queue.reserve(demand)?.fill(section);
        Ok(())
    }

    fn print(&self, post: &Post, changes: &Changes) -> Section {
        Section {
            prints: vec![(post.hash.range(), changes.fingerprint)],
            ..Section::default()
        }
    }

    fn take_orphans(&self, theirs: &OrphanRemovals) -> Result<(), Refused> {
        let own = self.own_covered();
        for (dot, orphan) in theirs.iter() {
            let post = self.directory.get_or_create(&orphan.post);
            let target = Target {
                post: &orphan.post,
                who: Who::of(&orphan.user),
            };
            let mut shards = self.lock_some(|_| true);
            let index = post.shard_of(target.who.order(), self.shards.len());
            let replicas = self.replicas.all();
            let mut orphans = self.orphans.lock();
            let frontier = self.frontier.read();
            let mut knowledge = Knowledge {
                frontier: &frontier,
                orphans: orphans.known_mut(),
                further: [own, own],
            };
            let mut changes = Changes::default();
            let likers = shards.get(index).likers_mut(&post);
            let context = self.context(&post, &replicas);
            let named = (&[dot][..], None);
            merge::apply(likers, context, &mut knowledge, target, named, &mut changes);
            drop(frontier);
            drop(orphans);
            self.follow(&post, &changes);
            self.push_prints(self.print(&post, &changes))?;
        }
        Ok(())
    }

    /// Figures and counts follow a change of the likers.
    fn follow(&self, post: &Arc<Post>, changes: &Changes) {
        post.credit(&mut post.figures(), changes);
        self.count_likers(changes.likers());
        self.note_changed_figures(post);
    }

    fn merge_figures(&self, chunk: &Chunk) -> Result<(), Refused> {
        let ChunkPart::Figures(theirs) = &chunk.part else {
            return Ok(());
        };
        let post = self.directory.get_or_create(&chunk.post);
        let _home = self.shards[post.home(self.shards.len())].lock();
        let replicas = self.replicas.all();
        let context = self.context(&post, &replicas);
        let mut changes = Changes::default();
        let mut figures = post.figures();
        for (replica, increments) in &theirs.likes {
            changes.fingerprint += figures.raise_increments(context, *replica, *increments);
        }
        for (name, entries) in &theirs.counters {
            for entry in entries {
                changes.fingerprint += figures.merge_counter(context, name, *entry);
            }
        }
        figures.touch(theirs.updated_at_ms);
        drop(figures);
        self.note_changed_figures(&post);
        self.push_prints(self.print(&post, &changes))
    }

    fn merge_likers(&self, beginning: &Beginning, chunk: &Chunk) -> Result<(), Refused> {
        let ChunkPart::Likers { from, to, likers } = &chunk.part else {
            return Ok(());
        };
        let post = self.directory.get_or_create(&chunk.post);
        self.merge_range(beginning, &post, (*from, *to), likers)
    }

    /// Posts that the snapshot does not contain are empty there, but for those of ranges that it left out:
    /// in these both hold the same.
    fn empty_the_rest(
        &self,
        beginning: &Beginning,
        named: &HashSet<PostId>,
    ) -> Result<(), Refused> {
        for post in self.directory.sorted() {
            let is_equal = beginning.equal.contains(post.hash.range());
            if !is_equal && !named.contains(&post.id) {
                self.merge_range(beginning, &post, (0, u64::MAX), &[])?;
            }
        }
        Ok(())
    }

    /// Merges one range, shard by shard: a post may be spread here and not there.
    fn merge_range(
        &self,
        beginning: &Beginning,
        post: &Arc<Post>,
        (from, to): (u64, u64),
        theirs: &[(UserId, Dots)],
    ) -> Result<(), Refused> {
        let mut next = Some(from);
        while let Some(from) = next.filter(|from| *from <= to) {
            let was_wide = post.is_wide();
            let index = match was_wide {
                true => shard_of_hash(from, self.shards.len()),
                false => post.home(self.shards.len()),
            };
            let mut shard = self.shards[index].lock();
            if post.is_wide() != was_wide {
                continue;
            }
            let until = shard.range_of(post).1.min(to);
            let here = |hash: u64| (from..=until).contains(&hash);
            let part = theirs
                .iter()
                .filter(|(user, _)| here(UserHash::of(user).order()));
            let part: Vec<(UserId, Dots)> = part.cloned().collect();
            let changes = self.merge_part(beginning, post, &mut shard, (from, until), &part);
            self.follow(post, &changes);
            self.push_prints(self.print(post, &changes))?;
            next = until.checked_add(1);
        }
        self.widen_if_large(post);
        Ok(())
    }

    fn merge_part(
        &self,
        beginning: &Beginning,
        post: &Arc<Post>,
        shard: &mut crate::engine::shard::Shard,
        range: (u64, u64),
        theirs: &[(UserId, Dots)],
    ) -> Changes {
        let own = self.own_covered();
        let replicas = self.replicas.all();
        let mut orphans = self.orphans.lock();
        let frontier = self.frontier.read();
        let ours = Knowledge {
            frontier: &frontier,
            orphans: orphans.known_mut(),
            further: [own, own],
        };
        let other = Other {
            frontier: &beginning.vector,
            orphans: &beginning.orphans,
        };
        let mut changes = Changes::default();
        let context = self.context(post, &replicas);
        let sides = (&ours, &other);
        merge::merge_range(
            shard.likers_mut(post),
            context,
            sides,
            &post.id,
            range,
            theirs,
            &mut changes,
        );
        changes
    }

    /// All posts are merged: what F covers is applied.
    fn raise(&self, beginning: &Beginning) -> Result<(), Refused> {
        let _one_at_a_time = self.remote.lock();
        let _shards = self.lock_all();
        let replicas = self.replicas.all();
        let mut section = Section::default();
        let mut orphans = self.orphans.lock();
        let mut frontier = self.frontier.write();
        self.regions
            .lock()
            .retire(beginning.retired.iter().copied());
        frontier.raise(&beginning.vector, &beginning.lineage);
        for (dot, orphan) in orphans.resolve_covered(&frontier) {
            section
                .prints
                .push(self.orphan_gone(dot, &orphan, &replicas));
        }
        drop(frontier);
        drop(orphans);
        self.push_prints(section)
    }

    /// The checkpoint is durable: the raised frontier may be shown.
    async fn publish_raise(
        &self,
        raised: &VersionVector,
        retired: Vec<ReplicaIndex>,
    ) -> Result<(), MergeError> {
        let demand = Demand {
            events: 0,
            bytes: 0,
        };
        let lineage = self.frontier.read().lineage().clone();
        let section = Section {
            raise: Some(Raise {
                vector: raised.clone(),
                lineage,
                retired,
            }),
            ..Section::default()
        };
        self.queue.reserve(demand)?.fill(section).await?;
        Ok(())
    }
}
