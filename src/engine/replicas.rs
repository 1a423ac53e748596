//! The replicas that this process has heard of, by number.
//!
//! A place in the table is never given back, so what clients may add is bounded apart: the like ids that
//! they bring could name any number of replicas that never were.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::codec::DecodeError;
use crate::codec::vector::Intern;
use crate::crdt::dot::{ReplicaIndex, Replicas};
use crate::ids::Replica;
use crate::limits::{CLAIMED_REPLICAS_MAX, CLIENT_REPLICAS_MAX, REPLICAS_MAX};

/// Clients have named as many unknown replicas as they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{CLIENT_REPLICAS_MAX} replicas that never spoke to this node were named by like ids already"
)]
pub struct TooManyUnseen;

#[derive(Default)]
pub struct ReplicaTable {
    /// Guards the table; held for a look-up or an addition. Whoever took a copy keeps it as it was: the
    /// next addition makes a new one, further ones go into that.
    all: RwLock<Arc<Replicas>>,
    by_clients: AtomicUsize,
}

impl ReplicaTable {
    pub fn all(&self) -> Arc<Replicas> {
        self.all.read().clone()
    }

    /// The number of this process's own replica. Never refused.
    pub fn intern_own(&self, replica: &Replica) -> ReplicaIndex {
        Arc::make_mut(&mut *self.all.write()).intern(replica)
    }

    /// The number of a replica that came from elsewhere.
    pub fn intern(&self, replica: &Replica) -> Result<ReplicaIndex, DecodeError> {
        if let Some(known) = self.all.read().get(replica) {
            return Ok(known);
        }
        if self.all.read().len() >= REPLICAS_MAX {
            return Err(DecodeError::TooManyReplicas { max: REPLICAS_MAX });
        }
        Ok(self.intern_own(replica))
    }

    /// The number of a replica that a peer only speaks of: none where the table is full but for the places that
    /// are kept for replicas that greet or whose events come. So nobody can fill it with names alone.
    pub fn intern_claimed(&self, replica: &Replica) -> Option<ReplicaIndex> {
        if let Some(known) = self.all.read().get(replica) {
            return Some(known);
        }
        let has_room = self.all.read().len() < CLAIMED_REPLICAS_MAX;
        has_room.then(|| self.intern_own(replica))
    }

    /// The number of a replica that a client's like id names.
    pub fn intern_for_client(&self, replica: &Replica) -> Result<ReplicaIndex, TooManyUnseen> {
        if let Some(known) = self.all.read().get(replica) {
            return Ok(known);
        }
        if self.by_clients.fetch_add(1, Ordering::AcqRel) >= CLIENT_REPLICAS_MAX {
            self.by_clients.fetch_sub(1, Ordering::AcqRel);
            return Err(TooManyUnseen);
        }
        self.intern(replica).map_err(|_| TooManyUnseen)
    }
}

/// Lets the codec give numbers while it reads.
impl Intern for &ReplicaTable {
    fn intern(&mut self, replica: &Replica) -> Result<ReplicaIndex, DecodeError> {
        ReplicaTable::intern(self, replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Region};

    fn replica(epoch: usize) -> Replica {
        Replica {
            region: Region::new("eu").expect("valid"),
            epoch: Epoch(epoch as u128),
        }
    }

    #[test]
    fn clients_cannot_fill_the_table() {
        let table = ReplicaTable::default();
        for epoch in 0..CLIENT_REPLICAS_MAX {
            assert!(table.intern_for_client(&replica(epoch)).is_ok());
        }
        let one_more = replica(CLIENT_REPLICAS_MAX);
        assert_eq!(table.intern_for_client(&one_more), Err(TooManyUnseen));
        assert!(table.intern_for_client(&replica(0)).is_ok(), "it is known");
        assert!(table.intern(&one_more).is_ok(), "a peer may");
    }

    #[test]
    fn names_alone_cannot_fill_the_table() {
        let table = ReplicaTable::default();
        for epoch in 0..CLAIMED_REPLICAS_MAX {
            assert!(table.intern_claimed(&replica(epoch)).is_some());
        }
        let one_more = replica(CLAIMED_REPLICAS_MAX);
        assert_eq!(table.intern_claimed(&one_more), None);
        assert!(table.intern(&one_more).is_ok(), "it greets");
        assert!(table.intern_claimed(&one_more).is_some(), "it is known");
    }

    /// A peer's first frame may speak of all replicas that the limit allows.
    #[test]
    fn a_full_table_is_filled_at_once() {
        let table = ReplicaTable::default();
        for epoch in 0..REPLICAS_MAX {
            assert!(table.intern(&replica(epoch)).is_ok());
        }
        assert!(table.intern(&replica(REPLICAS_MAX)).is_err());
    }
}
