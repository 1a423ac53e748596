//! Many users with short keys, with one dot each in four bytes. In a narrow span their keys take seven bytes in place of eight.

use super::packed::Pages;
use super::shorts::NoPage;
use super::table::{SlotHint, Span, Table, TableKey};
use crate::crdt::user_key::Short;

/// What a table holds of a key.
pub(super) trait Held: TableKey {
    /// Of a key in the span.
    fn of(span: Span, key: Short) -> Self;
    fn key(self, span: Span) -> Short;
    /// The span of what is held.
    fn span(span: Span) -> Span;
}

/// The whole key.
impl Held for Short {
    fn of(_: Span, key: Short) -> Self {
        key
    }

    fn key(self, _: Span) -> Short {
        self
    }

    fn span(span: Span) -> Span {
        span
    }
}

/// A key's distance from the first of a span, in seven bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Distance([u8; 7]);

impl Distance {
    /// Whether all keys of the span have one.
    pub fn fits(span: Span) -> bool {
        span.to - span.from < 1 << 56
    }
}

impl TableKey for Distance {
    const ZERO: Self = Self([0; 7]);

    fn highest(self) -> u64 {
        let [a, b, c, d, e, f, g] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, 0])
    }
}

impl PartialOrd for Distance {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Distance {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.highest().cmp(&other.highest())
    }
}

impl Held for Distance {
    fn of(span: Span, key: Short) -> Self {
        let [a, b, c, d, e, f, g, _] = key.wrapping_sub(span.from).to_le_bytes();
        Self([a, b, c, d, e, f, g])
    }

    fn key(self, span: Span) -> Short {
        span.from.wrapping_add(self.highest())
    }

    fn span(Span { from, to }: Span) -> Span {
        Span {
            from: 0,
            to: to - from,
        }
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Many<K: Copy> {
    table: Table<K, u32>,
    pages: Pages,
}

impl<K: Held> Many<K> {
    /// Of keys that ascend, with packed dots. Returns also those whose dots have no room here.
    pub fn of(span: Span, all: &[(Short, u64)]) -> (Self, Vec<(Short, u64)>) {
        let (mut pages, mut rest) = (Pages::default(), Vec::new());
        let narrow = all.iter().filter_map(|(key, dot)| {
            let short = pages.shorten(*dot);
            if short.is_none() {
                rest.push((*key, *dot));
            }
            Some((K::of(span, *key), short?))
        });
        let table = Table::ordered(K::span(span), narrow, all.len());
        (Self { table, pages }, rest)
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn look(&self, span: Span, key: Short) -> (SlotHint, Option<u64>) {
        let (seen, short) = self.table.look(K::span(span), K::of(span, key));
        (seen, short.map(|short| self.pages.lengthen(short)))
    }

    /// Returns the dot that the key had. Where the new one has no room nothing changes.
    pub fn put(
        &mut self,
        span: Span,
        key: Short,
        dot: u64,
        seen: SlotHint,
    ) -> Result<Option<u64>, NoPage> {
        let short = self.pages.shorten(dot).ok_or(NoPage)?;
        let (held, key) = (K::span(span), K::of(span, key));
        let old = self.table.put_seen(held, key, short, seen);
        Ok(old.map(|old| self.pages.lengthen(old)))
    }

    pub fn remove(&mut self, span: Span, key: Short) -> Option<u64> {
        let short = self.table.remove(K::span(span), K::of(span, key))?;
        Some(self.pages.lengthen(short))
    }

    /// In order of the keys.
    pub fn iter(&self, span: Span) -> impl Iterator<Item = (Short, u64)> {
        let all = self.table.iter();
        all.map(move |(key, short)| (key.key(span), self.pages.lengthen(short)))
    }

    /// The same in a span that is now a half of what it was: how many of the first to pass, and how many to take. Pages stay as
    /// they are.
    pub fn part<L: Held>(&self, (whole, half): (Span, Span), pass: usize, len: usize) -> Many<L> {
        let all = self.table.iter().skip(pass).take(len);
        let all = all.map(|(key, short)| (L::of(half, key.key(whole)), short));
        Many {
            table: Table::ordered(L::span(half), all, len),
            pages: self.pages.clone(),
        }
    }

    /// How many keys lie below.
    pub fn below(&self, span: Span, at: Short) -> usize {
        self.table.below(K::of(span, at).highest())
    }

    pub fn prefetch(&self, span: Span, key: Short) {
        self.table.prefetch(K::span(span), K::of(span, key));
        self.pages.prefetch();
    }

    pub fn is_ordered(&self, span: Span) -> bool {
        self.table.is_ordered(K::span(span))
    }
}
