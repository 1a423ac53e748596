//! How often the state is compared: with the other regions', and with what the disk says.

use serde::{Deserialize, Serialize};

/// `[audit]`: finding and mending what went wrong without anybody's mistake.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// In this time all ranges are compared with each peer, besides those that changed, which are compared at
    /// once. Shorter finds a difference sooner, after a start above all; longer sends less at rest: all
    /// ranges are some 60 kilobytes.
    pub round_ms: u64,
    /// In this time all entries are summed anew and all rows of the checkpoint are read back, evenly. Shorter
    /// finds damage sooner; longer reads less. A range of posts takes no writes while its entries are
    /// summed: about a millisecond for 10,000 of them.
    pub scrub_ms: u64,
}
