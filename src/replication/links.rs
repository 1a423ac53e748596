//! What is known of the links to peers, for status and for decisions that need all of them.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::crdt::fingerprint::Fingerprint;
use crate::ids::{Epoch, Region};

/// How a peer's state compares with this node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// Equal frontiers, equal fingerprints.
    Equal,
    /// The frontiers differ.
    Behind,
    /// Equal frontiers, different fingerprints.
    Diverged,
    /// The peer has not said.
    Unknown,
}

/// One link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    pub region: Region,
    /// The address that is dialled; empty for a peer that only dials us.
    pub address: String,
    pub connected: bool,
    pub epoch: Option<Epoch>,
    /// Events that are durable here and not acknowledged by the peer.
    pub events_behind: u64,
    /// How long the oldest of them has waited, in milliseconds.
    pub lag_ms: u64,
    pub agreement: Agreement,
    pub fingerprint: Option<Fingerprint>,
    /// Why the link is down or paused; empty when it is well.
    pub problem: String,
}

/// The links, by the peer's region and by what tells two nodes of one region apart.
#[derive(Default)]
pub struct LinkBoard {
    links: Mutex<BTreeMap<(Region, String), LinkView>>,
}

impl LinkBoard {
    /// Notes a link under a key that is unique within its region.
    pub fn set(&self, key: &str, link: LinkView) {
        let key = (link.region.clone(), key.to_owned());
        self.links.lock().insert(key, link);
    }

    pub fn remove(&self, region: &Region, key: &str) {
        self.links.lock().remove(&(region.clone(), key.to_owned()));
    }

    pub fn all(&self) -> Vec<LinkView> {
        self.links.lock().values().cloned().collect()
    }
}
