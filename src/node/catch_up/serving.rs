//! Serves snapshots of the engine.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::counts::Counts;
use crate::engine::Engine;
use crate::engine::checkpoint::{LogHold, LogHolds};
use crate::engine::snapshot::{Snapshot, SnapshotError, SnapshotOptions, Wanted};
use crate::ids::Replica;
use crate::limits::{SNAPSHOT_KEPT, SNAPSHOTS_KEPT_MAX, SNAPSHOTS_SERVED_MAX};
use crate::log::LogReader;
use crate::replication::catch_up::{
    SnapshotFault, SnapshotRefused, SnapshotServer, SnapshotStream,
};
use crate::replication::parts;
use crate::wire::replication::SnapshotResponse;

pub struct Server {
    engine: Arc<Engine>,
    log: LogReader,
    holds: Arc<LogHolds>,
    options: SnapshotOptions,
    counts: Arc<Counts>,
    places: Arc<Semaphore>,
    kept: Arc<Kept>,
}

impl Server {
    pub fn new(
        engine: Arc<Engine>,
        (log, holds): (LogReader, Arc<LogHolds>),
        options: SnapshotOptions,
        counts: Arc<Counts>,
    ) -> Self {
        let places = Arc::new(Semaphore::new(SNAPSHOTS_SERVED_MAX));
        Self {
            engine,
            log,
            holds,
            options,
            counts,
            places,
            kept: Arc::default(),
        }
    }
}

/// The log is kept for a while for snapshots that broke off, so that they can go on. At most
/// `SNAPSHOTS_KEPT_MAX`, for `SNAPSHOT_KEPT`; the oldest goes first.
#[derive(Default)]
struct Kept {
    holds: Mutex<VecDeque<(Instant, LogHold)>>,
}

impl Kept {
    fn keep(self: &Arc<Self>, hold: LogHold) {
        let mut holds = self.holds.lock();
        holds.push_back((Instant::now() + SNAPSHOT_KEPT, hold));
        if holds.len() > SNAPSHOTS_KEPT_MAX {
            holds.pop_front();
        }
        drop(holds);
        let kept = Arc::downgrade(self);
        // Without a runtime the process is ending, and the holds with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(SNAPSHOT_KEPT).await;
                if let Some(kept) = kept.upgrade() {
                    kept.drop_old();
                }
            });
        }
    }

    fn drop_old(&self) {
        let now = Instant::now();
        self.holds.lock().retain(|(until, _)| *until > now);
    }
}

/// A snapshot on its way to a peer.
struct Serving {
    engine: Arc<Engine>,
    /// Taken out when it is dropped.
    snapshot: Option<Snapshot>,
    counts: Arc<Counts>,
    kept: Arc<Kept>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let snapshot = self.snapshot.take();
        if let Some(broken) = snapshot.filter(|snapshot| !snapshot.is_done()) {
            self.counts.snapshots_broken.one_more();
            self.kept.keep(broken.into_hold());
        }
    }
}

impl SnapshotServer for Server {
    fn open(&self, asker: &Replica, wanted: Wanted) -> Result<SnapshotStream, SnapshotRefused> {
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| SnapshotRefused::Busy)?;
        let goes_on = wanted.resume.is_some();
        let (engine, log) = (self.engine.clone(), self.log.clone());
        let begun = Snapshot::begin(engine.clone(), log, &self.holds, self.options, wanted);
        let snapshot = begun.map_err(|error| refusal(&error))?;
        tracing::info!(peer = %asker, goes_on, "serving a snapshot");
        if goes_on {
            self.counts.snapshots_resumed.one_more();
        }
        let serving = Serving {
            engine,
            snapshot: Some(snapshot),
            counts: self.counts.clone(),
            kept: self.kept.clone(),
            _place: place,
        };
        Ok(Box::pin(stream::unfold(Some(serving), next_part)))
    }
}

fn refusal(error: &SnapshotError) -> SnapshotRefused {
    match error {
        SnapshotError::NotCovered => SnapshotRefused::NotCovered,
        SnapshotError::Cut | SnapshotError::TooMuchLog { .. } => SnapshotRefused::Gone,
        SnapshotError::Doubted { .. } => SnapshotRefused::Doubted,
        SnapshotError::Unsettled
        | SnapshotError::Log(_)
        | SnapshotError::Tail(_)
        | SnapshotError::Record(_) => SnapshotRefused::Unsettled,
    }
}

/// The next part; an error is the last.
async fn next_part(
    serving: Option<Serving>,
) -> Option<(Result<SnapshotResponse, SnapshotFault>, Option<Serving>)> {
    let mut serving = serving?;
    match serving.snapshot.as_mut()?.next().await {
        Ok(None) => None,
        Ok(Some(part)) => {
            let replicas = serving.engine.replicas().all();
            Some((Ok(parts::write(part, &replicas)), Some(serving)))
        }
        Err(error) => Some((Err(fault(&error)), None)),
    }
}

fn fault(error: &SnapshotError) -> SnapshotFault {
    tracing::warn!(%error, "a snapshot that was being served ended early");
    SnapshotFault(error.to_string())
}
