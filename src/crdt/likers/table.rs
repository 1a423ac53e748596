//! A table that stands in order of its keys, with gaps: linear probing in which each search ends at the first greater key
//! (O. Amble, D. E. Knuth, Ordered hash tables, 1974). It needs no bytes beside its slots, is good at nine tenths full,
//! and grows by an eighth, in one pass, since the order stays.
//!
//! Keys are as good as random within a span, and a table belongs to a bucket of bounded size: at the worst a search looks at
//! all of it.

use crate::crdt::prefetch::prefetch;

/// The keys of a table: their highest bits lie between two numbers, or are one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub from: u64,
    pub to: u64,
}

impl Span {
    pub fn contains(self, highest: u64) -> bool {
        (self.from..=self.to).contains(&highest)
    }

    /// What lies below `at`, and the rest. Both have something.
    pub fn cut(self, at: u64) -> (Self, Self) {
        let Self { from, to } = self;
        (Self { from, to: at - 1 }, Self { from: at, to })
    }

    /// Where a bucket that is too large is split. None of a single hash.
    pub fn middle(self) -> Option<u64> {
        let Self { from, to } = self;
        (from < to).then(|| from + 1 + share_of(to - from, from))
    }

    /// By what a key's distance from the first is multiplied, so that the upper half of the product is its home among so many.
    fn scale(self, homes: u32) -> u64 {
        let width = u128::from(self.to - self.from) + 1;
        let scale = (u128::from(homes) << 64) / width;
        scale.try_into().unwrap_or(u64::MAX)
    }
}

/// From a third to two thirds of a width, by chance that is the same everywhere. Hashes are spread evenly, so buckets that
/// were halved would all grow through one size at one time, and what memory they give back would fit none of them.
fn share_of(width: u64, chance: u64) -> u64 {
    let chance = chance.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
    let share = (1 << 16) + chance;
    (u128::from(width) * u128::from(share) / (3 << 16)) as u64
}

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

/// Not aligned: short keys and values would take more bytes. Fields are copied, never borrowed.
#[derive(Debug, Clone, Copy)]
#[repr(C, packed)]
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

/// Where a key stood or belonged when it was looked for. Who brings it finds it sooner.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SlotHint(u32);

/// Keys with values, which are never zero.
///
/// Keys ascend from slot to slot. No key stands before its home, and no slot between its home and itself is empty.
#[derive(Debug, Clone)]
pub(super) struct Table<K: Copy, V: Copy> {
    slots: Box<[Slot<K, V>]>,
    /// See [`Span::scale`].
    scale: u64,
    /// Slots that are homes; the others are behind them.
    homes: u32,
    len: u32,
}

impl<K: Copy, V: Copy> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            slots: Box::default(),
            scale: 0,
            homes: 1,
            len: 0,
        }
    }
}

impl<K: TableKey, V: TableValue> Table<K, V> {
    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn get(&self, span: Span, key: K) -> Option<V> {
        self.look(span, key).1
    }

    /// Where the key stands or belongs, and its value.
    pub fn look(&self, span: Span, key: K) -> (SlotHint, Option<V>) {
        match self.find(span, key) {
            Ok(at) => (SlotHint(at as u32), Some(self.slots[at].value)),
            Err(at) => (SlotHint(at as u32), None),
        }
    }

    /// Asks for the memory in which a search for the key begins. That of the table itself has been asked for.
    pub fn prefetch(&self, span: Span, key: K) {
        if let Some(slot) = self.slots.get(self.home(span, key)) {
            prefetch(slot);
        }
    }

    /// Returns the value that the key had.
    pub fn put(&mut self, span: Span, key: K, value: V) -> Option<V> {
        let found = self.find(span, key);
        self.put_found(span, (key, value), found)
    }

    /// As [`Self::put`], of a key that was looked for before.
    pub fn put_seen(&mut self, span: Span, key: K, value: V, seen: SlotHint) -> Option<V> {
        let found = self.found(span, key, seen);
        let found = found.unwrap_or_else(|| self.find(span, key));
        self.put_found(span, (key, value), found)
    }

