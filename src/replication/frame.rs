//! The frames of a session as the machine sees them: checked in themselves, by names.
//!
//! Knows neither prost nor how a frame travels; `wire::frames` turns bytes into these and back.

use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::crdt::fingerprint::Fingerprint;
use crate::ids::Replica;

/// Entries of a version vector: each replica once, numbers from 1.
pub type Entries = Vec<(Replica, u64)>;

/// Replicas with the predecessors that their first events named, each replica once.
pub type Described = Vec<(Replica, Entries)>;

/// First frame of each side. Its protocol range overlaps with the reader's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Versions of the protocol that the sender speaks.
    pub protocol: RangeInclusive<u32>,
    /// Not checked: another cluster's id may have any form.
    pub cluster: String,
    pub replica: Replica,
    /// The durable frontier in full.
    pub frontier: Entries,
    pub lineage: Described,
}

/// What the sender has made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledge {
    /// The newest Events frame up to which all are dealt with.
    pub frame: u64,
    /// The durable frontier in the short form.
    pub frontier: Entries,
    pub lineage: Described,
    /// Of the durable state, where the node is settled.
    pub fingerprint: Option<Fingerprint>,
    /// What third replicas have acknowledged, where that is news.
    pub heard: Vec<Heard>,
    /// The sender's clock when its frontier was this one.
    pub at_ms: u64,
}

/// What a third replica has made durable, passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub replica: Replica,
    /// Its durable frontier in the short form.
    pub frontier: Entries,
    /// Nodes between it and the sender; 0 where the sender has a session with it.
    pub hops: u32,
    /// Its clock when its frontier was this one.
    pub at_ms: u64,
}

/// Sums of ranges, of one instant of the sender's durable, settled state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The durable frontier in the short form.
    pub frontier: Entries,
    pub lineage: Described,
    pub ranges: Vec<RangeAudit>,
}

/// The sum of one range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeAudit {
    pub range: usize,
    pub sum: Fingerprint,
    /// The join of the dots of all events ever applied to it, in the short form.
    pub changed: Entries,
}

/// A frame of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Hello(Hello),
    Events {
        /// Counts the Events frames of this direction, from 1.
        frame: u64,
        /// Not empty and within the limit; not decoded yet.
        block: Bytes,
    },
    Acknowledge(Acknowledge),
    Resume {
        frontier: Entries,
        lineage: Described,
    },
    BehindCut {
        whole_from: Entries,
    },
    Audit(Audit),
    /// Events of these replicas are not wanted from these numbers on.
    Withhold {
        replicas: Entries,
    },
    Close {
        reason: CloseReason,
        message: String,
    },
}

/// Why a session was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// A reason that this build does not know.
    Unknown,
    Stopping,
    Duplicate,
    WrongCluster,
    Version,
    Protocol,
    Own,
    Alarm,
    Silence,
    Renewed,
    WrongRegion,
    Fault,
    /// A known event came with other contents.
    Conflict,
    /// The certificate is of another region, or the region is not allowed.
    NotAllowed,
}

/// Why a frame was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// No protocol version in common.
    #[error(
        "the peer speaks protocol versions {} to {}, this node {} to {}; upgrade the older of the two",
        theirs.start(), theirs.end(), ours.start(), ours.end()
    )]
    Version {
        theirs: RangeInclusive<u32>,
        ours: RangeInclusive<u32>,
    },
    /// The bytes are no message, or one beyond the bounds.
    #[error("{0}")]
    Malformed(String),
    #[error("{what} {why}")]
    Invalid {
        what: &'static str,
        why: &'static str,
    },
    #[error("{what} has {found}; the limit is {max}")]
    OverLimit {
        what: &'static str,
        found: usize,
        max: usize,
    },
}

impl BadFrame {
    /// What to tell the peer.
    pub fn reason(&self) -> CloseReason {
        match self {
            Self::Version { .. } => CloseReason::Version,
            Self::Malformed(_) | Self::Invalid { .. } | Self::OverLimit { .. } => {
                CloseReason::Protocol
            }
        }
    }
}
