//! The links to peers: which sessions run, one a peer, and what status shows of each.
//!
//! Who runs and what is shown are decided in one step under one lock: a session that lost its place can
//! change nothing of the link that another keeps up.

mod configured;
mod place;

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ids::{Epoch, Region, Replica};
use crate::replication::links::configured::Configured;
use crate::replication::links::place::takes_over;
use crate::replication::session::Standing;
use crate::seams::membership::Members;

pub(super) use place::Place;
pub use place::{Direction, Owner};

/// One link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    pub region: Region,
    /// The address that is dialled; empty for a peer that only dials us.
    pub address: String,
    pub connected: bool,
    /// The epoch of the peer's run, where a session was ever open.
    pub epoch: Option<Epoch>,
    pub standing: Standing,
}

struct Session {
    owner: Owner,
    direction: Direction,
    displaced: CancellationToken,
    standing: Standing,
}

struct Links {
    configured: BTreeMap<Region, Configured>,
    sessions: BTreeMap<Replica, Session>,
    last_owner: Owner,
    /// Why a seed leads to nobody, by its address.
    seeds: BTreeMap<String, String>,
    /// What the membership said last.
    members: Members,
}

/// The links. Those that are configured stay; those of hearsay go when it ends, others with their sessions.
pub struct LinkBoard {
    /// Guards the links; held for a copy at most.
    links: Mutex<Links>,
    /// Told after a session has left.
    left: watch::Sender<()>,
}

impl LinkBoard {
    /// With the peers that are to be dialled, by region and address. They are shown from the beginning: a
    /// status without them would look like a node that needs none.
    pub fn new(peers: impl IntoIterator<Item = (Region, String)>) -> Self {
        let configured = |(region, address)| (region, Configured::new(address));
        let links = Links {
            configured: peers.into_iter().map(configured).collect(),
            sessions: BTreeMap::new(),
            last_owner: Owner::default(),
            seeds: BTreeMap::new(),
            members: Members::from([]),
        };
        Self {
            links: Mutex::new(links),
            left: watch::Sender::new(()),
        }
    }

    /// By region; of a configured one first the link under its address.
    pub fn all(&self) -> Vec<LinkView> {
        let links = self.links.lock();
        let mut views: Vec<LinkView> = links.down().map(|(_, view)| view).collect();
        views.extend(links.sessions.iter().map(|(replica, session)| LinkView {
            region: replica.region.clone(),
            address: links.address(replica, session).to_owned(),
            connected: true,
            epoch: Some(replica.epoch),
            standing: session.standing.clone(),
        }));
        drop(links);
        views.sort_by(|a, b| {
            (&a.region, a.address.is_empty()).cmp(&(&b.region, b.address.is_empty()))
        });
        views
    }

    /// Shows a region that somebody told of, or its new address.
    pub(super) fn learn(&self, region: &Region, address: String) {
        let mut links = self.links.lock();
        match links.configured.get_mut(region) {
            Some(known) => known.address = address,
            None => {
                let known = Configured::new(address);
                links.configured.insert(region.clone(), known);
            }
        }
    }

    /// Shows what the membership says now.
    pub(super) fn hear(&self, members: Members) {
        self.links.lock().members = members;
    }

    /// What the membership says of the other nodes; hearsay.
    pub fn members(&self) -> Members {
        self.links.lock().members.clone()
    }

    /// A region that was told of is no longer dialled.
    pub(super) fn forget(&self, region: &Region) {
        self.links.lock().configured.remove(region);
    }

    /// Says why a seed leads to nobody; none when it has led to somebody.
    pub(super) fn note_seed(&self, address: &str, problem: Option<&str>) {
        let mut links = self.links.lock();
        match problem {
            Some(problem) => links.seeds.insert(address.to_owned(), problem.to_owned()),
            None => links.seeds.remove(address),
        };
    }

    /// What is wrong with the seeds, where they are needed: while no session runs.
    pub fn seed_problems(&self) -> Vec<String> {
        let links = self.links.lock();
        if !links.sessions.is_empty() {
            return Vec::new();
        }
        let seeds = links.seeds.iter();
        seeds
            .map(|(address, problem)| format!("the seed {address} leads to nobody: {problem}"))
            .collect()
    }

