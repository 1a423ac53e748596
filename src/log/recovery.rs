//! Opening a log: survey the segments, replay the records, judge the place where they end, and only
//! then change anything.

use std::sync::Arc;

use tokio::sync::watch;

use super::judgement::judge;
use super::reader::{LogReader, Shared, Synced};
use super::repair::{Repaired, repair};
use super::replay::{Replay, Visitor};
use super::segment::Segment;
use super::space::{Space, SparePreparer};
use super::survey::{Found, io_error, survey};
use super::trimmer::LogTrimmer;
use super::writer::LogWriter;
use super::{LogIdentity, LogOptions, LogSeams, OpenError, Position};
use crate::seams::files::folder_of;

/// An open log: its parts, each for a worker of its own.
pub struct OpenedLog {
    pub writer: LogWriter,
    pub reader: LogReader,
    pub trimmer: LogTrimmer,
    /// To be run, else the log ends with its second segment.
    pub preparer: SparePreparer,
    pub report: LogReport,
}

/// What the opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogReport {
    /// The beginning of the oldest kept segment.
    pub first: Position,
    /// Where the replay began.
    pub replayed_from: Position,
    /// Records replayed.
    pub records: u64,
    /// The end of the log.
    pub end: Position,
    /// The last group was not synced when the process ended, and is gone.
    pub torn_tail: Option<TornTail>,
    /// Older segments that cannot be read, or that lie before a gap. They are needed by peers that are
    /// far behind only; [`LogTrimmer::remove_before`] removes them.
    pub unusable: Vec<String>,
}

/// A tail that was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    pub file: String,
    /// Where in the file it began.
    pub offset: u64,
    /// Up to the last byte that was written, in this file and later ones.
    pub bytes: u64,
}

/// Opens the log, new if its folder is empty, and shows every record from `replay_from` on (from the
/// oldest segment, if none) to `visitor`, in order. A log that ends before `must_reach` is refused.
/// When this returns, all that was shown is durable. The caller holds the lock of the data folder.
pub async fn open(
    seams: LogSeams,
    options: LogOptions,
    identity: LogIdentity,
    replay_from: Option<Position>,
    must_reach: Position,
    visitor: impl Visitor + Send,
) -> Result<OpenedLog, OpenError> {
    options.check()?;
    create_folder(&seams, &options.folder).await?;
    let found = survey(seams.files.as_ref(), &options, &identity).await?;
    let must_reach = must_reach.max(replay_from.unwrap_or_default());
    let start = starting_segment(&found, replay_from)?;
    let mut replay = Replay::new(replay_from.unwrap_or_default(), visitor);
    let last = replay.run(&found, start).await?;
    replay.end()?;
    let judged = judge(&found, last, &replay, must_reach).await?;
    let repaired = repair(&seams, &options, &found, last, &replay, &judged).await?;
    let (kept, unusable) = kept_segments(&found, start, last);
    let report = LogReport {
        first: kept.first().map_or(replay.end, |segment| segment.base),
        replayed_from: replay.began,
        records: replay.records,
        end: replay.end,
        torn_tail: judged.torn_tail,
        unusable,
    };
    Ok(assemble(seams, options, identity, kept, repaired, report))
}

async fn create_folder(seams: &LogSeams, folder: &str) -> Result<(), OpenError> {
    let files = seams.files.as_ref();
    let created = files.create_folder(folder).await;
    created.map_err(io_error(folder, "creating the folder"))?;
    let above = folder_of(folder);
    let synced = files.sync_folder(above).await;
    synced.map_err(io_error(above, "syncing the folder"))
}

/// The index of the segment in which the replay begins.
fn starting_segment(found: &[Found], replay_from: Option<Position>) -> Result<usize, OpenError> {
    let Some(wanted) = replay_from else {
        return Ok(0);
    };
    let before = found.partition_point(|segment| segment.base <= wanted);
    if before == 0 && wanted > Position::START {
        let first = found
            .first()
            .map_or(Position::START, |segment| segment.base);
        return Err(OpenError::Missing { wanted, first });
    }
    Ok(before.saturating_sub(1))
}

/// The segments of the log, oldest first, and the paths of older files that do not belong to it.
fn kept_segments(found: &[Found], start: usize, last: usize) -> (Vec<Arc<Segment>>, Vec<String>) {
    let mut kept: Vec<Arc<Segment>> = Vec::new();
    let until = found.len().min(last + 1);
    for (index, segment) in found[..until].iter().enumerate().rev() {
        let Some(segment) = segment.segment() else {
            if index >= start {
                continue;
            }
            break;
        };
        if kept.last().is_some_and(|next| next.base != segment.limit()) {
            break;
        }
        kept.push(Arc::new(segment));
    }
    kept.reverse();
    let first = kept.first().map(|segment| segment.base);
    let older = found
        .iter()
        .filter(|found| first.is_some_and(|first| found.base < first));
    (kept, older.map(|found| found.path.clone()).collect())
}

fn assemble(
    seams: LogSeams,
    options: LogOptions,
    identity: LogIdentity,
    kept: Vec<Arc<Segment>>,
    repaired: Repaired,
    report: LogReport,
) -> OpenedLog {
    let end = report.end;
    let current = kept.last().cloned();
    let rest = current
        .as_ref()
        .map_or(0, |segment| segment.limit().0 - end.0);
    let Repaired { spare, spare_base } = repaired;
    let space = Arc::new(Space::new(options.clone(), rest, spare_base, spare));
    let shared = Arc::new(Shared::new(kept, options.recent_bytes));
    let (synced, watched) = watch::channel(Synced {
        end,
        is_poisoned: false,
    });
    OpenedLog {
        reader: LogReader::new(Arc::clone(&shared), watched),
        trimmer: LogTrimmer {
            seams: seams.clone(),
            options: options.clone(),
            shared: Arc::clone(&shared),
            space: Arc::clone(&space),
        },
        preparer: SparePreparer::new(seams, Arc::clone(&space)),
        writer: LogWriter {
            shared,
            space,
            synced,
            options,
            identity,
            current,
            end,
            is_poisoned: false,
        },
        report,
    }
}
