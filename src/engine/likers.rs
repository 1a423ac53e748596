//! The likers of a post, page by page, in an order that is the same on every node: by the frozen hash of the
//! user and, where two are equal, by the user's bytes.
//!
//! A page begins after a user, not after a count, and each bucket is read under the lock of the shard that
//! holds it at that moment. So it does not matter what was split, spread, liked or unliked between two pages or
//! two buckets: who is a liker all the while is passed exactly once.

use std::sync::Arc;

use crate::crdt::likers::Liker;
use crate::crdt::user_key::UserHash;
use crate::engine::Engine;
use crate::engine::post::{Post, shard_of_hash};
use crate::ids::{PostId, UserId};

/// Likers that follow on one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LikersPage {
    pub users: Vec<UserId>,
    /// Whether others follow after the last of them.
    pub has_more: bool,
    /// Likers of the post when the page was read.
    pub count: u64,
}

/// Where a user stands in the order.
type Place = (u64, UserId);

fn place(user: &UserId) -> Place {
    (UserHash::of(user).order(), user.clone())
}

impl Engine {
    /// At most `max` likers that follow after a user, or the first ones. Holds a page and a bucket in memory, and no
    /// lock for longer than it takes to copy a bucket. Like a count, a page may show a write one group commit
    /// before its sync.
    pub async fn list_likers(
        &self,
        post: &PostId,
        after: Option<&UserId>,
        max: usize,
    ) -> LikersPage {
        let Some(post) = self.directory.get(post) else {
            return LikersPage {
                users: Vec::new(),
                has_more: false,
                count: 0,
            };
        };
        let after = after.map(place);
        let mut users = Vec::new();
        let mut next = Some(after.as_ref().map_or(0, |(hash, _)| *hash));
        // One more than asked for says whether others follow.
        while let Some(from) = next.filter(|_| users.len() <= max) {
            let (mut found, to) = self.rest_of_bucket(&post, from);
            found.retain(|place| after.as_ref().is_none_or(|after| place > after));
            found.sort_unstable();
            users.extend(found.into_iter().map(|(_, user)| user));
            next = to.checked_add(1);
            // A post that lost its likers has many empty buckets.
            tokio::task::consume_budget().await;
        }
        let has_more = users.len() > max;
        users.truncate(max);
        LikersPage {
            users,
            has_more,
            count: post.likers(),
        }
    }

    /// The likers from `from` to the end of its bucket, in no order, and that end.
    fn rest_of_bucket(&self, post: &Arc<Post>, from: u64) -> (Vec<Place>, u64) {
        self.with_bucket(post, from, |likers| {
            likers
                .map(|liker| (liker.hash.order(), liker.user))
                .collect()
        })
    }

    /// Shows the likers from `from` to the end of its bucket, under the lock of their shard, and returns that end.
    pub(super) fn with_bucket<T: Default>(
        &self,
        post: &Arc<Post>,
        from: u64,
        see: impl FnOnce(&mut dyn Iterator<Item = Liker>) -> T,
    ) -> (T, u64) {
        loop {
            let was_wide = post.is_wide();
            let index = match was_wide {
                true => shard_of_hash(from, self.shards.len()),
                false => post.home(self.shards.len()),
            };
            let shard = self.shards[index].lock();
            // The post may have been spread over all shards while we waited.
            if post.is_wide() != was_wide {
                continue;
            }
            let Some(likers) = shard.likers(post) else {
                return (T::default(), shard.range_of(post).1);
            };
            let (_, to) = likers.range_around(from);
            return (see(&mut likers.in_range(from, to)), to);
        }
    }
}
