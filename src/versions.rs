//! Versions of everything that outlives a process or crosses to another.

use std::ops::RangeInclusive;

/// Layout of log segments and records: what is written, and the newest that is read.
pub const LOG_FORMAT: u16 = 1;
/// Columnar encoding of events, on disk and between peers.
pub const BLOCK_FORMAT: u8 = 2;
/// Tokens, like ids and page tokens.
pub const TOKEN_FORMAT: u8 = 1;
/// Records of a checkpoint.
pub const CHECKPOINT_FORMAT: u8 = 3;
/// Oldest protocol between peers that this build speaks.
pub const PROTOCOL_MIN: u32 = 1;
/// Newest protocol between peers that this build speaks.
pub const PROTOCOL_MAX: u32 = 1;
/// Newest kind of event that this build reads and writes.
pub const EVENT_KIND_MAX: u8 = 4;

/// What a node speaks and reads. Always that of its build, but for tests of upgrades: they run a node as an older or
/// a newer build would run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// Versions of the protocol between peers.
    pub protocol: RangeInclusive<u32>,
    /// The newest kind of event.
    pub kind_max: u8,
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            protocol: PROTOCOL_MIN..=PROTOCOL_MAX,
            kind_max: EVENT_KIND_MAX,
        }
    }
}

impl Dialect {
    /// The newest version that both sides speak; none if there is none.
    pub fn agree(&self, theirs: &RangeInclusive<u32>) -> Option<u32> {
        let newest = *self.protocol.end().min(theirs.end());
        let both = [&self.protocol, theirs];
        both.iter()
            .all(|range| range.contains(&newest))
            .then_some(newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_builds_speak_the_newest_version_that_both_know() {
        let of = |protocol| Dialect {
            protocol,
            ..Dialect::default()
        };
        assert_eq!(of(1..=1).agree(&(1..=2)), Some(1));
        assert_eq!(of(1..=3).agree(&(2..=5)), Some(3));
        assert_eq!(of(1..=1).agree(&(2..=3)), None);
        assert_eq!(of(2..=3).agree(&(1..=1)), None);
        #[expect(clippy::reversed_empty_ranges, reason = "a peer may say anything")]
        let reversed = 3..=1;
        assert_eq!(of(1..=3).agree(&reversed), None);
    }
}
