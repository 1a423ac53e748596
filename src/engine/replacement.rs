//! Putting a rebuilt range in the place of what memory holds, while it is frozen.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::crdt::dot::{Dots, ReplicaIndex};
use crate::crdt::figures::Figures;
use crate::crdt::likers::{Liker, Likers};
use crate::engine::Engine;
use crate::engine::freeze::Frozen;
use crate::engine::post::{Post, range_of_shard};
use crate::engine::rebuild::{RebuiltPost, RebuiltRange};
use crate::engine::rows::StoredFigures;
use crate::ids::{PostId, UserId};

/// By how much two states of a range differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Difference {
    /// Entries that memory held and that are gone: likers' dots, figures, orphan removals.
    pub removed: u64,
    /// Entries that have come.
    pub added: u64,
}

impl Engine {
    /// Whether figures of the running replica would fall: what it gives out next would then not be new.
    pub(super) fn own_would_fall(&self, frozen: &Frozen, rebuilt: &RebuiltRange) -> bool {
        let (own, _) = self.queue.own();
        let empty = RebuiltPost::default();
        let posts = self.directory.in_range(frozen.range);
        posts.iter().any(|post| {
            let new = rebuilt.posts.get(&post.id).unwrap_or(&empty);
            falls(own, &post.figures(), &new.figures)
        })
    }

    /// Memory becomes what was rebuilt. Posts that are equal already are left alone.
    pub(super) fn replace_range(&self, frozen: &Frozen, mut rebuilt: RebuiltRange) -> Difference {
        let mut difference = Difference::default();
        let known = self.directory.in_range(frozen.range).into_iter();
        let mut ids: BTreeSet<PostId> = known.map(|post| post.id.clone()).collect();
        ids.extend(rebuilt.posts.keys().cloned());
        for id in ids {
            let post = self.directory.get_or_create(&id);
            let new = rebuilt.posts.remove(&id).unwrap_or_default();
            let of_post = self.compare_post(&post, &new);
            if of_post != Difference::default() {
                self.put_post(&post, &new.likers, new.figures);
            }
            difference.removed += of_post.removed;
            difference.added += of_post.added;
        }
        let of_orphans = self.replace_orphans(frozen, &rebuilt);
        difference.removed += of_orphans.removed;
        difference.added += of_orphans.added;
        difference
    }

    /// Posts whose likers or credits are not where they belong are put together anew from their entries.
    pub(super) fn put_right(&self, _frozen: &Frozen, posts: &[Arc<Post>]) {
        for post in posts {
            let likers = self.likers_of(post);
            let mut whole = Likers::new(0, u64::MAX);
            likers.iter().for_each(|liker| whole.adopt(liker));
            let figures = post.figures().clone();
            self.put_post(post, &whole, figures);
        }
    }

