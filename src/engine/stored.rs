//! Posts as the store has them, put together from packs and rows of their own.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::crdt::dot::Dots;
use crate::crdt::fingerprint::PostHash;
use crate::engine::replicas::ReplicaTable;
use crate::engine::rows::{self, PostKey, RowError, StoredFigures};
use crate::ids::{PostId, UserId};

/// Likers of a row, which may hold others than it speaks for.
pub(super) type Likers = Vec<(UserId, Dots)>;

/// A row of likers, read or still to be.
pub(super) trait LikersRow: From<Likers> + Default {
    fn of(row: &Bytes, table: &ReplicaTable) -> Result<Self, RowError>;
}

impl LikersRow for Likers {
    fn of(row: &Bytes, table: &ReplicaTable) -> Result<Self, RowError> {
        rows::decode_likers(row, table)
    }
}

/// A post as the store has it.
pub(super) struct StoredPost<R = Likers> {
    pub figures: StoredFigures,
    /// By the first hash that each row speaks for, ascending.
    pub likers: Vec<(u64, R)>,
    pub place: Place,
}

impl<R> Default for StoredPost<R> {
    fn default() -> Self {
        Self {
            figures: StoredFigures::default(),
            likers: Vec::new(),
            place: Place::default(),
        }
    }
}

/// Where a post stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Place {
    #[default]
    Pack,
    /// Has rows of its own, and some of it stands in a pack alone: a checkpoint was cut short.
    Both,
    Own,
}

impl<R> StoredPost<R> {
    /// The figures, and of each row the first and the last hash that it speaks for and its likers.
    pub fn into_parts(self) -> (StoredFigures, impl Iterator<Item = ((u64, u64), R)>) {
        let ends = self.likers.iter().skip(1).map(|(from, _)| from - 1);
        let ends: Vec<u64> = ends.chain([u64::MAX]).collect();
        let rows = self.likers.into_iter().zip(ends);
        let buckets = rows.map(|((from, likers), to)| ((from, to), likers));
        (self.figures, buckets)
    }
}

impl StoredPost {
    /// Whether the rows name exactly these likers of the hashes `from..=to`.
    pub fn says(
        &self,
        from: u64,
        to: u64,
        mut likers: impl Iterator<Item = (UserId, Dots)>,
    ) -> bool {
        let place = self.likers.binary_search_by_key(&from, |(from, _)| *from);
        let row = place.ok().map(|place| &self.likers[place].1);
        let is_meant = |user: &UserId| (from..=to).contains(&order(user));
        let row = row.into_iter().flatten();
        let row = row.filter(|(user, _)| is_meant(user));
        let mut stored: std::collections::HashMap<&UserId, Dots> =
            row.map(|(user, dots)| (user, sorted(dots))).collect();
        likers.all(|(user, dots)| stored.remove(&user) == Some(sorted(&dots))) && stored.is_empty()
    }
}

fn order(user: &UserId) -> u64 {
    crate::crdt::user_key::UserHash::of(user).order()
}

fn sorted(dots: &Dots) -> Dots {
    let mut dots = dots.clone();
    dots.sort_unstable_by_key(|dot| (dot.replica, dot.seq));
    dots
}

/// A post of which rows are being read.
struct Own<R> {
    id: PostId,
    figures: Option<StoredFigures>,
    likers: Vec<(u64, R)>,
}

/// Puts rows together that come in the order of their keys: in every range its packs first, then what larger
/// posts have of their own.
pub(super) struct Assembly<R> {
    range: usize,
    /// What the packs of the range hold, by hash.
    packed: BTreeMap<(u64, PostId), StoredPost<R>>,
    own: Option<Own<R>>,
}

impl<R> Default for Assembly<R> {
    fn default() -> Self {
        Self {
            range: 0,
            packed: BTreeMap::new(),
            own: None,
        }
    }
}

impl<R: LikersRow> Assembly<R> {
    /// Takes a row in, and hands over what is complete before it.
    pub fn add(
        &mut self,
        key: PostKey,
        row: &Bytes,
        table: &ReplicaTable,
        done: &mut impl FnMut(PostId, StoredPost<R>),
    ) -> Result<(), RowError> {
        if key.range() != self.range {
            self.finish(done);
            self.range = key.range();
        }
        match key {
            PostKey::Pack(from) => self.add_pack(from, rows::decode_pack(row, table)?),
            PostKey::Figures(id) => {
                self.own(id, done).figures = Some(rows::decode_figures(row, table)?)
            }
            PostKey::Likers(id, from) => {
                let likers = R::of(row, table)?;
                self.own(id, done).likers.push((from, likers));
            }
        }
        Ok(())
    }

    /// Hands over the rest of the range.
    pub fn finish(&mut self, done: &mut impl FnMut(PostId, StoredPost<R>)) {
        self.end_own(done);
        for ((_, id), post) in std::mem::take(&mut self.packed) {
            done(id, post);
        }
    }

    /// From here on this pack speaks, and no longer the one before it.
    fn add_pack(&mut self, from: u64, posts: Vec<rows::PackedPost>) {
        self.packed.retain(|(hash, _), _| *hash < from);
        for post in posts {
            let hash = PostHash::of(&post.id);
            if hash.range() == self.range && hash.order() >= from {
                let mut stored = StoredPost {
                    figures: post.figures,
                    ..StoredPost::default()
                };
                if !post.likers.is_empty() {
                    stored.likers.push((0, post.likers.into()));
                }
                self.packed.insert((hash.order(), post.id), stored);
            }
        }
    }

    fn own(&mut self, id: PostId, done: &mut impl FnMut(PostId, StoredPost<R>)) -> &mut Own<R> {
        if self.own.as_ref().is_some_and(|own| own.id != id) {
            self.end_own(done);
        }
        self.own.get_or_insert_with(|| Own {
            id,
            figures: None,
            likers: Vec::new(),
        })
    }

    /// Rows of a post's own are newer than what a pack has of it, which speaks where they say nothing.
    fn end_own(&mut self, done: &mut impl FnMut(PostId, StoredPost<R>)) {
        let Some(own) = self.own.take() else {
            return;
        };
        let key = (PostHash::of(&own.id).order(), own.id);
        let packed = self.packed.remove(&key).unwrap_or_default();
        let mut post = StoredPost {
            likers: own.likers,
            place: Place::Own,
            figures: packed.figures,
        };
        match own.figures {
            Some(figures) => post.figures = figures,
            None => post.place = Place::Both,
        }
        if post.likers.first().is_none_or(|(from, _)| *from > 0) {
            let below = packed.likers.into_iter().next();
            let below = below.map_or_else(R::default, |(_, likers)| likers);
            post.likers.insert(0, (0, below));
            post.place = Place::Both;
        }
        done(key.1, post);
    }
}
