//! Replication: sessions with peers, snapshots, and what is known of the links.
//!
//! `docs/protocol.md` describes the exchange. The session machine ([`session`]) knows no task, socket,
//! file or clock; `driver` runs it, `dialer` and `server` bring it streams; `company` says who is dialled, and
//! `gossip` carries the membership's messages beside the sessions. All of them know the
//! engine and the seams, and neither clients nor concrete adapters.

pub mod ack_table;
pub mod audits;
pub mod catch_up;
mod company;
pub mod complete;
mod conflict;
mod dialer;
mod driver;
pub mod frame;
mod gossip;
pub mod knowledge;
pub mod links;
pub mod mending;
mod news;
mod pace;
pub mod parts;
mod refusals;
pub mod regions;
mod server;
pub mod session;
mod snapshot_call;
pub mod staged;
pub mod staging;
pub mod traffic;
pub mod trust;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::PeerAddress;
use crate::counts::Counts;
use crate::crdt::version_vector::VersionVector;
use crate::engine::Engine;
use crate::ids::{Region, Replica};
use crate::log::LogReader;
use crate::replication::ack_table::AckTable;
use crate::replication::audits::Audits;
use crate::replication::catch_up::{CatchUp, SnapshotParts};
use crate::replication::company::Company;
use crate::replication::dialer::Target;
use crate::replication::links::LinkBoard;
use crate::replication::mending::RangeMender;
use crate::replication::pace::Pace;
use crate::replication::trust::AllowedRegions;
use crate::seams::membership::Member;
use crate::seams::{Listener, Membership, Randomness, Transport};

/// An idle connection is probed this often,
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// and given up after this long without an answer.
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long sessions have to say goodbye.
const SHUTDOWN_MAX: Duration = Duration::from_secs(3);

/// Where a configured peer is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerEndpoint {
    pub region: Region,
    /// A name or an address, IPv6 in brackets. Resolved at each dial.
    pub host: String,
    pub port: u16,
}

impl PeerEndpoint {
    pub fn new(region: Region, address: &PeerAddress) -> Self {
        Self {
            region,
            host: address.host().to_owned(),
            port: address.port(),
        }
    }
}

impl fmt::Display for PeerEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What replication is told at its start. `config` documents the figures.
#[derive(Debug, Clone)]
pub struct ReplicationOptions {
    /// One a region at most.
    pub peers: Vec<PeerEndpoint>,
    /// Nodes by which others are found; their regions are not known beforehand.
    pub seeds: Vec<PeerAddress>,
    /// Where other nodes reach this one; none if they cannot.
    pub advertise: Option<PeerAddress>,
    /// How often the membership is told of this node at most.
    pub announce_ms: u64,
    /// Whose nodes may be peers.
    pub regions: AllowedRegions,
    pub relay_after_ms: u64,
    pub audit_round_ms: u64,
    pub backoff_min_ms: u64,
    pub backoff_max_ms: u64,
    pub heartbeat_ms: u64,
    pub silence_ms: u64,
    pub dial_timeout_ms: u64,
    pub window_bytes: usize,
    pub block_bytes: usize,
    pub catch_up_bytes_per_second: u64,
}

/// What a peer said when its session began.
#[derive(Debug, Clone)]
pub struct PeerAnswer {
    pub replica: Replica,
    pub frontier: Arc<VersionVector>,
}

/// The newest answer of each region that has answered.
pub type PeerAnswers = BTreeMap<Region, PeerAnswer>;

/// What replication stands on.
pub struct ReplicationParts {
    pub engine: Arc<Engine>,
    pub log: LogReader,
    pub transport: Arc<dyn Transport>,
    pub membership: Arc<dyn Membership>,
    pub listener: Box<dyn Listener>,
    pub randomness: Arc<dyn Randomness>,
    pub snapshots: SnapshotParts,
    pub links: Arc<LinkBoard>,
    pub acks: Arc<AckTable>,
    pub counts: Arc<Counts>,
    pub audits: Arc<Audits>,
    pub mender: Arc<dyn RangeMender>,
}

