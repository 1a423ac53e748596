//! Likes of large posts that a replay has put aside, and how they are applied in bulk.
//!
//! A block's likes are shared out over the shards where the block is decoded, on whatever core that is. Each shard then takes
//! its likes of all blocks, by posts and in the order in which memory has their users.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::crdt::changes::{Changes, PostContext};
use crate::crdt::dot::Dot;
use crate::crdt::event::{Action, Block};
use crate::crdt::likers::{Compact, Likers, Place, Searches};
use crate::crdt::user_key::Who;
use crate::engine::Engine;
use crate::engine::post::{Post, PostNumber, shard_of_hash};
use crate::ids::UserId;

/// Likes of a block that are kept as the block's. Fewer go among those of other blocks.
const BLOCK_LIKES: usize = 1_024;
/// Likes are merged where a post has no more than so many times the likers: a merge passes over all of them.
const MERGED_FROM: usize = 8;
/// Likes whose users are searched for at the same time, so that the waits for memory overlap.
const TOGETHER: usize = 64;

/// What was put aside.
#[derive(Default)]
pub(super) struct Aside {
    /// By shard, of small blocks.
    small: ByShard,
    large: Vec<ByShard>,
    /// About as many as it takes in memory.
    pub bytes: usize,
    pub posts: Vec<Arc<Post>>,
    places: HashMap<PostNumber, u32>,
}

type ByShard = Vec<Likes>;

/// Likes of one shard, each with the place of its post.
#[derive(Default)]
struct Likes {
    compact: Vec<(u32, Compact)>,
    others: Vec<(u32, UserId, Dot)>,
}

impl Likes {
    fn bytes(&self) -> usize {
        size_of_val(&*self.compact) + size_of_val(&*self.others)
    }

    /// Posts have other places now.
    fn renumber(&mut self, places: &[u32]) {
        let posts = self.compact.iter_mut().map(|(post, _)| post);
        let posts = posts.chain(self.others.iter_mut().map(|(post, ..)| post));
        posts.for_each(|post| *post = places[*post as usize]);
    }

    fn forget(&mut self, dead: &HashSet<Dot>) {
        self.compact
            .retain(|(_, liker)| !dead.contains(&liker.dot()));
        self.others.retain(|(.., dot)| !dead.contains(dot));
    }

    fn append(&mut self, mut more: Self) {
        self.compact.append(&mut more.compact);
        self.others.append(&mut more.others);
    }
}

/// What a block says that has nothing but likes, in the order in which it is applied.
pub(super) struct Plain {
    likes: usize,
    /// For each of the block's posts.
    pub newest: Vec<Newest>,
    by_shard: ByShard,
}

/// The newest like of a post.
#[derive(Clone, Copy, Default)]
pub(super) struct Newest {
    /// Zero where there is none.
    pub increments: u64,
    pub time_ms: u64,
}

impl Plain {
    /// Of a block whose posts are spread over so many shards, if they are.
    pub fn of(block: &Block, shards: usize) -> Self {
        let mut newest = vec![Newest::default(); block.posts.len()];
        let room = block.events.len() / shards;
        let likes = || Likes {
            compact: Vec::with_capacity(room + room / 4),
            others: Vec::new(),
        };
        let mut by_shard: ByShard = std::iter::repeat_with(likes).take(shards).collect();
        for (dot, event) in block.dotted() {
            let Action::Like {
                post,
                user,
                increments,
                ..
            } = &event.action
            else {
                continue;
            };
            let newest = &mut newest[*post as usize];
            newest.increments = newest.increments.max(*increments);
            newest.time_ms = newest.time_ms.max(event.time_ms);
            let who = Who::of(user);
            let likes = &mut by_shard[shard_of_hash(who.order(), shards)];
            match Compact::of(who, dot) {
                Some(liker) => likes.compact.push((*post, liker)),
                None => likes.others.push((*post, user.clone(), dot)),
            }
        }
        Self {
            likes: block.events.len(),
            newest,
            by_shard,
        }
    }
}

