//! Users with short keys, with one dot each: a few as they are, many in fewer bytes.

use super::many::{Distance, Held, Many};
use super::table::{SlotHint, Span, Table};
use crate::crdt::user_key::Short;

/// From so many users on, dots are held in four bytes: with fewer, their pages would take more than they save.
const NARROW_FROM: usize = 64;

/// Keys, with packed dots.
#[derive(Debug, Clone)]
pub(super) enum Shorts {
    Few(Table<Short, u64>),
    Many(Many<Short>),
    /// In a span that is narrow enough.
    Near(Many<Distance>),
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
        if Distance::fits(span) {
            let (near, rest) = Many::of(span, all);
            return (Self::Near(near), rest);
        }
        let (many, rest) = Many::of(span, all);
        (Self::Many(many), rest)
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
            Self::Near(near) => near.len(),
        }
    }

    /// Where the key stands or belongs, and its dot.
    pub fn look(&self, span: Span, key: Short) -> (SlotHint, Option<u64>) {
        match self {
            Self::Few(few) => few.look(span, key),
            Self::Many(many) => many.look(span, key),
            Self::Near(near) => near.look(span, key),
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
            Self::Many(many) => many.put(span, key, dot, seen),
            Self::Near(near) => near.put(span, key, dot, seen),
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

    /// Takes out the keys of the upper half of the span.
    pub fn split(&mut self, span: Span, halves: (Span, Span)) -> Self {
        let (lower, upper) = match self {
            Self::Few(few) => return Self::Few(few.split(halves)),
            Self::Many(many) => halves_of(many, span, halves),
            Self::Near(near) => halves_of(near, span, halves),
        };
        *self = lower;
        upper
    }

    /// Asks for the memory in which a search for the key begins. That of these has been asked for.
    pub fn prefetch(&self, span: Span, key: Short) {
        match self {
            Self::Few(few) => few.prefetch(span, key),
            Self::Many(many) => many.prefetch(span, key),
            Self::Near(near) => near.prefetch(span, key),
        }
    }

    /// Whether everything stands where it is looked for.
    pub fn is_ordered(&self, span: Span) -> bool {
        match self {
            Self::Few(few) => few.is_ordered(span),
            Self::Many(many) => many.is_ordered(span),
            Self::Near(near) => near.is_ordered(span),
        }
    }

    pub fn remove(&mut self, span: Span, key: Short) -> Option<u64> {
        match self {
            Self::Few(few) => few.remove(span, key),
            Self::Many(many) => many.remove(span, key),
            Self::Near(near) => near.remove(span, key),
        }
    }

    /// In order of the keys.
    pub fn iter(&self, span: Span) -> impl Iterator<Item = (Short, u64)> {
        let (few, many, near) = match self {
            Self::Few(few) => (Some(few), None, None),
            Self::Many(many) => (None, Some(many), None),
            Self::Near(near) => (None, None, Some(near)),
        };
        let few = few.into_iter().flat_map(Table::iter);
        let many = many.into_iter().flat_map(move |many| many.iter(span));
        let near = near.into_iter().flat_map(move |near| near.iter(span));
        few.chain(many).chain(near)
    }
}

fn halves_of<K: Held>(all: &Many<K>, span: Span, (lower, upper): (Span, Span)) -> (Shorts, Shorts) {
    let below = all.below(span, upper.from);
    let half = |half: Span, pass, len| match Distance::fits(half) {
        true => Shorts::Near(all.part((span, half), pass, len)),
        false => Shorts::Many(all.part((span, half), pass, len)),
    };
    (half(lower, 0, below), half(upper, below, all.len() - below))
}
