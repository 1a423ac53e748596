//! Dots, and the table that gives replicas short numbers inside one process.

use std::cmp::Ordering;
use std::collections::HashMap;

use smallvec::SmallVec;

use crate::crdt::fingerprint::ReplicaHash;
use crate::ids::{Region, Replica};

/// A replica's place in this process's [`Replicas`]. Never stored, sent, or compared for order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaIndex(pub u32);

impl ReplicaIndex {
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// The name of an event, and of the like it made: a replica and a number, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dot {
    pub seq: u64,
    pub replica: ReplicaIndex,
}

/// The live dots of one user: one, except where regions liked at once.
pub type Dots = SmallVec<[Dot; 1]>;

/// Replicas by number. Numbers are given in the order of appearance and stay.
#[derive(Debug, Clone, Default)]
pub struct Replicas {
    ids: Vec<Replica>,
    hashes: Vec<ReplicaHash>,
    /// Regions in the order of appearance, and for each replica the place of its own.
    regions: Vec<Region>,
    region_places: Vec<usize>,
    index: HashMap<Replica, ReplicaIndex>,
}

impl Replicas {
    pub fn get(&self, replica: &Replica) -> Option<ReplicaIndex> {
        self.index.get(replica).copied()
    }

    /// Returns the replica's number, giving it one where it has none.
    pub fn intern(&mut self, replica: &Replica) -> ReplicaIndex {
        if let Some(index) = self.get(replica) {
            return index;
        }
        let number = u32::try_from(self.ids.len()).expect("bounded by limits::REPLICAS_MAX");
        let index = ReplicaIndex(number);
        self.hashes.push(ReplicaHash::of(replica));
        let place = self
            .regions
            .iter()
            .position(|region| *region == replica.region);
        self.region_places.push(place.unwrap_or(self.regions.len()));
        if place.is_none() {
            self.regions.push(replica.region.clone());
        }
        self.ids.push(replica.clone());
        self.index.insert(replica.clone(), index);
        index
    }

    pub fn id(&self, index: ReplicaIndex) -> &Replica {
        &self.ids[index.at()]
    }

    /// All regions, in the order of appearance.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The place of the replica's region among [`Self::regions`].
    pub fn region_place(&self, index: ReplicaIndex) -> usize {
        self.region_places[index.at()]
    }

    pub fn hash(&self, index: ReplicaIndex) -> ReplicaHash {
        self.hashes[index.at()]
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The order of dots that every node agrees on: bytes of region, of epoch, then the number.
    pub fn compare(&self, a: Dot, b: Dot) -> Ordering {
        if a.replica == b.replica {
            return a.seq.cmp(&b.seq);
        }
        self.id(a.replica).cmp(self.id(b.replica))
    }

    /// The dot to which a user with these dots is credited.
    #[inline]
    pub fn smallest(&self, dots: &[Dot]) -> Option<Dot> {
        match dots {
            [] => None,
            [only] => Some(*only),
            several => several.iter().copied().min_by(|a, b| self.compare(*a, *b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Region};

    #[test]
    fn smallest_dot_goes_by_names_not_by_local_numbers() {
        let mut replicas = Replicas::default();
        let mut intern = |region: &str, epoch| {
            replicas.intern(&Replica {
                region: Region::new(region).expect("valid"),
                epoch: Epoch(epoch),
            })
        };
        let (us, eu_2, eu_1) = (intern("us", 0), intern("eu", 2), intern("eu", 1));
        let dots = [us, eu_2, eu_1].map(|replica| Dot { seq: 5, replica });
        assert_eq!(replicas.smallest(&dots), Some(dots[2]));
    }
}
