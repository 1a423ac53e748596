//! Starting an engine: the folder's identity, then checkpoint + replay of later log records.
//!
//! Both may overlap: rows may already show events that the log repeats, and figures are results, not
//! steps, so repeating them is harmless. Entries are looked at by nobody until all is replayed.

use std::io;
use std::sync::Arc;

use crate::codec::DecodeError;
use crate::codec::reader::Reader;
use crate::codec::vector::{entries, frontier};
use crate::crdt::dot::Dot;
use crate::crdt::fingerprint::RangeSums;
use crate::crdt::version_vector::VersionVector;
use crate::engine::committer::Committer;
use crate::engine::loading::Loading;
use crate::engine::record::read_done;
use crate::engine::replay::Replay;
use crate::engine::requests::Done;
use crate::engine::rows::{self, MetaRow, RowError};
use crate::engine::stage;
use crate::engine::{Engine, EngineOptions, Settlement};
use crate::ids::{PostId, RequestId, UserId};
use crate::limits::REPLICAS_MAX;
use crate::log::{
    self, LogIdentity, LogOptions, LogReader, LogReport, LogSeams, LogTrimmer, OpenError,
    OpenedLog, Position, SparePreparer,
};
#[cfg(feature = "sim")]
use crate::planted::{Bug, is_planted};
use crate::seams::{CheckpointStore, Clock, Cores, Files, Randomness};

/// Rows that are read from the store at a time.
const SCAN_ROWS: usize = 256;

/// What an engine stands on.
#[derive(Clone)]
pub struct EngineSeams {
    pub files: Arc<dyn Files>,
    pub store: Arc<dyn CheckpointStore>,
    pub clock: Arc<dyn Clock>,
    pub randomness: Arc<dyn Randomness>,
    /// Who may share the work of a start.
    pub cores: Cores,
}

/// A started engine and the parts that want workers of their own.
pub struct Recovered {
    pub engine: Arc<Engine>,
    pub committer: Committer,
    pub reader: LogReader,
    pub trimmer: LogTrimmer,
    pub preparer: SparePreparer,
    pub report: RecoveryReport,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Neither a checkpoint nor a log: nothing was ever promised by this folder.
    pub is_new: bool,
    pub posts: usize,
    pub log: LogReport,
}

/// Why an engine did not start. Nothing in the folder was changed beyond what the log's own errors say.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error(transparent)]
    Log(#[from] OpenError),
    #[error("the checkpoint store failed")]
    Store(#[source] io::Error),
    #[error("the stage of snapshots cannot be read")]
    Stage(#[source] io::Error),
    /// The store can be set aside and built anew from the log, if that is whole.
    #[error("a row of the checkpoint is damaged (key {key}): {source}")]
    Row { key: String, source: RowError },
    /// The log was cut, and the checkpoint that held what was cut off is gone.
    #[error(
        "the checkpoint is gone and the log begins only at {first:?}. Restore the data folder from a backup, \
         or move it away: with an empty one the node takes its state from its peers"
    )]
    CheckpointLost { first: Position },
}

/// Opens the log and the store and brings the engine to where the last process stood.
pub async fn recover(
    seams: EngineSeams,
    options: EngineOptions,
    log_options: LogOptions,
) -> Result<Recovered, RecoveryError> {
    let identity = LogIdentity {
        cluster: options.cluster.clone(),
        region: options.region.clone(),
    };
    let cores = seams.cores;
    let (clock, randomness) = (seams.clock.clone(), seams.randomness.clone());
    let engine = Engine::empty(options, clock, randomness, cores);
    let mut sums = RangeSums::default();
    let meta = read_meta(seams.store.as_ref()).await?;
    let mut loading = Loading::new(&engine, cores, &mut sums);
    load_rows(&mut loading, seams.store.as_ref()).await?;
    if let Some(meta) = &meta {
        restore_meta(&engine, meta, &mut sums).map_err(bad_row(rows::META_KEY))?;
    }
    let shows = read_shows(seams.store.as_ref()).await?;
    let replay_from = meta.as_ref().map(|meta| Position(meta.replay_from));
    let must_reach = Position(meta.as_ref().map_or(0, |meta| meta.shows).max(shows));
    let log_seams = LogSeams {
        files: seams.files.clone(),
        randomness: seams.randomness.clone(),
    };
    let replay = Replay::new(&engine, cores, &mut sums);
    let opened = log::open(
        log_seams,
        log_options,
        identity,
        replay_from,
        must_reach,
        replay,
    )
    .await?;
    if meta.is_none() && opened.report.first > Position::START {
        let first = opened.report.first;
        return Err(RecoveryError::CheckpointLost { first });
    }
    if stage::is_ready(seams.files.as_ref())
        .await
        .map_err(RecoveryError::Stage)?
    {
        // What was merged of it may be among the rows already.
        engine.set_settlement(Settlement::Merging);
    }
    Ok(assemble(engine, opened, sums, meta.is_none()))
}

