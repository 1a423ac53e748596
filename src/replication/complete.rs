//! Up to which origin time a region's events are here, by what its node said of its clock.
//!
//! A node says with its frontier: "my events up to this time are covered by whoever covers this". So when this
//! node covers the frontier's entries of that region, it has the region's events up to then.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::crdt::dot::ReplicaIndex;
use crate::crdt::version_vector::VersionVector;
use crate::limits::COMPLETE_MARKS_MAX;

/// The least time between two marks: how fine the answer is for a node that is up to date.
const MARK_PAUSE_MS: u64 = 50;

/// Frontiers of one region with its clock, oldest first, and the newest time that was reached.
#[derive(Debug)]
pub struct Marks {
    until_ms: u64,
    open: VecDeque<(Arc<VersionVector>, u64)>,
    /// Doubled where the marks were too many: a node that is long behind is told more coarsely.
    pause_ms: u64,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            until_ms: 0,
            open: VecDeque::new(),
            pause_ms: MARK_PAUSE_MS,
        }
    }
}

impl Marks {
    pub fn note(&mut self, vector: &Arc<VersionVector>, at_ms: u64) {
        let last = self.open.back().map_or(self.until_ms, |(_, at_ms)| *at_ms);
        if at_ms == 0 || (!self.open.is_empty() && at_ms < last + self.pause_ms) {
            return;
        }
        if self.open.len() >= COMPLETE_MARKS_MAX {
            let mut keep = false;
            self.open.retain(|_| {
                keep = !keep;
                keep
            });
            self.pause_ms *= 2;
        }
        self.open.push_back((vector.clone(), at_ms));
    }

    /// The time, for one who covers `here`; none if nothing was ever reached.
    pub fn reached(
        &mut self,
        here: &VersionVector,
        is_of_region: impl Fn(ReplicaIndex) -> bool,
    ) -> Option<u64> {
        let is_here = |(replica, seq)| !is_of_region(replica) || here.get(replica) >= seq;
        while let Some((_, at_ms)) = self
            .open
            .pop_front_if(|(vector, _)| vector.iter().all(is_here))
        {
            self.until_ms = self.until_ms.max(at_ms);
        }
        if self.open.is_empty() {
            self.pause_ms = MARK_PAUSE_MS;
        }
        (self.until_ms > 0).then_some(self.until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_REGION: ReplicaIndex = ReplicaIndex(0);

    fn vector(seq: u64, other: u64) -> Arc<VersionVector> {
        let entries = [(OF_REGION, seq), (ReplicaIndex(1), other)];
        Arc::new(entries.into_iter().collect())
    }

    fn reached(marks: &mut Marks, seq: u64) -> Option<u64> {
        marks.reached(&vector(seq, 0), |replica| replica == OF_REGION)
    }

    #[test]
    fn a_time_is_reached_when_the_regions_own_events_are_here() {
        let mut marks = Marks::default();
        assert_eq!(reached(&mut marks, 9), None, "nothing was said");
        marks.note(&vector(1, 50), 1_000);
        marks.note(&vector(5, 60), 2_000);
        assert_eq!(reached(&mut marks, 0), None);
        assert_eq!(reached(&mut marks, 4), Some(1_000));
        assert_eq!(reached(&mut marks, 5), Some(2_000));
        marks.note(&vector(9, 0), 500);
        assert_eq!(
            reached(&mut marks, 9),
            Some(2_000),
            "a clock that was set back"
        );
    }

    #[test]
    fn who_is_long_behind_keeps_few_marks_from_all_the_time() {
        let mut marks = Marks::default();
        for seq in 1..=100_000 {
            marks.note(&vector(seq, 0), seq * 10);
        }
        assert!(marks.open.len() <= COMPLETE_MARKS_MAX);
        let at = |marks: &mut Marks, seq| reached(marks, seq).unwrap_or(0);
        assert!(at(&mut marks, 50_000) >= 300_000);
        assert!(at(&mut marks, 100_000) >= 850_000);
        assert_eq!(marks.pause_ms, MARK_PAUSE_MS);
    }
}
