//! The figures of a post: the like counter's entries, the other counters, and when it last changed.
//!
//! Of the like counter only `increments` is state. `decrements` is a view: increments less the users
//! credited to the replica. So Σ(increments − decrements) = |likers| by construction, also after the
//! same user liked in two regions that were cut off from each other.

use std::collections::{BTreeMap, HashMap};

use smallvec::SmallVec;

use crate::crdt::changes::{Changes, PostContext};
use crate::crdt::dot::ReplicaIndex;
use crate::crdt::fingerprint::Fingerprint;
use crate::crdt::pn_counter::{CounterEntry, PnCounter};
use crate::ids::CounterName;
use crate::planted::{Bug, is_planted};

/// One replica's part of the like counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LikesEntry {
    pub replica: ReplicaIndex,
    /// Likes that the replica ever made on the post.
    pub increments: u64,
    /// Users whose credited dot is the replica's.
    pub credited: u64,
}

impl LikesEntry {
    /// None while the node holds likers beyond its frontier, whose increments are still to come.
    pub fn decrements(&self) -> Option<u64> {
        self.increments.checked_sub(self.credited)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// In the order of local numbers. One stands here itself: of most posts there are no more.
    likes: SmallVec<[LikesEntry; 1]>,
    counters: BTreeMap<CounterName, PnCounter>,
    likers: u64,
    updated_at_ms: u64,
}

impl Figures {
    pub fn likes(&self) -> &[LikesEntry] {
        &self.likes
    }

    pub fn likers(&self) -> u64 {
        self.likers
    }

    pub fn counters(&self) -> &BTreeMap<CounterName, PnCounter> {
        &self.counters
    }

    /// Origin time of the newest event applied to the post.
    pub fn updated_at_ms(&self) -> u64 {
        self.updated_at_ms
    }

    pub fn touch(&mut self, time_ms: u64) {
        self.updated_at_ms = self.updated_at_ms.max(time_ms);
    }

    /// Users by the replica that they are credited to, where there are any.
    pub fn credits(&self) -> impl Iterator<Item = (ReplicaIndex, u64)> {
        let likes = self.likes.iter().filter(|entry| entry.credited > 0);
        likes.map(|entry| (entry.replica, entry.credited))
    }

    pub fn increments(&self, replica: ReplicaIndex) -> u64 {
        self.find(replica).map_or(0, |at| self.likes[at].increments)
    }

    /// Raises one replica's increments; never lowers them. Returns the change of the fingerprint.
    pub fn raise_increments(
        &mut self,
        context: PostContext<'_>,
        replica: ReplicaIndex,
        increments: u64,
    ) -> Fingerprint {
        let mut change = Fingerprint::default();
        let entry = self.entry(replica);
        let increments = match is_planted(Bug::SumForMaximum) {
            true => entry.increments + increments,
            false => increments,
        };
        if increments <= entry.increments {
            return change;
        }
        let hash = context.replicas.hash(replica);
        if entry.increments > 0 {
            change -= Fingerprint::likes(context.key, context.post, hash, entry.increments);
        }
        entry.increments = increments;
        change += Fingerprint::likes(context.key, context.post, hash, increments);
        change
    }

    /// Merges an entry of a counter by maximum. Returns the change of the fingerprint.
    pub fn merge_counter(
        &mut self,
        context: PostContext<'_>,
        counter: &CounterName,
        entry: CounterEntry,
    ) -> Fingerprint {
        let mut change = Fingerprint::default();
        let hash = context.replicas.hash(entry.replica);
        let known = self.counters.entry(counter.clone()).or_default();
        if let Some((before, after)) = known.merge(entry) {
            let print = |entry: CounterEntry| {
                Fingerprint::counter(context.key, context.post, counter, hash, entry.figures())
            };
            if before.figures() != [0, 0] {
                change -= print(before);
            }
            change += print(after);
        }
        change
    }

    /// Follows a change of the likers.
    pub fn credit(&mut self, changes: &Changes) {
        for (replica, by) in &changes.credited {
            let entry = self.entry(*replica);
            let credited = entry.credited.checked_add_signed(*by);
            entry.credited = credited.expect("a user is credited before they are uncredited");
        }
        let likers = self.likers.checked_add_signed(changes.likers());
        self.likers = likers.expect("never fewer than no likers");
    }

    /// Credits users anew, from nothing.
    pub fn recredit(&mut self, credits: &HashMap<ReplicaIndex, u64>) {
        self.likes.iter_mut().for_each(|entry| entry.credited = 0);
        for (replica, credited) in credits {
            self.entry(*replica).credited = *credited;
        }
        self.likers = credits.values().sum();
    }

    /// The planted bug: what these replicas counted is gone.
    #[cfg(feature = "sim")]
    pub(crate) fn drop_increments(&mut self, replicas: &[ReplicaIndex]) {
        for entry in &mut self.likes {
            if replicas.contains(&entry.replica) {
                entry.increments = entry.credited;
            }
        }
    }

    /// Damage on purpose: a figure changes and nothing else knows.
    #[cfg(test)]
    pub(crate) fn damage(&mut self, replica: ReplicaIndex, increments: u64) {
        self.entry(replica).increments = increments;
    }

    fn find(&self, replica: ReplicaIndex) -> Option<usize> {
        self.likes
            .binary_search_by_key(&replica, |entry| entry.replica)
            .ok()
    }

    fn entry(&mut self, replica: ReplicaIndex) -> &mut LikesEntry {
        let place = self
            .likes
            .binary_search_by_key(&replica, |entry| entry.replica);
        let at = place.unwrap_or_else(|at| {
            let empty = LikesEntry {
                replica,
                increments: 0,
                credited: 0,
            };
            self.likes.insert(at, empty);
            at
        });
        &mut self.likes[at]
    }
}
