//! What the regions have made durable, by their acknowledgements: decides what the log may forget.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::crdt::version_vector::VersionVector;
use crate::ids::{Epoch, Region, Replica};
use crate::replication::links::Owner;

/// The newest acknowledgement of a replica.
#[derive(Debug, Clone)]
pub struct Acked {
    pub replica: Replica,
    pub vector: Arc<VersionVector>,
    pub is_connected: bool,
}

struct Entry {
    vector: Arc<VersionVector>,
    /// The newest session that spoke; what an older one says counts no more.
    owner: Owner,
    sessions: u32,
}

/// For each region its connected replicas, or else the one that was connected last. What is kept is
/// bounded by the sessions and the regions.
#[derive(Default)]
pub struct AckTable {
    /// Guards the table; never held while anything waits.
    regions: Mutex<BTreeMap<Region, BTreeMap<Epoch, Entry>>>,
}

impl AckTable {
    /// A session begins: its frontier replaces all memory of the replica, and of those of its region
    /// that are gone.
    pub fn begin(&self, owner: Owner, replica: &Replica, vector: Arc<VersionVector>) {
        let mut regions = self.regions.lock();
        let region = regions.entry(replica.region.clone()).or_default();
        region.retain(|epoch, entry| entry.sessions > 0 || *epoch == replica.epoch);
        let entry = region.entry(replica.epoch).or_insert(Entry {
            vector: vector.clone(),
            owner,
            sessions: 0,
        });
        entry.sessions += 1;
        entry.hear(owner, vector);
    }

    pub fn set(&self, owner: Owner, replica: &Replica, vector: Arc<VersionVector>) {
        let mut regions = self.regions.lock();
        let region = regions.get_mut(&replica.region);
        if let Some(entry) = region.and_then(|region| region.get_mut(&replica.epoch)) {
            entry.hear(owner, vector);
        }
    }

    /// A session has ended; what it said stays until a replica of its region says something else.
    pub fn end(&self, replica: &Replica) {
        let mut regions = self.regions.lock();
        let Some(region) = regions.get_mut(&replica.region) else {
            return;
        };
        if let Some(entry) = region.get_mut(&replica.epoch) {
            entry.sessions = entry.sessions.saturating_sub(1);
        }
        if region.values().any(|entry| entry.sessions > 0) {
            region.retain(|_, entry| entry.sessions > 0);
        }
    }

    pub fn all(&self) -> Vec<Acked> {
        let regions = self.regions.lock();
        let of_region = |(region, replicas): (&Region, &BTreeMap<Epoch, Entry>)| {
            let acked = |(epoch, entry): (&Epoch, &Entry)| Acked {
                replica: Replica {
                    region: region.clone(),
                    epoch: *epoch,
                },
                vector: entry.vector.clone(),
                is_connected: entry.sessions > 0,
            };
            replicas.iter().map(acked).collect::<Vec<_>>()
        };
        regions.iter().flat_map(of_region).collect()
    }

    /// How many events of the vector no replica of the region is known to have made durable: all, if it
    /// never spoke.
    pub fn events_behind(&self, region: &Region, vector: &VersionVector) -> u64 {
        let regions = self.regions.lock();
        let replicas = regions.get(region).into_iter().flatten();
        let behind = replicas.map(|(_, entry)| vector.events_beyond(&entry.vector));
        behind
            .min()
            .unwrap_or_else(|| vector.events_beyond(&VersionVector::default()))
    }

    /// Whether some other node has made durable all that the vector covers.
    pub fn covered_by_any(&self, vector: &VersionVector) -> bool {
        let regions = self.regions.lock();
        let mut entries = regions.values().flat_map(BTreeMap::values);
        entries.any(|entry| entry.vector.covers_all(vector))
    }

    /// Whether every replica of each of the regions has. A region that never spoke has nothing.
    pub fn covered_by_all<'a>(
        &self,
        regions: impl IntoIterator<Item = &'a Region>,
        vector: &VersionVector,
    ) -> bool {
        let known = self.regions.lock();
        let covers = |region: &Region| {
            known.get(region).is_some_and(|replicas| {
                let mut replicas = replicas.values();
                replicas.all(|entry| entry.vector.covers_all(vector))
            })
        };
        regions.into_iter().all(covers)
    }
}

impl Entry {
    fn hear(&mut self, owner: Owner, vector: Arc<VersionVector>) {
        if owner >= self.owner {
            self.owner = owner;
            self.vector = vector;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crdt::dot::ReplicaIndex;

    fn replica(region: &str, epoch: u128) -> Replica {
        Replica {
            region: Region::new(region).expect("valid"),
            epoch: Epoch(epoch),
        }
    }

    fn vector(seq: u64) -> Arc<VersionVector> {
        Arc::new([(ReplicaIndex(0), seq)].into_iter().collect())
    }

    #[test]
    fn a_newer_replica_replaces_what_was_known_also_downwards() {
        let table = AckTable::default();
        table.begin(Owner(1), &replica("eu", 1), vector(9));
        table.end(&replica("eu", 1));
        assert!(table.covered_by_any(&vector(9)));
        table.begin(Owner(2), &replica("eu", 2), vector(3));
        assert!(!table.covered_by_any(&vector(9)));
        table.set(Owner(2), &replica("eu", 2), vector(9));
        assert!(table.covered_by_any(&vector(9)));
    }

    #[test]
    fn all_means_every_live_clone_and_every_region() {
        let table = AckTable::default();
        let (eu, us) = (replica("eu", 1), replica("us", 1));
        table.begin(Owner(1), &eu, vector(9));
        assert!(table.covered_by_all([&eu.region], &vector(9)));
        assert!(!table.covered_by_all([&eu.region, &us.region], &vector(9)));
        table.begin(Owner(2), &replica("eu", 2), vector(3));
        assert!(!table.covered_by_all([&eu.region], &vector(9)));
        table.end(&replica("eu", 2));
        assert!(table.covered_by_all([&eu.region], &vector(9)));
    }

    #[test]
    fn a_displaced_session_says_nothing_more() {
        let table = AckTable::default();
        let eu = replica("eu", 1);
        table.begin(Owner(2), &eu, vector(9));
        table.begin(Owner(1), &eu, vector(3));
        table.set(Owner(1), &eu, vector(4));
        assert!(table.covered_by_any(&vector(9)));
    }

    #[test]
    fn events_behind_are_counted_from_the_last_word_of_a_region() {
        let table = AckTable::default();
        let eu = replica("eu", 1);
        assert_eq!(table.events_behind(&eu.region, &vector(9)), 9);
        table.begin(Owner(1), &eu, vector(7));
        table.end(&eu);
        assert_eq!(table.events_behind(&eu.region, &vector(9)), 2);
    }
}
