//! An add-wins OR-set: the users who like a post, each with their live dots.
//!
//! Users are held in buckets of bounded size by ranges of a frozen hash. A bucket that is full is
//! split, so that growth never moves more than one bucket.

mod bucket;
mod compact;
mod many;
mod packed;
mod searches;
mod shorts;
mod table;

use smallvec::{SmallVec, smallvec};

use bucket::Bucket;
pub use compact::Compact;
pub use searches::Searches;
use table::{SlotHint, Span};

use crate::crdt::changes::{Changes, PostContext};
use crate::crdt::dot::{Dot, Dots};
use crate::crdt::user_key::{UserHash, Who};
use crate::ids::UserId;
use crate::limits::BUCKET_LIKERS_MAX;

/// A user and the dots of their likes that are live. Never without a dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liker {
    pub user: UserId,
    pub hash: UserHash,
    pub dots: Dots,
}

impl Liker {
    pub fn new(user: UserId, dots: Dots) -> Self {
        let hash = UserHash::of(&user);
        Self { user, hash, dots }
    }
}

/// Where a user was last looked for. Whoever has it finds them sooner.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place {
    bucket: u32,
    seen: SlotHint,
}

/// The likers of a post, or of the part of it that one shard holds.
#[derive(Debug, Clone)]
pub struct Likers {
    /// The first hash of each bucket's range, ascending and never empty; a range ends where the next begins.
    starts: SmallVec<[u64; 1]>,
    /// One stands here itself: there are many small posts.
    buckets: SmallVec<[Bucket; 1]>,
}

impl Likers {
    /// An empty set for users whose hash lies in `from..=to`.
    pub fn new(from: u64, to: u64) -> Self {
        Self {
            starts: smallvec![from],
            buckets: smallvec![Bucket::new(Span { from, to })],
        }
    }

    pub fn range(&self) -> (u64, u64) {
        (self.starts[0], self.range_at(self.buckets.len() - 1).1)
    }

