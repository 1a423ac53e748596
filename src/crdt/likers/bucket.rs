//! Likers whose hash lies in one range: those with one dot in compact tables, by the kind of their key, and the few others
//! as they are.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::packed::{packed, unpacked};
use super::shorts::{NoPage, Shorts};
use super::table::{SlotHint, Span, Table};
use super::{Compact, Liker};
use crate::crdt::dot::{Dot, Dots};
use crate::crdt::prefetch::prefetch;
use crate::crdt::user_key::{Key, Long, Short, Who};
use crate::ids::UserId;
use crate::limits::BUCKET_LIKERS_MAX;

/// See the module. Each user stands in one place only. The fields lie in this order, so that the first and the last tell all of
/// the memory that a search begins with.
#[derive(Debug, Clone)]
#[repr(C)]
pub(super) struct Bucket {
    span: Span,
    short: Shorts,
    others: Option<Box<Others>>,
    /// Whether it changed since it was last taken for a checkpoint.
    pub changed: bool,
}

#[derive(Debug, Clone, Default)]
struct Others {
    /// Users with short keys whose dots have no room beside the others'.
    short: Table<Short, u64>,
    long: Table<Long, u64>,
    uuids: Table<Long, u64>,
    /// Users without a key, and those whose dots are not one that can be packed.
    whole: HashTable<Whole>,
}

#[derive(Debug, Clone)]
struct Whole {
    hash: u64,
    user: UserId,
    dots: Dots,
}

impl Bucket {
    /// For users whose hash lies in the span.
    pub fn new(span: Span) -> Self {
        Self {
            span,
            short: Shorts::default(),
            others: None,
            changed: false,
        }
    }