impl Aside {
    /// Puts a block's likes aside, but for those that are dead.
    pub fn add(&mut self, posts: &[Arc<Post>], plain: Plain, dead: &HashSet<Dot>) {
        let places: Vec<u32> = posts.iter().map(|post| self.place(post)).collect();
        let mut by_shard = plain.by_shard;
        for likes in &mut by_shard {
            likes.renumber(&places);
            if !dead.is_empty() {
                likes.forget(dead);
            }
        }
        self.bytes += by_shard.iter().map(Likes::bytes).sum::<usize>();
        if plain.likes >= BLOCK_LIKES {
            self.large.push(by_shard);
            return;
        }
        self.small.resize_with(by_shard.len(), Likes::default);
        for (all, more) in self.small.iter_mut().zip(by_shard) {
            all.append(more);
        }
    }

    fn place(&mut self, post: &Arc<Post>) -> u32 {
        let next = self.posts.len() as u32;
        let place = *self.places.entry(post.number).or_insert(next);
        if place == next {
            self.posts.push(post.clone());
        }
        place
    }

    /// The likes of a shard, for each post.
    fn by_post(&self, shard: usize) -> Vec<OfPost> {
        let posts = self.posts.len();
        let mut all: Vec<OfPost> = std::iter::repeat_with(OfPost::default)
            .take(posts)
            .collect();
        let blocks = self.large.iter().chain([&self.small]);
        for likes in blocks.filter_map(|by_shard| by_shard.get(shard)) {
            for (post, liker) in &likes.compact {
                all[*post as usize].compact.push(*liker);
            }
            for (post, user, dot) in &likes.others {
                all[*post as usize].others.push((user.clone(), *dot));
            }
        }
        all
    }

    /// Applies a shard's likes, none of which names a dot. Returns what they change of each post.
    pub fn apply(&self, engine: &Engine, shard: usize) -> Vec<Changes> {
        let replicas = engine.replicas.all();
        let likes = self.by_post(shard);
        let mut shard = engine.shards[shard].lock();
        let changes = self.posts.iter().zip(likes).map(|(post, likes)| {
            let mut changes = Changes::default();
            if !likes.is_empty() {
                let context = engine.context(post, &replicas);
                likes.apply(shard.likers_mut(post), context, &mut changes);
            }
            changes
        });
        changes.collect()
    }
}

/// Likes of one post in one shard.
#[derive(Default)]
struct OfPost {
    compact: Vec<Compact>,
    others: Vec<(UserId, Dot)>,
}

impl OfPost {
    fn is_empty(&self) -> bool {
        self.compact.is_empty() && self.others.is_empty()
    }

    fn apply(mut self, likers: &mut Likers, context: PostContext<'_>, changes: &mut Changes) {
        let compact = &mut self.compact;
        compact.sort_unstable_by_key(|liker| liker.order());
        let left = match likers.len() <= compact.len() * MERGED_FROM {
            true => likers.merge(context, compact, changes),
            false => (0..compact.len()).collect(),
        };
        let left = left.into_iter().map(|at| compact[at]);
        self.others
            .extend(left.map(|liker| (liker.user(), liker.dot())));
        add_each(likers, context, &self.others, changes);
    }
}

/// Adds a dot to each user's, in the order in which memory has the users.
fn add_each(
    likers: &mut Likers,
    context: PostContext<'_>,
    likes: &[(UserId, Dot)],
    changes: &mut Changes,
) {
    let likes = likes.iter().map(|(user, dot)| (Who::of(user), *dot));
    let mut likes: Vec<(Who<'_>, Dot)> = likes.collect();
    likes.sort_unstable_by_key(|(who, _)| who.order());
    for together in likes.chunks(TOGETHER) {
        let mut searches = Searches::with_capacity(together.len());
        let mut places: Vec<Place> = together
            .iter()
            .map(|(who, _)| searches.begin(likers, *who))
            .collect();
        searches.go_on();
        for ((who, dot), place) in together.iter().zip(&mut places) {
            let mut dots = likers.dots_at(place, *who);
            if !dots.contains(dot) {
                dots.push(*dot);
                likers.set_at(*place, context, *who, &dots, changes);
            }
        }
    }
}
