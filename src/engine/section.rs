//! What a slot of a batch holds: what happened in memory, to be made durable and then shown.

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::block::BlockHead;
use crate::crdt::dot::{Dot, Dots};
use crate::crdt::fingerprint::Fingerprint;
use crate::crdt::frontier::{Lineage, ShortForm};
use crate::crdt::version_vector::VersionVector;
use crate::engine::post::Post;
use crate::engine::requests::RequestRecord;
use crate::ids::{CounterName, UserId};

/// An event of this node, in the order of its number.
pub struct LocalEvent {
    pub time_ms: u64,
    pub action: LocalAction,
}

pub enum LocalAction {
    Empty,
    Like {
        post: Arc<Post>,
        user: UserId,
        increments: u64,
        replaced: Dots,
    },
    Unlike {
        post: Arc<Post>,
        user: UserId,
        removed: Dots,
    },
    Add {
        post: Arc<Post>,
        counter: CounterName,
        increments: u64,
        decrements: u64,
    },
}

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
}

/// Everything that one slot brings.
#[derive(Default)]
pub struct Section {
    /// Events of the running replica, numbered on from `first`.
    pub local: Vec<LocalEvent>,
    /// The first number, where there are local events.
    pub first: Option<Dot>,
    /// Predecessors, where the first of them has the number 1.
    pub predecessors: Option<ShortForm>,
    pub remote: Option<RemoteBlock>,
    pub requests: Vec<RequestRecord>,
    /// Changes of the fingerprint by range.
    pub prints: Vec<(usize, Fingerprint)>,
    /// Posts that changed and are watched.
    pub watched: Vec<Arc<Post>>,
    pub raise: Option<Raise>,
}
