//! What keeps the state durable: the workers, and what clients' and peers' sides need of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::api::health::Health;
use crate::api::server::{ConnectionLimits, ServeError, serve_clients};
use crate::api::{Api, Gauges};
use crate::config::Config;
use crate::counts::Counts;
use crate::crdt::fingerprint::RANGES;
use crate::crdt::version_vector::VersionVector;
use crate::engine::Engine;
use crate::engine::checkpoint::{Checkpointer, Kept, LogHolds, Retention};
use crate::engine::committer::Committer;
use crate::engine::mending::Mender;
use crate::engine::recovery::{EngineSeams, Recovered};
use crate::engine::snapshot::SnapshotOptions;
use crate::log::{AppendError, LogReader};
use crate::node::catch_up;
use crate::node::checkpoints::{CheckpointWorker, Checkpoints, Pace};
use crate::node::gauges::{NodeGauges, Warnings};
use crate::node::options::{api_limits, replication_options};
use crate::replication::ack_table::AckTable;
use crate::replication::audits::Audits;
use crate::replication::catch_up::SnapshotParts;
use crate::replication::links::LinkBoard;
use crate::replication::regions::RegionBoard;
use crate::replication::{self, ReplicationOptions, ReplicationParts, RunningReplication};
use crate::seams::{Listener, Membership, Transport, WorkerHandle, Workers};

/// What keeps the state durable, and what the listeners need of it.
pub(super) struct Keeping {
    engine: Arc<Engine>,
    pub(super) log: LogReader,
    holds: Arc<LogHolds>,
    acks: Arc<AckTable>,
    links: Arc<LinkBoard>,
    regions: Arc<RegionBoard>,
    warnings: Arc<Warnings>,
    pub counts: Arc<Counts>,
    pub(super) audits: Arc<Audits>,
    pub checkpoints: Checkpoints,
    pub workers: Vec<WorkerHandle>,
}

/// How peers are reached and found.
pub(super) type Peers = (Box<dyn Listener>, Arc<dyn Transport>, Arc<dyn Membership>);

impl Keeping {
    /// Starts the workers: log writer, spare segments, checkpointer.
    pub fn start(
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
            looked: vec![None; RANGES].into(),
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

    pub fn serve_clients(
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

    pub fn replicate(
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
