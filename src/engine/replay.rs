//! Replay of the log after a start, likes of large posts in bulk.
//!
//! Applied one by one, such likes wait for memory: each user of a large post stands in another place. So those that name
//! no dot are put aside, and applied many together in the order in which memory has their users: merged into whole tables where
//! the post has few times as many likers, else searched for many at a time. Nobody sees the state meanwhile, and whatever
//! else the log says of anyone is applied after what was put aside before it.
//!
//! Blocks are decoded, and what was put aside is applied, on all cores. All else happens in the order of the log.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::crdt::changes::Changes;
use crate::crdt::dot::Dot;
use crate::crdt::event::{Action, Block};
use crate::crdt::fingerprint::RangeSums;
use crate::crdt::likers::{Place, Searches};
use crate::crdt::user_key::{UserHash, Who};
use crate::engine::Engine;
use crate::engine::orphans::Orphans;
use crate::engine::post::{Post, PostNumber};
use crate::engine::record::{COMMIT_RECORD, CommitRecord, decode};
use crate::engine::remote::{Known, Replayed};
use crate::ids::UserId;
use crate::log::{Position, Record, RefusedRecord, VisitError, Visitor};
use crate::seams::Cores;

/// Likes that are put aside at most, about a hundred megabytes while a start lasts. The more there are, the more are merged.
const ASIDE_MAX: usize = 1 << 20;
/// Likes are merged where a post has no more than so many times the likers: a merge passes over all of them.
const MERGED_FROM: usize = 8;
/// Likes whose users are searched for at the same time, so that the waits for memory overlap.
const TOGETHER: usize = 64;
/// Bytes of blocks that are decoded together.
const BYTES_TOGETHER: usize = 1 << 20;

/// Applies the records of a log, and sums up what they do to the fingerprints.
pub(super) struct Replay<'a> {
    engine: &'a Engine,
    cores: Cores,
    sums: &'a mut RangeSums,
    /// Records whose blocks are still to be decoded, and the bytes of these.
    gathered: Vec<(Position, CommitRecord)>,
    gathered_bytes: usize,
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
    /// The upper half of the user's hash.
    order: u64,
    dot: Dot,
    user: UserId,
}

/// A block, with what can be found out of it by itself.
struct Decoded {
    block: Block,
    /// Whether it says nothing but that users like posts, of whom it knows no earlier like.
    is_plain: bool,
}

impl Decoded {
    fn of(block: Block) -> Self {
        let is_plain = block.events.iter().all(|event| match &event.action {
            Action::Like { replaced, .. } => replaced.is_empty(),
            Action::Empty => true,
            Action::Unlike { .. } | Action::Add { .. } | Action::Retire { .. } => false,
        });
        Self { block, is_plain }
    }
}

impl<'a> Replay<'a> {
    pub fn new(engine: &'a Engine, cores: Cores, sums: &'a mut RangeSums) -> Self {
        let shards = engine.shards.len();
        Self {
            engine,
            cores,
            sums,
            gathered: Vec::new(),
            gathered_bytes: 0,
            aside: (0..shards).map(|_| Vec::new()).collect(),
            waiting: 0,
            posts: Vec::new(),
            places: HashMap::new(),
        }
    }

    fn read(&self, record: &Record) -> Result<CommitRecord, VisitError> {
        if record.kind.0 != COMMIT_RECORD {
            let kind = record.kind.0;
            return Err(format!("a record of kind {kind}, which this build does not know").into());
        }
        let table = &mut &self.engine.replicas;
        Ok(decode(&record.payload, table)?)
    }

