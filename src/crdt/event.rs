//! Events: local writes, numbered by the replica that made them.

use crate::crdt::dot::{Dot, Dots, ReplicaIndex};
use crate::crdt::frontier::ShortForm;
use crate::ids::{CounterName, PostId, UserId};

/// What an event did. Figures are results ("increments after it"), never "+1", so that replay on top
/// of newer state is harmless. Posts and counters are positions in the block's dictionaries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A number that was drawn and not used.
    Empty,
    /// The user likes the post; the event's dot takes the place of the replaced ones.
    Like {
        post: u32,
        user: UserId,
        /// Likes that the replica ever made on the post, this one included.
        increments: u64,
        replaced: Dots,
    },
    /// The removed dots are dead.
    Unlike {
        post: u32,
        user: UserId,
        removed: Dots,
    },
    /// The replica's entry of a counter after an addition.
    Add {
        post: u32,
        counter: u32,
        increments: u64,
        decrements: u64,
    },
    /// These replicas have been retired: their region holds back nothing until a newer one comes. Says nothing
    /// of any post.
    Retire { replicas: Vec<ReplicaIndex> },
}

/// One event of a block; its number follows from its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// By the clock of the replica that made it, in milliseconds since 1970.
    pub time_ms: u64,
    pub action: Action,
}

/// Consecutive events of one replica: what the log stores and peers exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub replica: ReplicaIndex,
    pub first_seq: u64,
    /// Predecessors, if and only if `first_seq` is 1.
    pub predecessors: Option<ShortForm>,
    pub posts: Vec<PostId>,
    pub counters: Vec<CounterName>,
    /// Never empty.
    pub events: Vec<Event>,
}

impl Block {
    pub fn last_seq(&self) -> u64 {
        self.first_seq + self.events.len() as u64 - 1
    }

    /// The events with their dots.
    pub fn dotted(&self) -> impl Iterator<Item = (Dot, &Event)> {
        let replica = self.replica;
        (self.first_seq..)
            .zip(&self.events)
            .map(move |(seq, event)| (Dot { seq, replica }, event))
    }
}
