//! Reads that wait, and the exchange with peers.

use serde::{Deserialize, Serialize};

use super::{Audit, Peers, StaticPeer};
use crate::address::PeerAddress;
use crate::ids::Region;
use crate::replication::trust::AllowedRegions;
use crate::replication::{PeerEndpoint, ReplicationOptions};

/// `[reads]`: reads and unlikes that wait until the node covers their token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reads {
    /// How long such a read waits when it does not say; then TOKEN_NOT_COVERED. At most `wait_max_ms`.
    pub wait_default_ms: u64,
    /// How long it may wait at most, whatever it says.
    pub wait_max_ms: u64,
    /// How many wait at once; a further one is refused with OVERLOADED.
    pub waiting_max: usize,
}

/// `[replication]`: the sessions with peers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replication {
    /// How long a third region's events may be missing at a peer before this node passes them on. Longer
    /// sends fewer copies in a full mesh; shorter repairs a cut between two others sooner.
    pub relay_after_ms: u64,
    /// The pause before the second dial, jittered. Shorter heals sooner and dials more.
    pub backoff_min_ms: u64,
    /// What the pause grows to: at most a second, so that heals are never late. At least `backoff_min_ms`.
    pub backoff_max_ms: u64,
    /// A session that has nothing to say says so this often. Shorter notices a cut sooner.
    pub heartbeat_ms: u64,
    /// A peer that was silent for this long is considered gone. Below 5000, and above twice `heartbeat_ms`,
    /// or one late heartbeat would end a session.
    pub silence_ms: u64,
    /// How long one dial may take, resolving and handshake included. Longer than a round trip to the
    /// farthest peer.
    pub dial_timeout_ms: u64,
    /// Bytes under way to a peer that it has not acknowledged. Larger fills long fat links (rate times round
    /// trip); smaller saves memory. At least twice `block_bytes`.
    pub window_bytes: u64,
    /// Bytes of events sent at once. Larger packs better; smaller lets other things pass between.
    pub block_bytes: u64,
    /// Log kept beyond `log.retain_bytes` while a snapshot is under way; when it is full, the snapshot ends
    /// with an error and starts again. At least one `log.segment_bytes`.
    pub snapshot_log_bytes_max: u64,
    /// Bytes of one chunk of a snapshot. Larger is quicker; smaller is gentler to client traffic.
    pub snapshot_chunk_bytes: u64,
    /// Bytes a second that peers far behind are sent, all together: snapshots, and log that is older than a
    /// window. More heals sooner; less leaves more to clients and to live events, and must be above what
    /// all regions write, or who is behind stays behind. 0 is no bound; else at least a MiB.
    pub catch_up_bytes_per_second: u64,
}

impl Replication {
    /// What replication is told at its start.
    pub fn options(&self, peers: &Peers, regions: &[Region], audit: &Audit) -> ReplicationOptions {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let endpoint = |peer: &StaticPeer| PeerEndpoint::new(peer.region.clone(), &peer.address);
        ReplicationOptions {
            peers: peers.static_peers.iter().map(endpoint).collect(),
            seeds: peers.seeds.clone(),
            advertise: peers
                .advertise
                .clone()
                .or_else(|| PeerAddress::of_listener(peers.listen)),
            announce_ms: peers.gossip_interval_ms,
            regions: AllowedRegions::only(regions.iter().cloned()),
            relay_after_ms: self.relay_after_ms,
            audit_round_ms: audit.round_ms,
            backoff_min_ms: self.backoff_min_ms,
            backoff_max_ms: self.backoff_max_ms,
            heartbeat_ms: self.heartbeat_ms,
            silence_ms: self.silence_ms,
            dial_timeout_ms: self.dial_timeout_ms,
            window_bytes: bytes(self.window_bytes),
            block_bytes: bytes(self.block_bytes),
            catch_up_bytes_per_second: self.catch_up_bytes_per_second,
        }
    }
}
