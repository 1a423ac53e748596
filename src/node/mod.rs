//! A node: wires the parts together, starts them in order, and stops them in the other.
//!
//! Start: lock the folder → checkpoint + replay → workers (log writer, spare segments, checkpointer) →
//! clients' listener → a staged snapshot is merged → sessions with peers. Stop: not ready, stop
//! accepting → close sessions → drain commits → checkpoint → exit code. Business logic is elsewhere.

mod catch_up;
mod checkpoints;
mod gauges;
mod network;
mod rebuild;
mod run;
pub mod storage;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::adapters::chitchat_membership::{ChitchatMembership, GossipOptions, Home};
use crate::adapters::fixed_membership::FixedMembership;
use crate::address::PeerAddress;
use crate::api::health::Health;
use crate::api::server::{ConnectionLimits, ServeError, serve_clients};
use crate::api::{Api, ApiLimits, Gauges};
use crate::config::{Config, MembershipKind, RepeatedLikes};
use crate::counts::Counts;
use crate::crdt::version_vector::VersionVector;
use crate::engine::checkpoint::{Checkpointer, Kept, LogHolds, Retention};
use crate::engine::commit::Refused;
use crate::engine::committer::Committer;
use crate::engine::mending::Mender;
use crate::engine::recovery::{EngineSeams, Recovered, RecoveryReport};
use crate::engine::snapshot::SnapshotOptions;
use crate::engine::{Engine, EngineOptions, Serving, Settlement};
use crate::log::{AppendError, LogReader};
use crate::logging;
use crate::node::checkpoints::{CheckpointWorker, Checkpoints, Pace};
use crate::node::gauges::{NodeGauges, Warnings};
use crate::node::storage::Storage;
use crate::replication::ack_table::AckTable;
use crate::replication::audits::Audits;
use crate::replication::catch_up::SnapshotParts;
use crate::replication::links::LinkBoard;
use crate::replication::regions::RegionBoard;
use crate::replication::{
    self, PeerAnswer, PeerAnswers, ReplicationOptions, ReplicationParts, RunningReplication,
};
use crate::seams::files::{Files, LockGuard};
use crate::seams::{Listener, Membership, Transport, WorkerHandle, Workers};
use crate::versions::Dialect;

pub use run::run;
pub use storage::Folder;

/// The network of a node. Listeners are bound by the caller.
pub struct Network {
    pub clients: Box<dyn Listener>,
    /// Where clients reach it.
    pub client_address: SocketAddr,
    pub peers: Box<dyn Listener>,
    /// Where the peers' listener is bound.
    pub peer_address: SocketAddr,
    pub transport: Arc<dyn Transport>,
    /// Where the membership protocol runs.
    pub gossip: Home,
}

/// A node that serves.
pub struct RunningNode {
    pub engine: Arc<Engine>,
    pub report: RecoveryReport,
    pub client_address: SocketAddr,
    pub counts: Arc<Counts>,
    /// What is durable of the log.
    pub log: LogReader,
    checkpoints: Checkpoints,
    replication: RunningReplication,
    stop_clients: CancellationToken,
    clients: tokio::task::JoinHandle<Result<(), ServeError>>,
    health: Health,
    workers: Vec<WorkerHandle>,
    /// Tells when the log failed.
    log_failed: oneshot::Receiver<AppendError>,
    _lock: LockGuard,
}

/// What the engine is told by the configuration.
pub fn engine_options(config: &Config) -> EngineOptions {
    EngineOptions {
        cluster: config.cluster.id.clone(),
        region: config.node.region.clone(),
        shards: config.engine.shards,
        absorb_repeated_likes: config.engine.repeated_likes == RepeatedLikes::Absorb,
        request_window_ms: config.engine.request_window_ms,
        request_window_items_max: config.engine.request_window_items_max,
        orphan_removals_max: config.engine.orphan_removals_max,
        watchers_max: config.engine.watchers_max,
        dialect: Dialect::default(),
    }
}

/// Cuts the log when it is known that nobody needs it, or at its bound. What it condenses into is one
/// folder, so nothing goes that no peer has made durable.
struct KeepForPeers {
    regions: Arc<RegionBoard>,
    retain_bytes: u64,
    retain_ms: u64,
}

