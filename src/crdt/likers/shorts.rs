//! Users with short keys, with one dot each. Where there are many, dots take four bytes in place of eight.

use super::key::Short;
use super::packed::Pages;
use super::table::Table;

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
    pub fn of(all: &[(Short, u64)]) -> (Self, Vec<(Short, u64)>) {
        if all.len() < NARROW_FROM {
            let few = Table::ordered(all.iter().copied(), all.len());
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
        let many = Table::ordered(narrow, all.len());
        (Self::Many(many, pages), rest)
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many, _) => many.len(),
        }
    }

    pub fn get(&self, key: Short) -> Option<u64> {
        match self {
            Self::Few(few) => few.get(key),
            Self::Many(many, pages) => Some(pages.lengthen(many.get(key)?)),
        }
    }

    /// Returns the dot that the key had. Where the new one has no room nothing changes.
    pub fn put(&mut self, key: Short, dot: u64) -> Result<Option<u64>, NoPage> {
        self.narrow_if_many();
        match self {
            Self::Few(few) => Ok(few.put(key, dot)),
            Self::Many(many, pages) => {
                let short = pages.shorten(dot).ok_or(NoPage)?;
                Ok(many.put(key, short).map(|old| pages.lengthen(old)))
            }
        }
    }

    /// Where the table is to grow anyhow. Dots of so few users and so many pages stay as they are.
    fn narrow_if_many(&mut self) {
        if let Self::Few(few) = self
            && few.len() >= NARROW_FROM
            && few.is_full()
        {
            let all: Vec<(Short, u64)> = few.iter().collect();
            let (many, rest) = Self::of(&all);
            if rest.is_empty() {
                *self = many;
            }
        }
    }

    /// Asks for the memory in which a search for the key begins. That of these has been asked for.
    pub fn prefetch(&self, key: Short) {
        match self {
            Self::Few(few) => few.prefetch(key),
            Self::Many(many, pages) => {
                many.prefetch(key);
                pages.prefetch();
            }
        }
    }

    /// Whether everything stands where it is looked for.
    pub fn is_ordered(&self) -> bool {
        match self {
            Self::Few(few) => few.is_ordered(),
            Self::Many(many, _) => many.is_ordered(),
        }
    }

    pub fn remove(&mut self, key: Short) -> Option<u64> {
        match self {
            Self::Few(few) => few.remove(key),
            Self::Many(many, pages) => Some(pages.lengthen(many.remove(key)?)),
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