    /// Says why the link to a configured peer is down, shown unless a session keeps it up.
    pub(super) fn note_down(&self, region: &Region, problem: &str) {
        let mut links = self.links.lock();
        if let Some(configured) = links.configured.get_mut(region) {
            configured.standing.problem = problem.to_owned();
        }
    }

    /// Lets the session in, in place of an earlier one if need be; none if the earlier one is kept.
    pub(super) fn enter(
        &self,
        own: &Replica,
        peer: &Replica,
        direction: Direction,
    ) -> Option<Place> {
        let mut links = self.links.lock();
        if let Some(earlier) = links.sessions.get(peer) {
            if !takes_over(own < peer, earlier.direction, direction) {
                return None;
            }
            earlier.displaced.cancel();
        }
        links.last_owner.0 += 1;
        let place = Place {
            peer: peer.clone(),
            owner: links.last_owner,
            displaced: CancellationToken::new(),
        };
        let session = Session {
            owner: place.owner,
            direction,
            displaced: place.displaced.clone(),
            standing: Standing::with_problem(""),
        };
        links.sessions.insert(peer.clone(), session);
        Some(place)
    }

    /// Shows how the session's link stands, if it still has its place.
    pub(super) fn update(&self, place: &Place, standing: Standing) {
        let mut links = self.links.lock();
        let session = links.sessions.get_mut(&place.peer);
        if let Some(session) = session.filter(|session| session.owner == place.owner) {
            session.standing = standing;
        }
    }

    /// The session has ended. Returns whether it had its place until then.
    pub(super) fn leave(&self, place: &Place, problem: &str) -> bool {
        let mut links = self.links.lock();
        let session = links.sessions.get(&place.peer);
        let had_its_place = session.is_some_and(|session| session.owner == place.owner);
        if had_its_place
            && let Some(session) = links.sessions.remove(&place.peer)
            && let Some(configured) = links.configured.get_mut(&place.peer.region)
        {
            configured.note_ended(place.peer.epoch, session.standing, problem);
        }
        drop(links);
        self.left.send_replace(());
        had_its_place
    }

    /// Returns when there is no session with the replica.
    pub(super) async fn gone(&self, peer: &Replica) {
        let mut left = self.left.subscribe();
        let is_gone = |_: &()| !self.links.lock().sessions.contains_key(peer);
        left.wait_for(is_gone)
            .await
            .expect("the board outlives its users");
    }

    /// Brings the figures of links that are down up to date: `events_behind` says for a region what is
    /// durable here and not known to be acknowledged there.
    pub(super) fn follow_down(&self, now: Instant, events_behind: impl Fn(&Region) -> u64) {
        let mut links = self.links.lock();
        let down: Vec<Region> = links.down().map(|(region, _)| region.clone()).collect();
        for region in down {
            let events = events_behind(&region);
            if let Some(configured) = links.configured.get_mut(&region) {
                configured.follow(now, events);
            }
        }
    }
}

impl Links {
    /// Configured links without a session.
    fn down(&self) -> impl Iterator<Item = (&Region, LinkView)> {
        let configured = self.configured.iter();
        let down = configured.filter(|(region, _)| self.at_address(region).is_none());
        down.map(|(region, configured)| {
            let view = LinkView {
                region: region.clone(),
                address: configured.address.clone(),
                connected: false,
                epoch: configured.epoch,
                standing: configured.standing.clone(),
            };
            (region, view)
        })
    }

    /// The session that stands for a region's address where several nodes run under its name: the one
    /// that was dialled there, or else the oldest.
    fn at_address(&self, region: &Region) -> Option<Owner> {
        let sessions = self.sessions.iter();
        sessions
            .filter(|(replica, _)| replica.region == *region)
            .min_by_key(|(_, session)| (session.direction != Direction::Dialled, session.owner))
            .map(|(_, session)| session.owner)
    }

    fn address(&self, replica: &Replica, session: &Session) -> &str {
        let configured = self.configured.get(&replica.region);
        let is_at_address = self.at_address(&replica.region) == Some(session.owner);
        configured
            .filter(|_| is_at_address)
            .map_or("", |configured| &configured.address)
    }
}

#[cfg(test)]
mod tests;
