//! Sets of the ranges that posts are divided into by their hash.

use crate::crdt::fingerprint::RANGES;

const WORDS: usize = RANGES / u64::BITS as usize;

/// Some of the [`RANGES`] ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RangeSet {
    words: [u64; WORDS],
}

impl RangeSet {
    pub const fn all() -> Self {
        Self {
            words: [u64::MAX; WORDS],
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn contains(&self, range: usize) -> bool {
        range < RANGES && self.words[range / 64] >> (range % 64) & 1 == 1
    }

    /// A number that is no range is passed over.
    pub fn insert(&mut self, range: usize) {
        if range < RANGES {
            self.words[range / 64] |= 1 << (range % 64);
        }
    }

    /// What is in this set and not in the other.
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = *self;
        for (word, taken) in rest.words.iter_mut().zip(other.words) {
            *word &= !taken;
        }
        rest
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        let set = *self;
        (0..RANGES).filter(move |range| set.contains(*range))
    }
}

impl FromIterator<usize> for RangeSet {
    fn from_iter<T: IntoIterator<Item = usize>>(ranges: T) -> Self {
        let mut set = Self::default();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_no_more() {
        let set: RangeSet = [0, 63, 64, 255, 256].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 255]);
        assert!(!set.contains(1) && !set.contains(256));
        let rest = RangeSet::all().without(&set);
        assert_eq!(rest.iter().count(), RANGES - 4);
        assert!(set.without(&RangeSet::all()).is_empty());
    }
}
