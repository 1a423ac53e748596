//! Posts, and the directory that finds them by name.
//!
//! The figures of a post stand in one place; its likers are held by shards. A small post has all of
//! them in its home shard; a large one has them spread over all shards by the frozen hash of the user,
//! so that one hot post uses every core.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::crdt::changes::Changes;
use crate::crdt::figures::Figures;
use crate::crdt::fingerprint::{PostHash, RANGES};
use crate::crdt::prefetch::prefetch_whole;
use crate::ids::PostId;

/// A post's place in the directory of this process. Never stored or sent.
pub type PostNumber = u32;

pub struct Post {
    pub number: PostNumber,
    pub id: PostId,
    pub hash: PostHash,
    /// Guards the like counter's entries and the other counters. Taken inside a shard's lock.
    figures: Mutex<Figures>,
    /// Mirror of `figures.likers()`, for reads that take no lock.
    likers: AtomicU64,
    /// Whether the likers are spread over all shards. Changes once, under the locks of all shards.
    wide: AtomicBool,
    /// Whether anybody watches the post.
    watched: AtomicBool,
    /// Whether the figures changed since they were last taken for a checkpoint.
    changed: AtomicBool,
    /// Whether anything was ever written of the post. Changes once; until then the directory may forget it.
    kept: AtomicBool,
    /// How often likers or figures changed, for readers that must know whether they saw one state. Raised
    /// under the lock of the shard that changed, after the change.
    changes: AtomicU64,
    /// Whether the store has it in rows of its own. Once it has, it keeps them.
    owns_rows: AtomicBool,
    /// Where its home shard has its likers while it is small: [`NO_PLACE`] where it has none. Guarded by the lock of that shard.
    place: AtomicU32,
}

const NO_PLACE: u32 = u32::MAX;

impl Post {
    fn new(number: PostNumber, id: PostId) -> Self {
        Self {
            number,
            hash: PostHash::of(&id),
            id,
            figures: Mutex::default(),
            likers: AtomicU64::new(0),
            wide: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            kept: AtomicBool::new(false),
            changes: AtomicU64::new(0),
            owns_rows: AtomicBool::new(false),
            place: AtomicU32::new(NO_PLACE),
        }
    }

    /// The exact count, without a lock or a walk.
    pub fn likers(&self) -> u64 {
        self.likers.load(Ordering::Acquire)
    }

    pub fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock()
    }

    /// Lets the figures follow a change of the likers.
    pub fn credit(&self, figures: &mut Figures, changes: &Changes) {
        figures.credit(changes);
        self.likers.store(figures.likers(), Ordering::Release);
        self.note_change();
    }

    /// Also where figures run ahead of the likers that will follow.
    pub(super) fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Equal before and after a reading: nothing that the reading passed over changed meanwhile, apart from what
    /// a merge does.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The figures were put in place whole.
    pub(super) fn show_likers(&self, figures: &Figures) {
        self.likers.store(figures.likers(), Ordering::Release);
    }

    pub fn is_wide(&self) -> bool {
        self.wide.load(Ordering::Acquire)
    }

    pub(super) fn set_wide(&self) {
        self.wide.store(true, Ordering::Release);
    }

    /// The shard that holds a user with this upper half of the hash, of a power of two of them. Shards are in the order of hashes.
    pub fn shard_of(&self, order: u64, shards: usize) -> usize {
        match self.is_wide() {
            true => shard_of_hash(order, shards),
            false => self.home(shards),
        }
    }

    /// The shard that holds the post while it is small.
    pub fn home(&self, shards: usize) -> usize {
        self.hash.0 as usize & (shards - 1)
    }

    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Acquire)
    }

    pub(super) fn set_watched(&self, watched: bool) {
        self.watched.store(watched, Ordering::Release);
    }

    pub(super) fn owns_rows(&self) -> bool {
        self.owns_rows.load(Ordering::Acquire)
    }

    pub(super) fn set_owns_rows(&self) {
        self.owns_rows.store(true, Ordering::Release);
    }

    pub(super) fn place(&self) -> Option<u32> {
        let place = self.place.load(Ordering::Relaxed);
        (place != NO_PLACE).then_some(place)
    }

    pub(super) fn set_place(&self, place: Option<u32>) {
        self.place
            .store(place.unwrap_or(NO_PLACE), Ordering::Relaxed);
    }

    pub(super) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Acquire)
    }

    /// Returns whether the figures were unchanged until now. Called after the change, or under the lock of the figures: who takes
    /// the mark reads them afterwards, so that one of the two sees the other.
    pub(super) fn mark_changed(&self) -> bool {
        !self.has_changed() && !self.changed.swap(true, Ordering::AcqRel)
    }

    pub(super) fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }

    pub(super) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }
}

/// The shard of a hash in a post that is spread over all of them.
pub fn shard_of_hash(hash: u64, shards: usize) -> usize {
    let bits = shards.trailing_zeros();
    hash.checked_shr(64 - bits).unwrap_or(0) as usize
}

/// The hashes that a shard holds of posts that are spread.
pub fn range_of_shard(shard: usize, shards: usize) -> (u64, u64) {
    let width = (u128::from(u64::MAX) + 1) / shards as u128;
    let from = width * shard as u128;
    (from as u64, (from + width - 1) as u64)
}

type Part = RwLock<HashMap<PostId, Arc<Post>>>;

