//! What is known of the links to peers, for status and for decisions that need all of them.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::crdt::fingerprint::Fingerprint;
use crate::ids::{Epoch, Region, Replica};

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

impl LinkView {
    /// A link without a session.
    pub fn down(region: Region, address: String, problem: String) -> Self {
        Self {
            region,
            address,
            connected: false,
            epoch: None,
            events_behind: 0,
            lag_ms: 0,
            agreement: Agreement::Unknown,
            fingerprint: None,
            problem,
        }
    }
}

/// The session that keeps a link up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(pub u64);

/// A link's place: its region, and what tells two nodes of one region apart (the configured address
/// or, for a second one, the epoch).
pub type LinkKey = (Region, String);

struct Link {
    view: LinkView,
    owner: Option<Owner>,
}

/// The links. Those that are configured stay; others go with their sessions.
#[derive(Default)]
pub struct LinkBoard {
    /// Guards the links; held for a copy at most.
    links: Mutex<BTreeMap<LinkKey, Link>>,
}

impl LinkBoard {
    pub fn all(&self) -> Vec<LinkView> {
        let links = self.links.lock();
        links.values().map(|link| link.view.clone()).collect()
    }

    /// Says why a configured link is down, unless a session keeps it up.
    pub fn note_down(&self, region: &Region, address: &str, problem: &str) {
        let key = (region.clone(), address.to_owned());
        let down = || LinkView::down(region.clone(), address.to_owned(), problem.to_owned());
        let mut links = self.links.lock();
        let link = links.entry(key).or_insert_with(|| Link {
            view: down(),
            owner: None,
        });
        if link.owner.is_none() {
            link.view = down();
        }
    }

    /// A session with the replica begins. Takes the place under the address, or, where another
    /// replica has that, one of its own.
    pub fn claim(&self, owner: Owner, replica: &Replica, address: &str) -> LinkKey {
        let mut links = self.links.lock();
        let key = (replica.region.clone(), address.to_owned());
        let is_free = links
            .get(&key)
            .is_none_or(|link| link.owner.is_none() || link.view.epoch == Some(replica.epoch));
        let key = match is_free && !address.is_empty() {
            true => key,
            false => (replica.region.clone(), replica.epoch.to_string()),
        };
        let address = if is_free { address } else { "" };
        let mut view = LinkView::down(key.0.clone(), address.to_owned(), String::new());
        view.connected = true;
        view.epoch = Some(replica.epoch);
        let owner = Some(owner);
        links.insert(key.clone(), Link { view, owner });
        key
    }

    /// Changes the link if it still belongs to the session.
    pub fn update(&self, owner: Owner, key: &LinkKey, change: impl FnOnce(&mut LinkView)) {
        let mut links = self.links.lock();
        if let Some(link) = links.get_mut(key)
            && link.owner == Some(owner)
        {
            change(&mut link.view);
        }
    }

    /// The session has ended.
    pub fn release(&self, owner: Owner, key: &LinkKey, problem: &str) {
        let mut links = self.links.lock();
        let Some(link) = links.get_mut(key) else {
            return;
        };
        if link.owner != Some(owner) {
            return;
        }
        if link.view.address.is_empty() {
            links.remove(key);
            return;
        }
        let epoch = link.view.epoch;
        let address = link.view.address.clone();
        link.view = LinkView::down(key.0.clone(), address, problem.to_owned());
        link.view.epoch = epoch;
        link.owner = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(epoch: u128) -> Replica {
        Replica {
            region: Region::new("eu").expect("valid"),
            epoch: Epoch(epoch),
        }
    }

    #[test]
    fn clones_have_links_of_their_own() {
        let board = LinkBoard::default();
        board.note_down(&replica(1).region, "eu:1", "not dialled yet");
        let first = board.claim(Owner(1), &replica(1), "eu:1");
        let second = board.claim(Owner(2), &replica(2), "eu:1");
        assert_eq!(board.all().len(), 2);
        board.release(Owner(2), &second, "gone");
        assert_eq!(board.all().len(), 1);
        board.release(Owner(1), &first, "gone");
        assert_eq!(board.all()[0].problem, "gone");
    }

    #[test]
    fn a_displaced_session_does_not_take_the_link_down() {
        let board = LinkBoard::default();
        let displaced = board.claim(Owner(1), &replica(1), "eu:1");
        board.claim(Owner(2), &replica(1), "eu:1");
        board.release(Owner(1), &displaced, "duplicate");
        assert!(board.all()[0].connected);
    }
}