fn assemble(engine: Engine, opened: OpenedLog, sums: RangeSums, no_meta: bool) -> Recovered {
    let OpenedLog {
        writer,
        reader,
        trimmer,
        preparer,
        report,
    } = opened;
    let report = RecoveryReport {
        is_new: no_meta && report.end == Position::START,
        posts: engine.posts(),
        log: report,
    };
    let engine = Arc::new(engine);
    #[cfg(feature = "sim")]
    if is_planted(Bug::EpochReused) {
        engine.reuse_epoch();
    }
    let frontier = engine.frontier.read().clone();
    let committer = Committer::new(engine.clone(), writer, frontier, sums);
    Recovered {
        engine,
        committer,
        reader,
        trimmer,
        preparer,
        report,
    }
}

pub(super) fn bad_row(key: &[u8]) -> impl FnOnce(RowError) -> RecoveryError {
    let key = String::from_utf8_lossy(key).escape_debug().to_string();
    move |source| RecoveryError::Row { key, source }
}

async fn read_meta(store: &dyn CheckpointStore) -> Result<Option<MetaRow>, RecoveryError> {
    let row = store
        .get(rows::META_KEY)
        .await
        .map_err(RecoveryError::Store)?;
    let meta = row.map(|row| rows::decode_meta(&row)).transpose();
    meta.map_err(bad_row(rows::META_KEY))
}

async fn read_shows(store: &dyn CheckpointStore) -> Result<u64, RecoveryError> {
    let row = store
        .get(rows::SHOWS_KEY)
        .await
        .map_err(RecoveryError::Store)?;
    let shows = row.map(|row| rows::decode_shows(&row)).transpose();
    Ok(shows.map_err(bad_row(rows::SHOWS_KEY))?.unwrap_or(0))
}

fn restore_meta(engine: &Engine, meta: &MetaRow, sums: &mut RangeSums) -> Result<(), RowError> {
    let mut reader = Reader::new(&meta.frontier);
    *engine.frontier.write() = frontier(&mut reader, &mut &engine.replicas)?;
    let mut reader = Reader::new(&meta.floor);
    let floor = entries(&mut reader, REPLICAS_MAX, &mut &engine.replicas)?;
    engine.raise_log_floor(&floor.into_iter().collect::<VersionVector>());
    for row in &meta.orphans {
        let replica = engine.replicas.intern(&row.replica.replica()?)?;
        let dot = Dot {
            seq: row.seq,
            replica,
        };
        let (post, user) = (PostId::new(&row.post)?, UserId::new(&row.user)?);
        engine.restore_orphan(dot, &post, &user, sums);
        if row.by_client {
            engine.orphans.lock().note_client_made(dot);
        }
    }
    for row in &meta.requests {
        let items = row.items.iter().map(|item| {
            item.as_ref()
                .map(|bytes| read_done(&mut Reader::new(bytes), &mut &engine.replicas))
                .transpose()
        });
        let items = items.collect::<Result<Vec<Option<Done>>, DecodeError>>()?;
        let token = row.token.as_deref().map(Arc::from);
        let id = RequestId::new(&row.id)?;
        engine
            .requests
            .restore(id, row.digest, row.at_ms, items, token);
    }
    for row in &meta.retired {
        let replica = engine.replicas.intern(&row.replica()?)?;
        engine.regions.lock().retire([replica]);
    }
    for row in &meta.met {
        engine.meet(engine.replicas.intern(&row.replica()?)?);
    }
    engine.note_checkpointed(meta.finished_at_ms);
    Ok(())
}

async fn load_rows(
    loading: &mut Loading<'_>,
    store: &dyn CheckpointStore,
) -> Result<(), RecoveryError> {
    let mut after = None;
    loop {
        let rows = store
            .scan(after, SCAN_ROWS)
            .await
            .map_err(RecoveryError::Store)?;
        let Some((last, _)) = rows.last() else {
            break;
        };
        after = Some(last.clone());
        for (key, row) in &rows {
            loading.row(key, row).map_err(bad_row(key))?;
        }
        loading.put_if_many()?;
    }
    loading.finish()
}

#[cfg(feature = "sim")]
impl Engine {
    /// The planted bug: the process goes on under the replica of this region that came furthest.
    fn reuse_epoch(&self) {
        let all = self.replicas.all();
        let frontier = self.frontier.read();
        let ours = frontier.vector().iter();
        let ours = ours.filter(|(replica, _)| all.id(*replica).region == self.options.region);
        if let Some((replica, last)) = ours.max_by_key(|(_, last)| *last) {
            self.queue.resume(replica, last);
        }
    }
}