    pub fn len(&self) -> usize {
        self.buckets.iter().map(Bucket::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.buckets.iter().all(Bucket::is_empty)
    }

    pub fn dots(&self, who: Who<'_>) -> Dots {
        self.buckets[self.place(who.order())].look(who).1
    }

    /// As [`Self::dots`], of a user whose place is known. It is known better afterwards.
    pub fn dots_at(&self, place: &mut Place, who: Who<'_>) -> Dots {
        let bucket = self.seen(*place, who);
        let (seen, dots) = self.buckets[bucket].look(who);
        *place = Place {
            bucket: bucket as u32,
            seen,
        };
        dots
    }

    /// Where a search for the user begins.
    pub fn place_of(&self, who: Who<'_>) -> Place {
        Place {
            bucket: self.place(who.order()) as u32,
            seen: SlotHint::default(),
        }
    }

    /// Asks for the memory of the bucket.
    fn prefetch_bucket(&self, place: Place) {
        if let Some(bucket) = self.buckets.get(place.bucket as usize) {
            bucket.prefetch_head();
        }
    }

    /// Asks for the memory in which a search for the user begins. That of their bucket has been asked for.
    fn prefetch(&self, place: Place, who: Who<'_>) {
        if let Some(bucket) = self.buckets.get(place.bucket as usize) {
            bucket.prefetch(who);
        }
    }

    /// The user's live dots become `dots`. Returns those they were.
    pub fn set(
        &mut self,
        context: PostContext<'_>,
        who: Who<'_>,
        dots: &[Dot],
        changes: &mut Changes,
    ) -> Dots {
        self.set_at(self.place_of(who), context, who, dots, changes)
    }

    /// As [`Self::set`], of a user whose place is known.
    pub fn set_at(
        &mut self,
        place: Place,
        context: PostContext<'_>,
        who: Who<'_>,
        dots: &[Dot],
        changes: &mut Changes,
    ) -> Dots {
        let bucket = self.seen(place, who);
        let old = self.put((bucket, place.seen), who, dots);
        if old.is_empty() {
            changes.add_liker(context, who.hash(), dots);
            return old;
        }
        if let Some(credited) = context.replicas.smallest(&old) {
            changes.credit(credited.replica, -1);
        }
        if let Some(credited) = context.replicas.smallest(dots) {
            changes.credit(credited.replica, 1);
        }
        for dot in old.iter().filter(|dot| !dots.contains(dot)) {
            changes.fingerprint -= context.liker(who.hash(), *dot);
        }
        for dot in dots.iter().filter(|dot| !old.contains(dot)) {
            changes.fingerprint += context.liker(who.hash(), *dot);
        }
        old
    }

    /// Puts in many likers whose hashes ascend, bucket by bucket: less than a search for each, unless there are many times as many
    /// already. Returns the places of those whom it did not put in, for who may be there already.
    pub fn merge(
        &mut self,
        context: PostContext<'_>,
        likers: &[Compact],
        changes: &mut Changes,
    ) -> Vec<usize> {
        let mut left = Vec::new();
        let mut from = 0;
        self.starts.clear();
        for bucket in std::mem::take(&mut self.buckets) {
            let end = bucket.span().to;
            let count = likers[from..].partition_point(|liker| liker.order() <= end);
            let here = &likers[from..from + count];
            let left_before = left.len();
            for bucket in bucket.merge(here, &mut left) {
                self.starts.push(bucket.span().from);
                self.buckets.push(bucket);
            }
            let left_here = &mut left[left_before..];
            let mut is_left = left_here.iter().peekable();
            for (at, liker) in here.iter().enumerate() {
                if is_left.next_if_eq(&&at).is_none() {
                    changes.add_liker(context, liker.hash(), &[liker.dot()]);
                }
            }
            left_here.iter_mut().for_each(|at| *at += from);
            from += count;
        }
        left
    }

    fn put(&mut self, (place, seen): (usize, SlotHint), who: Who<'_>, dots: &[Dot]) -> Dots {
        let bucket = &mut self.buckets[place];
        bucket.changed = true;
        let old = bucket.put(who, dots, seen);
        if old.is_empty() && bucket.len() > BUCKET_LIKERS_MAX {
            self.split(place);
        }
        old
    }

    /// The place where the user belongs now: buckets before it may have been split since it was found.
    fn seen(&self, place: Place, who: Who<'_>) -> usize {
        if self.buckets.len() == 1 {
            return 0;
        }
        let (place, hash) = (place.bucket as usize, who.order());
        let begins = |at: usize| self.starts.get(at).is_some_and(|start| *start <= hash);
        match begins(place) && !begins(place + 1) {
            true => place,
            false => self.place(hash),
        }
    }

    /// The place of the bucket that a hash belongs to.
    fn place(&self, hash: u64) -> usize {
        if self.buckets.len() == 1 {
            return 0;
        }
        let after = self.starts.partition_point(|start| *start <= hash);
        after.checked_sub(1).expect("hash in range")
    }

    fn range_at(&self, place: usize) -> (u64, u64) {
        let Span { from, to } = self.buckets[place].span();
        (from, to)
    }

    fn split(&mut self, place: usize) {
        if let Some(at) = self.buckets[place].span().middle() {
            self.begin_bucket(at);
        }
    }

    /// Likers whose hash lies in `from..=to`, in no order.
    pub fn in_range(&self, from: u64, to: u64) -> impl Iterator<Item = Liker> {
        let first = self.place(from.max(self.starts[0]));
        let after = self.starts.partition_point(|start| *start <= to);
        let buckets = self.buckets[first..after.max(first)].iter();
        buckets
            .flat_map(Bucket::iter)
            .filter(move |liker| (from..=to).contains(&liker.hash.order()))
    }

    pub fn iter(&self) -> impl Iterator<Item = Liker> {
        self.buckets.iter().flat_map(Bucket::iter)
    }

    /// The ranges of the buckets.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        let places = 0..self.buckets.len();
        places.map(|place| self.range_at(place)).collect()
    }

    /// The ranges of the buckets that changed since this was last asked.
    pub fn take_changed(&mut self) -> Vec<(u64, u64)> {
        let places = 0..self.buckets.len();
        let changed = places.filter(|place| self.buckets[*place].changed);
        let changed = changed.map(|place| self.range_at(place)).collect();
        self.buckets.iter_mut().for_each(|it| it.changed = false);
        changed
    }

    /// Puts a part in its place, where nobody is yet. It stands in a checkpoint as it is.
    pub fn put_part(&mut self, part: Part) {
        let Part { bucket } = part;
        let Span { from, to } = bucket.span();
        self.begin_bucket(from);
        if to < self.range().1 {
            self.begin_bucket(to + 1);
        }
        let place = self.place(from);
        assert!(self.buckets[place].is_empty(), "a part comes once");
        self.buckets[place] = bucket;
    }