impl Retention for KeepForPeers {
    fn may_cut(&self, covered: &VersionVector, kept: Kept) -> bool {
        let is_beyond_bounds = kept.bytes > self.retain_bytes || kept.age_ms > self.retain_ms;
        self.regions.acks().covered_by_any(covered)
            && (is_beyond_bounds || self.regions.is_covered_by_known(covered))
    }
}

/// Starts a node on an open folder.
pub async fn start(
    config: &Config,
    storage: Storage,
    workers: Arc<dyn Workers>,
    network: Network,
) -> anyhow::Result<RunningNode> {
    let Storage {
        seams,
        recovered,
        lock,
    } = storage;
    let report = recovered.report.clone();
    let engine = recovered.engine.clone();
    logging::name_node(&engine.own());
    say_recovered(&report);
    let is_unfinished = rebuild::is_unfinished(seams.files.as_ref()).await?;
    if (report.is_new || is_unfinished) && config.peers.are_configured() {
        rebuild::begin(seams.files.as_ref()).await?;
        engine.set_serving(Serving::Rebuilding);
    }
    let (keeping, log_failed) = Keeping::start(config, recovered, &seams, workers.as_ref());
    let stop_clients = CancellationToken::new();
    let client_address = network.client_address;
    let health = Health::new().await;
    let stop = stop_clients.clone();
    let clients = keeping.serve_clients(config, network.clients, health.clone(), stop);
    if engine.settlement() == Settlement::Merging {
        let merged = keeping
            .checkpoints
            .merge()
            .await
            .context("merging the staged snapshot")?;
        merged.context("merging the staged snapshot")?;
    }
    let mut options = replication_options(config);
    if config.peers.advertise.is_none() {
        options.advertise = PeerAddress::of_listener(network.peer_address);
    }
    let membership = membership(config, network.gossip, keeping.counts.clone())?;
    let peers = (network.peers, network.transport, membership);
    let replication = keeping.replicate(config, &seams, peers, options);
    let answers = replication.answers.clone();
    let ready = (engine.clone(), seams.files.clone());
    tokio::spawn(become_ready(ready, answers, stop_clients.clone()));
    Ok(RunningNode {
        engine,
        report,
        client_address,
        counts: keeping.counts,
        log: keeping.log,
        checkpoints: keeping.checkpoints,
        replication,
        stop_clients,
        clients,
        health,
        workers: keeping.workers,
        log_failed,
        _lock: lock,
    })
}

/// What keeps the state durable, and what the listeners need of it.
struct Keeping {
    engine: Arc<Engine>,
    log: LogReader,
    holds: Arc<LogHolds>,
    acks: Arc<AckTable>,
    links: Arc<LinkBoard>,
    regions: Arc<RegionBoard>,
    warnings: Arc<Warnings>,
    counts: Arc<Counts>,
    audits: Arc<Audits>,
    checkpoints: Checkpoints,
    workers: Vec<WorkerHandle>,
}

impl Keeping {
    /// Starts the workers: log writer, spare segments, checkpointer.
    fn start(
        config: &Config,
        recovered: Recovered,
        seams: &EngineSeams,
        workers: &dyn Workers,
    ) -> (Self, oneshot::Receiver<AppendError>) {
        let Recovered {
            engine,
            committer,
            reader: log,
            trimmer,
            preparer,
            ..
        } = recovered;
        let (holds, acks) = (Arc::new(LogHolds::default()), Arc::new(AckTable::default()));
        let warnings = Arc::new(Warnings::default());
        let links = replication::links_to_dial(&replication_options(config).peers);
        let peers = config.peers.static_peers.iter();
        let regions = Arc::new(RegionBoard::new(
            engine.clone(),
            acks.clone(),
            links.clone(),
            peers.map(|peer| peer.region.clone()),
        ));
        let retention = KeepForPeers {
            regions: regions.clone(),
            retain_bytes: config.log.retain_bytes,
            retain_ms: config.log.retain_ms,
        };
        let counts: Arc<Counts> = Arc::default();
        let audits = Audits::new(engine.clone(), counts.clone());
        let mender = Mender {
            engine: engine.clone(),
            store: seams.store.clone(),
            log: log.clone(),
        };
        let (store, parts) = (seams.store.clone(), (log.clone(), trimmer));
        let retention = Arc::new(retention);
        let checkpointer =
            Checkpointer::new(engine.clone(), store, parts, holds.clone(), retention);
        let worker = CheckpointWorker {
            engine: engine.clone(),
            checkpointer,
            files: seams.files.clone(),
            log: log.clone(),
            warnings: warnings.clone(),
            pace: Pace {
                interval: Duration::from_millis(config.checkpoint.interval_ms),
                log_bytes: config.checkpoint.log_bytes,
                scrub: Duration::from_millis(config.audit.scrub_ms),
            },
            mender,
            audits: audits.clone(),
            counts: counts.clone(),
        };
        let (checkpoints, checkpointing) = worker.start();
        let (committing, log_failed) = watch_log(committer);
        let keeping = Self {
            engine,
            log,
            holds,
            acks,
            links,
            regions,
            warnings,
            counts,
            audits,
            checkpoints,
            workers: vec![
                workers.spawn("log-writer", Box::pin(committing)),
                workers.spawn("log-spare", Box::pin(preparer.run())),
                workers.spawn("checkpointer", Box::pin(checkpointing)),
            ],
        };
        (keeping, log_failed)
    }