    fn put_found(
        &mut self,
        span: Span,
        (key, value): (K, V),
        found: Result<usize, usize>,
    ) -> Option<V> {
        assert_ne!(value, V::ZERO, "zero is no value");
        match found {
            Ok(at) => {
                let old = self.slots[at].value;
                self.slots[at].value = value;
                Some(old)
            }
            Err(_) if self.is_full() => {
                self.resize(span, self.len() + 1);
                self.put(span, key, value)
            }
            Err(at) => {
                let rest = self.slots[at..].iter();
                let gap = at + rest.take_while(|slot| slot.is_taken()).count();
                if gap == self.slots.len() {
                    // Keys crowd at the end.
                    self.resize(span, self.len() + 1);
                    return self.put(span, key, value);
                }
                self.slots.copy_within(at..gap, at + 1);
                self.slots[at] = Slot { key, value };
                self.len += 1;
                None
            }
        }
    }

    pub fn remove(&mut self, span: Span, key: K) -> Option<V> {
        let at = self.find(span, key).ok()?;
        let removed = self.slots[at].value;
        let rest = self.slots[at + 1..].iter().zip(at + 1..);
        let moved = rest
            .take_while(|(slot, place)| slot.is_taken() && self.home(span, slot.key) < *place)
            .count();
        self.slots.copy_within(at + 1..at + 1 + moved, at);
        self.slots[at + moved].value = V::ZERO;
        self.len -= 1;
        if self.len() < self.slots.len() / 3 {
            self.resize(span, self.len());
        }
        Some(removed)
    }

    /// In order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (K, V)> {
        let taken = self.slots.iter().filter(|slot| slot.is_taken());
        taken.map(|slot| (slot.key, slot.value))
    }

    /// How many keys lie below.
    pub fn below(&self, highest: u64) -> usize {
        let all = self.iter();
        all.take_while(|(key, _)| key.highest() < highest).count()
    }

    /// Takes out the keys from the middle of the span on.
    pub fn split(&mut self, (below, above): (Span, Span)) -> Self {
        let (all, lower) = (self.len(), self.below(above.from));
        let upper = Self::ordered(above, self.iter().skip(lower), all - lower);
        *self = Self::ordered(below, self.iter().take(lower), lower);
        upper
    }

    /// What [`Self::find`] would say, if it is this slot: others may have moved since.
    fn found(&self, span: Span, key: K, SlotHint(at): SlotHint) -> Option<Result<usize, usize>> {
        let (at, home) = (at as usize, self.home(span, key));
        let slot = self.slots.get(at)?;
        if slot.is_taken() && { slot.key } == key {
            return Some(Ok(at));
        }
        let is_first = !slot.is_taken() || { slot.key } > key;
        // All between home and a smaller key are smaller keys.
        let follows = at == home
            || at > home && {
                let before = &self.slots[at - 1];
                before.is_taken() && { before.key } < key
            };
        (is_first && follows).then_some(Err(at))
    }

    /// The place of the key, or where it belongs.
    fn find(&self, span: Span, key: K) -> Result<usize, usize> {
        let home = self.home(span, key);
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

    fn home(&self, span: Span, key: K) -> usize {
        home(span, key, (self.scale, self.homes))
    }

    /// Whether it grows when another key is put in.
    pub fn is_full(&self) -> bool {
        let len = self.len();
        match self.homes {
            1 => len == self.slots.len(),
            homes => len * 9 >= homes as usize * 8,
        }
    }

    fn resize(&mut self, span: Span, keys: usize) {
        *self = Self::ordered(span, self.iter(), keys);
    }

    /// A table of keys that ascend, with room for so many, which are no fewer.
    pub fn ordered(span: Span, all: impl Iterator<Item = (K, V)>, keys: usize) -> Self {
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
        let scale = span.scale(homes);
        let (mut len, mut next) = (0, 0);
        for (key, value) in all {
            let at = home(span, key, (scale, homes)).max(next);
            (len, next) = (len + 1, at + 1);
            slots[at] = Slot { key, value };
            if next == slots.len() {
                // Where keys crowd at the end there is room for more of them.
                slots.resize(next + next / 8 + 1, empty);
            }
        }
        Self {
            slots: slots.into(),
            scale,
            homes,
            len,
        }
    }

    /// Whether everything stands where it is looked for.
    pub fn is_ordered(&self, span: Span) -> bool {
        let keys: Vec<K> = self.iter().map(|(key, _)| key).collect();
        keys.len() == self.len()
            && keys.is_sorted_by(|a, b| a < b)
            && keys.iter().all(|key| self.find(span, *key).is_ok())
    }
}