    /// Sees to it that a bucket begins at `at`, which lies in the range.
    pub fn begin_bucket(&mut self, at: u64) {
        let place = self.place(at);
        if self.starts[place] == at {
            return;
        }
        let upper = self.buckets[place].split(at);
        self.starts.insert(place + 1, at);
        self.buckets.insert(place + 1, upper);
    }

    pub fn mark_all_changed(&mut self) {
        self.buckets.iter_mut().for_each(|it| it.changed = true);
    }

    /// The bucket that begins at `from` stands in a checkpoint as it is.
    pub fn mark_unchanged(&mut self, from: u64) {
        if let Ok(place) = self.starts.binary_search(&from) {
            self.buckets[place].changed = false;
        }
    }

    /// The range of the bucket that a hash belongs to.
    pub fn range_around(&self, hash: u64) -> (u64, u64) {
        self.range_at(self.place(hash))
    }

    /// Whether every liker stands where they are looked for.
    pub fn is_placed(&self) -> bool {
        let starts = self.buckets.iter().map(|bucket| bucket.span().from);
        starts.eq(self.starts.iter().copied()) && self.buckets.iter().all(Bucket::is_placed)
    }

    /// The buckets that stand in a checkpoint as they are: first and last hash, and the likers.
    pub fn unchanged(&self) -> impl Iterator<Item = (u64, u64, impl Iterator<Item = Liker>)> {
        let places = self.buckets.iter().enumerate();
        let unchanged = places.filter(|(_, bucket)| !bucket.changed);
        unchanged.map(|(place, bucket)| {
            let (from, to) = self.range_at(place);
            (from, to, bucket.iter())
        })
    }

    /// Adds a liker that was taken out of another set whole, without any change of figures.
    pub fn adopt(&mut self, liker: &Liker) {
        let who = Who::of(&liker.user);
        let place = self.place(who.order());
        self.put((place, SlotHint::default()), who, &liker.dots);
    }
}

/// The likers of some hashes, put together apart from all others.
#[derive(Debug)]
pub struct Part {
    bucket: Bucket,
}

