//! A PN-counter: one entry (increments, decrements) per replica, written by its replica alone and
//! merged by maximum ("A comprehensive study of convergent and commutative replicated data types",
//! Shapiro et al., 2011, section 3.1.3).

use crate::crdt::dot::ReplicaIndex;
use crate::limits::COUNTER_BOUND;

/// What one replica ever added and took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterEntry {
    pub replica: ReplicaIndex,
    pub increments: u64,
    pub decrements: u64,
}

impl CounterEntry {
    pub fn figures(&self) -> [u64; 2] {
        [self.increments, self.decrements]
    }
}

/// The add would take this node's view of the counter beyond its bound, or further beyond. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the counter would become {would_be}; the bound is ±{COUNTER_BOUND}")]
pub struct BeyondBound {
    pub would_be: i128,
}

/// A counter value as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    pub value: i64,
    /// The true sum lies outside i64, and `value` is the nearest it can hold.
    pub clamped: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PnCounter {
    /// In the order of local numbers.
    entries: Vec<CounterEntry>,
}

impl PnCounter {
    pub fn entries(&self) -> &[CounterEntry] {
        &self.entries
    }

    pub fn sum(&self) -> i128 {
        let figures = self.entries.iter();
        figures
            .map(|entry| i128::from(entry.increments) - i128::from(entry.decrements))
            .sum()
    }

    pub fn value(&self) -> Value {
        let sum = self.sum();
        let value = sum.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        Value {
            value,
            clamped: i128::from(value) != sum,
        }
    }

    /// What this replica's entry would be after an addition. A counter that others took beyond the bound, on the
    /// other side of a cut, may be led back.
    pub fn plan_add(&self, replica: ReplicaIndex, delta: i64) -> Result<CounterEntry, BeyondBound> {
        let sum = self.sum();
        let would_be = sum + i128::from(delta);
        let refused = BeyondBound { would_be };
        if would_be.abs() > i128::from(COUNTER_BOUND) && would_be.abs() >= sum.abs() {
            return Err(refused);
        }
        let mut entry = self.entry(replica);
        let side = if delta >= 0 {
            &mut entry.increments
        } else {
            &mut entry.decrements
        };
        *side = side.checked_add(delta.unsigned_abs()).ok_or(refused)?;
        Ok(entry)
    }

    pub fn entry(&self, replica: ReplicaIndex) -> CounterEntry {
        let empty = CounterEntry {
            replica,
            increments: 0,
            decrements: 0,
        };
        let found = self
            .entries
            .binary_search_by_key(&replica, |entry| entry.replica);
        found.map_or(empty, |at| self.entries[at])
    }

    /// Merges one entry by maximum. Returns the entry before and after, if it changed.
    pub fn merge(&mut self, other: CounterEntry) -> Option<(CounterEntry, CounterEntry)> {
        let before = self.entry(other.replica);
        let after = CounterEntry {
            replica: other.replica,
            increments: before.increments.max(other.increments),
            decrements: before.decrements.max(other.decrements),
        };
        if before == after {
            return None;
        }
        match self
            .entries
            .binary_search_by_key(&other.replica, |entry| entry.replica)
        {
            Ok(at) => self.entries[at] = after,
            Err(at) => self.entries.insert(at, after),
        }
        Some((before, after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries() -> impl Strategy<Value = Vec<CounterEntry>> {
        let entry = (0u32..4, 0u64..9, 0u64..9).prop_map(|(replica, increments, decrements)| {
            CounterEntry {
                replica: ReplicaIndex(replica),
                increments,
                decrements,
            }
        });
        prop::collection::vec(entry, 0..12)
    }

    fn merged(entries: &[CounterEntry]) -> PnCounter {
        let mut counter = PnCounter::default();
        for entry in entries {
            counter.merge(*entry);
        }
        counter
    }

    proptest! {
        #[test]
        fn merging_does_not_depend_on_order_or_repetition(all in entries(), by in 0usize..12) {
            let mut turned = all.clone();
            turned.rotate_left(by % all.len().max(1));
            turned.extend(&all);
            prop_assert_eq!(merged(&all), merged(&turned));
        }
    }

    #[test]
    fn an_add_beyond_the_bound_is_refused() {
        let own = ReplicaIndex(0);
        let mut counter = PnCounter::default();
        counter.merge(counter.plan_add(own, COUNTER_BOUND).expect("at the bound"));
        assert!(counter.plan_add(own, 1).is_err());
        let back = counter.plan_add(own, -1).expect("back inside");
        counter.merge(back);
        assert_eq!(counter.value().value, COUNTER_BOUND - 1);
    }

    #[test]
    fn an_add_towards_zero_is_taken_also_from_far_beyond_the_bound() {
        let (own, other) = (ReplicaIndex(0), ReplicaIndex(1));
        for figures in [[u64::MAX, 0], [0, u64::MAX]] {
            let mut counter = PnCounter::default();
            counter.merge(CounterEntry {
                replica: other,
                increments: figures[0],
                decrements: figures[1],
            });
            let away = if figures[0] > 0 { 1 } else { -1 };
            assert!(counter.plan_add(own, away).is_err());
            let before = counter.sum().abs();
            counter.merge(counter.plan_add(own, -away).expect("towards zero"));
            assert_eq!(counter.sum().abs(), before - 1);
        }
    }

    #[test]
    fn a_merged_sum_outside_i64_is_clamped_and_says_so() {
        let mut counter = PnCounter::default();
        for replica in 0..3 {
            counter.merge(CounterEntry {
                replica: ReplicaIndex(replica),
                increments: 1 << 63,
                decrements: 0,
            });
        }
        let expected = Value {
            value: i64::MAX,
            clamped: true,
        };
        assert_eq!(counter.value(), expected);
    }
}
