//! Which regions have been met, and which of their replicas have been retired.
//!
//! Retiring names replicas: a region is retired while a newer one of it has not been met. Its likes and
//! figures stay as they are, and its events are taken when they come; it only holds back nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::crdt::dot::{Dot, ReplicaIndex};
use crate::crdt::event::{Action, Event};
use crate::engine::Engine;
use crate::engine::commit::{CommitWait, Demand, Refused};
use crate::engine::section::SECTION_BYTES;
use crate::engine::section::Section;
use crate::engine::write::WriteError;
use crate::ids::{Region, Replica};
use crate::limits::REGION_BYTES_MAX;

/// Bytes that a retired replica takes in the log at most: its name and its position.
const RETIRED_REPLICA_BYTES: usize = REGION_BYTES_MAX + 32;

/// What is known of regions beside their events.
#[derive(Debug, Clone, Default)]
pub struct Regions {
    /// Grows only. In memory it runs ahead of the frontier, never behind it.
    retired: HashSet<ReplicaIndex>,
    /// Of each region the replica that completed a session with the cluster last, as far as is known here.
    met: BTreeMap<Region, ReplicaIndex>,
}

impl Regions {
    pub fn retired(&self) -> &HashSet<ReplicaIndex> {
        &self.retired
    }

    pub fn met(&self) -> &BTreeMap<Region, ReplicaIndex> {
        &self.met
    }

    pub(super) fn retire(&mut self, replicas: impl IntoIterator<Item = ReplicaIndex>) {
        self.retired.extend(replicas);
    }

    pub(super) fn meet(&mut self, region: &Region, replica: ReplicaIndex) {
        self.met.insert(region.clone(), replica);
    }
}

/// What a call to retire did.
#[derive(Debug, Clone)]
pub struct Retired {
    /// Replicas that had not been retired before.
    pub replicas: usize,
    /// Covers the retirement.
    pub token: Arc<str>,
}

impl Engine {
    /// Retires replicas, here and soon everywhere. Returns when that is durable.
    ///
    /// The caller sees to it that they are of other regions, and known here: others are passed over.
    pub async fn retire(&self, replicas: &BTreeSet<Replica>) -> Result<Retired, WriteError> {
        let all = self.replicas.all();
        let named: Vec<ReplicaIndex> = replicas.iter().filter_map(|name| all.get(name)).collect();
        loop {
            match self.try_retire(&named) {
                Ok((wait, replicas)) => {
                    let token = wait.await?.token(self.cluster());
                    return Ok(Retired { replicas, token });
                }
                Err(Refused::BatchFull) => self.queue.wait_for_space().await,
                Err(Refused::RoomComing { bytes }) => self.queue.wait_for_room(bytes).await,
                Err(refused) => return Err(WriteError::Refused(refused)),
            }
        }
    }

    fn try_retire(&self, named: &[ReplicaIndex]) -> Result<(CommitWait, usize), Refused> {
        // An instant holds all shards: it sees the number drawn and the replicas retired, or neither.
        let _one_shard = self.shards[0].lock();
        let fresh: Vec<ReplicaIndex> = {
            let regions = self.regions.lock();
            let named = named.iter().copied();
            named.filter(|one| !regions.retired.contains(one)).collect()
        };
        if fresh.is_empty() {
            return Ok((self.queue.barrier(), 0));
        }
        let bytes = SECTION_BYTES + RETIRED_REPLICA_BYTES * fresh.len();
        let slot = self.queue.reserve(Demand { events: 1, bytes })?;
        self.regions.lock().retire(fresh.iter().copied());
        let (seq, replica) = (slot.first_seq, slot.replica);
        let event = Event {
            time_ms: self.now_ms(),
            action: Action::Retire {
                replicas: fresh.clone(),
            },
        };
        let retired = fresh.len();
        let wait = slot.fill(Section {
            local: vec![event],
            first: Some(Dot { seq, replica }),
            predecessors: (seq == 1).then(|| self.begin_own(replica)),
            retired: fresh,
            ..Section::default()
        });
        Ok((wait, retired))
    }

    /// A session with the replica was completed. From now on its region is known until this replica is
    /// retired.
    pub fn meet(&self, replica: ReplicaIndex) {
        let all = self.replicas.all();
        let region = &all.id(replica).region;
        self.regions.lock().meet(region, replica);
    }

    /// As [`Self::meet`], by hearsay: what was met here itself counts for more, unless it has been retired.
    pub fn hear_met(&self, replica: ReplicaIndex) {
        let all = self.replicas.all();
        let region = &all.id(replica).region;
        let mut regions = self.regions.lock();
        let known = regions.met.get(region);
        if known.is_none_or(|known| regions.retired.contains(known)) {
            regions.meet(region, replica);
        }
    }

    /// What is known of regions now. What is retired in it may not be durable yet; see
    /// [`crate::engine::published::Published::retired`].
    pub fn regions(&self) -> Regions {
        self.regions.lock().clone()
    }

    /// Goes on under a fresh replica where the running one has been retired: others took this region for
    /// gone, and know it again by a replica that they have not retired.
    pub(super) fn renew_if_retired(&self) {
        let (own, _) = self.queue.own();
        if self.regions.lock().retired.contains(&own) {
            let fresh = self.rotate_epoch();
            tracing::warn!(
                %fresh,
                "this region was retired while this node ran; it goes on under a fresh epoch, by which it \
                 is known again"
            );
        }
    }
}
