//! The links to peers: which sessions run, one a peer, and what status shows of each.
//!
//! Who runs and what is shown are decided in one step under one lock: a session that lost its place can
//! change nothing of the link that another keeps up.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ids::{Epoch, Region, Replica};
use crate::replication::session::{Agreement, Standing};
use crate::seams::membership::Members;

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

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Dialled,
    Accepted,
}

/// Sessions in the order in which they were let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Owner(pub(super) u64);

/// A session's place among the others.
pub(super) struct Place {
    pub peer: Replica,
    pub owner: Owner,
    /// Cancelled when another session with the same replica takes its place.
    pub displaced: CancellationToken,
}

struct Session {
    owner: Owner,
    direction: Direction,
    displaced: CancellationToken,
    standing: Standing,
}

/// A peer that is dialled, by configuration or hearsay. What stands here is shown while no session with its
/// region runs.
struct Configured {
    address: String,
    epoch: Option<Epoch>,
    standing: Standing,
    /// Since when the oldest event waits that the peer has not acknowledged.
    waits_since: Option<Instant>,
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
            configured.epoch = Some(place.peer.epoch);
            configured.waits_since = None;
            configured.standing = Standing {
                agreement: Agreement::Unknown,
                problem: problem.to_owned(),
                ..session.standing
            };
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

impl Configured {
    fn new(address: String) -> Self {
        Self {
            address,
            epoch: None,
            standing: Standing::with_problem("not dialled yet"),
            waits_since: None,
        }
    }

