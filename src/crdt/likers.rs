//! An add-wins OR-set: the users who like a post, each with their live dots.
//!
//! Users are held in buckets of bounded size by ranges of a frozen hash. A bucket that is full is
//! split in the middle of its range, so that growth never moves more than one bucket.

use std::collections::BTreeMap;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::crdt::changes::{Changes, PostContext};
use crate::crdt::dot::{Dot, Dots};
use crate::crdt::fingerprint::UserHash;
use crate::ids::UserId;
use crate::limits::BUCKET_LIKERS_MAX;

/// A user and the dots of their likes that are live. Never without a dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liker {
    pub hash: u64,
    pub user: UserId,
    pub dots: Dots,
}

impl Liker {
    /// The same under the hash that its user has.
    pub fn placed(mut self) -> Self {
        self.hash = UserHash::of(&self.user).order();
        self
    }
}

/// Likers whose hash lies in one range.
#[derive(Debug, Clone, Default)]
struct Bucket {
    table: HashTable<Liker>,
    /// Whether it changed since it was last taken for a checkpoint.
    changed: bool,
}

/// The likers of a post, or of the part of it that one shard holds.
#[derive(Debug, Clone)]
pub struct Likers {
    /// Buckets by the first hash of their range; a range ends where the next begins.
    buckets: BTreeMap<u64, Bucket>,
    to: u64,
}

impl Likers {
    /// An empty set for users whose hash lies in `from..=to`.
    pub fn new(from: u64, to: u64) -> Self {
        let mut buckets = BTreeMap::new();
        buckets.insert(from, Bucket::default());
        Self { buckets, to }
    }

    pub fn range(&self) -> (u64, u64) {
        let first = self.buckets.keys().next().expect("never without a bucket");
        (*first, self.to)
    }

