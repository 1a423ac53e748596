//! Orphan removals: dots of likes that were removed or replaced before their event was applied here.
//!
//! One is kept until the frontier covers its dot, however that comes about. It binds post and user: a
//! like that arrives under the dot but for another post or user is applied.

use std::collections::{HashMap, VecDeque};

use crate::crdt::dot::Dot;
use crate::crdt::fingerprint::PostHash;
use crate::crdt::frontier::Frontier;
use crate::ids::{PostId, UserId};

/// What is known of a dead like that has not arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrphanRemoval {
    pub post: PostId,
    pub user: UserId,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrphanRemovals {
    by_dot: HashMap<Dot, OrphanRemoval>,
}

impl OrphanRemovals {
    pub fn len(&self) -> usize {
        self.by_dot.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_dot.is_empty()
    }

    /// Whether the like of this dot, post and user is dead.
    pub fn contains(&self, dot: Dot, post: &PostId, user: &UserId) -> bool {
        let known = self.by_dot.get(&dot);
        known.is_some_and(|orphan| orphan.post == *post && orphan.user == *user)
    }

    /// Whether anything is remembered of the dot.
    pub fn holds(&self, dot: Dot) -> bool {
        self.by_dot.contains_key(&dot)
    }

    /// The range that the remembered removal of the dot belongs to.
    pub fn range_of(&self, dot: Dot) -> Option<usize> {
        let orphan = self.by_dot.get(&dot)?;
        Some(PostHash::of(&orphan.post).range())
    }

    /// The ranges of two removals under one dot that bind it to different likes, of which one alone can be true:
    /// this one's and that of the remembered one. Which is remembered depends on the order in which they came.
    pub fn claimed_elsewhere(&self, dot: Dot, post: &PostId, user: &UserId) -> Option<[usize; 2]> {
        let orphan = self.by_dot.get(&dot)?;
        let is_same = orphan.post == *post && orphan.user == *user;
        let ranges = [&orphan.post, post].map(|post| PostHash::of(post).range());
        (!is_same).then_some(ranges)
    }

    /// Remembers a removal. Returns whether it is new; what was known of the dot stays.
    pub fn insert(&mut self, dot: Dot, post: &PostId, user: &UserId) -> bool {
        if self.by_dot.contains_key(&dot) {
            return false;
        }
        let (post, user) = (post.clone(), user.clone());
        self.by_dot.insert(dot, OrphanRemoval { post, user });
        true
    }

    /// The dot's event is applied: nothing is left to remember.
    pub fn resolve(&mut self, dot: Dot) -> Option<OrphanRemoval> {
        self.by_dot.remove(&dot)
    }

    /// Takes out all that a frontier covers.
    pub fn resolve_covered(&mut self, frontier: &Frontier) -> Vec<(Dot, OrphanRemoval)> {
        self.by_dot
            .extract_if(|dot, _| frontier.covers(*dot))
            .collect()
    }

    /// Those of the posts of one range.
    pub fn in_range(&self, range: usize) -> impl Iterator<Item = (Dot, &OrphanRemoval)> {
        self.iter()
            .filter(move |(_, orphan)| PostHash::of(&orphan.post).range() == range)
    }

    /// Keeps those of these posts only.
    pub fn retain(&mut self, is_wanted: impl Fn(&PostId) -> bool) {
        self.by_dot.retain(|_, orphan| is_wanted(&orphan.post));
    }

    /// The same in parts of at most so many.
    pub fn split(self, most: usize) -> VecDeque<Self> {
        let mut parts = VecDeque::new();
        let mut rest = self.by_dot.into_iter().peekable();
        while rest.peek().is_some() {
            let by_dot = rest.by_ref().take(most).collect();
            parts.push_back(Self { by_dot });
        }
        parts
    }

    pub fn iter(&self) -> impl Iterator<Item = (Dot, &OrphanRemoval)> {
        self.by_dot.iter().map(|(dot, orphan)| (*dot, orphan))
    }
}
