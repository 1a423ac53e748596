//! Sums computed from the entries themselves. A sum that is kept up follows changes and never sees an
//! entry that was lost; this one does.

use crate::crdt::changes::PostContext;
use crate::crdt::figures::Figures;
use crate::crdt::fingerprint::{Fingerprint, PostHash, RangeSums, UserHash};
use crate::engine::Engine;

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
                let user = UserHash::of(&liker.user);
                for dot in &liker.dots {
                    sum += context.liker(user, *dot);
                }
            }
            sums.add(post.hash.range(), sum);
        }
        for (dot, orphan) in self.orphans.lock().known().iter() {
            let post = PostHash::of(&orphan.post);
            let context = PostContext {
                key: self.key,
                post,
                replicas: &replicas,
            };
            let print = context.orphan_removal(UserHash::of(&orphan.user), dot);
            sums.add(post.range(), print);
        }
        sums
    }
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