/// What the sessions of a node share.
pub(crate) struct Exchange {
    options: ReplicationOptions,
    engine: Arc<Engine>,
    log: LogReader,
    transport: Arc<dyn Transport>,
    membership: Arc<dyn Membership>,
    company: Company,
    randomness: Arc<dyn Randomness>,
    snapshots: SnapshotParts,
    catch_up: CatchUp,
    links: Arc<LinkBoard>,
    acks: Arc<AckTable>,
    counts: Arc<Counts>,
    audits: Arc<Audits>,
    mender: Arc<dyn RangeMender>,
    /// What peers that are far behind are sent.
    pace: Pace,
    comparisons: Arc<conflict::Turns>,
    answers: watch::Sender<PeerAnswers>,
    /// Every task of replication is spawned here.
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Exchange {
    /// Where the node of a region is: what is configured goes before hearsay.
    fn endpoint(&self, region: &Region) -> Option<PeerEndpoint> {
        let mut peers = self.options.peers.iter();
        let configured = peers.find(|peer| peer.region == *region);
        let configured = configured.cloned();
        configured.or_else(|| self.company.endpoint(region))
    }

    /// Where a replica may be: at the address of its region, where however another node of the region may answer, and
    /// at that which the membership tells of it.
    fn endpoints(&self, peer: &Replica) -> Vec<PeerEndpoint> {
        let members = self.membership.members();
        let members = members.borrow();
        let is_peer = |member: &&Member| {
            member.region == peer.region && member.epoch.as_ref() == Some(&peer.epoch)
        };
        let told = members.iter().find(is_peer);
        let told = told.and_then(|member| member.address.as_ref());
        let told = told.map(|address| PeerEndpoint::new(peer.region.clone(), address));
        let of_region = self.endpoint(&peer.region);
        let told = told.filter(|told| of_region.as_ref() != Some(told));
        of_region.into_iter().chain(told).collect()
    }
}

/// Replication at work.
pub struct RunningReplication {
    /// What the peers said when their sessions began.
    pub answers: watch::Receiver<PeerAnswers>,
    exchange: Arc<Exchange>,
}

/// The configured links, before the first dial. A status without them would look like a node that needs
/// none.
pub fn links_to_dial(peers: &[PeerEndpoint]) -> Arc<LinkBoard> {
    let dialled = peers.iter();
    let dialled = dialled.map(|peer| (peer.region.clone(), peer.to_string()));
    Arc::new(LinkBoard::new(dialled))
}

/// Starts to listen for peers and to dial them. Must be called within a runtime.
pub fn start(parts: ReplicationParts, options: ReplicationOptions) -> RunningReplication {
    let (answers, answered) = watch::channel(PeerAnswers::new());
    let exchange = Arc::new(Exchange {
        engine: parts.engine,
        log: parts.log,
        transport: parts.transport,
        membership: parts.membership,
        company: Company::default(),
        randomness: parts.randomness,
        snapshots: parts.snapshots,
        catch_up: CatchUp::default(),
        links: parts.links,
        acks: parts.acks,
        counts: parts.counts,
        audits: parts.audits,
        mender: parts.mender,
        pace: Pace::new(options.catch_up_bytes_per_second),
        comparisons: Arc::default(),
        answers,
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
        options,
    });
    let tasks = &exchange.tasks;
    tasks.spawn(server::run(exchange.clone(), parts.listener));
    tasks.spawn(catch_up::run(exchange.clone()));
    tasks.spawn(mending::run(exchange.clone()));
    tasks.spawn(follow_down(exchange.clone()));
    tasks.spawn(company::follow(exchange.clone()));
    tasks.spawn(company::announce(exchange.clone()));
    let configured = exchange.options.peers.iter().cloned();
    let seeds = exchange.options.seeds.iter().cloned();
    let targets = configured.map(Target::Configured);
    for target in targets.chain(seeds.map(Target::Seed)) {
        tasks.spawn(dialer::run(exchange.clone(), target));
    }
    RunningReplication {
        answers: answered,
        exchange,
    }
}

/// Shows what peers without a session lack, as a session does for its own peer.
async fn follow_down(exchange: Arc<Exchange>) {
    loop {
        let newest = exchange.engine.board().newest();
        let behind = |region: &Region| exchange.acks.events_behind(region, &newest.vector);
        exchange.links.follow_down(Instant::now(), behind);
        let pause = sleep(driver::STANDING_PAUSE);
        if exchange.stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

impl RunningReplication {
    /// Closes the sessions, each with a word to its peer, and the listener. Returns when all tasks have
    /// ended, or when they took too long.
    pub async fn shutdown(self) {
        self.exchange.stop.cancel();
        self.exchange.tasks.close();
        if timeout(SHUTDOWN_MAX, self.exchange.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("sessions with peers did not end in time");
        }
    }
}