/// The next of eight sizes in each doubling: what one table gives back as it grows, another one takes.
fn sized(slots: usize) -> usize {
    slots.next_multiple_of((slots.next_power_of_two() / 16).max(1))
}

/// A key of decayed memory may lie outside of the span.
fn home<K: TableKey>(span: Span, key: K, (scale, homes): (u64, u32)) -> usize {
    let distance = u128::from(key.highest().wrapping_sub(span.from));
    let home = ((distance * u128::from(scale)) >> 64) as usize;
    home.min(homes as usize - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    /// Keys that crowd at the beginning, at the end, and keys that do not.
    fn key(Span { from, to }: Span) -> impl Strategy<Value = u64> {
        let crowd = 40.min(to - from);
        prop_oneof![from..=from + crowd, to - crowd..=to, from..=to]
    }

    fn span() -> impl Strategy<Value = Span> {
        let any = any::<[u64; 2]>().prop_map(|[a, b]| Span {
            from: a.min(b),
            to: a.max(b),
        });
        let narrow = (0..u64::MAX - 500, 0u64..500).prop_map(|(from, width)| Span {
            from,
            to: from + width,
        });
        prop_oneof![Just(WHOLE), any, narrow]
    }

    fn steps() -> impl Strategy<Value = (Span, Vec<(u64, u64)>)> {
        span().prop_flat_map(|span| {
            (
                Just(span),
                prop::collection::vec((key(span), 0u64..4), 0..400),
            )
        })
    }

    const WHOLE: Span = Span {
        from: 0,
        to: u64::MAX,
    };

    proptest! {
        #[test]
        fn a_table_equals_a_map_after_every_step((span, steps) in steps()) {
            let mut table = Table::default();
            let mut map = BTreeMap::new();
            for (key, value) in steps {
                let (was, is) = match value {
                    0 => (map.remove(&key), table.remove(span, key)),
                    1 => (map.insert(key, value), table.put(span, key, value)),
                    // Wherever it is said to stand.
                    _ => {
                        let (right, _) = table.look(span, key);
                        let seen = [right, SlotHint(key as u32 % 64)][value as usize % 2];
                        (map.insert(key, value), table.put_seen(span, key, value, seen))
                    }
                };
                prop_assert_eq!(was, is);
                prop_assert!(table.is_ordered(span));
                prop_assert_eq!(table.get(span, key), map.get(&key).copied());
            }
            prop_assert!(table.iter().eq(map.iter().map(|(key, value)| (*key, *value))));
            if span.from < span.to {
                let (below, above) = span.cut(span.from + 1 + (span.to - span.from) / 2);
                let upper = table.split((below, above));
                prop_assert!(table.is_ordered(below) && upper.is_ordered(above));
                prop_assert_eq!(upper.len(), map.range(above.from..).count());
                prop_assert_eq!(table.len() + upper.len(), map.len());
            }
        }

        /// Whatever bits memory comes to hold, tables grow and are looked into.
        #[test]
        fn keys_from_outside_of_the_span_do_no_harm((span, steps) in steps(), others in prop::collection::vec(any::<u64>(), 0..40)) {
            let mut keys: Vec<(u64, u64)> = steps.iter().map(|(key, _)| (*key, 1)).collect();
            keys.extend(others.iter().map(|key| (*key, 1)));
            let mut table = Table::ordered(span, keys.iter().copied(), keys.len());
            for (key, value) in steps {
                table.get(span, key);
                table.put(span, key, value + 1);
                table.remove(span, key);
            }
        }
    }

    #[test]
    fn a_table_is_as_large_as_it_needs_to_be() {
        let third = Span {
            from: u64::MAX / 3,
            to: u64::MAX / 3 * 2,
        };
        for span in [WHOLE, third] {
            let mut table: Table<u64, u64> = Table::default();
            let all = (1u64..).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let keys = || all.clone().filter(|key| span.contains(*key)).take(1_000);
            for key in keys() {
                table.put(span, key, 1);
                let (len, slots) = (table.len(), table.slots.len());
                assert!(len < 200 || slots * 2 < len * 3, "{slots} slots for {len}");
            }
            for key in keys() {
                table.remove(span, key);
                let (len, slots) = (table.len(), table.slots.len());
                assert!(slots <= 3 * len + 2, "{slots} slots for {len}");
            }
        }
    }
}
