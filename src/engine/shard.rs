//! A shard: the likers of some posts, or of some ranges of users of large posts.
//!
//! Pure state behind the shard's lock: what a command or an event does to it is decided here and in
//! `crdt`, without waiting for anything.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::crdt::dot::Dots;
use crate::crdt::likers::Likers;
use crate::crdt::prefetch::prefetch_whole;
use crate::crdt::user_key::Who;
use crate::engine::post::{Post, PostNumber, range_of_shard};

/// Likers of one post in one shard, in two lines of memory.
#[repr(align(64))]
struct Part {
    likers: Likers,
    /// Whether the part stands in the shard's list of changed ones.
    listed: bool,
}

const _: () = assert!(size_of::<Part>() == 128);

impl Part {
    fn of((from, to): (u64, u64)) -> Self {
        Self {
            likers: Likers::new(from, to),
            listed: false,
        }
    }
}

pub struct Shard {
    index: usize,
    shards: usize,
    /// Of small posts, whose home this is.
    small: SmallParts,
    /// Of posts that are spread.
    wide: HashMap<PostNumber, Part, FixedState>,
    /// Posts with likers that changed since the last checkpoint took them, each once.
    changed: Vec<Arc<Post>>,
}

impl Shard {
    pub fn new(index: usize, shards: usize) -> Self {
        Self {
            index,
            shards,
            small: SmallParts::default(),
            wide: HashMap::default(),
            changed: Vec::new(),
        }
    }

    /// The hashes that this shard holds of the post.
    pub fn range_of(&self, post: &Post) -> (u64, u64) {
        range_of(post, self.index, self.shards)
    }

    pub fn dots(&self, post: &Post, who: Who<'_>) -> Dots {
        let likers = self.likers(post);
        likers.map_or_else(Dots::new, |likers| likers.dots(who))
    }

    pub fn likers(&self, post: &Post) -> Option<&Likers> {
        let part = match post.is_wide() {
            true => self.wide.get(&post.number),
            false => self.small_place(post).map(|place| self.small.get(place)),
        };
        part.map(|part| &part.likers)
    }

    /// Asks for the memory of the post's likers, if it is small. That of the post is there.
    pub fn prefetch(&self, post: &Post) {
        if let Some(place) = self.small_place(post) {
            prefetch_whole(self.small.get(place));
        }
    }

    /// A small post has a place in its home shard only.
    fn small_place(&self, post: &Post) -> Option<u32> {
        let is_home = !post.is_wide() && post.home(self.shards) == self.index;
        is_home.then(|| post.place()).flatten()
    }

    fn part_mut(&mut self, post: &Post) -> Option<&mut Part> {
        match post.is_wide() {
            true => self.wide.get_mut(&post.number),
            false => self
                .small_place(post)
                .map(|place| self.small.get_mut(place)),
        }
    }

    /// The post's likers for a change: the post is listed for the next checkpoint.
    pub fn likers_mut(&mut self, post: &Arc<Post>) -> &mut Likers {
        let range = range_of(post, self.index, self.shards);
        let part = match (post.is_wide(), post.place()) {
            (true, _) => self
                .wide
                .entry(post.number)
                .or_insert_with(|| Part::of(range)),
            (false, place) => {
                debug_assert_eq!(post.home(self.shards), self.index, "a small post's home");
                let place = place.unwrap_or_else(|| {
                    let place = self.small.add(Part::of(range));
                    post.set_place(Some(place));
                    place
                });
                self.small.get_mut(place)
            }
        };
        if !part.listed {
            part.listed = true;
            self.changed.push(post.clone());
        }
        &mut part.likers
    }

    /// Puts other likers in the place of a post's. All of them go into the next checkpoint.
    pub fn replace(&mut self, post: &Arc<Post>, likers: Likers) {
        *self.likers_mut(post) = likers;
        self.mark_changed(post);
    }

