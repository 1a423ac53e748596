//! A node's frontier: the version vector of what it has applied, and the lineage that lets it be
//! written in a short form.
//!
//! Lineage: the first event of a replica names its predecessors, and is applied only after them. So
//! who covers a replica covers all its ancestors, and a vector is written as heads plus exceptions:
//! those entries that no other entry's lineage implies. Normally that is one entry a region.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::crdt::dot::{Dot, ReplicaIndex};
use crate::crdt::version_vector::VersionVector;

/// A version vector as heads plus exceptions.
pub type ShortForm = Vec<(ReplicaIndex, u64)>;

/// The predecessors that each replica's first event named, in the short form.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    predecessors: HashMap<ReplicaIndex, ShortForm>,
}

/// In the order of the replicas.
impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ordered: BTreeMap<_, _> = self.predecessors.iter().collect();
        f.debug_tuple("Lineage").field(&ordered).finish()
    }
}

impl Lineage {
    pub fn get(&self, replica: ReplicaIndex) -> Option<&ShortForm> {
        self.predecessors.get(&replica)
    }

    /// Notes the predecessors of a replica. What was known stays: they never change.
    pub fn insert(&mut self, replica: ReplicaIndex, predecessors: ShortForm) {
        self.predecessors.entry(replica).or_insert(predecessors);
    }

    pub fn iter(&self) -> impl Iterator<Item = (ReplicaIndex, &ShortForm)> {
        self.predecessors
            .iter()
            .map(|(replica, short)| (*replica, short))
    }

    /// The full vector that a short form stands for; none if the lineage of an entry is not known.
    pub fn expand(&self, short: &[(ReplicaIndex, u64)]) -> Option<VersionVector> {
        let mut full = VersionVector::default();
        let mut open = short.to_vec();
        while let Some((replica, seq)) = open.pop() {
            if full.get(replica) == 0 && seq > 0 {
                open.extend(self.get(replica)?);
            }
            full.raise(replica, seq);
        }
        Some(full)
    }
}

/// What a node has applied. Grows only, and never over a gap.
#[derive(Debug, Clone, Default)]
pub struct Frontier {
    vector: VersionVector,
    lineage: Lineage,
    /// For each replica the highest number that the lineage of a covered replica implies.
    implied: VersionVector,
    /// Entries that are not implied. Guards: `heads` is exactly `{r : vector[r] > implied[r]}`.
    heads: Vec<ReplicaIndex>,
}

impl Frontier {
    pub fn vector(&self) -> &VersionVector {
        &self.vector
    }

    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    pub fn get(&self, replica: ReplicaIndex) -> u64 {
        self.vector.get(replica)
    }

    pub fn covers(&self, dot: Dot) -> bool {
        self.vector.covers(dot)
    }

    /// Whether every entry is covered. Enough for a short form too, for heads imply the rest.
    pub fn covers_short(&self, short: &[(ReplicaIndex, u64)]) -> bool {
        short
            .iter()
            .all(|(replica, seq)| self.get(*replica) >= *seq)
    }

    /// The first event of a replica: notes its predecessors. They must be covered.
    pub fn begin(&mut self, replica: ReplicaIndex, predecessors: ShortForm) {
        assert!(
            self.covers_short(&predecessors),
            "a replica's first event is applied only after its predecessors"
        );
        if self.lineage.get(replica).is_some() {
            return;
        }
        for (ancestor, seq) in &predecessors {
            self.implied.raise(*ancestor, *seq);
        }
        self.lineage.insert(replica, predecessors);
        let (vector, implied) = (&self.vector, &self.implied);
        self.heads
            .retain(|head| vector.get(*head) > implied.get(*head));
    }

    /// The replica's events are applied up to `seq`. The caller has seen to it that there is no gap.
    pub fn advance(&mut self, replica: ReplicaIndex, seq: u64) {
        let was_head = self.get(replica) > self.implied.get(replica);
        self.vector.raise(replica, seq);
        if !was_head && self.get(replica) > self.implied.get(replica) {
            self.heads.push(replica);
        }
    }

    /// Takes over everything that another frontier covers, with its lineage.
    pub fn raise(&mut self, vector: &VersionVector, lineage: &Lineage) {
        for (replica, predecessors) in lineage.iter() {
            self.lineage.insert(replica, predecessors.clone());
        }
        self.vector.join(vector);
        self.recompute_heads();
    }

    fn recompute_heads(&mut self) {
        self.implied = VersionVector::default();
        for (replica, _) in self.vector.iter() {
            for (ancestor, seq) in self.lineage.get(replica).into_iter().flatten() {
                self.implied.raise(*ancestor, *seq);
            }
        }
        self.heads = self
            .vector
            .iter()
            .filter(|(replica, seq)| *seq > self.implied.get(*replica))
            .map(|(replica, _)| replica)
            .collect();
    }

    /// Whether a later replica named this one among its predecessors: its process has ended.
    pub fn has_successor(&self, replica: ReplicaIndex) -> bool {
        self.implied.get(replica) > 0
    }

    /// Heads plus exceptions.
    pub fn short(&self) -> ShortForm {
        self.heads
            .iter()
            .map(|head| (*head, self.get(*head)))
            .collect()
    }

    /// A frontier that covers this and knows this lineage.
    pub fn part(vector: &VersionVector, lineage: &Lineage) -> Self {
        let mut part = Self::default();
        part.raise(vector, lineage);
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index(at: u32) -> ReplicaIndex {
        ReplicaIndex(at)
    }

    #[test]
    fn a_chain_of_restarts_is_one_head() {
        let mut frontier = Frontier::default();
        for at in 0..1_000 {
            frontier.begin(index(at), frontier.short());
            frontier.advance(index(at), 3);
        }
        assert_eq!(frontier.short(), vec![(index(999), 3)]);
        let full = frontier.lineage().expand(&frontier.short());
        assert_eq!(full.as_ref(), Some(frontier.vector()));
    }

    #[test]
    fn an_ancestor_that_goes_on_is_an_exception() {
        let mut frontier = Frontier::default();
        frontier.begin(index(0), vec![]);
        frontier.advance(index(0), 3);
        frontier.begin(index(1), frontier.short());
        frontier.advance(index(1), 1);
        frontier.advance(index(0), 4);
        assert_eq!(frontier.short(), vec![(index(1), 1), (index(0), 4)]);
    }

    #[test]
    fn a_form_with_an_unknown_head_is_not_read() {
        assert_eq!(Lineage::default().expand(&[(index(0), 1)]), None);
    }

    proptest! {
        /// Restarts, clones and further events in any order: the short form says the same as the full
        /// one, and what is kept up step by step equals what is computed from nothing.
        #[test]
        fn short_form_equals_full_form(steps in prop::collection::vec((0u32..6, 0u32..6), 1..40)) {
            let mut frontier = Frontier::default();
            for (replica, parent) in steps {
                if frontier.lineage().get(index(replica)).is_none() {
                    let known = frontier.get(index(parent));
                    let preds = if known > 0 { vec![(index(parent), known)] } else { vec![] };
                    frontier.begin(index(replica), preds);
                }
                let next = frontier.get(index(replica)) + 1;
                frontier.advance(index(replica), next);
                let full = frontier.lineage().expand(&frontier.short());
                prop_assert_eq!(full.as_ref(), Some(frontier.vector()));
                let mut fresh = Frontier::default();
                fresh.raise(frontier.vector(), frontier.lineage());
                let (mut a, mut b) = (frontier.short(), fresh.short());
                a.sort();
                b.sort();
                prop_assert_eq!(a, b);
            }
        }
    }
}