    fn apply_gathered(&mut self) -> Result<(), RefusedRecord> {
        let engine = self.engine;
        let records = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        let blocks = records.iter().flat_map(|(_, record)| &record.blocks);
        let blocks = blocks.collect();
        let decode = |bytes: &Bytes| engine.decode_block(bytes).map(Decoded::of);
        let mut decoded = self.cores.map(blocks, decode).into_iter();
        for (position, record) in &records {
            let position = *position;
            for block in decoded.by_ref().take(record.blocks.len()) {
                let applied = block
                    .map_err(VisitError::from)
                    .and_then(|block| self.block(&block));
                applied.map_err(|source| RefusedRecord { position, source })?;
            }
            for request in &record.requests {
                let token = || engine.token_of_frontier();
                engine.requests.remember(request, token);
            }
        }
        Ok(())
    }

    /// Applies what is new of a block.
    ///
    /// A block stands in the log behind all that it builds on. One that does not was shown as durable, and to pass over it
    /// would lose it.
    fn block(&mut self, decoded: &Decoded) -> Result<(), VisitError> {
        let block = &decoded.block;
        match self.engine.known(block) {
            Known::UpTo(have) => self.apply(decoded, have),
            Known::Whole => return Ok(()),
            Known::NotBefore => {
                let replica = self.engine.replicas.all().id(block.replica).clone();
                let first = block.first_seq;
                return Err(
                    format!("event {first} of {replica} stands before what it follows").into(),
                );
            }
        }
        note_client_orphans(self.engine, block);
        Ok(())
    }

    fn apply(&mut self, decoded: &Decoded, have: u64) {
        let block = &decoded.block;
        if decoded.is_plain {
            let ids = block.posts.iter();
            let posts = ids.map(|id| self.engine.directory.get_or_create(id));
            let posts: Vec<Arc<Post>> = posts.collect();
            if posts.iter().all(|post| post.is_wide()) {
                self.put_aside(block, have, &posts);
                return;
            }
        }
        self.apply_aside();
        if let Replayed::Applied(section) = self.engine.replay(block) {
            for (range, change) in &section.prints {
                self.sums.add(*range, *change);
            }
        }
    }

    /// Frontier and figures follow at once, likers later.
    fn put_aside(&mut self, block: &Block, have: u64, posts: &[Arc<Post>]) {
        let shards = self.engine.shards.len();
        let places: Vec<u32> = posts.iter().map(|post| self.place(post)).collect();
        let mut newest = vec![(0, 0); posts.len()];
        let mut orphans = self.engine.orphans.lock();
        for (dot, event) in block.dotted().filter(|(dot, _)| dot.seq > have) {
            if let Action::Like {
                post,
                user,
                increments,
                ..
            } = &event.action
            {
                let at = *post as usize;
                newest[at] = (
                    newest[at].0.max(*increments),
                    newest[at].1.max(event.time_ms),
                );
                if !orphans.known().contains(dot, &posts[at].id, user) {
                    let order = UserHash::of(user).order();
                    self.aside[posts[at].shard_of(order, shards)].push(Aside {
                        post: places[at],
                        order,
                        dot,
                        user: user.clone(),
                    });
                    self.waiting += 1;
                }
            }
            resolve(self.engine, &mut orphans, dot, self.sums);
        }
        drop(orphans);
        let replicas = self.engine.replicas.all();
        // A replica that has made no like has no entry.
        let liked = posts
            .iter()
            .zip(newest)
            .filter(|(_, (increments, _))| *increments > 0);
        for (post, (increments, time_ms)) in liked {
            let context = self.engine.context(post, &replicas);
            let mut figures = post.figures();
            let change = figures.raise_increments(context, block.replica, increments);
            figures.touch(time_ms);
            self.sums.add(post.hash.range(), change);
        }
        self.engine.cover(block);
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

    fn apply_aside(&mut self) {
        if self.posts.is_empty() {
            return;
        }
        let (engine, posts) = (self.engine, &self.posts);
        let aside = self.aside.iter_mut().map(std::mem::take);
        let aside = aside.enumerate().collect();
        let apply = |(shard, mut likes): (usize, Vec<Aside>)| {
            let changes = apply_to_shard(engine, shard, &in_order(&likes), posts);
            likes.clear();
            (likes, changes)
        };
        let mut all = vec![Changes::default(); posts.len()];
        for (shard, (emptied, changes)) in self.cores.map(aside, apply).into_iter().enumerate() {
            self.aside[shard] = emptied;
            for (all, changes) in all.iter_mut().zip(&changes) {
                all.join(changes);
            }
        }
        self.waiting = 0;
        self.places.clear();
        for (post, changes) in self.posts.drain(..).zip(all) {
            self.sums.add(post.hash.range(), changes.fingerprint);
            engine.count_likers(changes.likers());
            post.credit(&mut post.figures(), &changes);
            engine.note_changed_figures(&post);
        }
    }
}

impl Visitor for Replay<'_> {
    fn record(&mut self, record: Record) -> Result<(), RefusedRecord> {
        let position = record.position;
        let read = self.read(&record);
        let read = read.map_err(|source| RefusedRecord { position, source })?;
        self.gathered_bytes += read.blocks.iter().map(Bytes::len).sum::<usize>();
        self.gathered.push((position, read));
        match self.gathered_bytes >= BYTES_TOGETHER {
            true => self.apply_gathered(),
            false => Ok(()),
        }
    }

