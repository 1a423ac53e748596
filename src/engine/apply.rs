//! Parts that local commands, peers' events, replay and snapshots have in common.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use crate::crdt::changes::PostContext;
use crate::crdt::dot::{Dot, ReplicaIndex, Replicas};
use crate::crdt::fingerprint::{Fingerprint, PostHash, UserHash};
use crate::crdt::frontier::ShortForm;
use crate::crdt::orphan_removals::OrphanRemoval;
use crate::engine::Engine;
use crate::engine::post::{Post, range_of_shard, shard_of_hash};
use crate::engine::shard::Shard;
use crate::limits::NARROW_POST_LIKERS_MAX;

/// Shards that are locked together, in ascending order.
pub struct LockedShards<'a> {
    shards: Vec<Option<MutexGuard<'a, Shard>>>,
}

impl LockedShards<'_> {
    pub fn get(&mut self, index: usize) -> &mut Shard {
        self.shards[index].as_mut().expect("the shard was locked")
    }
}

impl Engine {
    pub(super) fn lock_some(&self, wanted: impl Fn(usize) -> bool) -> LockedShards<'_> {
        let lock = |index: usize| wanted(index).then(|| self.shards[index].lock());
        LockedShards {
            shards: (0..self.shards.len()).map(lock).collect(),
        }
    }

    /// The first event of the running replica: its predecessors are all entries of its region.
    pub(super) fn begin_own(&self, own: ReplicaIndex) -> ShortForm {
        let all = self.replicas.all();
        let region = &all.id(own).region;
        let mut frontier = self.frontier.write();
        let predecessors =
            frontier.short_of(|replica| replica != own && all.id(replica).region == *region);
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

    /// Spreads a post over all shards once it is large. Moves at most a few buckets, once in its life.
    pub(super) fn widen_if_large(&self, post: &Arc<Post>) {
        if post.is_wide()
            || post.likers() <= NARROW_POST_LIKERS_MAX as u64
            || self.shards.len() == 1
        {
            return;
        }
        let mut shards = self.lock_all();
        if post.is_wide() {
            return;
        }
        let likers = shards[post.home(self.shards.len())].take(post);
        post.set_wide();
        for (index, shard) in shards.iter_mut().enumerate() {
            let range = range_of_shard(index, self.shards.len());
            debug_assert_eq!(shard.range_of(post), range);
            shard.likers_mut(post);
        }
        for liker in likers.into_iter().flat_map(|likers| likers.into_likers()) {
            let index = shard_of_hash(liker.hash, self.shards.len());
            shards[index].likers_mut(post).adopt(liker);
        }
    }
}
