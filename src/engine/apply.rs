//! Parts that local commands, peers' events, replay and snapshots have in common.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use crate::crdt::changes::PostContext;
use crate::crdt::dot::{Dot, ReplicaIndex, Replicas};
use crate::crdt::fingerprint::{Fingerprint, PostHash};
use crate::crdt::frontier::{Frontier, ShortForm};
use crate::crdt::likers::Likers;
use crate::crdt::orphan_removals::OrphanRemoval;
use crate::crdt::user_key::UserHash;
use crate::engine::Engine;
use crate::engine::post::{Post, range_of_shard, shard_of_hash};
use crate::engine::shard::Shard;
use crate::limits::NARROW_POST_LIKERS_MAX;

/// Shards that are locked together, in ascending order.
pub struct LockedShards<'a> {
    shards: Vec<Option<MutexGuard<'a, Shard>>>,
}

impl LockedShards<'_> {
    pub fn peek(&self, index: usize) -> &Shard {
        self.shards[index].as_ref().expect("the shard was locked")
    }

    pub fn get(&mut self, index: usize) -> &mut Shard {
        self.shards[index].as_mut().expect("the shard was locked")
    }
}

/// Posts stay where they are until this is dropped.
pub struct SpreadingPause<'a>(&'a Engine);

impl Drop for SpreadingPause<'_> {
    fn drop(&mut self) {
        self.0.spreading_paused.store(false, Ordering::Release);
    }
}

impl Engine {
    pub(super) fn lock_some(&self, wanted: impl Fn(usize) -> bool) -> LockedShards<'_> {
        let lock = |index: usize| wanted(index).then(|| self.shards[index].lock());
        LockedShards {
            shards: (0..self.shards.len()).map(lock).collect(),
        }
    }

    /// The first event of the running replica: its predecessors are all entries of its region. What a
    /// merge has raised in memory alone is none: after a crash it would be missing before the event.
    pub(super) fn begin_own(&self, own: ReplicaIndex) -> ShortForm {
        let all = self.replicas.all();
        let region = &all.id(own).region;
        let durable = self.board.newest();
        let held = self.held.read();
        let is_held = |replica| held.as_ref().is_some_and(|held| held.get(replica) > 0);
        let mut frontier = self.frontier.write();
        let ours = frontier
            .vector()
            .iter()
            .filter(|(replica, _)| *replica != own && all.id(*replica).region == *region);
        let known = ours.map(|(replica, seq)| match is_held(replica) {
            true => (replica, durable.vector.get(replica)),
            false => (replica, seq),
        });
        let known = known.collect();
        let predecessors = Frontier::part(&known, frontier.lineage()).short();
        frontier.begin(own, predecessors.clone());
        predecessors
    }

    pub(super) fn context<'a>(&self, post: &Post, replicas: &'a Replicas) -> PostContext<'a> {
        PostContext {
            key: self.key,
            post: post.hash,
            replicas,
        }
    }

    /// The change of the fingerprint when an orphan removal goes, and its range.
    pub(super) fn orphan_gone(
        &self,
        dot: Dot,
        orphan: &OrphanRemoval,
        replicas: &Replicas,
    ) -> (usize, Fingerprint) {
        let post = PostHash::of(&orphan.post);
        let context = PostContext {
            key: self.key,
            post,
            replicas,
        };
        let mut change = Fingerprint::default();
        change -= context.orphan_removal(UserHash::of(&orphan.user), dot);
        (post.range(), change)
    }

    pub(super) fn count_likers(&self, by: i64) {
        self.likers.fetch_add(by as u64, Ordering::AcqRel);
    }

    /// Keeps every post where it is while a checkpoint reads likers: one that spread between two shards'
    /// turns would have its lowest row shrunk before the others are stored.
    pub(super) fn pause_spreading(&self) -> SpreadingPause<'_> {
        let _shards = self.lock_all();
        self.spreading_paused.store(true, Ordering::Release);
        SpreadingPause(self)
    }

    /// Spreads a post over all shards once it is large. Moves at most a few buckets, once in its life.
    pub(super) fn widen_if_large(&self, post: &Arc<Post>) {
        let stays = || post.is_wide() || self.spreading_paused.load(Ordering::Acquire);
        let is_small = post.likers() <= NARROW_POST_LIKERS_MAX as u64;
        if is_small || self.shards.len() == 1 || stays() {
            return;
        }
        let mut shards = self.lock_all();
        if stays() {
            return;
        }
        let likers = shards[post.home(self.shards.len())].take(post);
        post.set_wide();
        let starts = likers.iter().flat_map(|likers| likers.ranges());
        let starts: Vec<u64> = starts.map(|(from, _)| from).collect();
        for (index, shard) in shards.iter_mut().enumerate() {
            let (from, to) = range_of_shard(index, self.shards.len());
            // Rows of the checkpoint stand at the old boundaries, and speak until others stand there.
            let part = shard.likers_mut(post);
            let starts = starts.iter().filter(|at| (from..=to).contains(*at));
            starts.for_each(|at| part.begin_bucket(*at));
            part.mark_all_changed();
        }
        for liker in likers.iter().flat_map(Likers::iter) {
            let index = shard_of_hash(liker.hash.order(), self.shards.len());
            shards[index].likers_mut(post).adopt(&liker);
        }
    }
}