    /// All likers, wherever they stand.
    fn likers_of(&self, post: &Post) -> Vec<Liker> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let likers = shard.likers(post).into_iter().flat_map(Likers::iter);
            all.extend(likers);
        }
        all
    }

    fn compare_post(&self, post: &Post, new: &RebuiltPost) -> Difference {
        let mut difference = Difference::default();
        let mut here: HashMap<UserId, Dots> = HashMap::new();
        for liker in self.likers_of(post) {
            here.entry(liker.user).or_default().extend(liker.dots);
        }
        for liker in new.likers.iter() {
            let old = here.remove(&liker.user).unwrap_or_default();
            difference.added += count(&liker.dots, |dot| !old.contains(dot));
            difference.removed += count(&old, |dot| !liker.dots.contains(dot));
        }
        difference.removed += here.values().map(|dots| dots.len() as u64).sum::<u64>();
        let (old, new) = (entries(&post.figures()), entries(&new.figures));
        difference.removed += count(&old, |entry| !new.contains(entry));
        difference.added += count(&new, |entry| !old.contains(entry));
        difference
    }

    /// Puts likers and figures in place. Buckets begin where they began: rows of the checkpoint stand there.
    fn put_post(&self, post: &Arc<Post>, likers: &Likers, mut figures: Figures) {
        let mut parts: Vec<Option<Likers>> = Vec::with_capacity(self.shards.len());
        let is_wide = post.is_wide();
        for (index, shard) in self.shards.iter().enumerate() {
            let (from, to) = match is_wide {
                true => range_of_shard(index, self.shards.len()),
                false => (0, u64::MAX),
            };
            let is_used = is_wide || index == post.home(self.shards.len());
            let part = is_used.then(|| {
                let mut part = Likers::new(from, to);
                let shard = shard.lock();
                let old = shard.likers(post).into_iter();
                let starts = old.flat_map(|old| old.ranges()).map(|(from, _)| from);
                starts.for_each(|start| part.begin_bucket(start));
                part
            });
            parts.push(part);
        }
        let replicas = self.replicas.all();
        let mut credits: HashMap<ReplicaIndex, u64> = HashMap::new();
        for liker in likers.iter() {
            if let Some(credited) = replicas.smallest(&liker.dots) {
                *credits.entry(credited.replica).or_default() += 1;
            }
            let index = match is_wide {
                true => crate::engine::post::shard_of_hash(liker.hash.order(), self.shards.len()),
                false => post.home(self.shards.len()),
            };
            let part = parts[index].as_mut().expect("a shard of the post");
            part.adopt(&liker);
        }
        figures.recredit(&credits);
        // At one moment for whoever reads the post.
        let mut shards = self.lock_all();
        for (shard, part) in shards.iter_mut().zip(parts) {
            if let Some(part) = part {
                shard.replace(post, part);
            }
        }
        let mut old = post.figures();
        self.count_likers(figures.likers() as i64 - old.likers() as i64);
        figures.touch(old.updated_at_ms());
        *old = figures;
        post.show_likers(&old);
        drop(old);
        drop(shards);
        self.note_changed_figures(post);
        self.watchers.mark(std::iter::once(post.number));
    }

    fn replace_orphans(&self, frozen: &Frozen, rebuilt: &RebuiltRange) -> Difference {
        let mut orphans = self.orphans.lock();
        let held = orphans.known().in_range(frozen.range);
        let is_kept = |dot, post: &PostId, user: &UserId| rebuilt.orphans.contains(dot, post, user);
        let gone = held.filter(|(dot, orphan)| !is_kept(*dot, &orphan.post, &orphan.user));
        let gone: Vec<_> = gone.map(|(dot, _)| dot).collect();
        gone.iter().for_each(|dot| drop(orphans.resolve(*dot)));
        let mut difference = Difference {
            removed: gone.len() as u64,
            added: 0,
        };
        for (dot, orphan) in rebuilt.orphans.iter() {
            let is_new = orphans.known_mut().insert(dot, &orphan.post, &orphan.user);
            difference.added += u64::from(is_new);
        }
        difference
    }

    /// All of the range goes into the next checkpoint, also where memory has not changed.
    pub(super) fn mark_range_changed(&self, range: usize) {
        for post in self.directory.in_range(range) {
            self.mark_post_changed(&post);
        }
    }

    pub(super) fn mark_post_changed(&self, post: &Arc<Post>) {
        self.note_changed_figures(post);
        for shard in &self.shards {
            shard.lock().mark_changed(post);
        }
    }

    /// Where a row stands and no bucket begins, one will, so that the next checkpoint writes over the row.
    /// Returns whether it was so.
    pub(super) fn begin_bucket_at(&self, post: &Arc<Post>, from: u64) -> bool {
        let index = match post.is_wide() {
            true => crate::engine::post::shard_of_hash(from, self.shards.len()),
            false => post.home(self.shards.len()),
        };
        let mut shard = self.shards[index].lock();
        let has_bucket = match shard.likers(post) {
            Some(likers) => likers.ranges().iter().any(|(start, _)| *start == from),
            None => shard.range_of(post).0 == from,
        };
        if !has_bucket {
            shard.likers_mut(post).begin_bucket(from);
        }
        !has_bucket
    }
}

fn count<T>(all: &[T], is_counted: impl Fn(&T) -> bool) -> u64 {
    all.iter().filter(|one| is_counted(one)).count() as u64
}

fn falls(own: ReplicaIndex, old: &Figures, new: &Figures) -> bool {
    let counters = old.counters().iter();
    new.increments(own) < old.increments(own)
        || counters
            .map(|(name, counter)| (name, counter.entry(own)))
            .any(|(name, old)| {
                let new = new.counters().get(name).map(|counter| counter.entry(own));
                let new = new.map_or([0, 0], |entry| entry.figures());
                new[0] < old.increments || new[1] < old.decrements
            })
}

/// The figures that count, one by one.
fn entries(figures: &Figures) -> Vec<(String, ReplicaIndex, [u64; 2])> {
    let stored = StoredFigures::of(figures).essential();
    let likes = stored.likes.into_iter();
    let likes = likes.map(|(replica, figure)| (String::new(), replica, [figure, 0]));
    let counters = stored.counters.into_iter().flat_map(|(name, entries)| {
        let entry = move |entry: crate::crdt::pn_counter::CounterEntry| {
            (name.to_string(), entry.replica, entry.figures())
        };
        entries.into_iter().map(entry)
    });
    likes.chain(counters).collect()
}
