//! Stages snapshots and has them merged; what breaks off is kept, and gone on with.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use tokio::sync::Mutex;

use crate::counts::Counts;
use crate::crdt::fingerprint::{Fingerprint, RANGES};
use crate::engine::snapshot::{CourseError, Progress, Resume};
use crate::engine::{Engine, Settlement, stage};
use crate::ids::Replica;
use crate::node::checkpoints::Checkpoints;
use crate::node::gauges::Warnings;
use crate::replication::catch_up::{
    Ask, SnapshotBroken, SnapshotFault, SnapshotReceiver, SnapshotStream,
};
use crate::replication::parts;
use crate::replication::staging::{Staging, StagingError};
use crate::seams::Files;
use crate::wire::frames::write_replica;
use crate::wire::replication::SnapshotRequest;

pub struct Receiver {
    engine: Arc<Engine>,
    files: Arc<dyn Files>,
    checkpoints: Checkpoints,
    warnings: Arc<Warnings>,
    counts: Arc<Counts>,
    /// Held while a snapshot is received, and while it is decided what to ask for.
    broken: Mutex<Broken>,
}

/// What broke off.
enum Broken {
    /// Only the stage knows: the process has just started, or was interrupted while it received.
    Unknown,
    Nothing,
    Staging(Box<Staging>),
}

fn fault(error: impl std::fmt::Display) -> SnapshotFault {
    SnapshotFault(error.to_string())
}

fn stage_fault(error: io::Error) -> SnapshotFault {
    SnapshotFault(format!("the stage failed: {error}"))
}

impl Receiver {
    pub fn new(
        engine: Arc<Engine>,
        files: Arc<dyn Files>,
        checkpoints: Checkpoints,
        (warnings, counts): (Arc<Warnings>, Arc<Counts>),
    ) -> Self {
        Self {
            engine,
            files,
            checkpoints,
            warnings,
            counts,
            broken: Mutex::new(Broken::Unknown),
        }
    }

    /// What broke off and can be gone on with. What is of no use any more is dropped.
    async fn resumable(&self, broken: &mut Broken) -> io::Result<Option<Resume>> {
        if let Broken::Unknown = broken {
            let found = Staging::recover(self.engine.clone(), self.files.clone()).await?;
            *broken = match found {
                Some(staging) => {
                    self.say_broken(&staging, "this node was stopped");
                    Broken::Staging(Box::new(staging))
                }
                None => self.drop_stage().await?,
            };
        }
        let Broken::Staging(staging) = broken else {
            return Ok(None);
        };
        let resume = staging.course.resume();
        let durable = self.engine.board().newest();
        // Logs have brought all that it would: it is obsolete.
        let resume = resume.filter(|resume| !durable.vector.covers_all(&resume.frontier));
        if resume.is_none() {
            *broken = self.drop_stage().await?;
        }
        Ok(resume)
    }

    fn say_broken(&self, staging: &Staging, why: &str) {
        let bytes = staging.bytes();
        self.warnings.set_taking(Some(format!(
            "a snapshot broke off after {bytes} bytes ({why}); it goes on with the next peer that can"
        )));
    }

    /// Drops what there may be on the disk.
    async fn drop_stage(&self) -> io::Result<Broken> {
        if stage::drop_incoming(self.files.as_ref()).await? {
            self.counts.stages_dropped.one_more();
        }
        self.warnings.set_taking(None);
        Ok(Broken::Nothing)
    }

    /// Sums of the ranges that hold anything, where they say all that is here.
    fn held(&self) -> Vec<(usize, Fingerprint)> {
        let durable = self.engine.board().newest();
        if self.engine.settlement() != Settlement::Settled {
            return Vec::new();
        }
        let sums = (0..RANGES).map(|range| (range, durable.sums.range(range)));
        sums.filter(|(_, sum)| *sum != Fingerprint::default())
            .collect()
    }

    fn request(&self, resume: Option<&Resume>) -> SnapshotRequest {
        let replicas = self.engine.replicas().all();
        let protocol = &self.engine.options().dialect.protocol;
        SnapshotRequest {
            protocol_min: *protocol.start(),
            protocol_max: *protocol.end(),
            cluster: self.engine.cluster().as_str().to_owned(),
            replica: Some(write_replica(&self.engine.own())),
            resume: resume.map(|resume| parts::write_resume(resume, &replicas)),
            held: match resume {
                Some(_) => Vec::new(),
                None => parts::write_held(&self.held()),
            },
            only: Vec::new(),
        }
    }

    /// The stage that the parts go to.
    async fn staging(&self, broken: &mut Broken, ask: &Ask) -> Result<Staging, StagingError> {
        match std::mem::replace(broken, Broken::Unknown) {
            Broken::Staging(staging) if ask.needs.is_some() => Ok(*staging),
            _ => Staging::begin(self.engine.clone(), self.files.clone(), &ask.request).await,
        }
    }

