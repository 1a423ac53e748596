//! The list of members, made of what chitchat knows and of what it knew: a region whose node is gone is
//! remembered for longer than chitchat does, with the address under which it was last reached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chitchat::{Chitchat, NodeState};
use tokio::time::Instant;

use super::datagram::NodeName;
use crate::address::PeerAddress;
use crate::ids::{Region, Replica};
use crate::limits::GOSSIP_REGIONS_MAX;
use crate::seams::membership::{Announcement, Liveness, Member, Members};

const ADDRESS: &str = "address";
const FRONTIER: &str = "frontier";
const FINGERPRINT: &str = "fingerprint";
const PROTOCOL: &str = "protocol";
/// Everything that a node announces.
pub const KEYS: [&str; 4] = [ADDRESS, FRONTIER, FINGERPRINT, PROTOCOL];

/// What a node announces, as chitchat carries it: texts below `GOSSIP_VALUE_BYTES_MAX`.
pub fn values(announcement: &Announcement) -> [(&'static str, String); 4] {
    let Announcement {
        address,
        frontier,
        fingerprint,
        protocol: (min, max),
        ..
    } = announcement;
    let address = address.as_ref().map(PeerAddress::to_string);
    let fingerprint = fingerprint.map(|bytes| format!("{:032x}", u128::from_be_bytes(bytes)));
    [
        (ADDRESS, address.unwrap_or_default()),
        (FRONTIER, format!("{frontier:016x}")),
        (FINGERPRINT, fingerprint.unwrap_or_default()),
        (PROTOCOL, format!("{min}-{max}")),
    ]
}

/// What is read of another node's values; what has no valid form is as if it had not been said.
fn member(replica: &Replica, state: &NodeState, liveness: Liveness) -> Member {
    let fingerprint = state.get(FINGERPRINT).filter(|text| text.len() == 32);
    let fingerprint = fingerprint.and_then(|text| u128::from_str_radix(text, 16).ok());
    let protocol = |text: &str| {
        let (min, max) = text.split_once('-')?;
        Some((min.parse().ok()?, max.parse().ok()?))
    };
    let frontier = state.get(FRONTIER);
    Member {
        region: replica.region.clone(),
        epoch: Some(replica.epoch),
        address: state.get(ADDRESS).and_then(|text| text.parse().ok()),
        frontier: frontier.and_then(|text| u64::from_str_radix(text, 16).ok()),
        fingerprint: fingerprint.map(u128::to_be_bytes),
        protocol: state.get(PROTOCOL).and_then(protocol),
        liveness,
    }
}

/// One run of a node, and when it was heard of.
struct Entry {
    member: Member,
    /// Counts the runs as they were first heard of.
    order: u64,
    gone_since: Option<Instant>,
    /// It is gone for good, as far as this list goes; chitchat may still know it.
    is_hidden: bool,
}

/// See the module.
pub struct Roster {
    entries: BTreeMap<Replica, Entry>,
    heard: u64,
    forget_after: Duration,
}

impl Roster {
    pub fn new(forget_after: Duration) -> Self {
        Self {
            entries: BTreeMap::new(),
            heard: 0,
            forget_after,
        }
    }

    /// Takes in what chitchat knows now. Returns the nodes that it knows.
    pub fn look(&mut self, chitchat: &Chitchat, own: &Replica, now: Instant) -> BTreeSet<NodeName> {
        let live: BTreeSet<_> = chitchat.live_nodes().cloned().collect();
        let mut known = BTreeSet::new();
        let mut found: BTreeMap<Replica, (Liveness, u64, &NodeState)> = BTreeMap::new();
        for (id, state) in chitchat.node_states() {
            let Some(name) = NodeName::parse(&id.node_id, id.generation_id) else {
                continue;
            };
            let liveness = match live.contains(id) {
                true => Liveness::Alive,
                false => Liveness::Gone,
            };
            let newest = (liveness, name.generation, state);
            let better = |known: &(Liveness, u64, &NodeState)| {
                let rank = |liveness, generation| (liveness == Liveness::Alive, generation);
                rank(liveness, name.generation) > rank(known.0, known.1)
            };
            if name.replica != *own && found.get(&name.replica).is_none_or(better) {
                found.insert(name.replica.clone(), newest);
            }
            known.insert(name);
        }
        for entry in self.entries.values_mut() {
            entry.member.liveness = Liveness::Gone;
        }
        for (replica, (liveness, _, state)) in &found {
            self.note(replica, member(replica, state, *liveness));
        }
        self.entries.remove(own);
        self.hide(now);
        self.entries
            .retain(|replica, entry| !entry.is_hidden || found.contains_key(replica));
        known
    }

    fn note(&mut self, replica: &Replica, member: Member) {
        self.heard += 1;
        let order = self.heard;
        let entry = self.entries.entry(replica.clone()).or_insert(Entry {
            member: member.clone(),
            order,
            gone_since: None,
            is_hidden: false,
        });
        // Its values come after its name; those of an earlier time stay until then.
        let before = std::mem::replace(&mut entry.member, member);
        let after = &mut entry.member;
        after.address = after.address.take().or(before.address);
        after.frontier = after.frontier.or(before.frontier);
        after.protocol = after.protocol.or(before.protocol);
    }

    /// Of the runs that are gone the newest of each region is shown, for as long as is configured.
    fn hide(&mut self, now: Instant) {
        let mut newest: BTreeMap<Region, u64> = BTreeMap::new();
        for (replica, entry) in &mut self.entries {
            entry.gone_since = match entry.member.liveness {
                Liveness::Gone => entry.gone_since.or(Some(now)),
                Liveness::Alive | Liveness::Unknown => None,
            };
            let newest = newest.entry(replica.region.clone()).or_default();
            *newest = entry.order.max(*newest);
        }
        for (replica, entry) in &mut self.entries {
            let is_newest = newest.get(&replica.region) == Some(&entry.order);
            entry.is_hidden = entry
                .gone_since
                .is_some_and(|since| !is_newest || now.duration_since(since) >= self.forget_after);
        }
        let shown = |entry: &&mut Entry| !entry.is_hidden;
        let mut gone: Vec<&mut Entry> = self.entries.values_mut().filter(shown).collect();
        let regions: BTreeSet<Region> = gone
            .iter()
            .map(|entry| entry.member.region.clone())
            .collect();
        let too_many = regions.len().saturating_sub(GOSSIP_REGIONS_MAX);
        gone.retain(|entry| entry.gone_since.is_some());
        gone.sort_by_key(|entry| entry.gone_since);
        for entry in gone.into_iter().take(too_many) {
            entry.is_hidden = true;
        }
    }

    /// See [`Members`].
    pub fn members(&self) -> Members {
        let entries = self.entries.values();
        let mut entries: Vec<&Entry> = entries.filter(|entry| !entry.is_hidden).collect();
        entries.sort_by(|a, b| {
            (&a.member.region, std::cmp::Reverse(a.order))
                .cmp(&(&b.member.region, std::cmp::Reverse(b.order)))
        });
        let members = entries.into_iter().map(|entry| entry.member.clone());
        Arc::from(members.collect::<Vec<_>>())
    }
}
