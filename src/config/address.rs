//! The peers that are known beforehand.

use serde::{Deserialize, Serialize};

use super::text;
use crate::address::PeerAddress;
use crate::ids::Region;

/// A peer that is known beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticPeer {
    /// The peer's region. Each region stands in the list once, and the node's own does not.
    #[serde(with = "text")]
    pub region: Region,
    /// Where the peer listens for its peers, as `host:port`.
    #[serde(with = "text")]
    pub address: PeerAddress,
}