impl Part {
    /// Those of the likers whose hash lies in `from..=to`. Notes what they add to a post that had none of them.
    pub fn of(
        context: PostContext<'_>,
        (from, to): (u64, u64),
        likers: &[(UserId, Dots)],
        changes: &mut Changes,
    ) -> Self {
        let likers = likers.iter().map(|(user, dots)| (Who::of(user), dots));
        let span = Span { from, to };
        let likers = likers.filter(|(who, _)| span.contains(who.order()));
        let likers: Vec<(Who<'_>, &Dots)> = likers.collect();
        let bucket = Bucket::of(span, &likers);
        let mut count = |hash, dots: &Dots| changes.add_liker(context, hash, dots);
        if bucket.len() == likers.len() {
            likers
                .iter()
                .for_each(|(who, dots)| count(who.hash(), dots));
        } else {
            // Somebody came twice.
            bucket
                .iter()
                .for_each(|liker| count(liker.hash, &liker.dots));
        }
        Self { bucket }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::LazyLock;

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

    fn user(number: usize) -> UserId {
        // Of each kind that is held in another way.
        let text = match number % 5 {
            0 | 1 => format!("u{number}"),
            2 => format!("somebody{number}"),
            3 => format!("0190d3c4-7a2e-7c41-9f00-{number:012x}"),
            _ => format!("somebody with a longer name {number}"),
        };
        UserId::new(&text).expect("valid")
    }

    fn dot(replica: u32, seq: u64) -> Dot {
        Dot {
            seq,
            replica: ReplicaIndex(replica),
        }
    }

    /// Now and then more than fits into a compact entry, or of another page.
    fn seq() -> impl Strategy<Value = u64> {
        let other_page = (1u64..40, 0u64..3).prop_map(|(page, place)| (page << 28) + place);
        prop_oneof![8 => 1u64..9, 1 => (1u64 << 48)..(1 << 48) + 2, 1 => other_page]
    }

    proptest! {
        /// The set beside a plain map, after every step: members, credit, and the fingerprint
        /// computed from nothing.
        #[test]
        fn set_equals_a_naive_one_after_every_step(
            steps in prop::collection::vec((0usize..5, prop::collection::vec((0u32..3, seq()), 0..3)), 1..60)
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
                let user = user(number);
                let old = set.set(context, Who::of(&user), &dots, &mut total);
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
                prop_assert!(set.is_placed());
                let listed: BTreeMap<UserId, Dots> =
                    set.iter().map(|liker| (liker.user, liker.dots)).collect();
                prop_assert_eq!(&listed, &naive);
            }
        }
    }

    proptest! {
        /// Whoever comes twice counts once, as in a set.
        #[test]
        fn parts_are_what_their_likers_make_one_by_one(
            raw in prop::collection::vec((0usize..40, 0u32..3, seq(), any::<bool>()), 0..60),
            cuts in prop::collection::btree_set(1u64.., 0..4),
        ) {
            let replicas = replicas();
            let context = context(&replicas);
            let mut likers: Vec<(UserId, Dots)> = Vec::new();
            let mut one_by_one = Likers::new(0, u64::MAX);
            let mut wanted = Changes::default();
            for (number, replica, seq, has_two) in raw {
                let mut dots = Dots::from_slice(&[dot(replica, seq)]);
                dots.extend(has_two.then(|| dot(replica, seq + 1)));
                one_by_one.set(context, Who::of(&user(number)), &dots, &mut wanted);
                likers.push((user(number), dots));
            }
            let starts: Vec<u64> = std::iter::once(0).chain(cuts.iter().copied()).collect();
            let ends = cuts.iter().map(|cut| cut - 1).chain([u64::MAX]);
            let ranges: Vec<(u64, u64)> = starts.iter().copied().zip(ends).collect();
            let mut changes = Changes::default();
            let mut set = Likers::new(0, u64::MAX);
            // In whatever order they come.
            for range in ranges.iter().rev() {
                set.put_part(Part::of(context, *range, &likers, &mut changes));
            }
            prop_assert_eq!(set.ranges(), ranges);
            prop_assert_eq!(set.take_changed(), vec![], "all stand in the checkpoint");
            prop_assert!(set.is_placed());
            let listed = |set: &Likers| -> BTreeMap<UserId, Dots> {
                set.iter().map(|liker| (liker.user, liker.dots)).collect()
            };
            prop_assert_eq!(listed(&set), listed(&one_by_one));
            prop_assert_eq!(changes.fingerprint, wanted.fingerprint);
            prop_assert_eq!(changes.likers(), wanted.likers());
        }
    }

    /// A range of hashes, and users in it.
    type Ranged = ((u64, u64), Vec<UserId>);

    /// So wide that keys stand whole, just so narrow that they do not, and around that.
    static RANGES: LazyLock<[Ranged; 4]> = LazyLock::new(|| {
        [0, 7, 8, 9].map(|bits| {
            let width = u64::MAX >> bits;
            let (from, to) = (u64::MAX - width, u64::MAX);
            let users = (0..).map(|number| UserId::new(&format!("u{number}")).expect("valid"));
            let users = users.filter(|user| UserHash::of(user).order() >= from);
            ((from, to), users.take(250).collect())
        })
    });

    proptest! {
        /// Enough users of one kind for short dots, and pages that become more, sometimes more than there is room for.
        #[test]
        fn many_users_and_pages_equal_a_map(
            range in 0..RANGES.len(),
            pace in 5u64..100,
            raw in prop::collection::vec((0usize..250, 0u64..40, 0u32..2, 0u8..5), 0..900),
        ) {
            let replicas = replicas();
            let context = context(&replicas);
            let ((from, to), users) = &RANGES[range];
            let (from, to) = (*from, *to);
            let mut set = Likers::new(from, to);
            let mut map: BTreeMap<UserId, Dots> = BTreeMap::new();
            let mut changes = Changes::default();
            for (seq, (number, page, replica, chance)) in (1u64..).zip(raw) {
                let user = users[number].clone();
                let mut dots = Dots::new();
                if chance > 0 {
                    dots.push(dot(replica, (page % (1 + seq / pace)) << 28 | seq));
                    map.insert(user.clone(), dots.clone());
                } else {
                    map.remove(&user);
                }
                set.set(context, Who::of(&user), &dots, &mut changes);
                prop_assert_eq!(set.dots(Who::of(&user)), dots);
                prop_assert_eq!(set.len(), map.len());
            }
            let listed = |set: &Likers| -> BTreeMap<UserId, Dots> {
                set.iter().map(|liker| (liker.user, liker.dots)).collect()
            };
            prop_assert!(set.is_placed());
            prop_assert_eq!(&listed(&set), &map);
            set.begin_bucket(from + (to - from) / 5 * 3);
            prop_assert!(set.is_placed());
            prop_assert_eq!(&listed(&set), &map);
            let all: Vec<(UserId, Dots)> = map.clone().into_iter().collect();
            let mut part = Likers::new(from, to);
            part.put_part(Part::of(context, (from, to), &all, &mut changes));
            prop_assert!(part.is_placed());
            prop_assert_eq!(&listed(&part), &map);
        }
    }

    fn add(
        set: &mut Likers,
        context: PostContext<'_>,
        (who, dot): (Who<'_>, Dot),
        changes: &mut Changes,
    ) {
        let mut dots = set.dots(who);
        if !dots.contains(&dot) {
            dots.push(dot);
            set.set(context, who, &dots, changes);
        }
    }

    proptest! {
        /// Some were there before, some come twice, also with one dot, and some are of other kinds.
        #[test]
        fn merged_likers_are_what_they_make_one_by_one(
            // With dots that fit into tables, mostly: buckets that hold anything else are not merged into.
            before in prop::collection::vec((0usize..3_000, 0u32..2, 1u64..9), 0..1_500),
            odd in prop::option::of((0usize..3_000, 0u32..2, seq())),
            new in prop::collection::vec((0usize..3_000, 0u32..2, seq()), 1..3_000),
            numbered in any::<bool>(),
        ) {
            let replicas = replicas();
            let context = context(&replicas);
            let name = |number| match numbered {
                true => UserId::new(&format!("u{number}")).expect("valid"),
                false => user(number),
            };
            let mut changes = Changes::default();
            let mut merged = Likers::new(0, u64::MAX);
            for (number, replica, seq) in before.into_iter().chain(odd) {
                let dots = [dot(replica, seq)];
                merged.set(context, Who::of(&name(number)), &dots, &mut changes);
            }
            let mut one_by_one = merged.clone();
            let mut wanted = changes.clone();
            let mut new: Vec<(UserId, Dot)> = new
                .into_iter()
                .map(|(number, replica, seq)| (name(number), dot(replica, seq)))
                .collect();
            for (user, dot) in &new {
                add(&mut one_by_one, context, (Who::of(user), *dot), &mut wanted);
            }
            // Of those with one hash, in the order in which they came.
            new.sort_by_key(|(user, _)| UserHash::of(user).order());
            let (mut compact, mut left) = (Vec::new(), Vec::new());
            for (user, dot) in &new {
                match Compact::of(Who::of(user), *dot) {
                    Some(liker) => compact.push(liker),
                    None => left.push((user.clone(), *dot)),
                }
            }
            let left_of_them = merged.merge(context, &compact, &mut changes);
            let left_of_them = left_of_them.into_iter().map(|at| compact[at]);
            left.extend(left_of_them.map(|liker| (liker.user(), liker.dot())));
            // Before any other write can split them.
            prop_assert!(merged.buckets.iter().all(|bucket| bucket.len() <= BUCKET_LIKERS_MAX));
            prop_assert_eq!(merged.ranges().first().map(|range| range.0), Some(0));
            prop_assert_eq!(merged.ranges().last().map(|range| range.1), Some(u64::MAX));
            for (user, dot) in &left {
                add(&mut merged, context, (Who::of(user), *dot), &mut changes);
            }
            prop_assert!(merged.is_placed());
            // Dots of one user stand in any order.
            let listed = |set: &Likers| -> BTreeMap<UserId, Dots> {
                set.iter()
                    .map(|mut liker| {
                        liker.dots.sort_unstable_by_key(|dot| (dot.replica, dot.seq));
                        (liker.user, liker.dots)
                    })
                    .collect()
            };
            prop_assert_eq!(listed(&merged), listed(&one_by_one));
            prop_assert_eq!(changes.fingerprint, wanted.fingerprint);
            prop_assert_eq!(changes.likers(), wanted.likers());
            changes.credited.sort_unstable();
            wanted.credited.sort_unstable();
            prop_assert_eq!(changes.credited, wanted.credited);
        }
    }

    #[test]
    fn buckets_split_and_keep_everyone() {
        let replicas = replicas();
        let mut set = Likers::new(0, u64::MAX);
        let mut changes = Changes::default();
        let many = 10 * BUCKET_LIKERS_MAX;
        for number in 0..many {
            let user = user(number);
            let dots = Dots::from_slice(&[dot(0, number as u64 + 1)]);
            set.set(context(&replicas), Who::of(&user), &dots, &mut changes);
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
        assert!(set.is_placed());
        for number in 0..many {
            let user = user(number);
            assert_eq!(
                set.dots(Who::of(&user)).as_slice(),
                &[dot(0, number as u64 + 1)]
            );
        }
        assert_eq!(set.take_changed().len(), set.ranges().len());
        assert!(set.take_changed().is_empty());
    }
}
