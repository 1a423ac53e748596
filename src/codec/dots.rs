//! Dots by columns: how many each event or user has, then whose they are. Their numbers follow, in a form that suits them.

use crate::codec::columns::{Numbers, numbers_below};
use crate::codec::reader::{DecodeError, Reader};
use crate::crdt::dot::{Dot, Dots, ReplicaIndex};
use crate::limits::{BLOCK_DOTS_MAX, REMOVED_DOTS_MAX};

/// How many dots each has, and of all of them the places of their replicas.
#[derive(Debug, Default)]
pub struct Owners {
    counts: Numbers,
    places: Numbers,
}

impl Owners {
    pub fn push(&mut self, dots: &[Dot], mut place: impl FnMut(ReplicaIndex) -> u64) {
        self.counts.push(dots.len() as i64);
        self.places
            .extend(dots.iter().map(|dot| place(dot.replica) as i64));
    }

    pub fn put(&self, out: &mut Vec<u8>) {
        self.counts.put(out);
        self.places.put(out);
    }
}

/// What [`Owners`] wrote.
pub struct Owned {
    counts: Vec<u32>,
    /// Of each dot.
    replicas: Vec<ReplicaIndex>,
}

impl Owned {
    /// Reads the dots of so many. `dictionary` has the replicas by their places.
    pub fn read(
        reader: &mut Reader<'_>,
        what: &'static str,
        owners: usize,
        dictionary: &[ReplicaIndex],
    ) -> Result<Self, DecodeError> {
        let at = reader.position();
        let counts = numbers_below(reader, what, owners, REMOVED_DOTS_MAX + 1)?;
        let all = counts.iter().map(|count| *count as usize).sum();
        // One value stands for many equal ones, so that the bytes that are left say nothing of how many there may be.
        if all > BLOCK_DOTS_MAX {
            return Err(DecodeError::OverLimit {
                what,
                at,
                found: all as u64,
                max: BLOCK_DOTS_MAX as u64,
            });
        }
        let places = numbers_below(reader, what, all, dictionary.len())?;
        let replicas = places.into_iter().map(|place| dictionary[place as usize]);
        Ok(Self {
            replicas: replicas.collect(),
            counts,
        })
    }

    /// How many dots there are.
    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    /// The dots of each, with the numbers of all.
    pub fn with(self, numbers: impl IntoIterator<Item = u64>) -> Vec<Dots> {
        let both = self.replicas.into_iter().zip(numbers);
        let mut dots = both.map(|(replica, seq)| Dot { seq, replica });
        let of_each = |count: u32| dots.by_ref().take(count as usize).collect();
        self.counts.into_iter().map(of_each).collect()
    }
}
