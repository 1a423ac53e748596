//! Replay of the log after a start, likes of large posts in bulk.
//!
//! Applied one by one, such likes wait for memory: each user of a large post stands in another place. So those that name
//! no dot are put aside, and applied many together in the order in which memory has their users. Nobody sees the state
//! meanwhile, and whatever else the log says of anyone is applied after what was put aside before it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::crdt::changes::Changes;
use crate::crdt::dot::Dot;
use crate::crdt::event::{Action, Block};
use crate::crdt::fingerprint::{RangeSums, UserHash};
use crate::crdt::likers::Who;
use crate::crdt::merge::{self, Knowledge, Target};
use crate::engine::Engine;
use crate::engine::post::{Post, PostNumber};
use crate::engine::remote::{Known, Replayed};
use crate::ids::UserId;
use crate::log::VisitError;

/// Likes that are put aside at most.
const ASIDE_MAX: usize = 1 << 18;

/// Applies the blocks of a log, and sums up what they do to the fingerprints.
pub(super) struct Replay<'a> {
    engine: &'a Engine,
    sums: &'a mut RangeSums,
    /// Likes that were put aside, by shard.
    aside: Vec<Vec<Aside>>,
    waiting: usize,
    /// The posts that they are of, and their places.
    posts: Vec<Arc<Post>>,
    places: HashMap<PostNumber, u32>,
}

/// A like that was put aside.
struct Aside {
    /// Its place among the posts.
    post: u32,
    hash: UserHash,
    dot: Dot,
    user: UserId,
}

impl<'a> Replay<'a> {
    pub fn new(engine: &'a Engine, sums: &'a mut RangeSums) -> Self {
        let shards = engine.shards.len();
        Self {
            engine,
            sums,
            aside: (0..shards).map(|_| Vec::new()).collect(),
            waiting: 0,
            posts: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// Applies what is new of a block. Returns the block if any of it was.
    ///
    /// A block stands in the log behind all that it builds on. One that does not was shown as durable, and to pass over it
    /// would lose it.
    pub fn block(&mut self, bytes: &Bytes) -> Result<Option<Block>, VisitError> {
        let decoded = self.engine.decode_block(bytes)?;
        match self.engine.known(&decoded) {
            Known::UpTo(have) => self.apply(&decoded, have),
            Known::Whole => return Ok(None),
            Known::NotBefore => {
                let replica = self.engine.replicas.all().id(decoded.replica).clone();
                let first = decoded.first_seq;
                return Err(
                    format!("event {first} of {replica} stands before what it follows").into(),
                );
            }
        }
        Ok(Some(decoded))
    }

    /// Nothing is aside any more.
    pub fn finish(mut self) {
        self.apply_aside();
    }

    fn apply(&mut self, decoded: &Block, have: u64) {
        if is_plain(decoded) {
            let ids = decoded.posts.iter();
            let posts = ids.map(|id| self.engine.directory.get_or_create(id));
            let posts: Vec<Arc<Post>> = posts.collect();
            if posts.iter().all(|post| post.is_wide()) {
                self.put_aside(decoded, have, &posts);
                return;
            }
        }
        self.apply_aside();
        if let Replayed::Applied(section) = self.engine.replay(decoded) {
            for (range, change) in &section.prints {
                self.sums.add(*range, *change);
            }
        }
    }

    /// Frontier and figures follow at once, likers later.
    fn put_aside(&mut self, decoded: &Block, have: u64, posts: &[Arc<Post>]) {
        let shards = self.engine.shards.len();
        let places: Vec<u32> = posts.iter().map(|post| self.place(post)).collect();
        let mut newest = vec![(0, 0); posts.len()];
        for (dot, event) in decoded.dotted().filter(|(dot, _)| dot.seq > have) {
            let Action::Like {
                post,
                user,
                increments,
                ..
            } = &event.action
            else {
                self.resolve(dot);
                continue;
            };
            let at = *post as usize;
            newest[at] = (
                newest[at].0.max(*increments),
                newest[at].1.max(event.time_ms),
            );
            let hash = UserHash::of(user);
            self.aside[posts[at].shard_of(hash, shards)].push(Aside {
                post: places[at],
                hash,
                dot,
                user: user.clone(),
            });
            self.waiting += 1;
        }
        let replicas = self.engine.replicas.all();
        // A replica that has made no like has no entry.
        let liked = posts
            .iter()
            .zip(newest)
            .filter(|(_, (increments, _))| *increments > 0);
        for (post, (increments, time_ms)) in liked {
            let context = self.engine.context(post, &replicas);
            let mut figures = post.figures();
            let change = figures.raise_increments(context, decoded.replica, increments);
            figures.touch(time_ms);
            self.sums.add(post.hash.range(), change);
        }
        self.engine.cover(decoded);
        if self.waiting >= ASIDE_MAX {
            self.apply_aside();
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

    fn resolve(&mut self, dot: Dot) {
        let orphan = self.engine.orphans.lock().resolve(dot);
        if let Some(orphan) = orphan {
            let replicas = self.engine.replicas.all();
            let (range, change) = self.engine.orphan_gone(dot, &orphan, &replicas);
            self.sums.add(range, change);
        }
    }

    fn apply_aside(&mut self) {
        let mut changes = vec![Changes::default(); self.posts.len()];
        for shard in 0..self.aside.len() {
            let mut likes = std::mem::take(&mut self.aside[shard]);
            likes.sort_unstable_by_key(|like| (like.post, like.hash.order()));
            self.apply_to_shard(shard, &likes, &mut changes);
            likes.clear();
            self.aside[shard] = likes;
        }
        self.waiting = 0;
        self.places.clear();
        for (post, changes) in self.posts.drain(..).zip(changes) {
            self.sums.add(post.hash.range(), changes.fingerprint);
            self.engine.count_likers(changes.likers());
            post.credit(&mut post.figures(), &changes);
            self.engine.note_changed_figures(&post);
        }
    }

    fn apply_to_shard(&mut self, index: usize, likes: &[Aside], changes: &mut [Changes]) {
        let engine = self.engine;
        let replicas = engine.replicas.all();
        let mut shard = engine.shards[index].lock();
        let mut orphans = engine.orphans.lock();
        let frontier = engine.frontier.read();
        for like in likes {
            let post = &self.posts[like.post as usize];
            let mut knowledge = Knowledge {
                frontier: &frontier,
                orphans: orphans.known_mut(),
                further: [(like.dot.replica, like.dot.seq); 2],
            };
            let target = Target {
                post: &post.id,
                who: Who::hashed(&like.user, like.hash),
            };
            let context = engine.context(post, &replicas);
            let likers = shard.likers_mut(post);
            let changes = &mut changes[like.post as usize];
            let dots = (&[][..], Some(like.dot));
            merge::apply(likers, context, &mut knowledge, target, dots, changes);
            if let Some(orphan) = orphans.resolve(like.dot) {
                let (range, change) = engine.orphan_gone(like.dot, &orphan, &replicas);
                self.sums.add(range, change);
            }
        }
    }
}

/// Whether the block says nothing but that users like posts, of whom it knows no earlier like.
fn is_plain(decoded: &Block) -> bool {
    decoded.events.iter().all(|event| match &event.action {
        Action::Like { replaced, .. } => replaced.is_empty(),
        Action::Empty => true,
        Action::Unlike { .. } | Action::Add { .. } | Action::Retire { .. } => false,
    })
}