    /// Stages until the end. Counts the parts that came.
    async fn stage(
        &self,
        staging: &mut Staging,
        from: &Replica,
        (stream, came): (&mut SnapshotStream, &mut usize),
    ) -> Result<(), StageBroken> {
        loop {
            let part = stream.next().await.ok_or(StageBroken::Peer(SnapshotFault(
                "the snapshot ended before its end".to_owned(),
            )))?;
            let is_end = staging.take(part.map_err(StageBroken::Peer)?).await;
            let is_end = is_end.map_err(StageBroken::Staging)?;
            *came += 1;
            if is_end {
                return Ok(());
            }
            let Progress { posts, blocks } = staging.course.progress();
            let bytes = staging.bytes();
            self.warnings.set_taking(Some(format!(
                "a snapshot from {from} is being taken: {bytes} bytes so far, {posts} posts, {blocks} \
                 blocks of log"
            )));
        }
    }

    /// Keeps what is here, unless that is worth nothing.
    async fn keep(&self, staging: Option<Staging>, failed: &StageBroken) -> io::Result<Broken> {
        if let StageBroken::Staging(StagingError::Course(CourseError::Alarm { claimed, made })) =
            failed
        {
            let fresh = self.engine.rotate_epoch();
            self.counts.alarms.one_more();
            tracing::error!(claimed, made, %fresh, "a snapshot speaks of events of this node's running replica \
                that it never made: another process runs under its identity. This node goes on under a fresh \
                epoch");
            return self.drop_stage().await;
        }
        match (staging, failed) {
            (Some(mut staging), StageBroken::Peer(_))
            | (Some(mut staging), StageBroken::Staging(StagingError::Course(_)))
            | (Some(mut staging), StageBroken::Staging(StagingError::Decode(_))) => {
                staging.suspend().await?;
                self.say_broken(&staging, &failed.to_string());
                Ok(Broken::Staging(Box::new(staging)))
            }
            (_, StageBroken::Staging(StagingError::Stage(_))) | (None, _) => {
                self.drop_stage().await
            }
        }
    }

    async fn merge(&self, staging: Staging) -> Result<(), SnapshotFault> {
        staging.finish().await.map_err(stage_fault)?;
        self.warnings.set_taking(None);
        let merged = self.checkpoints.merge().await.map_err(fault)?;
        merged.map_err(fault)?;
        self.counts.snapshots_merged.one_more();
        Ok(())
    }

    async fn receive(
        &self,
        from: &Replica,
        ask: Ask,
        mut stream: SnapshotStream,
    ) -> Result<(), SnapshotBroken> {
        let broken_without = |why| SnapshotBroken {
            why,
            has_progressed: false,
        };
        if self.engine.settlement() != Settlement::Settled {
            let why = "another snapshot is being merged";
            return Err(broken_without(fault(why)));
        }
        let mut broken = self.broken.lock().await;
        let begun = self.staging(&mut broken, &ask).await;
        let mut staging = begun.map_err(|error| broken_without(fault(error)))?;
        if ask.needs.is_some() {
            self.counts.snapshots_resumed.one_more();
        }
        let mut came = 0;
        let staged = self.stage(&mut staging, from, (&mut stream, &mut came));
        let Err(failed) = staged.await else {
            *broken = Broken::Nothing;
            let merged = self.merge(staging).await;
            return merged.map_err(broken_without);
        };
        self.counts.snapshots_broken.one_more();
        *broken = match self.keep(Some(staging), &failed).await {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(%error, "what broke off of a snapshot cannot be kept");
                Broken::Unknown
            }
        };
        Err(SnapshotBroken {
            why: fault(failed),
            // The first part is but the beginning.
            has_progressed: came > 1,
        })
    }
}

/// Why staging ended.
#[derive(Debug, thiserror::Error)]
enum StageBroken {
    #[error("{0}")]
    Peer(SnapshotFault),
    #[error("{0}")]
    Staging(StagingError),
}

type Answering<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl SnapshotReceiver for Receiver {
    fn ask(&self) -> Answering<'_, Result<Ask, SnapshotFault>> {
        Box::pin(async move {
            let mut broken = self.broken.lock().await;
            let resume = self.resumable(&mut broken).await.map_err(stage_fault)?;
            let request = self.request(resume.as_ref());
            let needs = resume.map(|resume| {
                let mut needs = resume.frontier;
                needs.join(&resume.shows);
                needs
            });
            Ok(Ask { request, needs })
        })
    }

    fn begin_anew(&self) -> Answering<'_, Result<(), SnapshotFault>> {
        Box::pin(async move {
            let mut broken = self.broken.lock().await;
            *broken = self.drop_stage().await.map_err(stage_fault)?;
            Ok(())
        })
    }

    fn receive<'a>(
        &'a self,
        from: &'a Replica,
        ask: Ask,
        stream: SnapshotStream,
    ) -> Answering<'a, Result<(), SnapshotBroken>> {
        Box::pin(self.receive(from, ask, stream))
    }
}