    /// Of likers in any order; of one user's the last counts.
    pub fn of(span: Span, likers: &[(Who<'_>, &Dots)]) -> Self {
        let mut short = Vec::with_capacity(likers.len());
        let mut others = Vec::new();
        for (who, dots) in likers {
            match (who.key, packed(dots)) {
                (Key::Short(key), Some(value)) => short.push((key, value)),
                _ => others.push((*who, *dots)),
            }
        }
        short.sort_unstable_by_key(|(key, _)| *key);
        let mut bucket = Self::new(span);
        if short.is_sorted_by(|(a, _), (b, _)| a < b) {
            bucket.set_short(&short);
            bucket.put_all(&others);
        }
        if bucket.len() != likers.len() {
            // Somebody comes twice, which no row should say.
            bucket = Self::new(span);
            bucket.put_all(likers);
        }
        bucket
    }

    /// Its users with short keys become these, which ascend.
    fn set_short(&mut self, all: &[(Short, u64)]) {
        let (short, rest) = Shorts::of(self.span, all);
        self.short = short;
        if !rest.is_empty() || self.others.is_some() {
            let wide = Table::ordered(self.span, rest.iter().copied(), rest.len());
            self.others.get_or_insert_default().short = wide;
        }
    }

    /// Puts in new likers, which ascend, in one pass over the table, and splits what is too large then. The places of those whom
    /// it did not put in, for they may be here already, are added to `left`.
    pub fn merge(self, likers: &[Compact], left: &mut Vec<usize>) -> Vec<Self> {
        if self.others.is_some() || likers.is_empty() {
            left.extend(0..likers.len());
            return vec![self];
        }
        let mut all: Vec<(Short, u64)> = Vec::with_capacity(self.len() + likers.len());
        let mut new = likers.iter().enumerate().peekable();
        let mut put_below = |all: &mut Vec<(Short, u64)>, below: Option<Short>| {
            let is_below = |liker: &Compact| below.is_none_or(|below| liker.key < below);
            while let Some((at, liker)) = new.next_if(|(_, liker)| is_below(liker)) {
                match all.last().is_none_or(|last| last.0 < liker.key) {
                    true => all.push((liker.key, liker.dot)),
                    false => left.push(at),
                }
            }
        };
        self.short.iter(self.span).for_each(|(key, value)| {
            put_below(&mut all, Some(key));
            all.push((key, value));
        });
        put_below(&mut all, None);
        let mut buckets = Vec::new();
        Self::cut(self.span, &all, &mut buckets);
        buckets
    }

    /// Buckets of users with short keys, which ascend: as many as it takes.
    fn cut(span: Span, all: &[(Short, u64)], buckets: &mut Vec<Self>) {
        let middle = span.middle().filter(|_| all.len() > BUCKET_LIKERS_MAX);
        if let Some(middle) = middle {
            let (lower, upper) = span.cut(middle);
            let below = all.partition_point(|(key, _)| *key < middle);
            Self::cut(lower, &all[..below], buckets);
            Self::cut(upper, &all[below..], buckets);
            return;
        }
        let mut bucket = Self::new(span);
        bucket.set_short(all);
        bucket.changed = true;
        buckets.push(bucket);
    }

    fn put_all(&mut self, likers: &[(Who<'_>, &Dots)]) {
        for (who, dots) in likers {
            self.put(*who, dots, SlotHint::default());
        }
    }

    pub fn span(&self) -> Span {
        self.span
    }

    pub fn len(&self) -> usize {
        let others = self.others.iter();
        let others =
            others.map(|it| it.short.len() + it.long.len() + it.uuids.len() + it.whole.len());
        self.short.len() + others.sum::<usize>()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The user's dots, and where they are found sooner the next time.
    pub fn look(&self, who: Who<'_>) -> (SlotHint, Dots) {
        let (seen, value) = self.value(who.key);
        if let Some(value) = value {
            return (seen, one_dot(value));
        }
        let hash = table_hash(who.order());
        let whole = self.whole();
        let found = whole.and_then(|it| it.find(hash, |one| one.user == *who.user));
        (seen, found.map_or_else(Dots::new, |one| one.dots.clone()))
    }

    /// Users that are held whole, if there are any. Mostly there are none.
    fn whole(&self) -> Option<&HashTable<Whole>> {
        let others = self.others.as_ref()?;
        (!others.whole.is_empty()).then_some(&others.whole)
    }

    /// The user's dots become these. Returns those they were.
    pub fn put(&mut self, who: Who<'_>, dots: &[Dot], seen: SlotHint) -> Dots {
        if let Some(value) = packed(dots)
            && let Some(old) = self.put_value(who.key, value, seen)
        {
            return match old {
                Some(old) => one_dot(old),
                None if self.whole().is_none() => Dots::new(),
                None => self.put_whole(who, &[]),
            };
        }
        let whole = self.put_whole(who, dots);
        self.remove_value(who.key).map_or(whole, one_dot)
    }

    fn value(&self, key: Key) -> (SlotHint, Option<u64>) {
        let (span, others) = (self.span, self.others.as_ref());
        let long = match key {
            Key::Short(key) => {
                let (seen, narrow) = self.short.look(span, key);
                return (seen, narrow.or_else(|| others?.short.get(span, key)));
            }
            Key::Long(key) => others.and_then(|it| it.long.get(span, key)),
            Key::Uuid(key) => others.and_then(|it| it.uuids.get(span, key)),
            Key::Text(_) => None,
        };
        (SlotHint::default(), long)
    }

    /// Returns the value that the key had. None where it cannot have one.
    fn put_value(&mut self, key: Key, value: u64, seen: SlotHint) -> Option<Option<u64>> {
        let span = self.span;
        let others = &mut self.others;
        Some(match key {
            Key::Short(key) => self.put_short(key, value, seen),
            Key::Long(key) => others.get_or_insert_default().long.put(span, key, value),
            Key::Uuid(key) => others.get_or_insert_default().uuids.put(span, key, value),
            Key::Text(_) => return None,
        })
    }

    /// In one of the two tables, and in that one only.
    fn put_short(&mut self, key: Short, value: u64, seen: SlotHint) -> Option<u64> {
        let (span, others) = (self.span, &mut self.others);
        let narrow = self.short.put(span, key, value, seen);
        let wide = others.as_mut().filter(|it| it.short.len() > 0);
        match narrow {
            Ok(old) => old.or_else(|| wide?.short.remove(span, key)),
            Err(NoPage) => {
                let old = self.short.remove(span, key);
                let wide = others.get_or_insert_default();
                wide.short.put(span, key, value).or(old)
            }
        }
    }

    fn remove_value(&mut self, key: Key) -> Option<u64> {
        let (span, others) = (self.span, self.others.as_mut());
        match key {
            Key::Short(key) => {
                let narrow = self.short.remove(span, key);
                narrow.or_else(|| others?.short.remove(span, key))
            }
            Key::Long(key) => others?.long.remove(span, key),
            Key::Uuid(key) => others?.uuids.remove(span, key),
            Key::Text(_) => None,
        }
    }

    /// Asks for the memory of the bucket itself, which may lie in two lines.
    pub fn prefetch_head(&self) {
        prefetch(&self.span);
        prefetch(&self.changed);
    }

    /// Asks for the memory in which a search for the user begins. That of the bucket itself has been asked for.
    pub fn prefetch(&self, who: Who<'_>) {
        if let Key::Short(key) = who.key {
            self.short.prefetch(self.span, key);
        }
    }

    fn put_whole(&mut self, who: Who<'_>, dots: &[Dot]) -> Dots {
        if dots.is_empty() && self.whole().is_none() {
            return Dots::new();
        }
        let whole = &mut self.others.get_or_insert_default().whole;
        let hash = who.order();
        let is_same = |one: &Whole| one.user == *who.user;
        match whole.entry(table_hash(hash), is_same, |one| table_hash(one.hash)) {
            Entry::Occupied(entry) if dots.is_empty() => entry.remove().0.dots,
            Entry::Occupied(mut entry) => std::mem::replace(&mut entry.get_mut().dots, dots.into()),
            Entry::Vacant(_) if dots.is_empty() => Dots::new(),
            Entry::Vacant(entry) => {
                let (user, dots) = (who.user.clone(), dots.into());
                entry.insert(Whole { hash, user, dots });
                Dots::new()
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Liker> {
        let others = self.others.iter().flat_map(|it| {
            let short = compact(it.short.iter(), Key::Short);
            let long = compact(it.long.iter(), Key::Long);
            let uuids = compact(it.uuids.iter(), Key::Uuid);
            let whole = it.whole.iter();
            let whole = whole.map(|one| Liker::new(one.user.clone(), one.dots.clone()));
            short.chain(long).chain(uuids).chain(whole)
        });
        compact(self.short.iter(self.span), Key::Short).chain(others)
    }

    /// Takes out those whose hash is `at` or more.
    pub fn split(&mut self, at: u64) -> Self {
        let halves = self.span.cut(at);
        let others = self.others.as_mut().map(|it| {
            let mut whole = HashTable::new();
            for one in it.whole.extract_if(|one| one.hash >= at) {
                whole.insert_unique(table_hash(one.hash), one, |one| table_hash(one.hash));
            }
            Box::new(Others {
                short: it.short.split(halves),
                long: it.long.split(halves),
                uuids: it.uuids.split(halves),
                whole,
            })
        });
        let mut upper = Self {
            span: halves.1,
            short: self.short.split(self.span, halves),
            others,
            changed: true,
        };
        (self.span, self.changed) = (halves.0, true);
        for half in [self, &mut upper] {
            half.renew_pages();
        }
        upper
    }

    /// Where dots had no room beside the others', they may have by now: pages are in use no more.
    fn renew_pages(&mut self) {
        let others = self.others.as_ref();
        let Some(others) = others.filter(|it| it.short.len() > 0) else {
            return;
        };
        let mut all: Vec<_> = self
            .short
            .iter(self.span)
            .chain(others.short.iter())
            .collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        self.set_short(&all);
    }

    /// Whether every liker stands where they are looked for, and has a hash in the span.
    pub fn is_placed(&self) -> bool {
        let span = self.span;
        let others = self.others.iter();
        let mut tables = others.map(|it| {
            it.short.is_ordered(span) && it.long.is_ordered(span) && it.uuids.is_ordered(span)
        });
        self.short.is_ordered(span)
            && tables.all(|is_ordered| is_ordered)
            && self.iter().all(|liker| {
                span.contains(liker.hash.order())
                    && !liker.dots.is_empty()
                    && self.look(Who::of(&liker.user)).1 == liker.dots
            })
    }
}

fn one_dot(packed: u64) -> Dots {
    Dots::from_buf([unpacked(packed)])
}

fn compact<K>(
    likers: impl Iterator<Item = (K, u64)>,
    kind: fn(K) -> Key,
) -> impl Iterator<Item = Liker> {
    likers.map(move |(key, value)| {
        let key = kind(key);
        Liker {
            user: key.user(),
            hash: key.hash(),
            dots: one_dot(value),
        }
    })
}

/// A user's hash as a hash table takes it. The table tells its entries apart by the highest bits first,
/// and those are the same for all whose hashes lie in one range.
fn table_hash(hash: u64) -> u64 {
    hash.rotate_left(32)
}
