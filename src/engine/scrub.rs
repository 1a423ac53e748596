//! Sums computed from the entries themselves. A sum that is kept up follows changes and never sees an
//! entry that was lost; this one does.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::crdt::changes::PostContext;
use crate::crdt::dot::{Dot, ReplicaIndex, Replicas};
use crate::crdt::figures::Figures;
use crate::crdt::fingerprint::{Fingerprint, PostHash, RangeSums};
use crate::crdt::likers::Liker;
use crate::crdt::orphan_removals::OrphanRemoval;
use crate::crdt::user_key::UserHash;
use crate::engine::Engine;
use crate::engine::freeze::Frozen;
use crate::engine::post::Post;

/// What the entries of a frozen range say.
pub(super) struct Scanned {
    pub sum: Fingerprint,
    /// Posts whose figures do not follow from their likers, or whose likers do not stand where they are
    /// looked for.
    pub misplaced: Vec<Arc<Post>>,
}

/// How many users each replica is credited with.
pub(super) type Credits = BTreeMap<ReplicaIndex, u64>;

impl Engine {
    /// The sums of all that memory holds now, computed from nothing under the locks of all shards. Equal
    /// to the published ones while nobody writes.
    pub fn recompute_sums(&self) -> RangeSums {
        let shards = self.lock_all();
        let replicas = self.replicas.all();
        let mut sums = RangeSums::default();
        for post in self.directory.sorted() {
            let context = self.context(&post, &replicas);
            let mut sum = sum_of_figures(&post.figures(), context);
            let parts = shards.iter().filter_map(|shard| shard.likers(&post));
            for liker in parts.flat_map(|likers| likers.iter()) {
                for dot in &liker.dots {
                    sum += context.liker(liker.hash, *dot);
                }
            }
            sums.add(post.hash.range(), sum);
        }
        for (dot, orphan) in self.orphans.lock().known().iter() {
            let range = PostHash::of(&orphan.post).range();
            sums.add(range, self.sum_of_orphan(dot, orphan, &replicas));
        }
        sums
    }

    /// The entries of a frozen range, one shard at a time: nothing of it changes meanwhile.
    pub(super) fn scan(&self, frozen: &Frozen) -> Scanned {
        let replicas = self.replicas.all();
        let mut scanned = Scanned {
            sum: Fingerprint::default(),
            misplaced: Vec::new(),
        };
        for post in self.directory.in_range(frozen.range) {
            let mut credits = Credits::new();
            let mut is_placed = true;
            for shard in &self.shards {
                let shard = shard.lock();
                let Some(likers) = shard.likers(&post) else {
                    continue;
                };
                let context = self.context(&post, &replicas);
                scanned.sum += sum_of_likers(likers.iter(), context, &mut credits);
                is_placed &= likers.is_placed();
            }
            let figures = post.figures();
            scanned.sum += sum_of_figures(&figures, self.context(&post, &replicas));
            let likers: u64 = credits.values().sum();
            let follows = figures.likers() == likers
                && post.likers() == likers
                && figures.credits().eq(credits);
            drop(figures);
            if !follows || !is_placed {
                scanned.misplaced.push(post);
            }
        }
        for (dot, orphan) in self.orphans.lock().known().in_range(frozen.range) {
            scanned.sum += self.sum_of_orphan(dot, orphan, &replicas);
        }
        scanned
    }

    fn sum_of_orphan(&self, dot: Dot, orphan: &OrphanRemoval, replicas: &Replicas) -> Fingerprint {
        let context = PostContext {
            key: self.key,
            post: PostHash::of(&orphan.post),
            replicas,
        };
        context.orphan_removal(UserHash::of(&orphan.user), dot)
    }
}

/// The sum of likers; notes whom each is credited to.
pub(super) fn sum_of_likers(
    likers: impl Iterator<Item = Liker>,
    context: PostContext<'_>,
    credits: &mut Credits,
) -> Fingerprint {
    let mut sum = Fingerprint::default();
    for liker in likers {
        for dot in &liker.dots {
            sum += context.liker(liker.hash, *dot);
        }
        if let Some(credited) = context.replicas.smallest(&liker.dots) {
            *credits.entry(credited.replica).or_default() += 1;
        }
    }
    sum
}

/// The sum over a post's increments and other counters.
pub(super) fn sum_of_figures(figures: &Figures, context: PostContext<'_>) -> Fingerprint {
    let mut sum = Fingerprint::default();
    let (key, post) = (context.key, context.post);
    for entry in figures.likes().iter().filter(|entry| entry.increments > 0) {
        let replica = context.replicas.hash(entry.replica);
        sum += Fingerprint::likes(key, post, replica, entry.increments);
    }
    for (name, counter) in figures.counters() {
        let entries = counter.entries().iter();
        for entry in entries.filter(|entry| entry.figures() != [0, 0]) {
            let replica = context.replicas.hash(entry.replica);
            sum += Fingerprint::counter(key, post, name, replica, entry.figures());
        }
    }
    sum
}