    /// Takes a post's likers out, to spread them over all shards.
    pub fn take(&mut self, post: &Post) -> Option<Likers> {
        let place = self.small_place(post)?;
        post.set_place(None);
        Some(self.small.take(place).likers)
    }

    /// Posts that changed since this was last asked. What is still to be taken of them is known by
    /// their likers.
    pub fn take_changed(&mut self) -> Vec<Arc<Post>> {
        let changed = std::mem::take(&mut self.changed);
        for post in &changed {
            if let Some(part) = self.part_mut(post) {
                part.listed = false;
            }
        }
        changed
    }

    /// All of a post's likers here go into the next checkpoint.
    pub fn mark_changed(&mut self, post: &Arc<Post>) {
        if self.likers(post).is_some() {
            self.likers_mut(post).mark_all_changed();
        }
    }

    /// The ranges of a post's buckets that changed since this was last asked.
    pub fn take_changed_ranges(&mut self, post: &Post) -> Vec<(u64, u64)> {
        let part = self.part_mut(post);
        part.map_or_else(Vec::new, |part| part.likers.take_changed())
    }
}

/// Parts by place, in pages: none moves when there are more.
#[derive(Default)]
struct SmallParts {
    pages: Vec<Vec<Part>>,
    /// Places that nobody has.
    free: Vec<u32>,
}

/// Parts of a page.
const PAGE: usize = 256;

impl SmallParts {
    fn get(&self, place: u32) -> &Part {
        &self.pages[place as usize / PAGE][place as usize % PAGE]
    }

    fn get_mut(&mut self, place: u32) -> &mut Part {
        &mut self.pages[place as usize / PAGE][place as usize % PAGE]
    }

    fn add(&mut self, part: Part) -> u32 {
        if let Some(place) = self.free.pop() {
            *self.get_mut(place) = part;
            return place;
        }
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        let pages = self.pages.len();
        let page = self.pages.last_mut().expect("just seen to");
        page.push(part);
        ((pages - 1) * PAGE + page.len() - 1) as u32
    }

    fn take(&mut self, place: u32) -> Part {
        self.free.push(place);
        std::mem::replace(self.get_mut(place), Part::of((0, u64::MAX)))
    }
}

fn range_of(post: &Post, shard: usize, shards: usize) -> (u64, u64) {
    match post.is_wide() {
        true => range_of_shard(shard, shards),
        false => (0, u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crdt::dot::{Dot, ReplicaIndex};
    use crate::crdt::likers::Liker;
    use crate::engine::post::Directory;
    use crate::ids::{PostId, UserId};

    fn liker(user: &str) -> Liker {
        let (seq, replica) = (1, ReplicaIndex(0));
        let user = UserId::new(user).expect("valid");
        Liker::new(user, Dots::from_buf([Dot { seq, replica }]))
    }

    #[test]
    fn every_small_post_has_a_place_of_its_own_and_one_that_is_left_is_empty_for_the_next() {
        let (directory, mut shard) = (Directory::default(), Shard::new(0, 1));
        let post = |number: usize| {
            let id = PostId::new(&format!("p{number}")).expect("valid");
            directory.get_or_create(&id)
        };
        let many = 2 * PAGE + 3;
        for number in 0..many {
            let likers = shard.likers_mut(&post(number));
            likers.adopt(&liker(&format!("u{number}")));
        }
        let left = shard.take(&post(7)).expect("has likers");
        assert!(left.iter().eq([liker("u7")]));
        assert!(shard.likers(&post(7)).is_none() && shard.take(&post(7)).is_none());
        assert!(shard.likers_mut(&post(many)).is_empty());
        assert_eq!(post(many).place(), Some(7), "the place that was left");
        for number in (0..many).filter(|number| *number != 7) {
            let likers = shard.likers(&post(number)).expect("has likers");
            assert!(likers.iter().eq([liker(&format!("u{number}"))]));
        }
        assert_eq!(shard.take_changed().len(), many + 1);
        assert!(shard.take_changed().is_empty());
    }
}
