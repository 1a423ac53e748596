//! One range of posts rebuilt beside the state: from rows or a peer's chunks, then events, by the rules of
//! recovery. What comes out says what the range should be; nobody else sees it.

use std::collections::BTreeMap;

use crate::crdt::changes::{Changes, PostContext};
use crate::crdt::dot::{Dot, Dots, Replicas};
use crate::crdt::event::{Action, Block, Event};
use crate::crdt::figures::Figures;
use crate::crdt::fingerprint::{Fingerprint, FingerprintKey, PostHash};
use crate::crdt::frontier::Frontier;
use crate::crdt::likers::Likers;
use crate::crdt::merge::{self, Knowledge, Target};
use crate::crdt::orphan_removals::OrphanRemovals;
use crate::crdt::pn_counter::CounterEntry;
use crate::crdt::user_key::{UserHash, Who};
use crate::crdt::version_vector::VersionVector;
use crate::engine::rows::StoredFigures;
use crate::engine::scrub::{Credits, sum_of_figures, sum_of_likers};
use crate::ids::{PostId, UserId};

/// A post of the range.
pub(super) struct RebuiltPost {
    pub likers: Likers,
    pub figures: Figures,
}

impl Default for RebuiltPost {
    fn default() -> Self {
        Self {
            likers: Likers::new(0, u64::MAX),
            figures: Figures::default(),
        }
    }
}

/// See the module.
pub struct RebuiltRange {
    pub range: usize,
    key: FingerprintKey,
    pub(super) posts: BTreeMap<PostId, RebuiltPost>,
    pub(super) orphans: OrphanRemovals,
    pub(super) frontier: Frontier,
}

/// An event does not follow on what is there. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("events are missing between what was read and the log")]
pub struct Gap;

impl RebuiltRange {
    /// An empty range under a frontier. What is put into it may run ahead of that, if the events follow.
    pub(super) fn new(range: usize, key: FingerprintKey, frontier: Frontier) -> Self {
        Self {
            range,
            key,
            posts: BTreeMap::new(),
            orphans: OrphanRemovals::default(),
            frontier,
        }
    }

    fn holds(&self, post: &PostId) -> bool {
        PostHash::of(post).range() == self.range
    }

    /// What it covers so far: all that is put into it must be covered here before it takes its place.
    pub fn covered(&self) -> &VersionVector {
        self.frontier.vector()
    }

    pub(super) fn add_orphans(&mut self, orphans: &OrphanRemovals) {
        for (dot, orphan) in orphans.iter() {
            self.add_orphan(dot, &orphan.post, &orphan.user);
        }
    }

    /// Orphan removals of other ranges are passed over.
    pub(super) fn add_orphan(&mut self, dot: Dot, post: &PostId, user: &UserId) {
        if self.holds(post) {
            self.orphans.insert(dot, post, user);
        }
    }

    pub(super) fn add_figures(&mut self, id: &PostId, stored: &StoredFigures, replicas: &Replicas) {
        if !self.holds(id) {
            return;
        }
        let context = context(self.key, id, replicas);
        let figures = &mut self.posts.entry(id.clone()).or_default().figures;
        for (replica, increments) in &stored.likes {
            figures.raise_increments(context, *replica, *increments);
        }
        for (name, entries) in &stored.counters {
            for entry in entries {
                figures.merge_counter(context, name, *entry);
            }
        }
        figures.touch(stored.updated_at_ms);
    }

    /// All likers whose hash lies in `from..=to`; others among them are passed over.
    pub(super) fn add_likers(
        &mut self,
        id: &PostId,
        (from, to): (u64, u64),
        likers: Vec<(UserId, Dots)>,
        replicas: &Replicas,
    ) {
        if !self.holds(id) {
            return;
        }
        let context = context(self.key, id, replicas);
        let post = self.posts.entry(id.clone()).or_default();
        let mut changes = Changes::default();
        for (user, dots) in likers {
            let who = Who::of(&user);
            if (from..=to).contains(&who.order()) {
                post.likers.set(context, who, &dots, &mut changes);
            }
        }
        post.figures.credit(&changes);
    }

