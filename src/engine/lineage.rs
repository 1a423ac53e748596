//! What peers must know to read the short form of this node's vectors.

use crate::crdt::dot::ReplicaIndex;
use crate::crdt::frontier::ShortForm;
use crate::engine::Engine;

impl Engine {
    /// The predecessors that the replica's first event named, if that is applied here. They never change.
    pub fn predecessors(&self, replica: ReplicaIndex) -> Option<ShortForm> {
        self.frontier.read().lineage().get(replica).cloned()
    }

    /// The running replica and the last number it drew.
    pub fn made(&self) -> (ReplicaIndex, u64) {
        self.own_covered()
    }
}
