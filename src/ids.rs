//! The names that everything else speaks of: regions, replicas, posts, users, counters, requests.
//!
//! Every id is checked once, where it enters, and is valid ever after. This module knows nothing of
//! clocks, tasks, files or the network.

use std::fmt;
use std::str::FromStr;

use compact_str::CompactString;

use crate::limits;

pub use user::{Numbered, NumberedUsers, Prefix, UserId, UserText};

/// Why a text is no valid id. The field is named by whoever knows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("is empty; give 1 to {max} bytes")]
    Empty { max: usize },
    #[error("has {len} bytes; the limit is {max}")]
    TooLong { len: usize, max: usize },
    #[error("has a control character at byte {at}")]
    ControlCharacter { at: usize },
    #[error("is not UTF-8: the byte at {at} begins no character")]
    NotUtf8 { at: usize },
    #[error("has {found:?} at byte {at}; only a-z, 0-9 and - are allowed")]
    NotAName { found: char, at: usize },
}

fn check_text(text: &str, max: usize) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { max });
    }
    if text.len() > max {
        return Err(IdError::TooLong {
            len: text.len(),
            max,
        });
    }
    // Nearly all ids are of such bytes only, and these are looked at sooner than characters are decoded.
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Ok(());
    }
    match text.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, _)) => Err(IdError::ControlCharacter { at }),
        None => Ok(()),
    }
}

fn check_name(text: &str, max: usize) -> Result<(), IdError> {
    check_text(text, max)?;
    let stray = |c: &char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-');
    match text.char_indices().find(|(_, c)| stray(c)) {
        Some((at, found)) => Err(IdError::NotAName { found, at }),
        None => Ok(()),
    }
}

/// What ids have that are made of a text by `new`, and of which a text is had.
macro_rules! read_and_shown {
    ($name:ident, |$id:ident| $text:expr) => {
        impl $name {
            /// Checks that the bytes are UTF-8, then as [`Self::new`].
            pub fn from_utf8(bytes: &[u8]) -> Result<Self, IdError> {
                let text = std::str::from_utf8(bytes).map_err(|error| IdError::NotUtf8 {
                    at: error.valid_up_to(),
                })?;
                Self::new(text)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let $id = self;
                f.write_str($text.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let $id = self;
                write!(f, "{:?}", $text.as_str())
            }
        }
    };
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(CompactString);

        impl $name {
            /// Checks the text; the error says what is wrong with it.
            pub fn new(text: &str) -> Result<Self, IdError> {
                $check(text, $max)?;
                Ok(Self(CompactString::new(text)))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }

            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }
        }

        read_and_shown!($name, |id| id);
    };
}

// Behind the macros that it uses.
mod user;

text_id! {
    /// Anything that is counted: a post, a video, a page.
    PostId, check_text, limits::ID_BYTES_MAX
}
text_id! {
    /// A counter beside the likes, such as `views`.
    CounterName, check_text, limits::ID_BYTES_MAX
}
text_id! {
    /// A client's name for one request, the same in each retry.
    RequestId, check_text, limits::REQUEST_ID_BYTES_MAX
}
text_id! {
    /// A named datacenter, such as `us-east`.
    Region, check_name, limits::REGION_BYTES_MAX
}
text_id! {
    /// What nodes of one cluster have in common and nodes of another lack.
    ClusterId, check_name, limits::CLUSTER_ID_BYTES_MAX
}

/// 128 random bits, drawn at every start of a process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u128);

impl Epoch {
    /// Big-endian, so that the order of the bytes is the order of the numbers.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}…", self.0 >> 96)
    }
}

/// One run of one region's node. Ordered by the bytes of region, then epoch, everywhere alike.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Replica {
    pub region: Region,
    pub epoch: Epoch,
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:08x}", self.region, self.epoch.0 >> 96)
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_refused_with_the_place_of_the_fault() {
        assert_eq!(PostId::new(""), Err(IdError::Empty { max: 256 }));
        assert_eq!(
            PostId::new(&"x".repeat(257)),
            Err(IdError::TooLong { len: 257, max: 256 })
        );
        assert_eq!(
            UserId::new("a\nb"),
            Err(IdError::ControlCharacter { at: 1 })
        );
        assert_eq!(
            UserId::from_utf8(b"ab\xff"),
            Err(IdError::NotUtf8 { at: 2 })
        );
        assert_eq!(
            Region::new("eu west"),
            Err(IdError::NotAName { found: ' ', at: 2 })
        );
    }

    #[test]
    fn ids_take_any_script_up_to_the_limit() {
        assert!(PostId::new("пост-投稿-🎉").is_ok());
        assert!(PostId::new(&"x".repeat(256)).is_ok());
    }
}
