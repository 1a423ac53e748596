//! What a node says of its ranges, by names, and what another makes of it: as sessions do.

use likewise::crdt::fingerprint::{Fingerprint, RANGES};
use likewise::crdt::version_vector::VersionVector;
use likewise::engine::audit::{Comparison, RangeState, compare};
use likewise::ids::Replica;

use super::Node;

type Named = Vec<(Replica, u64)>;

/// All ranges of a node at one moment.
#[derive(Clone)]
pub struct Said {
    pub by: Replica,
    frontier: Named,
    ranges: Vec<(usize, Fingerprint, Named)>,
}

/// How many ranges were found equal, different, and not to be compared. Those that nobody ever wrote to do
/// not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    pub equal: u64,
    pub different: u64,
    pub not_now: u64,
}

impl Said {
    /// None while the node is not settled.
    pub fn of(node: &Node) -> Option<Self> {
        let all: Vec<usize> = (0..RANGES).collect();
        let audited = node.engine.audited(&all)?;
        let replicas = node.engine.replicas().all();
        let named = |entries: &[(_, u64)]| -> Named {
            let entries = entries.iter();
            entries
                .map(|(replica, seq)| (replicas.id(*replica).clone(), *seq))
                .collect()
        };
        let frontier: Vec<_> = audited.published.vector.iter().collect();
        let ranges = audited.ranges.iter();
        let ranges = ranges.filter(|one| one.sum != Fingerprint::default());
        Some(Self {
            by: node.engine.own(),
            frontier: named(&frontier),
            ranges: ranges
                .map(|one| (one.range, one.sum, named(&one.changed)))
                .collect(),
        })
    }

    /// What a node makes of it now.
    pub fn heard_by(&self, node: &Node) -> Found {
        let mut found = Found::default();
        let ranges: Vec<usize> = self.ranges.iter().map(|(range, _, _)| *range).collect();
        let Some(audited) = node.engine.audited(&ranges) else {
            return found;
        };
        let indexed = |entries: &Named| -> Vec<_> {
            let entries = entries.iter();
            let intern = |replica| node.engine.replicas().intern(replica).expect("few");
            entries
                .map(|(replica, seq)| (intern(replica), *seq))
                .collect()
        };
        let frontier: VersionVector = indexed(&self.frontier).into_iter().collect();
        for (ours, (range, sum, changed)) in audited.ranges.iter().zip(&self.ranges) {
            let theirs = RangeState {
                range: *range,
                sum: *sum,
                changed: indexed(changed),
            };
            match compare((ours, &audited.published.vector), (&theirs, &frontier)) {
                Comparison::Equal => found.equal += 1,
                Comparison::Different => found.different += 1,
                Comparison::NotNow => found.not_now += 1,
            }
        }
        found
    }
}