    fn follow(&mut self, now: Instant, events_behind: u64) {
        self.standing.events_behind = events_behind;
        if events_behind == 0 {
            self.waits_since = None;
            self.standing.lag_ms = 0;
            return;
        }
        // The wait goes on from where the session left it.
        let waited = Duration::from_millis(self.standing.lag_ms);
        let since = self
            .waits_since
            .get_or_insert_with(|| now.checked_sub(waited).unwrap_or(now));
        let waited = now.saturating_duration_since(*since);
        self.standing.lag_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    }
}

/// Which of two sessions with one peer is kept.
///
/// Of two that were dialled from both sides, the one that the smaller replica dialled: both sides decide
/// alike. Of two that the peer dialled, the newer: it knows that the older has ended. Of two that this
/// node dialled (by two addresses), the older.
fn takes_over(own_is_smaller: bool, earlier: Direction, later: Direction) -> bool {
    match (earlier, later) {
        (Direction::Accepted, Direction::Accepted) => true,
        (Direction::Dialled, Direction::Dialled) => false,
        (_, Direction::Dialled) => own_is_smaller,
        (_, Direction::Accepted) => !own_is_smaller,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Accepted, Dialled};

    fn replica(region: &str, epoch: u128) -> Replica {
        Replica {
            region: Region::new(region).expect("valid"),
            epoch: Epoch(epoch),
        }
    }

    /// The board of `us`, to whom `eu` is configured.
    fn board() -> (LinkBoard, Replica) {
        let board = LinkBoard::new([(replica("eu", 1).region, "eu:1".to_owned())]);
        (board, replica("us", 1))
    }

    fn only(board: &LinkBoard) -> LinkView {
        let mut all = board.all();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    #[test]
    fn clones_have_links_of_their_own() {
        let (board, own) = board();
        let first = board.enter(&own, &replica("eu", 1), Accepted);
        let second = board.enter(&own, &replica("eu", 2), Accepted);
        let (first, second) = (first.expect("the only one"), second.expect("another"));
        let addresses = board.all().into_iter().map(|link| link.address);
        assert_eq!(addresses.collect::<Vec<_>>(), ["eu:1", ""]);
        assert!(board.leave(&second, "gone"));
        assert!(only(&board).connected);
        assert!(board.leave(&first, "gone for good"));
        assert_eq!(only(&board).standing.problem, "gone for good");
    }

    #[test]
    fn a_displaced_session_does_not_take_the_link_down() {
        let (board, own) = board();
        let peer = replica("eu", 1);
        let displaced = board.enter(&own, &peer, Accepted).expect("the only one");
        let kept = board.enter(&own, &peer, Accepted).expect("the newer");
        assert!(displaced.displaced.is_cancelled());
        board.update(&displaced, Standing::with_problem("of the displaced"));
        assert!(!board.leave(&displaced, "another session is kept"));
        assert!(only(&board).connected);
        assert_eq!(only(&board).standing.problem, "");
        board.update(&kept, Standing::with_problem("of the kept"));
        assert_eq!(only(&board).standing.problem, "of the kept");
    }

    #[test]
    fn a_restarted_peer_takes_the_link_over_before_its_former_session_ends() {
        let (board, own) = board();
        let former = board.enter(&own, &replica("eu", 1), Dialled);
        let former = former.expect("the only one");
        let newer = board.enter(&own, &replica("eu", 2), Accepted);
        assert!(newer.is_some());
        assert!(board.leave(&former, "the connection was lost"));
        let link = only(&board);
        assert!(link.connected);
        assert_eq!(
            (link.address.as_str(), link.epoch),
            ("eu:1", Some(Epoch(2)))
        );
    }

    #[test]
    fn the_lag_of_a_link_that_is_down_grows_from_where_its_session_left_it() {
        let (board, own) = board();
        let place = board.enter(&own, &replica("eu", 1), Dialled);
        let place = place.expect("the only one");
        let standing = Standing {
            events_behind: 3,
            lag_ms: 500,
            ..Standing::with_problem("")
        };
        board.update(&place, standing);
        board.leave(&place, "the connection was lost");
        let now = Instant::now() + Duration::from_secs(10);
        board.follow_down(now, |_| 4);
        board.follow_down(now + Duration::from_secs(2), |_| 7);
        let standing = only(&board).standing;
        assert_eq!((standing.events_behind, standing.lag_ms), (7, 2_500));
        board.follow_down(now + Duration::from_secs(3), |_| 0);
        assert_eq!(only(&board).standing.lag_ms, 0);
    }

    #[tokio::test]
    async fn both_sides_keep_the_session_that_the_smaller_dialled() {
        let (ap, us) = (replica("ap", 1), replica("us", 1));
        for (first, second) in [(Dialled, Accepted), (Accepted, Dialled)] {
            for (own, peer, kept) in [(&ap, &us, Dialled), (&us, &ap, Accepted)] {
                let board = LinkBoard::new([]);
                let earlier = board.enter(own, peer, first).expect("the only one");
                let later = board.enter(own, peer, second);
                assert_eq!(later.is_some(), kept == second);
                assert_eq!(earlier.displaced.is_cancelled(), kept == second);
                assert_eq!(board.leave(&earlier, ""), later.is_none());
                if let Some(later) = later {
                    assert!(board.leave(&later, ""));
                }
                board.gone(peer).await;
            }
        }
    }

    #[test]
    fn a_region_of_hearsay_is_shown_until_it_is_forgotten() {
        let (board, own) = board();
        let ap = replica("ap", 1);
        board.learn(&ap.region, "ap:1".to_owned());
        board.learn(&ap.region, "ap:2".to_owned());
        let shown = |board: &LinkBoard| {
            let all = board.all().into_iter();
            all.map(|link| (link.address, link.connected))
                .collect::<Vec<_>>()
        };
        let eu = ("eu:1".to_owned(), false);
        assert_eq!(shown(&board), [("ap:2".to_owned(), false), eu.clone()]);
        let place = board.enter(&own, &ap, Dialled).expect("the only one");
        assert_eq!(shown(&board), [("ap:2".to_owned(), true), eu.clone()]);
        board.leave(&place, "gone");
        board.forget(&ap.region);
        assert_eq!(shown(&board), [eu]);
    }

    #[test]
    fn seeds_matter_while_nobody_is_there() {
        let (board, own) = board();
        board.note_seed("one:1", Some("refused"));
        board.note_seed("two:1", Some("refused"));
        board.note_seed("two:1", None);
        assert_eq!(board.seed_problems().len(), 1);
        let place = board.enter(&own, &replica("eu", 1), Dialled);
        let place = place.expect("the only one");
        assert!(board.seed_problems().is_empty());
        board.leave(&place, "gone");
        assert!(board.seed_problems()[0].contains("one:1"));
    }

    #[test]
    fn a_second_dial_to_the_same_peer_is_given_up() {
        let (board, own) = board();
        let peer = replica("eu", 1);
        let kept = board.enter(&own, &peer, Dialled).expect("the only one");
        assert!(board.enter(&own, &peer, Dialled).is_none());
        assert!(!kept.displaced.is_cancelled());
    }
}
