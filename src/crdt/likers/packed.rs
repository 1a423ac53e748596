//! A dot in eight bytes, or, beside a few others that are near it, in four.

use crate::crdt::dot::{Dot, ReplicaIndex};
use crate::limits::REPLICAS_MAX;

/// A dot in eight bytes: number, then replica. Never zero, for numbers begin with 1.
const REPLICA_BITS: u32 = 16;
const _: () = assert!(REPLICAS_MAX <= 1 << REPLICA_BITS);
const REPLICA: u64 = (1 << REPLICA_BITS) - 1;

/// None of several dots, nor of a number that does not fit.
pub(super) fn packed(dots: &[Dot]) -> Option<u64> {
    let [Dot { seq, replica }] = dots else {
        return None;
    };
    let fits = (1..1 << (u64::BITS - REPLICA_BITS)).contains(seq) && replica.0 >> REPLICA_BITS == 0;
    fits.then(|| seq << REPLICA_BITS | u64::from(replica.0))
}

pub(super) fn unpacked(value: u64) -> Dot {
    Dot {
        seq: value >> REPLICA_BITS,
        replica: ReplicaIndex((value & REPLICA) as u32),
    }
}

/// Bits of a dot's number that stand in its place on a page.
const PLACE_BITS: u32 = 28;
const PLACE: u64 = (1 << PLACE_BITS) - 1;
/// Zero is no page, so that no dot in four bytes is zero.
const PAGES_MAX: usize = (1 << (u32::BITS - PLACE_BITS)) - 1;

/// Pages of dots. A page is 2^28 numbers of one replica that follow on one another: few pages are in use at one time.
#[derive(Debug, Clone, Default)]
pub(super) struct Pages(Box<[u64]>);

impl Pages {
    /// The packed dot in four bytes. None where its page is not here, and no more have room.
    pub fn shorten(&mut self, dot: u64) -> Option<u32> {
        let page = page_of(dot);
        let at = match self.0.iter().position(|known| *known == page) {
            Some(at) => at,
            None if self.0.len() == PAGES_MAX => return None,
            None => {
                let mut pages = std::mem::take(&mut self.0).into_vec();
                pages.push(page);
                self.0 = pages.into();
                self.0.len() - 1
            }
        };
        let place = (dot >> REPLICA_BITS) & PLACE;
        Some((at as u32 + 1) << PLACE_BITS | place as u32)
    }

    /// The packed dot. Of decayed memory some dot: sums tell.
    pub fn lengthen(&self, short: u32) -> u64 {
        let at = (short >> PLACE_BITS) as usize;
        let page = at.checked_sub(1).and_then(|at| self.0.get(at)).copied();
        page.unwrap_or_default() | (u64::from(short) & PLACE) << REPLICA_BITS
    }

    /// Asks for their memory.
    pub fn prefetch(&self) {
        self.0
            .first()
            .into_iter()
            .for_each(crate::crdt::prefetch::prefetch);
    }
}

/// A dot without its place on the page.
fn page_of(dot: u64) -> u64 {
    dot & !(PLACE << REPLICA_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dot() -> impl Strategy<Value = u64> {
        let seq = prop_oneof![1u64..9, Just(PLACE), Just(PLACE + 1), 1u64..(1 << 48)];
        (seq, 0u64..4).prop_map(|(seq, replica)| seq << REPLICA_BITS | replica)
    }

    proptest! {
        #[test]
        fn what_is_shortened_is_lengthened_to_what_it_was(dots in prop::collection::vec(dot(), 1..60)) {
            let mut pages = Pages::default();
            let short: Vec<Option<u32>> = dots.iter().map(|dot| pages.shorten(*dot)).collect();
            let known: std::collections::BTreeSet<u64> = dots.iter().map(|dot| page_of(*dot)).collect();
            prop_assert_eq!(pages.0.len(), known.len().min(PAGES_MAX));
            for (dot, short) in dots.iter().zip(short) {
                match short {
                    Some(short) => {
                        prop_assert_ne!(short, 0);
                        prop_assert_eq!(pages.lengthen(short), *dot);
                    }
                    None => prop_assert!(known.len() > PAGES_MAX),
                }
            }
        }

        /// Whatever bits memory comes to hold, they are read.
        #[test]
        fn any_bits_are_read(short: u32) {
            Pages::default().lengthen(short);
        }
    }
}
