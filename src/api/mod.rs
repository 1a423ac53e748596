//! The clients' services: checked requests → engine → answers.
//!
//! What all calls share stands here: who may work at once, who may wait, what a token of the caller
//! demands, and when the node has something to say. The services know the engine's interface and what
//! is known of the links; they know no disk, no peer and no configuration file.

mod admin;
mod answers;
mod batches;
mod counters;
mod door;
pub mod error;
mod explain;
pub mod health;
mod likers;
mod likes;
mod malformed;
mod reads;
mod retire;
pub mod server;
mod status;
mod tokens;
mod wait;
mod watch;
mod work;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::error::ApiError;
use crate::api::work::Workload;
use crate::codec::text::NamedSeq;
use crate::counts::Counts;
use crate::engine::command::{Command, Write};
use crate::engine::write::Written;
use crate::engine::{Engine, Serving};
use crate::limits::EXPLANATIONS_MAX;
use crate::replication::audits::Audits;
use crate::replication::links::LinkBoard;
use crate::replication::regions::RegionBoard;

/// Bounds of the calls that are under way.
#[derive(Debug, Clone)]
pub struct ApiLimits {
    /// How long a read with a token waits when it does not say.
    pub wait_default: Duration,
    /// How long anything waits at most, whatever it says.
    pub wait_max: Duration,
    /// Calls that wait at once, for a token to be covered or the node to be ready; a further one is
    /// refused with OVERLOADED.
    pub waiting_max: usize,
    /// Calls and batches that are worked on at once; a further one is refused with OVERLOADED.
    pub in_flight_max: usize,
    /// Their items, of which a call has at least one; a further call is refused with OVERLOADED.
    pub items_in_flight_max: usize,
}

/// What the status tells of parts that the services do not know.
pub trait Gauges: Send + Sync + 'static {
    /// Bytes of commit log on the disk.
    fn log_bytes(&self) -> u64;

    /// What an operator should look at, such as a checkpoint that failed. One sentence each.
    fn warnings(&self) -> Vec<String>;
}

/// Behind the three services. Shared by all connections.
pub struct Api {
    engine: Arc<Engine>,
    links: Arc<LinkBoard>,
    regions: Arc<RegionBoard>,
    audits: Arc<Audits>,
    gauges: Arc<dyn Gauges>,
    counts: Arc<Counts>,
    limits: ApiLimits,
    waiting: Semaphore,
    load: Workload,
    explaining: Semaphore,
    /// Writes that go on though their caller has left.
    writes: TaskTracker,
    /// Cancelled when the node stops: waits and streams end, calls under way are finished.
    shutdown: CancellationToken,
    started_at_ms: u64,
}

impl Api {
    pub fn new(
        engine: Arc<Engine>,
        (links, regions, audits): (Arc<LinkBoard>, Arc<RegionBoard>, Arc<Audits>),
        (gauges, counts): (Arc<dyn Gauges>, Arc<Counts>),
        limits: ApiLimits,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let permits = |max: usize| Semaphore::new(max.min(Semaphore::MAX_PERMITS));
        Arc::new(Self {
            started_at_ms: engine.now_ms(),
            waiting: permits(limits.waiting_max),
            load: Workload::new(&limits),
            explaining: permits(EXPLANATIONS_MAX),
            writes: TaskTracker::new(),
            engine,
            links,
            regions,
            audits,
            gauges,
            counts,
            limits,
            shutdown,
        })
    }

    fn enter_waiting(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        self.waiting
            .try_acquire()
            .map_err(|_| ApiError::Overloaded {
                what: "waiting calls",
                max: self.limits.waiting_max,
            })
    }

    /// Waits until what the caller has seen is covered here; none leaves the length to the node.
    async fn cover(&self, seen: &[NamedSeq], wait: Option<Duration>) -> Result<(), ApiError> {
        if self.engine.board().newest().covers(seen) {
            return Ok(());
        }
        let wait = wait.unwrap_or(self.limits.wait_default);
        let _waiting = self.enter_waiting()?;
        tokio::select! {
            // Whatever else is true: a stopping node keeps nobody waiting.
            biased;
            () = self.shutdown.cancelled() => Err(ApiError::Stopping),
            covered = self.engine.wait_covered(seen, wait.min(self.limits.wait_max)) => {
                Ok(covered.map(drop)?)
            }
        }
    }

    /// Refuses reads while they would show less than was once promised.
    fn check_readable(&self) -> Result<(), ApiError> {
        match self.engine.serving() {
            Serving::Ready => Ok(()),
            Serving::Rebuilding => Err(ApiError::Rebuilding),
        }
    }

    /// Waits until the node's state is that of its region, for a write that depends on it.
    async fn until_ready(&self) -> Result<(), ApiError> {
        let mut serving = self.engine.serving_changes();
        if *serving.borrow_and_update() == Serving::Ready {
            return Ok(());
        }
        let _waiting = self.enter_waiting()?;
        let ready = serving.wait_for(|serving| *serving == Serving::Ready);
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(ApiError::Stopping),
            ready = tokio::time::timeout(self.limits.wait_max, ready) => match ready {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(ApiError::Rebuilding),
            },
        }
    }

    /// Waits until the write can be applied as its caller means it: an unlike that goes by what this node
    /// sees must see what its region once held.
    async fn until_applicable(&self, write: &Write) -> Result<(), ApiError> {
        let by_sight = |command: &Command| matches!(command, Command::Unlike { named, .. } if named.is_empty());
        match write.commands.iter().any(by_sight) {
            true => self.until_ready().await,
            false => Ok(()),
        }
    }

    /// Applies a write and waits until it is durable. `applied` runs once all of it is in memory, and is
    /// dropped unused if it is refused.
    ///
    /// A write with a request id is not given up when its caller leaves: a retry, which may come at once,
    /// must find it under way and not begin it again.
    async fn write(
        self: &Arc<Self>,
        write: Arc<Write>,
        applied: impl FnOnce() + Send + 'static,
    ) -> Result<Written, ApiError> {
        if write.request.is_none() {
            return Ok(self.engine.write_noting(&write, applied).await?);
        }
        let engine = self.engine.clone();
        let write = async move { engine.write_noting(&write, applied).await };
        match self.writes.spawn(write).await {
            Ok(written) => Ok(written?),
            Err(error) => {
                tracing::error!(%error, "a write did not come to its end");
                Err(ApiError::OutcomeUnknown)
            }
        }
    }

    /// Waits for the writes whose callers have left.
    async fn finish_writes(&self) {
        self.writes.close();
        self.writes.wait().await;
    }
}
