//! A shard: the likers of some posts, or of some ranges of users of large posts.
//!
//! Pure state behind the shard's lock: what a command or an event does to it is decided here and in
//! `crdt`, without waiting for anything.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::crdt::dot::Dots;
use crate::crdt::likers::Likers;
use crate::crdt::user_key::Who;
use crate::engine::post::{Post, PostNumber, range_of_shard};

/// Likers of one post in one shard.
struct Part {
    likers: Likers,
    /// Whether the part stands in the shard's list of changed ones.
    listed: bool,
}

pub struct Shard {
    index: usize,
    shards: usize,
    parts: HashMap<PostNumber, Part, FixedState>,
    /// Posts with likers that changed since the last checkpoint took them, each once.
    changed: Vec<Arc<Post>>,
}

impl Shard {
    pub fn new(index: usize, shards: usize) -> Self {
        Self {
            index,
            shards,
            parts: HashMap::default(),
            changed: Vec::new(),
        }
    }

    /// The hashes that this shard holds of the post.
    pub fn range_of(&self, post: &Post) -> (u64, u64) {
        range_of(post, self.index, self.shards)
    }

    pub fn dots(&self, post: &Post, who: Who<'_>) -> Dots {
        let part = self.parts.get(&post.number);
        part.map_or_else(Dots::new, |part| part.likers.dots(who))
    }

    pub fn likers(&self, post: &Post) -> Option<&Likers> {
        self.parts.get(&post.number).map(|part| &part.likers)
    }

    /// The post's likers for a change: the post is listed for the next checkpoint.
    pub fn likers_mut(&mut self, post: &Arc<Post>) -> &mut Likers {
        let (index, shards) = (self.index, self.shards);
        let part = self.parts.entry(post.number).or_insert_with(|| {
            let (from, to) = range_of(post, index, shards);
            Part {
                likers: Likers::new(from, to),
                listed: false,
            }
        });
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
        self.parts.remove(&post.number).map(|part| part.likers)
    }

    /// Posts that changed since this was last asked. What is still to be taken of them is known by
    /// their likers.
    pub fn take_changed(&mut self) -> Vec<Arc<Post>> {
        for post in &self.changed {
            if let Some(part) = self.parts.get_mut(&post.number) {
                part.listed = false;
            }
        }
        std::mem::take(&mut self.changed)
    }

    /// All of a post's likers here go into the next checkpoint.
    pub fn mark_changed(&mut self, post: &Arc<Post>) {
        if self.parts.contains_key(&post.number) {
            self.likers_mut(post).mark_all_changed();
        }
    }

    /// The ranges of a post's buckets that changed since this was last asked.
    pub fn take_changed_ranges(&mut self, post: &Post) -> Vec<(u64, u64)> {
        let part = self.parts.get_mut(&post.number);
        part.map_or_else(Vec::new, |part| part.likers.take_changed())
    }
}

fn range_of(post: &Post, shard: usize, shards: usize) -> (u64, u64) {
    match post.is_wide() {
        true => range_of_shard(shard, shards),
        false => (0, u64::MAX),
    }
}
