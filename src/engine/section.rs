//! What a slot of a batch holds: what happened in memory, to be made durable and then shown.

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::block::BlockHead;
use crate::crdt::dot::{Dot, ReplicaIndex};
use crate::crdt::event::Event;
use crate::crdt::fingerprint::Fingerprint;
use crate::crdt::frontier::{Lineage, ShortForm};
use crate::crdt::version_vector::VersionVector;
use crate::engine::post::Post;
use crate::engine::requests::RequestRecord;
use crate::ids::CounterName;

/// Bytes that a section takes beyond its events: the block's head, predecessors, requests.
pub(super) const SECTION_BYTES: usize = 512;

/// A peer's block, as it came.
pub struct RemoteBlock {
    pub head: BlockHead,
    pub predecessors: Option<ShortForm>,
    pub bytes: Bytes,
}

/// A frontier that a snapshot brought and a checkpoint has made durable.
pub struct Raise {
    pub vector: VersionVector,
    pub lineage: Lineage,
    pub retired: Vec<ReplicaIndex>,
}

/// Everything that one slot brings.
#[derive(Default)]
pub struct Section {
    /// Events of the running replica, numbered on from `first`. Their posts and counters are places in the
    /// two lists below.
    pub local: Vec<Event>,
    /// One for each run of events of one post; a post may stand here several times.
    pub posts: Vec<Arc<Post>>,
    /// One for each add.
    pub counters: Vec<CounterName>,
    /// The first number, where there are local events.
    pub first: Option<Dot>,
    /// Predecessors, where the first of them has the number 1.
    pub predecessors: Option<ShortForm>,
    pub remote: Option<RemoteBlock>,
    pub requests: Vec<RequestRecord>,
    /// Dots of other ranges' events that decided what the events here did to a range.
    pub further: Vec<(usize, Dot)>,
    /// Changes of the fingerprint by range.
    pub prints: Vec<(usize, Fingerprint)>,
    /// Posts that changed and are watched.
    pub watched: Vec<Arc<Post>>,
    pub raise: Option<Raise>,
    /// Replicas that were retired.
    pub retired: Vec<ReplicaIndex>,
}

impl Section {
    /// The newest of its events, before the local ones are taken out of it.
    pub(super) fn last_dot(&self) -> Option<Dot> {
        if let Some(remote) = &self.remote {
            return Some(Dot {
                seq: remote.head.last_seq(),
                replica: remote.head.replica,
            });
        }
        let first = self.first.filter(|_| !self.local.is_empty())?;
        Some(Dot {
            seq: first.seq + self.local.len() as u64 - 1,
            ..first
        })
    }
}