    fn serve_clients(
        &self,
        config: &Config,
        listener: Box<dyn Listener>,
        health: Health,
        stop: CancellationToken,
    ) -> tokio::task::JoinHandle<Result<(), ServeError>> {
        let gauges = Arc::new(NodeGauges {
            log: self.log.clone(),
            warnings: self.warnings.clone(),
            retain_bytes: config.log.retain_bytes,
        });
        let engine = self.engine.clone();
        let known = (
            self.links.clone(),
            self.regions.clone(),
            self.audits.clone(),
        );
        let shown = (gauges as Arc<dyn Gauges>, self.counts.clone());
        let api = Api::new(engine, known, shown, api_limits(config), stop);
        let limits = ConnectionLimits {
            connections_max: config.client.connections_max,
            streams_per_connection_max: config.client.streams_per_connection_max,
        };
        tokio::spawn(serve_clients(listener, api, health, limits))
    }

    fn replicate(
        &self,
        config: &Config,
        seams: &EngineSeams,
        (listener, transport, membership): Peers,
        options: ReplicationOptions,
    ) -> RunningReplication {
        let engine = self.engine.clone();
        let snapshots = SnapshotOptions {
            chunk_bytes: config.replication.snapshot_chunk_bytes as usize,
            log_bytes_max: config.replication.snapshot_log_bytes_max,
        };
        let log = (self.log.clone(), self.holds.clone());
        let server = catch_up::Server::new(engine.clone(), log, snapshots, self.counts.clone());
        let (files, checkpoints) = (seams.files.clone(), self.checkpoints.clone());
        let shown = (self.warnings.clone(), self.counts.clone());
        let receiver = catch_up::Receiver::new(engine.clone(), files, checkpoints, shown);
        let parts = ReplicationParts {
            engine: engine.clone(),
            log: self.log.clone(),
            transport,
            membership,
            listener,
            randomness: seams.randomness.clone(),
            snapshots: SnapshotParts {
                server: Arc::new(server),
                receiver: Arc::new(receiver),
            },
            links: self.links.clone(),
            acks: self.acks.clone(),
            counts: self.counts.clone(),
            audits: self.audits.clone(),
            mender: Arc::new(self.checkpoints.clone()),
        };
        replication::start(parts, options)
    }
}

/// How peers are reached and found.
type Peers = (Box<dyn Listener>, Arc<dyn Transport>, Arc<dyn Membership>);

fn membership(
    config: &Config,
    home: Home,
    counts: Arc<Counts>,
) -> anyhow::Result<Arc<dyn Membership>> {
    let peers = &config.peers;
    if peers.membership == MembershipKind::Static {
        let listed = peers.static_peers.iter();
        let listed = listed.map(|peer| (peer.region.clone(), peer.address.clone()));
        return Ok(Arc::new(FixedMembership::new(listed)));
    }
    let regions = config.cluster.regions.iter().cloned();
    let options = GossipOptions {
        cluster: config.cluster.id.clone(),
        regions: (!config.cluster.regions.is_empty()).then(|| regions.collect()),
        interval: Duration::from_millis(peers.gossip_interval_ms),
        dead_after: Duration::from_millis(peers.dead_after_ms),
        forget_after: Duration::from_millis(peers.forget_after_ms),
    };
    let gossip = ChitchatMembership::start(home, options, counts);
    Ok(Arc::new(gossip.context("a thread for the gossip")?))
}

