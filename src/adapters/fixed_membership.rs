//! The membership of a list that never changes: the configuration's.

use std::sync::Arc;

use tokio::sync::watch;

use crate::address::PeerAddress;
use crate::ids::{Region, Replica};
use crate::seams::membership::{
    Announcement, Correspondence, Liveness, Member, Members, Membership, Uncorresponding,
};

/// See the module. Nobody is told anything, and nobody looks who is alive.
#[derive(Debug)]
pub struct FixedMembership {
    members: watch::Sender<Members>,
}

impl FixedMembership {
    /// Of the other regions and where they are.
    pub fn new(peers: impl IntoIterator<Item = (Region, PeerAddress)>) -> Self {
        let member = |(region, address)| Member {
            region,
            epoch: None,
            address: Some(address),
            frontier: None,
            fingerprint: None,
            protocol: None,
            liveness: Liveness::Unknown,
        };
        let mut members: Vec<Member> = peers.into_iter().map(member).collect();
        members.sort_by(|a, b| a.region.cmp(&b.region));
        Self {
            members: watch::Sender::new(Arc::from(members)),
        }
    }
}

impl Membership for FixedMembership {
    fn members(&self) -> watch::Receiver<Members> {
        self.members.subscribe()
    }

    fn announce(&self, _: Announcement) {}

    fn corresponds(&self) -> bool {
        false
    }

    fn correspond(&self, _: &Replica) -> Result<Box<dyn Correspondence>, Uncorresponding> {
        Err(Uncorresponding::NotNeeded)
    }

    fn stop(&self) {}
}