    /// Nothing waits or is aside any more.
    fn end(&mut self) -> Result<(), RefusedRecord> {
        self.apply_gathered()?;
        self.apply_aside();
        Ok(())
    }
}

/// By posts, and in the order in which memory has their users. Numbers are sorted sooner than what they tell.
fn in_order(likes: &[Aside]) -> Vec<&Aside> {
    let number = |(at, like): (usize, &Aside)| {
        u128::from(like.post) << 96 | u128::from(like.order) << 32 | at as u128
    };
    let mut numbers: Vec<u128> = likes.iter().enumerate().map(number).collect();
    numbers.sort_unstable();
    let ordered = numbers.into_iter();
    ordered
        .map(|number| &likes[number as u32 as usize])
        .collect()
}

/// Applies likes, none of which names a dot or is dead. Returns what they change of each post.
fn apply_to_shard(
    engine: &Engine,
    index: usize,
    likes: &[&Aside],
    posts: &[Arc<Post>],
) -> Vec<Changes> {
    let replicas = engine.replicas.all();
    let mut shard = engine.shards[index].lock();
    let mut all = vec![Changes::default(); posts.len()];
    for run in likes.chunk_by(|a, b| a.post == b.post) {
        let at = run[0].post as usize;
        let post = &posts[at];
        let context = engine.context(post, &replicas);
        let (likers, changes) = (shard.likers_mut(post), &mut all[at]);
        let mut run: Vec<(Who<'_>, Dot)> = run
            .iter()
            .map(|like| (Who::of(&like.user), like.dot))
            .collect();
        if likers.len() <= run.len() * MERGED_FROM {
            let left = likers.merge(context, &run, changes);
            run = left.into_iter().map(|at| run[at]).collect();
        }
        for together in run.chunks(TOGETHER) {
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
    all
}

/// The dot's event is applied: an orphan removal of it has done its work.
fn resolve(engine: &Engine, orphans: &mut Orphans, dot: Dot, sums: &mut RangeSums) {
    if let Some(orphan) = orphans.resolve(dot) {
        let replicas = engine.replicas.all();
        let (range, change) = engine.orphan_gone(dot, &orphan, &replicas);
        sums.add(range, change);
    }
}

/// Removals of unseen likes that this region's nodes logged were asked for by its clients.
fn note_client_orphans(engine: &Engine, decoded: &Block) {
    if engine.replicas.all().id(decoded.replica).region != engine.options.region {
        return;
    }
    let mut orphans = engine.orphans.lock();
    for event in &decoded.events {
        if let Action::Unlike { removed, .. } = &event.action {
            let open = removed.iter().filter(|dot| orphans.known().holds(**dot));
            let open: Vec<Dot> = open.copied().collect();
            open.into_iter()
                .for_each(|dot| orphans.note_client_made(dot));
        }
    }
}
