//! The regions of the cluster as this node knows them: which of them count, which were retired, and how far
//! they are.
//!
//! A region is *known* if it is configured or has completed a session with the cluster, unless all of its
//! replicas that matter have been retired. Those are the heads of the frontier, the one that was met last, and
//! those whose acknowledgements count: a newer replica of a retired region makes it known again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::crdt::dot::ReplicaIndex;
use crate::crdt::version_vector::VersionVector;
use crate::engine::Engine;
use crate::engine::published::Published;
use crate::ids::{Region, Replica};
use crate::replication::ack_table::AckTable;
use crate::replication::links::LinkBoard;

/// Whether a region holds back the cutting of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionState {
    /// This node's own.
    Own,
    Known,
    Retired,
}

/// What is known of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionView {
    pub region: Region,
    pub state: RegionState,
    /// Events that are durable here and that it is not known to have made durable.
    pub events_behind: u64,
    /// Origin time up to which its events are durable here; none where it never said its time.
    pub complete_until_ms: Option<u64>,
}

/// Why a region cannot be retired. Nothing happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotRetire {
    #[error("is this node's own region; retire it from another")]
    Own,
    #[error("is not known here; the known regions are {}", names(.known))]
    Unknown { known: Vec<Region> },
    #[error("has never been met; take it out of the configuration instead")]
    NeverMet,
    #[error("is connected, and would be known again at once; stop its node first")]
    Connected,
}

fn names(regions: &[Region]) -> String {
    let names: Vec<&str> = regions.iter().map(Region::as_str).collect();
    names.join(", ")
}

/// Answers what is known of regions, from the engine, the acknowledgements and the links.
pub struct RegionBoard {
    engine: Arc<Engine>,
    acks: Arc<AckTable>,
    links: Arc<LinkBoard>,
    configured: BTreeSet<Region>,
}

/// The replicas of a region by which it is judged, and whether all of them were retired.
#[derive(Default)]
struct Judged {
    replicas: BTreeSet<Replica>,
    unretired: usize,
}

impl RegionBoard {
    pub fn new(
        engine: Arc<Engine>,
        acks: Arc<AckTable>,
        links: Arc<LinkBoard>,
        configured: impl IntoIterator<Item = Region>,
    ) -> Self {
        Self {
            engine,
            acks,
            links,
            configured: configured.into_iter().collect(),
        }
    }

    pub fn acks(&self) -> &AckTable {
        &self.acks
    }

    pub fn own(&self) -> &Region {
        &self.engine.options().region
    }

    /// All regions that this node has heard of, its own included, in the order of their names.
    pub fn all(&self) -> Vec<RegionView> {
        let complete = self.complete();
        let newest = self.engine.board().newest();
        let judged = self.judged(&newest).into_iter();
        judged
            .map(|(region, judged)| RegionView {
                state: self.state(&region, &judged),
                events_behind: match region == *self.own() {
                    true => 0,
                    false => self.acks.events_behind(&region, &newest.vector),
                },
                complete_until_ms: complete.get(&region).copied(),
                region,
            })
            .collect()
    }

    /// The known regions other than this node's own: the log is kept for them.
    pub fn known(&self) -> Vec<Region> {
        let newest = self.engine.board().newest();
        let judged = self.judged(&newest).into_iter();
        judged
            .filter(|(region, judged)| self.state(region, judged) == RegionState::Known)
            .map(|(region, _)| region)
            .collect()
    }

    /// Whether every known region has made durable what the vector covers.
    pub fn is_covered_by_known(&self, vector: &VersionVector) -> bool {
        self.acks.covered_by_all(&self.known(), vector)
    }

    /// Whether the region is known to have made durable what the entries name.
    pub fn has_durable(&self, region: &Region, entries: &[(Replica, u64)]) -> bool {
        if region == self.own() {
            return self.engine.board().newest().covers(entries);
        }
        let replicas = self.engine.replicas().all();
        let seq = |vector: &VersionVector, replica| {
            let index = replicas.get(replica);
            index.map_or(0, |index| vector.get(index))
        };
        self.acks.has_durable(region, |vector| {
            entries
                .iter()
                .all(|(replica, least)| seq(vector, replica) >= *least)
        })
    }

    /// Origin time up to which each region's events are durable here, where it said its time.
    pub fn complete(&self) -> BTreeMap<Region, u64> {
        let own_until_ms = self.engine.complete_until_ms();
        let newest = self.engine.board().newest();
        let replicas = self.engine.replicas().all();
        let is_of = |region: &Region, replica| replicas.id(replica).region == *region;
        let mut complete = self.acks.complete_until_ms(&newest.vector, is_of);
        complete.insert(self.own().clone(), own_until_ms);
        complete
    }

    /// The replicas to name where the region is retired: all that this node knows.
    pub fn to_retire(&self, region: &Region) -> Result<BTreeSet<Replica>, CannotRetire> {
        if region == self.own() {
            return Err(CannotRetire::Own);
        }
        let links = self.links.all();
        if links
            .iter()
            .any(|link| link.connected && link.region == *region)
        {
            return Err(CannotRetire::Connected);
        }
        let newest = self.engine.board().newest();
        let mut judged = self.judged(&newest);
        let Some(judged) = judged.remove(region) else {
            let known = self.known();
            return Err(CannotRetire::Unknown { known });
        };
        let mut replicas = judged.replicas;
        let covered = newest.vector.iter();
        let covered = covered.map(|(replica, _)| newest.replicas.id(replica));
        replicas.extend(covered.filter(|one| one.region == *region).cloned());
        match replicas.is_empty() {
            true => Err(CannotRetire::NeverMet),
            false => Ok(replicas),
        }
    }

    fn state(&self, region: &Region, judged: &Judged) -> RegionState {
        match (judged.replicas.is_empty(), judged.unretired) {
            _ if region == self.own() => RegionState::Own,
            // Configured, and never met.
            (true, _) => RegionState::Known,
            (false, 0) => RegionState::Retired,
            (false, _) => RegionState::Known,
        }
    }

    fn judged(&self, newest: &Published) -> BTreeMap<Region, Judged> {
        let mut all: BTreeMap<Region, Judged> = BTreeMap::new();
        all.entry(self.own().clone()).or_default();
        for region in &self.configured {
            all.entry(region.clone()).or_default();
        }
        let replicas = self.engine.replicas().all();
        let heads = newest.short.iter().map(|(head, _)| *head);
        let met: Vec<_> = self.engine.regions().met().values().copied().collect();
        let acked = self.acks.all();
        let acked = acked
            .iter()
            .filter_map(|acked| replicas.get(&acked.replica));
        let indices: BTreeSet<ReplicaIndex> = heads.chain(met).chain(acked).collect();
        for index in indices {
            let replica = replicas.id(index);
            let judged = all.entry(replica.region.clone()).or_default();
            judged.replicas.insert(replica.clone());
            judged.unretired += usize::from(!newest.retired.contains(&index));
        }
        all
    }
}
