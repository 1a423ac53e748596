//! A table that stands in order of its keys, with gaps: linear probing in which each search ends at the first greater key
//! (O. Amble, D. E. Knuth, Ordered hash tables, 1974). It needs no bytes beside its slots, is good at nine tenths full,
//! and grows by an eighth, in one pass, since the order stays.
//!
//! Keys are as good as random, and a table belongs to a bucket of bounded size: at the worst a search looks at all of it.

use crate::crdt::prefetch::prefetch;

/// A key whose highest bits place it.
pub(super) trait TableKey: Copy + Ord {
    const ZERO: Self;
    fn highest(self) -> u64;
}

impl TableKey for u64 {
    const ZERO: Self = 0;
    fn highest(self) -> u64 {
        self
    }
}

impl TableKey for [u64; 2] {
    const ZERO: Self = [0; 2];
    fn highest(self) -> u64 {
        self[0]
    }
}

/// What a key has.
pub(super) trait TableValue: Copy + Eq + std::fmt::Debug {
    const ZERO: Self;
}

impl TableValue for u64 {
    const ZERO: Self = 0;
}

impl TableValue for u32 {
    const ZERO: Self = 0;
}

/// Not aligned to eight bytes, of which a short value would take four more. Fields are copied, never borrowed.
#[derive(Debug, Clone, Copy)]
#[repr(C, packed(4))]
struct Slot<K, V> {
    key: K,
    /// Zero where the slot is empty.
    value: V,
}

const _: () = assert!(size_of::<Slot<u64, u32>>() == 12);

impl<K, V: TableValue> Slot<K, V> {
    fn is_taken(&self) -> bool {
        let value = self.value;
        value != V::ZERO
    }
}

/// Up to so many keys stand side by side, without gaps.
const DENSE: usize = 8;
/// Slots behind the last home, for those whose homes are taken.
const SPILL: usize = 12;

/// Keys with values, which are never zero.
///
/// Keys ascend from slot to slot. No key stands before its home, and no slot between its home and itself is empty.
#[derive(Debug, Clone)]
pub(super) struct Table<K: Copy, V: Copy> {
    slots: Box<[Slot<K, V>]>,
    /// Slots that are homes; the others are behind them.
    homes: u32,
    len: u32,
}

impl<K: Copy, V: Copy> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            slots: Box::default(),
            homes: 1,
            len: 0,
        }
    }
}

impl<K: TableKey, V: TableValue> Table<K, V> {
    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn get(&self, key: K) -> Option<V> {
        let at = self.find(key).ok()?;
        Some(self.slots[at].value)
    }

    /// Asks for the memory in which a search for the key begins. That of the table itself has been asked for.
    pub fn prefetch(&self, key: K) {
        if let Some(slot) = self.slots.get(self.home(key)) {
            prefetch(slot);
        }
    }

    /// Returns the value that the key had.
    pub fn put(&mut self, key: K, value: V) -> Option<V> {
        assert_ne!(value, V::ZERO, "zero is no value");
        match self.find(key) {
            Ok(at) => {
                let old = self.slots[at].value;
                self.slots[at].value = value;
                Some(old)
            }
            Err(_) if self.is_full() => {
                self.resize(self.len() + 1);
                self.put(key, value)
            }
            Err(at) => {
                let rest = self.slots[at..].iter();
                let gap = at + rest.take_while(|slot| slot.is_taken()).count();
                if gap == self.slots.len() {
                    // Keys crowd at the end.
                    self.resize(self.len() + 1);
                    return self.put(key, value);
                }
                self.slots.copy_within(at..gap, at + 1);
                self.slots[at] = Slot { key, value };
                self.len += 1;
                None
            }
        }
    }

    pub fn remove(&mut self, key: K) -> Option<V> {
        let at = self.find(key).ok()?;
        let removed = self.slots[at].value;
        let rest = self.slots[at + 1..].iter().zip(at + 1..);
        let moved = rest
            .take_while(|(slot, place)| slot.is_taken() && self.home(slot.key) < *place)
            .count();
        self.slots.copy_within(at + 1..at + 1 + moved, at);
        self.slots[at + moved].value = V::ZERO;
        self.len -= 1;
        if self.len() < self.slots.len() / 3 {
            self.resize(self.len());
        }
        Some(removed)
    }

