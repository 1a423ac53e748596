//! The checkpointer's worker: a checkpoint by time or by bytes of log, merges of staged snapshots in
//! between, and a last checkpoint at the end. One thing at a time: a merge takes its own checkpoint.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::adapters::allocator;
use crate::counts::Counts;
use crate::crdt::fingerprint::{Fingerprint, RANGES};
use crate::crdt::ranges::RangeSet;
use crate::engine::checkpoint::{CheckpointError, Checkpointer};
use crate::engine::commit::Refused;
use crate::engine::mending::{Checked, Hearsay, MendError, Mender, Outcome, Taken};
use crate::engine::merge::{MergeError, merge_stage};
use crate::engine::rebuild::RebuiltRange;
use crate::engine::stage;
use crate::engine::{Engine, Settlement};
use crate::log::{LogReader, Position};
use crate::node::gauges::Warnings;
use crate::replication::audits::Audits;
use crate::replication::mending::{Mending, RangeMender};
use crate::replication::staged::StagedSnapshot;
use crate::seams::Files;

/// How often the bytes of log are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long what was looked at for one peer is good for the next.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How long after a failure a merge is tried again.
const MERGE_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Jobs that wait; who asks for more waits with them.
const JOBS_MAX: usize = 1;
/// A checkpoint of so many bytes takes memory that is worth giving back.
const MUCH_BYTES: usize = 1 << 20;

enum Job {
    Merge(oneshot::Sender<Result<(), MergeError>>),
    Check(usize, Hearsay, oneshot::Sender<Result<Checked, MendError>>),
    Keep(usize, oneshot::Sender<Result<Taken, MendError>>),
    Look(RangeSet, oneshot::Sender<Result<(), MendError>>),
    Take(
        Box<RebuiltRange>,
        Option<Fingerprint>,
        oneshot::Sender<Result<Taken, MendError>>,
    ),
    Finish(oneshot::Sender<Result<(), CheckpointError>>),
}

/// Speaks to the worker.
#[derive(Clone)]
pub struct Checkpoints {
    jobs: mpsc::Sender<Job>,
}

/// The worker has ended.
#[derive(Debug, thiserror::Error)]
#[error("the checkpointer has ended")]
pub struct Ended;

impl Checkpoints {
    /// Merges the staged snapshot, and returns when a checkpoint holds it.
    pub async fn merge(&self) -> Result<Result<(), MergeError>, Ended> {
        self.ask(Job::Merge).await
    }

    /// Makes the last checkpoint; the worker ends.
    pub async fn finish(&self) -> Result<Result<(), CheckpointError>, Ended> {
        self.ask(Job::Finish).await
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, Ended> {
        let (done, outcome) = oneshot::channel();
        self.jobs.send(job(done)).await.map_err(|_| Ended)?;
        outcome.await.map_err(|_| Ended)
    }

    fn mend<T: Send + 'static>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, MendError>>) -> Job + Send + 'static,
    ) -> Mending<'_, T> {
        Box::pin(async move { self.ask(job).await.map_err(|_| Refused::Stopping)? })
    }
}

impl RangeMender for Checkpoints {
    fn check(&self, range: usize, hearsay: Hearsay) -> Mending<'_, Checked> {
        self.mend(move |done| Job::Check(range, hearsay, done))
    }

    fn look(&self, ranges: RangeSet) -> Mending<'_, ()> {
        self.mend(move |done| Job::Look(ranges, done))
    }

    fn keep(&self, range: usize) -> Mending<'_, Taken> {
        self.mend(move |done| Job::Keep(range, done))
    }

    fn take(&self, range: RebuiltRange, expected: Option<Fingerprint>) -> Mending<'_, Taken> {
        self.mend(move |done| Job::Take(Box::new(range), expected, done))
    }
}

/// Who asked may have gone meanwhile.
fn answer<T>(done: oneshot::Sender<T>, outcome: T) {
    if done.send(outcome).is_err() {
        tracing::debug!("nobody waits any more for what the checkpointer did");
    }
}

