//! Users with short keys, with one dot each. Where there are many, dots take four bytes in place of eight.

use super::packed::Pages;
use super::table::{SlotHint, Span, Table};
use crate::crdt::user_key::Short;

/// From so many users on, dots are held in four bytes: with fewer, their pages would take more than they save.
const NARROW_FROM: usize = 64;

/// Keys, with packed dots.
#[derive(Debug, Clone)]
pub(super) enum Shorts {
    Few(Table<Short, u64>),
    Many(Table<Short, u32>, Pages),
}

/// The dot is of a page that has no room here.
#[derive(Debug)]
pub(super) struct NoPage;

impl Default for Shorts {
    fn default() -> Self {
        Self::Few(Table::default())
    }
}

impl Shorts {
    /// Of keys that ascend. Returns also those that have no room here.
    pub fn of(span: Span, all: &[(Short, u64)]) -> (Self, Vec<(Short, u64)>) {
        if all.len() < NARROW_FROM {
            let few = Table::ordered(span, all.iter().copied(), all.len());
            return (Self::Few(few), Vec::new());
        }
        let (mut pages, mut rest) = (Pages::default(), Vec::new());
        let narrow = all.iter().filter_map(|(key, dot)| {
            let short = pages.shorten(*dot);
            if short.is_none() {
                rest.push((*key, *dot));
            }
            Some((*key, short?))
        });
        let many = Table::ordered(span, narrow, all.len());
        (Self::Many(many, pages), rest)
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many, _) => many.len(),
        }
    }

    /// Where the key stands or belongs, and its dot.
    pub fn look(&self, span: Span, key: Short) -> (SlotHint, Option<u64>) {
        match self {
            Self::Few(few) => few.look(span, key),
            Self::Many(many, pages) => {
                let (seen, short) = many.look(span, key);
                (seen, short.map(|short| pages.lengthen(short)))
            }
        }
    }

    /// Returns the dot that the key had. Where the new one has no room nothing changes.
    pub fn put(
        &mut self,
        span: Span,
        key: Short,
        dot: u64,
        seen: SlotHint,
    ) -> Result<Option<u64>, NoPage> {
        self.narrow_if_many(span);
        match self {
            Self::Few(few) => Ok(few.put_seen(span, key, dot, seen)),
            Self::Many(many, pages) => {
                let short = pages.shorten(dot).ok_or(NoPage)?;
                Ok(many
                    .put_seen(span, key, short, seen)
                    .map(|old| pages.lengthen(old)))
            }
        }
    }

    /// Where the table is to grow anyhow. Dots of so few users and so many pages stay as they are.
    fn narrow_if_many(&mut self, span: Span) {
        if let Self::Few(few) = self
            && few.len() >= NARROW_FROM
            && few.is_full()
        {
            let all: Vec<(Short, u64)> = few.iter().collect();
            let (many, rest) = Self::of(span, &all);
            if rest.is_empty() {
                *self = many;
            }
        }
    }

    /// Takes out the keys from the middle of the span on. Pages stay as they are.
    pub fn split(&mut self, halves: (Span, Span)) -> Self {
        match self {
            Self::Few(few) => Self::Few(few.split(halves)),
            Self::Many(many, pages) => Self::Many(many.split(halves), pages.clone()),
        }
    }

    /// Asks for the memory in which a search for the key begins. That of these has been asked for.
    pub fn prefetch(&self, span: Span, key: Short) {
        match self {
            Self::Few(few) => few.prefetch(span, key),
            Self::Many(many, pages) => {
                many.prefetch(span, key);
                pages.prefetch();
            }
        }
    }

    /// Whether everything stands where it is looked for.
    pub fn is_ordered(&self, span: Span) -> bool {
        match self {
            Self::Few(few) => few.is_ordered(span),
            Self::Many(many, _) => many.is_ordered(span),
        }
    }

    pub fn remove(&mut self, span: Span, key: Short) -> Option<u64> {
        match self {
            Self::Few(few) => few.remove(span, key),
            Self::Many(many, pages) => Some(pages.lengthen(many.remove(span, key)?)),
        }
    }

    /// In order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (Short, u64)> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few), None),
            Self::Many(many, pages) => (None, Some((many, pages))),
        };
        let many = many
            .into_iter()
            .flat_map(|(many, pages)| many.iter().map(|(key, short)| (key, pages.lengthen(short))));
        few.into_iter().flat_map(Table::iter).chain(many)
    }
}