/// All posts by name, in a part for each range of the frozen hash. One that was ever written stays: without likers it still has its increments. One that
/// was only asked for or watched is forgotten when the last who holds it lets go.
pub struct Directory {
    parts: Box<[Part]>,
    numbers: Mutex<Numbers>,
    kept: AtomicUsize,
}

/// Numbers of posts: the next, and those that forgotten posts gave back.
#[derive(Default)]
struct Numbers {
    next: PostNumber,
    free: Vec<PostNumber>,
}

impl Numbers {
    fn draw(&mut self) -> PostNumber {
        if let Some(number) = self.free.pop() {
            return number;
        }
        let number = self.next;
        self.next = number.checked_add(1).expect("memory ends before numbers");
        number
    }
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            parts: (0..RANGES).map(|_| RwLock::default()).collect(),
            numbers: Mutex::default(),
            kept: AtomicUsize::new(0),
        }
    }
}

impl Directory {
    fn part(&self, id: &PostId) -> &Part {
        &self.parts[PostHash::of(id).range()]
    }

    /// A post of which anything was ever written.
    pub fn get(&self, id: &PostId) -> Option<Arc<Post>> {
        let part = self.part(id).read();
        part.get(id).filter(|post| post.is_kept()).cloned()
    }

    /// The post, for something that is written of it.
    pub fn get_or_create(&self, id: &PostId) -> Arc<Post> {
        let post = self.hold(id);
        self.keep(&post);
        post
    }

    /// The post, which may be unknown. Whoever holds it gives it back by [`Self::release`].
    pub(super) fn hold(&self, id: &PostId) -> Arc<Post> {
        if let Some(post) = self.part(id).read().get(id) {
            return post.clone();
        }
        let mut part = self.part(id).write();
        let create = || Arc::new(Post::new(self.numbers.lock().draw(), id.clone()));
        part.entry(id.clone()).or_insert_with(create).clone()
    }

    /// Posts, as [`Self::hold`] gives each. Those that are known are asked for first, so that the waits for them overlap.
    pub(super) fn hold_all<'a>(
        &self,
        ids: impl ExactSizeIterator<Item = &'a PostId> + Clone,
    ) -> Vec<Arc<Post>> {
        // One alone has nothing to overlap with.
        if ids.len() > 1 {
            for id in ids.clone() {
                if let Some(post) = self.part(id).read().get(id) {
                    prefetch_whole(&**post);
                }
            }
        }
        ids.map(|id| self.hold(id)).collect()
    }

    /// Something was written of the post: it stays. Called by one who holds it.
    pub(super) fn keep(&self, post: &Post) {
        if !post.is_kept() && !post.kept.swap(true, Ordering::AcqRel) {
            self.kept.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Forgets the post if nothing was written of it and nobody else holds it.
    pub(super) fn release(&self, post: Arc<Post>) {
        if post.is_kept() {
            return;
        }
        let id = post.id.clone();
        let mut part = self.part(&id).write();
        drop(post);
        // A holder takes its reference under this lock, so one reference means that there is no other
        // and that none comes. Readers take none of such a post.
        let is_alone = |post: &Arc<Post>| !post.is_kept() && Arc::strong_count(post) == 1;
        if let Some(forgotten) = part.get(&id).filter(|post| is_alone(post)) {
            let number = forgotten.number;
            part.remove(&id);
            self.numbers.lock().free.push(number);
        }
    }

    /// How many posts were ever written.
    pub fn len(&self) -> usize {
        self.kept.load(Ordering::Acquire)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The posts of one range of the frozen hash, in no order.
    pub fn in_range(&self, range: usize) -> Vec<Arc<Post>> {
        self.parts[range].read().values().cloned().collect()
    }

    /// All posts that were ever written, in the order of their names.
    pub fn sorted(&self) -> Vec<Arc<Post>> {
        let mut all: Vec<Arc<Post>> = Vec::with_capacity(self.len());
        for part in &self.parts {
            let part = part.read();
            all.extend(part.values().filter(|post| post.is_kept()).cloned());
        }
        all.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Entries, those of posts that were only asked for included.
    pub fn entries(&self) -> usize {
        self.parts.iter().map(|part| part.read().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_shards_tile_the_hashes_in_order() {
        for shards in [1, 2, 16, 256] {
            let mut next = Some(0);
            for shard in 0..shards {
                let (from, to) = range_of_shard(shard, shards);
                assert_eq!(Some(from), next);
                assert_eq!(shard_of_hash(from, shards), shard);
                assert_eq!(shard_of_hash(to, shards), shard);
                next = to.checked_add(1);
            }
            assert_eq!(next, None);
        }
    }

    fn id(name: &str) -> PostId {
        PostId::new(name).expect("valid")
    }

    #[test]
    fn a_post_that_was_only_asked_for_is_forgotten_and_its_number_is_drawn_again() {
        let directory = Directory::default();
        let (one, other) = (directory.hold(&id("p")), directory.hold(&id("p")));
        let number = one.number;
        assert!(directory.get(&id("p")).is_none() && directory.is_empty());
        directory.release(one);
        assert_eq!(directory.entries(), 1, "somebody holds it");
        directory.release(other);
        assert_eq!(directory.entries(), 0);
        assert_eq!(directory.hold(&id("q")).number, number);
    }

    #[test]
    fn a_post_that_was_written_stays() {
        let directory = Directory::default();
        let post = directory.hold(&id("p"));
        directory.keep(&post);
        directory.release(post);
        directory.release(directory.get_or_create(&id("p")));
        assert_eq!((directory.len(), directory.entries()), (1, 1));
        assert_eq!(directory.sorted().len(), 1);
    }
}
