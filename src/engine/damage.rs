//! Damage on purpose, for tests and the simulator alone: memory changes behind the back of figures, sums and log.

use crate::crdt::changes::Changes;
use crate::crdt::dot::{Dot, Dots};
use crate::crdt::user_key::Who;
use crate::engine::Engine;
use crate::ids::{PostId, Replica, UserId};

impl Engine {
    /// A user's live dots become these, and nothing else knows.
    pub fn damage_liker(&self, post: &PostId, user: &UserId, dots: &[(Replica, u64)]) {
        let post = self.directory.get_or_create(post);
        let who = Who::of(user);
        let dots = dots.iter().map(|(replica, seq)| self.dot(replica, *seq));
        let dots: Dots = dots.collect();
        let replicas = self.replicas.all();
        let context = self.context(&post, &replicas);
        let mut shard = self.shards[post.shard_of(who.order(), self.shards.len())].lock();
        let likers = shard.likers_mut(&post);
        likers.set(context, who, &dots, &mut Changes::default());
    }

    /// A replica's likes on a post become this many.
    #[cfg(test)]
    pub(crate) fn damage_figure(&self, post: &PostId, replica: &Replica, increments: u64) {
        let post = self.directory.get_or_create(post);
        let replica = self.replicas.intern_own(replica);
        post.figures().damage(replica, increments);
    }

    #[cfg(test)]
    pub(crate) fn damage_orphan(&self, replica: &Replica, seq: u64) {
        let dot = self.dot(replica, seq);
        let lost = self.orphans.lock().resolve(dot);
        assert!(lost.is_some(), "there is one to lose");
    }

    /// Everything goes into the next checkpoint, the damage too.
    #[cfg(test)]
    pub(crate) fn spread_to_disk(&self) {
        self.mark_all_changed();
    }

    fn dot(&self, replica: &Replica, seq: u64) -> Dot {
        Dot {
            seq,
            replica: self.replicas.intern_own(replica),
        }
    }
}