    pub fn len(&self) -> usize {
        self.buckets.values().map(|bucket| bucket.table.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.buckets.values().all(|bucket| bucket.table.is_empty())
    }

    pub fn dots(&self, user: &UserId, hash: UserHash) -> &[Dot] {
        let hash = hash.order();
        self.bucket(hash)
            .table
            .find(table_hash(hash), |liker| liker.user == *user)
            .map_or(&[], |liker| &liker.dots)
    }

    /// The user's live dots become `dots`. Returns those they were.
    pub fn set(
        &mut self,
        context: PostContext<'_>,
        user: &UserId,
        hash: UserHash,
        dots: Dots,
        changes: &mut Changes,
    ) -> Dots {
        let new = dots.clone();
        let old = self.replace(user, hash.order(), dots);
        if let Some(credited) = context.replicas.smallest(&old) {
            changes.credit(credited.replica, -1);
        }
        if let Some(credited) = context.replicas.smallest(&new) {
            changes.credit(credited.replica, 1);
        }
        for dot in old.iter().filter(|dot| !new.contains(dot)) {
            changes.fingerprint -= context.liker(hash, *dot);
        }
        for dot in new.iter().filter(|dot| !old.contains(dot)) {
            changes.fingerprint += context.liker(hash, *dot);
        }
        old
    }

    fn replace(&mut self, user: &UserId, hash: u64, dots: Dots) -> Dots {
        let bucket = self.bucket_mut(hash);
        bucket.changed = true;
        let same = |liker: &Liker| liker.user == *user;
        match bucket.table.entry(table_hash(hash), same, table_hash_of) {
            Entry::Occupied(mut entry) if !dots.is_empty() => {
                std::mem::replace(&mut entry.get_mut().dots, dots)
            }
            Entry::Occupied(entry) => entry.remove().0.dots,
            Entry::Vacant(_) if dots.is_empty() => Dots::new(),
            Entry::Vacant(entry) => {
                let user = user.clone();
                entry.insert(Liker { hash, user, dots });
                self.split_if_full(hash);
                Dots::new()
            }
        }
    }

    fn bucket(&self, hash: u64) -> &Bucket {
        let (_, bucket) = self
            .buckets
            .range(..=hash)
            .next_back()
            .expect("hash in range");
        bucket
    }

    fn bucket_mut(&mut self, hash: u64) -> &mut Bucket {
        let found = self.buckets.range_mut(..=hash).next_back();
        found.expect("hash in range").1
    }

    fn split_if_full(&mut self, hash: u64) {
        let (&from, bucket) = self
            .buckets
            .range(..=hash)
            .next_back()
            .expect("hash in range");
        let to = self.end_of(from);
        if bucket.table.len() <= BUCKET_LIKERS_MAX || from == to {
            return;
        }
        let middle = from + (to - from) / 2 + 1;
        self.begin_bucket(middle);
    }

    fn end_of(&self, from: u64) -> u64 {
        let after = self.buckets.range(from..).nth(1);
        after.map_or(self.to, |(next, _)| next - 1)
    }

    /// Likers whose hash lies in `from..=to`, in no order.
    pub fn in_range(&self, from: u64, to: u64) -> impl Iterator<Item = &Liker> {
        let first = self
            .buckets
            .range(..=from)
            .next_back()
            .map_or(from, |(start, _)| *start);
        self.buckets
            .range(first..=to)
            .flat_map(|(_, bucket)| &bucket.table)
            .filter(move |liker| (from..=to).contains(&liker.hash))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Liker> {
        self.buckets.values().flat_map(|bucket| &bucket.table)
    }

    /// The ranges of the buckets.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        let starts = self.buckets.keys();
        starts.map(|from| (*from, self.end_of(*from))).collect()
    }

    /// The ranges of the buckets that changed since this was last asked.
    pub fn take_changed(&mut self) -> Vec<(u64, u64)> {
        let mut changed = Vec::new();
        for (from, bucket) in &mut self.buckets {
            if std::mem::take(&mut bucket.changed) {
                changed.push(*from);
            }
        }
        let starts = changed.into_iter();
        starts.map(|from| (from, self.end_of(from))).collect()
    }

    /// Sees to it that a bucket begins at `at`, which lies in the range.
    pub fn begin_bucket(&mut self, at: u64) {
        if self.buckets.contains_key(&at) {
            return;
        }
        let lower = self.bucket_mut(at);
        lower.changed = true;
        let mut upper = Bucket {
            changed: true,
            ..Bucket::default()
        };
        for liker in lower.table.extract_if(|liker| liker.hash >= at) {
            upper
                .table
                .insert_unique(table_hash_of(&liker), liker, table_hash_of);
        }
        self.buckets.insert(at, upper);
    }

    pub fn mark_all_changed(&mut self) {
        self.buckets
            .values_mut()
            .for_each(|bucket| bucket.changed = true);
    }

    /// The bucket that begins at `from` stands in a checkpoint as it is.
    pub fn mark_unchanged(&mut self, from: u64) {
        if let Some(bucket) = self.buckets.get_mut(&from) {
            bucket.changed = false;
        }
    }

    /// The range of the bucket that a hash belongs to.
    pub fn range_around(&self, hash: u64) -> (u64, u64) {
        let (from, _) = self
            .buckets
            .range(..=hash)
            .next_back()
            .expect("hash in range");
        (*from, self.end_of(*from))
    }

    /// Whether every liker stands under the hash of its user, in the bucket where it is looked for.
    pub fn is_placed(&self) -> bool {
        self.buckets.iter().all(|(from, bucket)| {
            let to = self.end_of(*from);
            bucket.table.iter().all(|liker| {
                liker.hash == UserHash::of(&liker.user).order()
                    && (*from..=to).contains(&liker.hash)
                    && !liker.dots.is_empty()
            })
        })
    }

    /// The buckets that stand in a checkpoint as they are: first and last hash, and the likers.
    pub fn unchanged(&self) -> impl Iterator<Item = (u64, u64, impl Iterator<Item = &Liker>)> {
        let unchanged = self.buckets.iter().filter(|(_, bucket)| !bucket.changed);
        unchanged.map(|(from, bucket)| (*from, self.end_of(*from), bucket.table.iter()))
    }

    /// Adds a liker that was taken out of another set whole, without any change of figures.
    pub fn adopt(&mut self, liker: Liker) {
        let hash = liker.hash;
        let bucket = self.bucket_mut(hash);
        bucket.changed = true;
        bucket
            .table
            .insert_unique(table_hash(hash), liker, table_hash_of);
        self.split_if_full(hash);
    }

    /// Takes all likers out.
    pub fn into_likers(self) -> impl Iterator<Item = Liker> {
        self.buckets.into_values().flat_map(|bucket| bucket.table)
    }
}

/// A user's hash as a bucket's table takes it. The table tells its entries apart by the highest bits first,
/// and those are the same for all whose hashes lie in one range.
fn table_hash(hash: u64) -> u64 {
    hash.rotate_left(32)
}

fn table_hash_of(liker: &Liker) -> u64 {
    table_hash(liker.hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crdt::dot::{ReplicaIndex, Replicas};
    use crate::crdt::fingerprint::{Fingerprint, FingerprintKey, PostHash};
    use crate::ids::{ClusterId, Epoch, PostId, Region, Replica};
    use proptest::prelude::*;

    fn replicas() -> Replicas {
        let mut replicas = Replicas::default();
        for (region, epoch) in [("us", 1), ("eu", 2), ("eu", 1)] {
            let region = Region::new(region).expect("valid");
            replicas.intern(&Replica {
                region,
                epoch: Epoch(epoch),
            });
        }
        replicas
    }

    fn context(replicas: &Replicas) -> PostContext<'_> {
        PostContext {
            key: FingerprintKey::of(&ClusterId::new("test").expect("valid")),
            post: PostHash::of(&PostId::new("post").expect("valid")),
            replicas,
        }
    }

    fn user(number: usize) -> (UserId, UserHash) {
        let user = UserId::new(&format!("u{number}")).expect("valid");
        let hash = UserHash::of(&user);
        (user, hash)
    }

    fn dot(replica: u32, seq: u64) -> Dot {
        Dot {
            seq,
            replica: ReplicaIndex(replica),
        }
    }

    proptest! {
        /// The set beside a plain map, after every step: members, credit, and the fingerprint
        /// computed from nothing.
        #[test]
        fn set_equals_a_naive_one_after_every_step(
            steps in prop::collection::vec((0usize..5, prop::collection::vec((0u32..3, 1u64..9), 0..3)), 1..60)
        ) {
            let replicas = replicas();
            let context = context(&replicas);
            let mut set = Likers::new(0, u64::MAX);
            let mut naive: BTreeMap<UserId, Dots> = BTreeMap::new();
            let mut total = Changes::default();
            for (number, raw) in steps {
                let mut dots = Dots::new();
                for (replica, seq) in raw {
                    if !dots.contains(&dot(replica, seq)) {
                        dots.push(dot(replica, seq));
                    }
                }
                let (user, hash) = user(number);
                let old = set.set(context, &user, hash, dots.clone(), &mut total);
                prop_assert_eq!(old, naive.remove(&user).unwrap_or_default());
                if !dots.is_empty() {
                    naive.insert(user, dots);
                }
                let mut sum = Fingerprint::default();
                let mut credited: BTreeMap<ReplicaIndex, i64> = BTreeMap::new();
                for (user, dots) in &naive {
                    for dot in dots {
                        sum += context.liker(UserHash::of(user), *dot);
                    }
                    let smallest = replicas.smallest(dots).expect("not empty");
                    *credited.entry(smallest.replica).or_default() += 1;
                }
                prop_assert_eq!(total.fingerprint, sum);
                prop_assert_eq!(total.likers(), naive.len() as i64);
                for (replica, by) in &total.credited {
                    prop_assert_eq!(*by, credited.get(replica).copied().unwrap_or(0));
                }
                prop_assert_eq!(set.len(), naive.len());
            }
        }
    }

    #[test]
    fn buckets_split_and_keep_everyone() {
        let replicas = replicas();
        let mut set = Likers::new(0, u64::MAX);
        let mut changes = Changes::default();
        let many = 10 * BUCKET_LIKERS_MAX;
        for number in 0..many {
            let (user, hash) = user(number);
            let dots = Dots::from_slice(&[dot(0, number as u64 + 1)]);
            set.set(context(&replicas), &user, hash, dots, &mut changes);
        }
        assert_eq!(set.len(), many);
        assert!(set.ranges().len() >= 10);
        let covered: usize = set
            .ranges()
            .iter()
            .map(|(from, to)| set.in_range(*from, *to).count())
            .sum();
        assert_eq!(covered, many);
        assert_eq!(set.ranges().first().map(|range| range.0), Some(0));
        assert_eq!(set.ranges().last().map(|range| range.1), Some(u64::MAX));
        for number in 0..many {
            let (user, hash) = user(number);
            assert_eq!(set.dots(&user, hash), &[dot(0, number as u64 + 1)]);
        }
        assert_eq!(set.take_changed().len(), set.ranges().len());
        assert!(set.take_changed().is_empty());
    }
}
