//! Version vectors: for each replica the highest number up to which all its events are applied.

use crate::crdt::dot::{Dot, ReplicaIndex};

/// Dense by replica number; 0 means nothing is covered. Missing entries count as 0.
#[derive(Debug, Clone, Default)]
pub struct VersionVector {
    seqs: Vec<u64>,
}

impl VersionVector {
    pub fn get(&self, replica: ReplicaIndex) -> u64 {
        self.seqs.get(replica.at()).copied().unwrap_or(0)
    }

    pub fn covers(&self, dot: Dot) -> bool {
        self.get(dot.replica) >= dot.seq
    }

    /// Raises one entry; never lowers it.
    pub fn raise(&mut self, replica: ReplicaIndex, seq: u64) {
        if self.seqs.len() <= replica.at() {
            self.seqs.resize(replica.at() + 1, 0);
        }
        let entry = &mut self.seqs[replica.at()];
        *entry = (*entry).max(seq);
    }

    /// The least vector that covers both.
    pub fn join(&mut self, other: &Self) {
        for (replica, seq) in other.iter() {
            self.raise(replica, seq);
        }
    }

    /// Whether everything that `other` covers is covered here.
    pub fn covers_all(&self, other: &Self) -> bool {
        other.iter().all(|(replica, seq)| self.get(replica) >= seq)
    }

    /// Entries above zero, in the order of local numbers.
    pub fn iter(&self) -> impl Iterator<Item = (ReplicaIndex, u64)> + '_ {
        self.seqs
            .iter()
            .enumerate()
            .filter(|(_, seq)| **seq > 0)
            .map(|(at, seq)| (ReplicaIndex(at as u32), *seq))
    }

    pub fn is_empty(&self) -> bool {
        self.seqs.iter().all(|seq| *seq == 0)
    }

    /// How many events are covered here and not there.
    pub fn events_beyond(&self, other: &Self) -> u64 {
        self.iter()
            .map(|(replica, seq)| seq.saturating_sub(other.get(replica)))
            .sum()
    }
}

impl PartialEq for VersionVector {
    fn eq(&self, other: &Self) -> bool {
        self.covers_all(other) && other.covers_all(self)
    }
}

impl Eq for VersionVector {}

impl FromIterator<(ReplicaIndex, u64)> for VersionVector {
    fn from_iter<T: IntoIterator<Item = (ReplicaIndex, u64)>>(entries: T) -> Self {
        let mut vector = Self::default();
        for (replica, seq) in entries {
            vector.raise(replica, seq);
        }
        vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vectors() -> impl Strategy<Value = VersionVector> {
        prop::collection::vec(0u64..5, 0..6).prop_map(|seqs| VersionVector { seqs })
    }

    fn joined(a: &VersionVector, b: &VersionVector) -> VersionVector {
        let mut out = a.clone();
        out.join(b);
        out
    }

    proptest! {
        #[test]
        fn join_is_a_least_upper_bound(a in vectors(), b in vectors(), c in vectors()) {
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(joined(&a, &a), a.clone());
            prop_assert!(joined(&a, &b).covers_all(&a));
            if c.covers_all(&a) && c.covers_all(&b) {
                prop_assert!(c.covers_all(&joined(&a, &b)));
            }
        }
    }
}
