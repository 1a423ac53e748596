//! The rows of a checkpoint, put into memory at a start.
//!
//! To read a row of likers and to build the bucket that it becomes takes most of the time, and concerns nobody else. So
//! posts are gathered first, and their rows shared out over the cores; a shard is locked only while a bucket that is built takes its
//! place.

use std::sync::Arc;

use bytes::Bytes;

use crate::crdt::changes::Changes;
use crate::crdt::dot::Replicas;
use crate::crdt::figures::Figures;
use crate::crdt::fingerprint::RangeSums;
use crate::crdt::likers::Part;
use crate::crdt::user_key::Who;
use crate::engine::Engine;
use crate::engine::post::{Post, shard_of_hash};
use crate::engine::recovery::{RecoveryError, bad_row};
use crate::engine::replicas::ReplicaTable;
use crate::engine::rows::{self, PostKey, RowError, StoredFigures};
use crate::engine::stored::{Assembly, Likers, LikersRow, Place, StoredPost};
use crate::ids::PostId;
use crate::seams::Cores;

/// Rows of likers that are gathered.
const ROWS_TOGETHER: usize = 4_096;

/// See the module.
pub(super) struct Loading<'a> {
    engine: &'a Engine,
    cores: Cores,
    sums: &'a mut RangeSums,
    assembly: Assembly<Unread>,
    gathered: Gathered,
}

/// Posts that wait, and how many rows of likers they have.
#[derive(Default)]
struct Gathered {
    posts: Vec<(PostId, StoredPost<Unread>)>,
    rows: usize,
}

impl Gathered {
    fn add(&mut self, id: PostId, post: StoredPost<Unread>) {
        self.rows += post.likers.len();
        self.posts.push((id, post));
    }
}

/// A row of likers that nobody has read, or those of a pack.
enum Unread {
    Row(Bytes),
    Read(Likers),
}

impl From<Likers> for Unread {
    fn from(likers: Likers) -> Self {
        Self::Read(likers)
    }
}

impl Default for Unread {
    fn default() -> Self {
        Self::Read(Likers::new())
    }
}

impl LikersRow for Unread {
    fn of(row: &Bytes, _: &ReplicaTable) -> Result<Self, RowError> {
        Ok(Self::Row(row.clone()))
    }
}

impl Unread {
    fn read(self, table: &ReplicaTable) -> Result<Likers, RowError> {
        match self {
            Self::Row(row) => rows::decode_likers(&row, table),
            Self::Read(likers) => Ok(likers),
        }
    }
}

/// A row of one of the posts that are being put into memory.
struct PostRow {
    /// The post's place among them.
    post: usize,
    range: (u64, u64),
    likers: Unread,
}

impl<'a> Loading<'a> {
    pub fn new(engine: &'a Engine, cores: Cores, sums: &'a mut RangeSums) -> Self {
        Self {
            engine,
            cores,
            sums,
            assembly: Assembly::default(),
            gathered: Gathered::default(),
        }
    }

    /// Takes a row in. Rows come in the order of their keys.
    pub fn row(&mut self, key: &[u8], row: &Bytes) -> Result<(), RowError> {
        let Some(key) = rows::post_key(key)? else {
            return Ok(());
        };
        if let PostKey::Pack(from) = key {
            self.engine.packs.begin_at(from);
        }
        let gathered = &mut self.gathered;
        let mut done = |id, post| gathered.add(id, post);
        self.assembly
            .add(key, row, &self.engine.replicas, &mut done)
    }

    /// Puts into memory what was gathered, if that is enough to be shared out.
    pub fn put_if_many(&mut self) -> Result<(), RecoveryError> {
        match self.gathered.rows >= ROWS_TOGETHER {
            true => self.put(),
            false => Ok(()),
        }
    }

    /// No more rows come.
    pub fn finish(&mut self) -> Result<(), RecoveryError> {
        let gathered = &mut self.gathered;
        self.assembly.finish(&mut |id, post| gathered.add(id, post));
        self.put()
    }

