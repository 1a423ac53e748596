//! Replay of the log after a start, likes of large posts in bulk.
//!
//! Applied one by one, such likes wait for memory: each user of a large post stands in another place. So those that name
//! no dot are put aside, and applied many together in the order in which memory has their users: merged into whole tables where
//! the post has few times as many likers, else searched for many at a time. Nobody sees the state meanwhile, and whatever
//! else the log says of anyone is applied after what was put aside before it.
//!
//! Blocks are decoded, and what was put aside is applied, on all cores. All else happens in the order of the log.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::DecodeError;
use crate::crdt::changes::Changes;
use crate::crdt::dot::Dot;
use crate::crdt::event::{Action, Block};
use crate::crdt::fingerprint::RangeSums;
use crate::engine::Engine;
use crate::engine::aside::{Aside, Plain};
use crate::engine::post::Post;
use crate::engine::record::{COMMIT_RECORD, CommitRecord, decode};
use crate::engine::remote::{Known, Replayed};
use crate::log::{Position, Record, RefusedRecord, VisitError, Visitor};
use crate::seams::Cores;

/// What is put aside at most. The more there is, the more is merged together.
const ASIDE_BYTES_MAX: usize = 48 << 20;
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
    aside: Aside,
}

/// A block, with what can be found out of it by itself.
struct Decoded {
    block: Block,
    /// Where the block says nothing but that users like posts, of whom it knows no earlier like.
    plain: Option<Plain>,
}

impl Decoded {
    fn of(block: Block, engine: &Engine) -> Self {
        // Of what is known now: a post that is spread stays so.
        let is_wide = |id| engine.directory.get(id).is_some_and(|post| post.is_wide());
        let is_large = block.posts.len() == 1 || block.posts.iter().all(is_wide);
        let is_plain = block.events.iter().all(|event| match &event.action {
            Action::Like { replaced, .. } => replaced.is_empty(),
            Action::Empty => true,
            Action::Unlike { .. } | Action::Add { .. } | Action::Retire { .. } => false,
        });
        let plain = (is_plain && is_large).then(|| Plain::of(&block, engine.shards.len()));
        Self { block, plain }
    }
}

impl<'a> Replay<'a> {
    pub fn new(engine: &'a Engine, cores: Cores, sums: &'a mut RangeSums) -> Self {
        Self {
            engine,
            cores,
            sums,
            gathered: Vec::new(),
            gathered_bytes: 0,
            aside: Aside::default(),
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
        let decode = |bytes: &Bytes| {
            let block = engine.decode_block(bytes)?;
            Ok(Decoded::of(block, engine))
        };
        let decoded: Vec<Result<Decoded, DecodeError>> = self.cores.map(blocks, decode);
        let mut decoded = decoded.into_iter();
        for (position, record) in &records {
            let position = *position;
            for block in decoded.by_ref().take(record.blocks.len()) {
                let applied = block
                    .map_err(VisitError::from)
                    .and_then(|block| self.block(block));
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
    fn block(&mut self, decoded: Decoded) -> Result<(), VisitError> {
        let Decoded { block, plain } = decoded;
        match self.engine.known(&block) {
            Known::UpTo(have) => self.apply(&block, plain, have),
            Known::Whole => return Ok(()),
            Known::NotBefore => {
                let replica = self.engine.replicas.all().id(block.replica).clone();
                let first = block.first_seq;
                return Err(
                    format!("event {first} of {replica} stands before what it follows").into(),
                );
            }
        }
        note_client_orphans(self.engine, &block);
        Ok(())
    }

    fn apply(&mut self, block: &Block, plain: Option<Plain>, have: u64) {
        // Of a block that is known in part, the rest is applied as it comes.
        if let Some(plain) = plain.filter(|_| have < block.first_seq) {
            let ids = block.posts.iter();
            let posts = ids.map(|id| self.engine.directory.get_or_create(id));
            let posts: Vec<Arc<Post>> = posts.collect();
            if posts.iter().all(|post| post.is_wide()) {
                self.put_aside(block, plain, &posts);
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
    fn put_aside(&mut self, block: &Block, plain: Plain, posts: &[Arc<Post>]) {
        let dead = self.dead(block, posts);
        let replicas = self.engine.replicas.all();
        // A replica that has made no like has no entry.
        let newest = posts.iter().zip(&plain.newest);
        let liked = newest.filter(|(_, newest)| newest.increments > 0);
        for (post, newest) in liked {
            let context = self.engine.context(post, &replicas);
            let mut figures = post.figures();
            let change = figures.raise_increments(context, block.replica, newest.increments);
            figures.touch(newest.time_ms);
            self.sums.add(post.hash.range(), change);
        }
        self.engine.cover(block);
        self.aside.add(posts, plain, &dead);
        if self.aside.bytes >= ASIDE_BYTES_MAX {
            self.apply_aside();
        }
    }

    /// The dots of the block's likes that have been removed already. Their removals have done their work.
    fn dead(&mut self, block: &Block, posts: &[Arc<Post>]) -> HashSet<Dot> {
        let mut orphans = self.engine.orphans.lock();
        let mut dead = HashSet::new();
        if orphans.is_empty() {
            return dead;
        }
        for (dot, event) in block.dotted() {
            if let Action::Like { post, user, .. } = &event.action
                && orphans
                    .known()
                    .contains(dot, &posts[*post as usize].id, user)
            {
                dead.insert(dot);
            }
            if let Some(orphan) = orphans.resolve(dot) {
                let replicas = self.engine.replicas.all();
                let (range, change) = self.engine.orphan_gone(dot, &orphan, &replicas);
                self.sums.add(range, change);
            }
        }
        dead
    }

    fn apply_aside(&mut self) {
        let aside = std::mem::take(&mut self.aside);
        if aside.posts.is_empty() {
            return;
        }
        let engine = self.engine;
        let apply = |shard| aside.apply(engine, shard);
        let shards = (0..engine.shards.len()).collect();
        let mut all = vec![Changes::default(); aside.posts.len()];
        for changes in self.cores.map(shards, apply) {
            for (all, changes) in all.iter_mut().zip(&changes) {
                all.join(changes);
            }
        }
        for (post, changes) in aside.posts.iter().zip(all) {
            self.sums.add(post.hash.range(), changes.fingerprint);
            engine.count_likers(changes.likers());
            post.credit(&mut post.figures(), &changes);
            engine.note_changed_figures(post);
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
