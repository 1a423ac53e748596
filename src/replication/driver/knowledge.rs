//! What the session's machine asks and is told of the engine.

use crate::crdt::dot::ReplicaIndex;
use crate::crdt::frontier::ShortForm;
use crate::engine::Engine;
use crate::engine::audit::Audited;
use crate::engine::replicas::ReplicaTable;
use crate::replication::session::{Durable, Knowledge};

impl Knowledge for Engine {
    fn table(&self) -> &ReplicaTable {
        self.replicas()
    }

    fn own(&self) -> (ReplicaIndex, u64) {
        self.made()
    }

    fn predecessors(&self, replica: ReplicaIndex) -> Option<ShortForm> {
        Engine::predecessors(self, replica)
    }

    fn audited(&self, ranges: &[usize]) -> Option<Audited> {
        Engine::audited(self, ranges)
    }
}

/// What is durable, with its fingerprint where the node is settled.
pub(super) fn durable(engine: &Engine) -> Durable {
    let complete_until_ms = engine.complete_until_ms();
    match engine.audited(&[]) {
        Some(Audited { published, .. }) => Durable {
            fingerprint: Some(published.sums.total()),
            complete_until_ms,
            published,
        },
        None => Durable {
            fingerprint: None,
            complete_until_ms,
            published: engine.board().newest(),
        },
    }
}
