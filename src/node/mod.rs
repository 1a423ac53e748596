//! A node: wires the parts together, starts them in order, and stops them in the other.
//!
//! Start: lock the folder → checkpoint + replay → workers (log writer, spare segments, checkpointer) →
//! clients' listener → a staged snapshot is merged → sessions with peers. Stop: not ready, stop
//! accepting → close sessions → drain commits → checkpoint → exit code. Business logic is elsewhere.

mod catch_up;
mod checkpoints;
mod gauges;
mod keeping;
mod membership;
mod network;
mod options;
mod rebuild;
mod run;
pub mod storage;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::adapters::chitchat_membership::Home;
use crate::address::PeerAddress;
use crate::api::health::Health;
use crate::api::server::ServeError;
use crate::config::Config;
use crate::counts::Counts;
use crate::engine::commit::Refused;
use crate::engine::recovery::RecoveryReport;
use crate::engine::{Engine, Serving, Settlement};
use crate::log::{AppendError, LogReader};
use crate::logging;
use crate::node::checkpoints::Checkpoints;
use crate::node::keeping::Keeping;
use crate::node::membership::membership;
use crate::node::options::replication_options;
use crate::node::storage::Storage;
use crate::replication::audits::Audits;
use crate::replication::{PeerAnswer, PeerAnswers, RunningReplication};
use crate::seams::files::{Files, LockGuard};
use crate::seams::{Listener, Transport, WorkerHandle, Workers};

pub use options::engine_options;
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
    /// Ranges on which regions differ, and the operator's choices.
    pub audits: Arc<Audits>,
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
        audits: keeping.audits,
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
