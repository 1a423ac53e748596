//! Likers whose hash lies in one range: those with one dot in compact tables, by the kind of their key, and the few others
//! as they are.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::Liker;
use super::key::{Key, Long, Short, Who};
use super::packed::{packed, unpacked};
use super::shorts::{NoPage, Shorts};
use super::table::Table;
use crate::crdt::dot::{Dot, Dots};
use crate::crdt::fingerprint::UserHash;
use crate::crdt::prefetch::prefetch;
use crate::ids::UserId;

/// See the module. Each user stands in one place only.
#[derive(Debug, Clone, Default)]
pub(super) struct Bucket {
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
    /// Of likers in any order; of one user's the last counts.
    pub fn of(likers: &[(Who<'_>, &Dots)]) -> Self {
        let mut short = Vec::with_capacity(likers.len());
        let mut others = Vec::new();
        for (who, dots) in likers {
            match (who.key, packed(dots)) {
                (Some(Key::Short(key)), Some(value)) => short.push((key, value)),
                _ => others.push((*who, *dots)),
            }
        }
        short.sort_unstable_by_key(|(key, _)| *key);
        let mut bucket = Self::default();
        if short.is_sorted_by(|(a, _), (b, _)| a < b) {
            bucket.set_short(&short);
            bucket.put_all(&others);
        }
        if bucket.len() != likers.len() {
            // Somebody comes twice, which no row should say.
            bucket = Self::default();
            bucket.put_all(likers);
        }
        bucket
    }

    /// Its users with short keys become these, which ascend.
    fn set_short(&mut self, all: &[(Short, u64)]) {
        let (short, rest) = Shorts::of(all);
        self.short = short;
        if !rest.is_empty() || self.others.is_some() {
            let wide = Table::ordered(rest.iter().copied(), rest.len());
            self.others.get_or_insert_default().short = wide;
        }
    }

    fn put_all(&mut self, likers: &[(Who<'_>, &Dots)]) {
        for (who, dots) in likers {
            self.put(*who, dots);
        }
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

    pub fn dots(&self, who: Who<'_>) -> Dots {
        if let Some(value) = who.key.and_then(|key| self.value(key)) {
            return unpacked(value);
        }
        let hash = table_hash(who.hash.order());
        let whole = self.whole();
        let found = whole.and_then(|it| it.find(hash, |one| one.user == *who.user));
        found.map_or_else(Dots::new, |one| one.dots.clone())
    }

    /// Users that are held whole, if there are any. Mostly there are none.
    fn whole(&self) -> Option<&HashTable<Whole>> {
        let others = self.others.as_ref()?;
        (!others.whole.is_empty()).then_some(&others.whole)
    }

    /// The user's dots become these. Returns those they were.
    pub fn put(&mut self, who: Who<'_>, dots: &[Dot]) -> Dots {
        if let (Some(key), Some(value)) = (who.key, packed(dots)) {
            return match self.put_value(key, value) {
                Some(old) => unpacked(old),
                None => self.put_whole(who, &[]),
            };
        }
        let whole = self.put_whole(who, dots);
        match who.key.and_then(|key| self.remove_value(key)) {
            Some(old) => unpacked(old),
            None => whole,
        }
    }

    fn value(&self, key: Key) -> Option<u64> {
        match key {
            Key::Short(key) => self
                .short
                .get(key)
                .or_else(|| self.others.as_ref()?.short.get(key)),
            Key::Long(key) => self.others.as_ref()?.long.get(key),
            Key::Uuid(key) => self.others.as_ref()?.uuids.get(key),
        }
    }

    fn put_value(&mut self, key: Key, value: u64) -> Option<u64> {
        match key {
            Key::Short(key) => self.put_short(key, value),
            Key::Long(key) => self.others.get_or_insert_default().long.put(key, value),
            Key::Uuid(key) => self.others.get_or_insert_default().uuids.put(key, value),
        }
    }

    /// In one of the two tables, and in that one only.
    fn put_short(&mut self, key: Short, value: u64) -> Option<u64> {
        let (others, narrow) = (&mut self.others, self.short.put(key, value));
        let wide = others.as_mut().filter(|it| it.short.len() > 0);
        match narrow {
            Ok(old) => old.or_else(|| wide?.short.remove(key)),
            Err(NoPage) => {
                let old = self.short.remove(key);
                let wide = others.get_or_insert_default();
                wide.short.put(key, value).or(old)
            }
        }
    }

    fn remove_value(&mut self, key: Key) -> Option<u64> {
        match key {
            Key::Short(key) => self
                .short
                .remove(key)
                .or_else(|| self.others.as_mut()?.short.remove(key)),
            Key::Long(key) => self.others.as_mut()?.long.remove(key),
            Key::Uuid(key) => self.others.as_mut()?.uuids.remove(key),
        }
    }

    /// Asks for the memory of the bucket itself.
    pub fn prefetch_head(&self) {
        prefetch(&self.changed);
    }

    /// Asks for the memory in which a search for the user begins. That of the bucket itself has been asked for.
    pub fn prefetch(&self, who: Who<'_>) {
        if let Some(Key::Short(key)) = who.key {
            self.short.prefetch(key);
        }
    }

    fn put_whole(&mut self, who: Who<'_>, dots: &[Dot]) -> Dots {
        if dots.is_empty() && self.whole().is_none() {
            return Dots::new();
        }
        let whole = &mut self.others.get_or_insert_default().whole;
        let hash = who.hash.order();
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
        compact(self.short.iter(), Key::Short).chain(others)
    }

    /// Takes out those whose hash is `at` or more.
    pub fn split(&mut self, at: u64) -> Self {
        let is_above = |key: Key| order_of(key) >= at;
        let wide = self.others.iter().flat_map(|it| it.short.iter());
        let short = self.short.iter().chain(wide);
        let (mut above, mut below): (Vec<_>, Vec<_>) =
            short.partition(|(key, _)| is_above(Key::Short(*key)));
        // Who stands beside the others comes behind them.
        for part in [&mut above, &mut below] {
            part.sort_unstable_by_key(|(key, _)| *key);
        }
        self.set_short(&below);
        let others = self.others.as_mut().map(|it| {
            let mut whole = HashTable::new();
            for one in it.whole.extract_if(|one| one.hash >= at) {
                whole.insert_unique(table_hash(one.hash), one, |one| table_hash(one.hash));
            }
            Box::new(Others {
                short: Table::default(),
                long: it.long.extract(|key| is_above(Key::Long(key))),
                uuids: it.uuids.extract(|key| is_above(Key::Uuid(key))),
                whole,
            })
        });
        self.changed = true;
        let mut upper = Self {
            short: Shorts::default(),
            others,
            changed: true,
        };
        upper.set_short(&above);
        upper
    }

    /// Whether every liker stands where they are looked for, and has a hash in the range.
    pub fn is_placed(&self, (from, to): (u64, u64)) -> bool {
        let others = self.others.iter();
        let mut tables =
            others.map(|it| it.short.is_ordered() && it.long.is_ordered() && it.uuids.is_ordered());
        self.short.is_ordered()
            && tables.all(|is_ordered| is_ordered)
            && self.iter().all(|liker| {
                let hash = liker.hash.order();
                (from..=to).contains(&hash)
                    && !liker.dots.is_empty()
                    && self.dots(Who::of(&liker.user)) == liker.dots
            })
    }
}

fn compact<K>(
    likers: impl Iterator<Item = (K, u64)>,
    kind: fn(K) -> Key,
) -> impl Iterator<Item = Liker> {
    likers.map(move |(key, value)| Liker::new(kind(key).user(), unpacked(value)))
}

fn order_of(key: Key) -> u64 {
    UserHash::of(&key.user()).order()
}

/// A user's hash as a hash table takes it. The table tells its entries apart by the highest bits first,
/// and those are the same for all whose hashes lie in one range.
fn table_hash(hash: u64) -> u64 {
    hash.rotate_left(32)
}
