//! The replicas that this process has heard of, by number, readable without a lock.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::codec::DecodeError;
use crate::codec::vector::Intern;
use crate::crdt::dot::{ReplicaIndex, Replicas};
use crate::ids::Replica;
use crate::limits::REPLICAS_MAX;

#[derive(Default)]
pub struct ReplicaTable {
    all: ArcSwap<Replicas>,
    /// Guards the replacement of `all`: numbers are given one at a time.
    giving: Mutex<()>,
}

impl ReplicaTable {
    pub fn all(&self) -> Arc<Replicas> {
        self.all.load_full()
    }

    /// The number of this process's own replica. Never refused.
    pub fn intern_own(&self, replica: &Replica) -> ReplicaIndex {
        let _giving = self.giving.lock();
        let mut all = Replicas::clone(&self.all.load());
        let index = all.intern(replica);
        self.all.store(Arc::new(all));
        index
    }

    /// The number of a replica that came from elsewhere.
    pub fn intern(&self, replica: &Replica) -> Result<ReplicaIndex, DecodeError> {
        if let Some(known) = self.all.load().get(replica) {
            return Ok(known);
        }
        if self.all.load().len() >= REPLICAS_MAX {
            return Err(DecodeError::TooManyReplicas { max: REPLICAS_MAX });
        }
        Ok(self.intern_own(replica))
    }
}

/// Lets the codec give numbers while it reads.
impl Intern for &ReplicaTable {
    fn intern(&mut self, replica: &Replica) -> Result<ReplicaIndex, DecodeError> {
        ReplicaTable::intern(self, replica)
    }
}