    fn put(&mut self) -> Result<(), RecoveryError> {
        let Gathered { posts, .. } = std::mem::take(&mut self.gathered);
        let replicas = self.engine.replicas.all();
        let mut begun = Vec::with_capacity(posts.len());
        let mut rows = Vec::new();
        for (at, (id, stored)) in posts.into_iter().enumerate() {
            let (post, place) = (self.engine.begin(&id, &stored), stored.place);
            let (figures, parts) = stored.into_parts();
            rows.extend(parts.map(|(range, likers)| PostRow {
                post: at,
                range,
                likers,
            }));
            begun.push((post, place, figures));
        }
        let engine = self.engine;
        let put = |row: PostRow| {
            let (at, from) = (row.post, row.range.0);
            let (post, ..) = &begun[at];
            let changes = engine.put_row(post, row);
            (
                at,
                changes.map_err(bad_row(&rows::likers_key(&post.id, from))),
            )
        };
        let mut all = vec![Changes::default(); begun.len()];
        for (at, changes) in self.cores.map(rows, put) {
            all[at].join(&changes?);
        }
        for ((post, place, stored), changes) in begun.iter().zip(all) {
            self.sums.add(post.hash.range(), changes.fingerprint);
            engine.count_likers(changes.likers());
            let mut figures = post.figures();
            post.credit(&mut figures, &changes);
            engine.install_figures((post, &replicas), &mut figures, stored, self.sums);
            drop(figures);
            if *place == Place::Both {
                engine.mark_post_changed(post);
            }
        }
        Ok(())
    }
}

impl Engine {
    /// The post, before any of its likers are there.
    fn begin(&self, id: &PostId, stored: &StoredPost<Unread>) -> Arc<Post> {
        let post = self.directory.get_or_create(id);
        if stored.likers.len() > 1 && self.shards.len() > 1 {
            post.set_wide();
        }
        if stored.place != Place::Pack {
            post.set_owns_rows();
        }
        post
    }

    /// Puts the likers of one row into memory. Returns what they change.
    fn put_row(&self, post: &Arc<Post>, row: PostRow) -> Result<Changes, RowError> {
        let likers = row.likers.read(&self.replicas)?;
        let replicas = self.replicas.all();
        let context = self.context(post, &replicas);
        let (from, to) = row.range;
        let shards = self.shards.len();
        let [first, last] = match post.is_wide() {
            true => [from, to].map(|hash| shard_of_hash(hash, shards)),
            false => [post.home(shards); 2],
        };
        let mut changes = Changes::default();
        if first == last {
            let part = Part::of(context, row.range, &likers, &mut changes);
            self.shards[first].lock().likers_mut(post).put_part(part);
            return Ok(changes);
        }
        // There were fewer shards when the row was written. Their buckets are not those of the checkpoint.
        for (user, dots) in &likers {
            let who = Who::of(user);
            if (from..=to).contains(&who.order()) {
                let mut shard = self.shards[post.shard_of(who.order(), shards)].lock();
                let likers = shard.likers_mut(post);
                likers.set(context, who, dots, &mut changes);
            }
        }
        self.shards[first]
            .lock()
            .likers_mut(post)
            .begin_bucket(from);
        Ok(changes)
    }

    fn install_figures(
        &self,
        (post, replicas): (&Post, &Replicas),
        figures: &mut Figures,
        stored: &StoredFigures,
        sums: &mut RangeSums,
    ) {
        let context = self.context(post, replicas);
        for (replica, increments) in &stored.likes {
            let change = figures.raise_increments(context, *replica, *increments);
            sums.add(post.hash.range(), change);
        }
        for (name, entries) in &stored.counters {
            for entry in entries {
                let change = figures.merge_counter(context, name, *entry);
                sums.add(post.hash.range(), change);
            }
        }
        figures.touch(stored.updated_at_ms);
    }
}
