//! A liker in sixteen bytes, as most are: one dot, and a key that is short.

use super::packed::{packed, unpacked};
use crate::crdt::dot::Dot;
use crate::crdt::user_key::{Key, Short, UserHash, Who};
use crate::ids::UserId;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Compact {
    pub(super) key: Short,
    /// Packed.
    pub(super) dot: u64,
}

impl Compact {
    /// None of a user or a dot that needs more.
    pub fn of(who: Who<'_>, dot: Dot) -> Option<Self> {
        match (who.key, packed(&[dot])) {
            (Key::Short(key), Some(dot)) => Some(Self { key, dot }),
            _ => None,
        }
    }

    pub fn user(self) -> UserId {
        Key::Short(self.key).user()
    }

    pub fn dot(self) -> Dot {
        unpacked(self.dot)
    }

    pub fn hash(self) -> UserHash {
        Key::Short(self.key).hash()
    }

    /// The upper half of the hash.
    pub fn order(self) -> u64 {
        Key::Short(self.key).order()
    }
}