    /// Applies what is new of a block.
    pub(super) fn apply(&mut self, block: &Block, replicas: &Replicas) -> Result<(), Gap> {
        let have = self.frontier.get(block.replica);
        if block.last_seq() <= have {
            return Ok(());
        }
        let predecessors = block.predecessors.as_deref().unwrap_or(&[]);
        if block.first_seq > have + 1 || !self.frontier.covers_short(predecessors) {
            return Err(Gap);
        }
        let here: Vec<bool> = block.posts.iter().map(|post| self.holds(post)).collect();
        for (dot, event) in block.dotted().filter(|(dot, _)| dot.seq > have) {
            self.apply_event(dot, event, (block, &here), replicas);
            self.orphans.resolve(dot);
        }
        if let Some(predecessors) = &block.predecessors {
            self.frontier.begin(block.replica, predecessors.clone());
        }
        self.frontier.advance(block.replica, block.last_seq());
        Ok(())
    }

    fn apply_event(
        &mut self,
        dot: Dot,
        event: &Event,
        (block, here): (&Block, &[bool]),
        replicas: &Replicas,
    ) {
        let Some(place) = event.action.post().map(|place| place as usize) else {
            return;
        };
        if !here[place] {
            return;
        }
        let id = &block.posts[place];
        let context = context(self.key, id, replicas);
        match &event.action {
            Action::Like {
                user,
                increments,
                replaced,
                ..
            } => {
                self.change_likers((dot, true), (id, user), replaced, replicas);
                let figures = &mut self.posts.entry(id.clone()).or_default().figures;
                figures.raise_increments(context, dot.replica, *increments);
            }
            Action::Unlike { user, removed, .. } => {
                self.change_likers((dot, false), (id, user), removed, replicas);
            }
            Action::Add {
                counter,
                increments,
                decrements,
                ..
            } => {
                let entry = CounterEntry {
                    replica: dot.replica,
                    increments: *increments,
                    decrements: *decrements,
                };
                let counter = &block.counters[*counter as usize];
                let figures = &mut self.posts.entry(id.clone()).or_default().figures;
                figures.merge_counter(context, counter, entry);
            }
            _ => {}
        }
        let post = self.posts.entry(id.clone()).or_default();
        post.figures.touch(event.time_ms);
    }

    fn change_likers(
        &mut self,
        (dot, is_like): (Dot, bool),
        (id, user): (&PostId, &UserId),
        named: &[Dot],
        replicas: &Replicas,
    ) {
        let context = context(self.key, id, replicas);
        let post = self.posts.entry(id.clone()).or_default();
        let target = Target {
            post: id,
            who: Who::of(user),
        };
        let mut knowledge = Knowledge {
            frontier: &self.frontier,
            orphans: &mut self.orphans,
            further: [(dot.replica, dot.seq); 2],
        };
        let mut changes = Changes::default();
        let (likers, own) = (&mut post.likers, is_like.then_some(dot));
        merge::apply(
            likers,
            context,
            &mut knowledge,
            target,
            (named, own),
            &mut changes,
        );
        post.figures.credit(&changes);
    }

    /// The sum of all its entries.
    pub(super) fn sum(&self, replicas: &Replicas) -> Fingerprint {
        let mut sum = Fingerprint::default();
        for (id, post) in &self.posts {
            let context = context(self.key, id, replicas);
            sum += sum_of_likers(post.likers.iter(), context, &mut Credits::new());
            sum += sum_of_figures(&post.figures, context);
        }
        for (dot, orphan) in self.orphans.iter() {
            let context = context(self.key, &orphan.post, replicas);
            sum += context.orphan_removal(UserHash::of(&orphan.user), dot);
        }
        sum
    }
}

fn context<'a>(key: FingerprintKey, post: &PostId, replicas: &'a Replicas) -> PostContext<'a> {
    PostContext {
        key,
        post: PostHash::of(post),
        replicas,
    }
}
