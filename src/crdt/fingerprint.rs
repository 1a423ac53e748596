//! Fingerprints: order-free sums of keyed 128-bit hashes over every entry of the state.
//!
//! The definition is frozen; `docs/protocol.md` spells it out. Two nodes that hold the same entries
//! have the same sums, whatever the order in which they came.

use std::ops::{AddAssign, SubAssign};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128, xxh3_128_with_seed};

use crate::crdt::user_key::UserHash;
use crate::ids::{ClusterId, CounterName, PostId, Replica};

/// Ranges of posts that have a sum of their own.
pub const RANGES: usize = 256;
const RANGE_SHIFT: u32 = u64::BITS - RANGES.ilog2();

/// The key of a cluster's hashes: entries of one cluster mean nothing in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FingerprintKey(u64);

impl FingerprintKey {
    pub fn of(cluster: &ClusterId) -> Self {
        Self(xxh3_64(cluster.as_bytes()))
    }
}

/// Frozen hash of a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostHash(pub u128);

impl PostHash {
    pub fn of(post: &PostId) -> Self {
        Self(xxh3_128(post.as_bytes()))
    }

    /// The range whose sum the post's entries belong to.
    pub fn range(self) -> usize {
        Self::range_of_order(self.order())
    }

    /// What posts are sorted by, and split over ranges: the upper half.
    pub fn order(self) -> u64 {
        (self.0 >> 64) as u64
    }

    pub fn range_of_order(order: u64) -> usize {
        (order >> RANGE_SHIFT) as usize
    }

    /// The first and the last of a range.
    pub fn orders_of_range(range: usize) -> (u64, u64) {
        let first = (range as u64) << RANGE_SHIFT;
        (first, first | ((1 << RANGE_SHIFT) - 1))
    }
}

/// Frozen hash of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaHash(pub u128);

impl ReplicaHash {
    pub fn of(replica: &Replica) -> Self {
        let mut bytes = replica.region.as_bytes().to_vec();
        bytes.push(0);
        bytes.extend(replica.epoch.to_bytes());
        Self(xxh3_128(&bytes))
    }
}

/// A sum of entries, or the change of one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Fingerprint(pub u128);

impl Fingerprint {
    pub fn liker(
        key: FingerprintKey,
        post: PostHash,
        user: UserHash,
        replica: ReplicaHash,
        seq: u64,
    ) -> Self {
        entry(key, 1, [post.0, user.0, replica.0], [seq, 0])
    }

    pub fn likes(
        key: FingerprintKey,
        post: PostHash,
        replica: ReplicaHash,
        increments: u64,
    ) -> Self {
        entry(key, 2, [post.0, 0, replica.0], [increments, 0])
    }

    pub fn counter(
        key: FingerprintKey,
        post: PostHash,
        counter: &CounterName,
        replica: ReplicaHash,
        [increments, decrements]: [u64; 2],
    ) -> Self {
        let name = xxh3_128(counter.as_bytes());
        entry(key, 3, [post.0, name, replica.0], [increments, decrements])
    }

    pub fn orphan_removal(
        key: FingerprintKey,
        post: PostHash,
        user: UserHash,
        replica: ReplicaHash,
        seq: u64,
    ) -> Self {
        entry(key, 4, [post.0, user.0, replica.0], [seq, 0])
    }

    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

/// Of 64 bytes, which are hashed in fewer rounds than one more would be: the kind goes into the seed.
fn entry(key: FingerprintKey, kind: u64, hashes: [u128; 3], figures: [u64; 2]) -> Fingerprint {
    let mut bytes = [0u8; 64];
    for (at, hash) in hashes.iter().enumerate() {
        bytes[16 * at..][..16].copy_from_slice(&hash.to_le_bytes());
    }
    for (at, figure) in figures.iter().enumerate() {
        bytes[48 + 8 * at..][..8].copy_from_slice(&figure.to_le_bytes());
    }
    Fingerprint(xxh3_128_with_seed(&bytes, key.0.wrapping_add(kind)))
}

impl AddAssign for Fingerprint {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

impl SubAssign for Fingerprint {
    fn sub_assign(&mut self, other: Self) {
        self.0 = self.0.wrapping_sub(other.0);
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// The sums of all ranges.
#[derive(Clone, PartialEq, Eq)]
pub struct RangeSums {
    sums: Box<[Fingerprint; RANGES]>,
}

impl Default for RangeSums {
    fn default() -> Self {
        Self {
            sums: Box::new([Fingerprint::default(); RANGES]),
        }
    }
}

impl RangeSums {
    pub fn add(&mut self, range: usize, change: Fingerprint) {
        self.sums[range] += change;
    }

    pub fn range(&self, range: usize) -> Fingerprint {
        self.sums[range]
    }

    /// The fingerprint of the whole state.
    pub fn total(&self) -> Fingerprint {
        let mut total = Fingerprint::default();
        for sum in self.sums.iter() {
            total += *sum;
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Region, UserId};

    /// These figures are part of the protocol: a change of them makes every pair of old and new nodes diverge.
    #[test]
    fn the_definition_is_frozen() {
        let key = FingerprintKey::of(&ClusterId::new("c").expect("valid"));
        let post = PostHash::of(&PostId::new("p").expect("valid"));
        let user = UserHash::of(&UserId::new("u").expect("valid"));
        let replica = ReplicaHash::of(&Replica {
            region: Region::new("eu").expect("valid"),
            epoch: Epoch(7),
        });
        let views = CounterName::new("views").expect("valid");
        let all = [
            Fingerprint::liker(key, post, user, replica, 9),
            Fingerprint::likes(key, post, replica, 9),
            Fingerprint::counter(key, post, &views, replica, [9, 1]),
            Fingerprint::orphan_removal(key, post, user, replica, 9),
        ];
        assert_eq!(all.map(|print| print.to_string()), FROZEN);
        assert_eq!(post.range(), (post.0 >> 120) as usize);
    }

    const FROZEN: [&str; 4] = [
        "3d74f5e1d3bb3afb638036690ae821de",
        "9aec99ba4e58011920eaa21ddb2e3887",
        "c992e2be41f3e7df31433e1d57a5ac04",
        "38b5bde648576f7481562b30314099f3",
    ];
}