    /// In order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (K, V)> {
        let taken = self.slots.iter().filter(|slot| slot.is_taken());
        taken.map(|slot| (slot.key, slot.value))
    }

    /// Takes out what is asked for.
    pub fn extract(&mut self, mut is_wanted: impl FnMut(K) -> bool) -> Self {
        let (wanted, others): (Vec<_>, Vec<_>) = self.iter().partition(|(key, _)| is_wanted(*key));
        let (count, others_count) = (wanted.len(), others.len());
        *self = Self::ordered(others.into_iter(), others_count);
        Self::ordered(wanted.into_iter(), count)
    }

    /// The place of the key, or where it belongs.
    fn find(&self, key: K) -> Result<usize, usize> {
        let home = self.home(key);
        let rest = &self.slots[home.min(self.slots.len())..];
        let passed = rest
            .iter()
            .position(|slot| !slot.is_taken() || { slot.key } >= key);
        let Some(passed) = passed else {
            return Err(self.slots.len());
        };
        let slot = &rest[passed];
        match slot.is_taken() && { slot.key } == key {
            true => Ok(home + passed),
            false => Err(home + passed),
        }
    }

    fn home(&self, key: K) -> usize {
        place(key, self.homes)
    }

    /// Whether it grows when another key is put in.
    pub fn is_full(&self) -> bool {
        let len = self.len();
        match self.homes {
            1 => len == self.slots.len(),
            homes => len * 9 >= homes as usize * 8,
        }
    }

    fn resize(&mut self, keys: usize) {
        *self = Self::ordered(self.iter(), keys);
    }

    /// A table of keys that ascend, with room for so many, which are no fewer.
    pub fn ordered(all: impl Iterator<Item = (K, V)>, keys: usize) -> Self {
        if keys == 0 {
            return Self::default();
        }
        let (homes, wanted) = match keys <= DENSE {
            true => (1, keys.next_multiple_of(2)),
            false => {
                let wanted = sized(keys + keys / 4 + SPILL);
                ((wanted - SPILL) as u32, wanted)
            }
        };
        let empty = Slot {
            key: K::ZERO,
            value: V::ZERO,
        };
        let mut slots = vec![empty; wanted];
        let (mut len, mut next) = (0, 0);
        for (key, value) in all {
            let at = place(key, homes).max(next);
            (len, next) = (len + 1, at + 1);
            slots[at] = Slot { key, value };
            if next == slots.len() {
                // Where keys crowd at the end there is room for more of them.
                slots.resize(next + next / 8 + 1, empty);
            }
        }
        Self {
            slots: slots.into(),
            homes,
            len,
        }
    }

    /// Whether everything stands where it is looked for.
    pub fn is_ordered(&self) -> bool {
        let keys: Vec<K> = self.iter().map(|(key, _)| key).collect();
        keys.len() == self.len()
            && keys.is_sorted_by(|a, b| a < b)
            && keys.iter().all(|key| self.find(*key).is_ok())
    }
}

/// The next of eight sizes in each doubling: what one table gives back as it grows, another one takes.
fn sized(slots: usize) -> usize {
    slots.next_multiple_of((slots.next_power_of_two() / 16).max(1))
}

fn place<K: TableKey>(key: K, homes: u32) -> usize {
    ((u128::from(key.highest()) * u128::from(homes)) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    /// Keys that crowd at the beginning, at the end, and keys that do not.
    fn key() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..40, (u64::MAX - 40)..=u64::MAX, any::<u64>()]
    }

    proptest! {
        #[test]
        fn a_table_equals_a_map_after_every_step(
            steps in prop::collection::vec((key(), 0u64..4), 0..400)
        ) {
            let mut table = Table::default();
            let mut map = BTreeMap::new();
            for (key, value) in steps {
                let (was, is) = match value {
                    0 => (map.remove(&key), table.remove(key)),
                    _ => (map.insert(key, value), table.put(key, value)),
                };
                prop_assert_eq!(was, is);
                prop_assert!(table.is_ordered());
                prop_assert_eq!(table.get(key), map.get(&key).copied());
            }
            prop_assert!(table.iter().eq(map.iter().map(|(key, value)| (*key, *value))));
            let upper = table.extract(|key| key > u64::MAX / 2);
            prop_assert!(table.is_ordered() && upper.is_ordered());
            prop_assert_eq!(upper.len(), map.range(u64::MAX / 2 + 1..).count());
            prop_assert_eq!(table.len() + upper.len(), map.len());
        }
    }

    #[test]
    fn a_table_is_as_large_as_it_needs_to_be() {
        let mut table: Table<u64, u64> = Table::default();
        let keys =
            |count: u64| (1..=count).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for key in keys(1_000) {
            table.put(key, 1);
            let (len, slots) = (table.len(), table.slots.len());
            assert!(len < 200 || slots * 2 < len * 3, "{slots} slots for {len}");
        }
        for key in keys(1_000) {
            table.remove(key);
            let (len, slots) = (table.len(), table.slots.len());
            assert!(slots <= 3 * len + 2, "{slots} slots for {len}");
        }
    }
}