/// An empty folder with peers: reads are refused until a peer has answered, and all that it had then is
/// durable here. A restart before that goes on refusing them.
async fn become_ready(
    (engine, files): (Arc<Engine>, Arc<dyn Files>),
    mut answers: watch::Receiver<PeerAnswers>,
    stop: CancellationToken,
) {
    let waiting = async {
        let mut published = engine.board().subscribe();
        while engine.serving() == Serving::Rebuilding {
            let newest = engine.board().newest();
            let covers = |answer: &PeerAnswer| newest.vector.covers_all(&answer.frontier);
            if answers.borrow_and_update().values().any(covers) {
                tracing::info!("ready: all that a peer had is here");
                engine.set_serving(Serving::Ready);
                if let Err(error) = rebuild::finish(files.as_ref()).await {
                    tracing::warn!(%error, "the next start waits for a peer once more");
                }
                return;
            }
            tokio::select! {
                changed = answers.changed() => if changed.is_err() { return },
                changed = published.changed() => if changed.is_err() { return },
            }
        }
    };
    stop.run_until_cancelled(waiting).await;
}

fn replication_options(config: &Config) -> ReplicationOptions {
    let peers = &config.peers;
    config
        .replication
        .options(peers, &config.cluster.regions, &config.audit)
}

fn api_limits(config: &Config) -> ApiLimits {
    ApiLimits {
        wait_default: Duration::from_millis(config.reads.wait_default_ms),
        wait_max: Duration::from_millis(config.reads.wait_max_ms),
        waiting_max: config.reads.waiting_max,
        in_flight_max: config.client.requests_in_flight_max,
    }
}

fn say_recovered(report: &RecoveryReport) {
    tracing::info!(
        posts = report.posts,
        records_replayed = report.log.records,
        is_new = report.is_new,
        "the folder is open"
    );
    if let Some(tail) = &report.log.torn_tail {
        tracing::warn!(
            file = tail.file,
            offset = tail.offset,
            bytes = tail.bytes,
            "the last group of the log was torn and is cut off; it was never acknowledged"
        );
    }
    for file in &report.log.unusable {
        tracing::warn!(
            file,
            "an old log segment cannot be read; only peers far behind would need it"
        );
    }
}

/// The log writer's loop, and word of its failure.
fn watch_log(
    committer: Committer,
) -> (
    impl Future<Output = ()> + Send,
    oneshot::Receiver<AppendError>,
) {
    let (failed, log_failed) = oneshot::channel();
    let committing = async move {
        if let Err(error) = committer.run().await
            && let Err(error) = failed.send(error)
        {
            tracing::debug!(%error, "the log failed while the node was stopping");
        }
    };
    (committing, log_failed)
}

impl RunningNode {
    /// Waits until the log fails. The node serves reads and what is durable all the same, but balancers
    /// are told to look elsewhere.
    pub async fn log_failed(&mut self) -> AppendError {
        let Ok(error) = (&mut self.log_failed).await else {
            return std::future::pending().await;
        };
        self.health.withdraw().await;
        error
    }

    /// Stops in order. Everything acknowledged is durable before; the checkpoint makes the next start short.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop_clients.cancel();
        self.clients.await.context("the clients' listener")??;
        self.replication.shutdown().await;
        self.engine.queue().close(Refused::Stopping);
        if self.engine.queue().closed() == Some(Refused::Poisoned) {
            return Ok(());
        }
        if let Ok(finished) = self.checkpoints.finish().await
            && let Err(error) = finished
        {
            tracing::warn!(%error, "no checkpoint at the end; the next start replays the log");
        }
        for worker in self.workers {
            let name = worker.name();
            if worker.await.is_err() {
                tracing::warn!(worker = name, "a worker ended before its work did");
            }
        }
        Ok(())
    }
}