/// When a checkpoint is due.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub interval: Duration,
    pub log_bytes: u64,
    /// In this time all ranges are scrubbed.
    pub scrub: Duration,
}

impl Pace {
    fn scrub_pause(&self) -> Duration {
        self.scrub / RANGES as u32
    }
}

/// What the worker does next without being asked.
struct Due {
    /// When it is looked whether a checkpoint is due.
    look: Instant,
    scrub: Instant,
    /// The range that is scrubbed then.
    range: usize,
    /// When the last checkpoint was made, and how far the log was.
    last: (Instant, Position),
}

pub struct CheckpointWorker {
    pub engine: Arc<Engine>,
    pub checkpointer: Checkpointer,
    pub files: Arc<dyn Files>,
    pub log: LogReader,
    pub warnings: Arc<Warnings>,
    pub pace: Pace,
    pub mender: Mender,
    pub audits: Arc<Audits>,
    pub counts: Arc<Counts>,
    /// By range, when it was last looked at for a peer.
    pub looked: Box<[Option<Instant>]>,
}

impl CheckpointWorker {
    /// The worker's loop, and the handle to speak to it.
    pub fn start(self) -> (Checkpoints, impl Future<Output = ()> + Send) {
        let (sender, jobs) = mpsc::channel(JOBS_MAX);
        (Checkpoints { jobs: sender }, self.run(jobs))
    }

    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let now = Instant::now();
        let mut due = Due {
            look: now + LOOK_EVERY,
            scrub: now + self.pace.scrub_pause(),
            range: 0,
            last: (now, self.log.synced()),
        };
        loop {
            let at = due.look.min(due.scrub);
            if at <= Instant::now() {
                // However many jobs wait: those who ask must not keep the log from being cut.
                self.tend(&mut due).await;
                continue;
            }
            match tokio::time::timeout_at(at, jobs.recv()).await {
                Ok(Some(job)) => {
                    let is_last = matches!(job, Job::Finish(_));
                    self.perform(job).await;
                    if is_last {
                        return;
                    }
                }
                Ok(None) => return,
                Err(_) => {}
            }
        }
    }

    async fn perform(&mut self, job: Job) {
        match job {
            Job::Merge(done) => answer(done, self.merge().await),
            Job::Check(range, hearsay, done) => {
                let outcome = self.mender.check(range, &hearsay).await;
                let rows =
                    matches!(&outcome, Ok(checked) if checked.outcome == Outcome::RowsMended);
                answer(done, outcome);
                if rows {
                    self.checkpoint().await;
                }
            }
            Job::Look(_, done) if done.is_closed() => {}
            Job::Look(ranges, done) => answer(done, self.look(ranges).await),
            Job::Keep(range, done) => answer(done, self.keep(range).await),
            Job::Take(range, expected, done) => {
                answer(done, self.mender.take(*range, expected).await);
            }
            Job::Finish(done) => answer(done, self.last_checkpoint().await),
        }
    }

    /// What time brings: a scrub, a checkpoint, a cut of the log.
    async fn tend(&mut self, due: &mut Due) {
        // Who filled the disk may have left it, and nobody says so.
        self.engine.queue().room().retry();
        if due.scrub <= Instant::now() {
            self.scrub(due.range).await;
            let next = due.scrub + self.pace.scrub_pause();
            due.scrub = next.max(Instant::now());
            due.range = (due.range + 1) % RANGES;
        }
        let grown = self.log.synced().0 - due.last.1.0;
        let is_due = due.last.0.elapsed() >= self.pace.interval || grown >= self.pace.log_bytes;
        let is_settled = self.engine.settlement() == Settlement::Settled;
        match (is_due && is_settled, grown > 0) {
            (true, true) => self.checkpoint().await,
            (true, false) => self.cut().await,
            (false, _) => {}
        }
        if is_due {
            due.last = (Instant::now(), self.log.synced());
        }
        due.look = Instant::now() + LOOK_EVERY;
    }

    async fn checkpoint(&mut self) {
        let began = Instant::now();
        match self.checkpointer.checkpoint().await {
            Ok(report) => {
                let millis = began.elapsed().as_millis() as u64;
                tracing::info!(
                    rows = report.rows,
                    bytes = report.bytes,
                    segments_removed = report.segments_removed,
                    millis,
                    "checkpoint"
                );
                self.warnings.set_checkpoint(None);
                if report.bytes >= MUCH_BYTES {
                    allocator::give_back();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the checkpoint failed; the one before it stays");
                self.warnings
                    .set_checkpoint(Some(format!("the last checkpoint failed: {error}")));
            }
        }
    }

    /// Nothing was written, but peers may have acknowledged what was, or it has become old.
    async fn cut(&mut self) {
        match self.checkpointer.cut().await {
            Ok(0) => {}
            Ok(segments_removed) => tracing::info!(segments_removed, "the log is cut"),
            Err(error) => tracing::warn!(%error, "the log is not cut"),
        }
    }

    /// Looks at one range. What is not as it should be is told, or written again where that suffices.
    async fn scrub(&mut self, range: usize) {
        let is_open = self.engine.queue().closed().is_none();
        if self.engine.settlement() != Settlement::Settled || !is_open {
            return;
        }
        match self.mender.scrub(range, self.checkpointer.is_sure()).await {
            Ok(checked) => {
                self.counts.ranges_scrubbed.one_more();
                match checked.outcome {
                    Outcome::Sound => {}
                    Outcome::RowsMended => {
                        self.audits.note_rows_mended(&checked);
                        self.checkpoint().await;
                    }
                    _ => self.audits.suspect(&checked),
                }
            }
            Err(error) => tracing::warn!(range, %error, "a range was not looked at"),
        }
    }

    /// What was looked at a moment ago is not looked at again for the next peer.
    async fn look(&mut self, ranges: RangeSet) -> Result<(), MendError> {
        for range in ranges.iter() {
            let is_fresh = self.looked[range].is_some_and(|at| at.elapsed() < LOOK_AGAIN_AFTER);
            if is_fresh || !self.mender.is_small(range) {
                continue;
            }
            let checked = self.mender.scrub(range, false).await?;
            if checked.outcome != Outcome::Sound {
                self.audits.suspect(&checked);
            }
            self.looked[range] = Some(Instant::now());
        }
        Ok(())
    }

    /// A checkpoint holds it before the operator is told.
    async fn keep(&mut self, range: usize) -> Result<Taken, MendError> {
        let kept = self.mender.keep(range).await?;
        self.checkpoint().await;
        Ok(kept)
    }

    /// An unsettled node takes no checkpoint but the merge's.
    async fn last_checkpoint(&mut self) -> Result<(), CheckpointError> {
        if self.engine.settlement() == Settlement::Settled {
            self.checkpointer.checkpoint().await?;
        }
        Ok(())
    }

    /// Once it has begun, a merge is tried again until it succeeds: half of it is in memory, and the
    /// replicas that it raises are held. One that cannot begin is dropped.
    async fn merge(&mut self) -> Result<(), MergeError> {
        loop {
            let outcome = self.try_merge().await;
            let has_begun = self.engine.settlement() == Settlement::Merging;
            let is_open = self.engine.queue().closed().is_none();
            match outcome {
                Err(error) if has_begun && is_open && !error.is_of_the_stage() => {
                    tracing::warn!(%error, "merging a snapshot failed; it is tried again");
                    self.warnings
                        .set_snapshot(Some(format!("merging a snapshot failed: {error}")));
                    tokio::time::sleep(MERGE_AGAIN_AFTER).await;
                }
                Err(error) if error.is_of_the_stage() => {
                    stage::clear(self.files.as_ref()).await?;
                    return Err(error);
                }
                Err(error) => return Err(error),
                Ok(()) => {
                    self.warnings.set_snapshot(None);
                    return Ok(stage::clear(self.files.as_ref()).await?);
                }
            }
        }
    }

    async fn try_merge(&mut self) -> Result<(), MergeError> {
        let stage = StagedSnapshot {
            engine: self.engine.clone(),
            files: self.files.clone(),
        };
        merge_stage(&self.engine, &mut self.checkpointer, &stage).await
    }
}
