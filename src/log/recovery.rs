//! Opening a log: survey the segments, replay the records, judge the place where they end, and only
//! then change anything: cut the torn tail off, make sure of the rest, find or prepare the spare.
//!
//! A place that is no record is *damage* if anything behind it states that the log was synced beyond
//! it, or if the checkpoint does; then the log is refused, untouched. Otherwise it is a *torn tail*:
//! the group there was never synced, and nobody was told of it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::format::{BIRTH_BYTES, Frame, decode_record};
use super::reader::{LogReader, Shared, Synced};
use super::segment::{self, Segment, Spare};
use super::space::{Space, SparePreparer};
use super::survey::{Found, io_error, survey};
use super::trimmer::LogTrimmer;
use super::writer::LogWriter;
use super::{LogIdentity, LogOptions, LogSeams, OpenError, Position, Record, VisitError};
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
/// oldest segment, if none) to `visit`, in order. A log that ends before `must_reach` is refused.
/// When this returns, all that was shown is durable. The caller holds the lock of the data folder.
pub async fn open(
    seams: LogSeams,
    options: LogOptions,
    identity: LogIdentity,
    replay_from: Option<Position>,
    must_reach: Position,
    visit: impl FnMut(Record) -> Result<(), VisitError> + Send,
) -> Result<OpenedLog, OpenError> {
    options.check()?;
    create_folder(&seams, &options.folder).await?;
    let found = survey(&seams, &options, &identity).await?;
    let must_reach = must_reach.max(replay_from.unwrap_or_default());
    let start = starting_segment(&found, replay_from)?;
    let mut replay = Replay::new(replay_from.unwrap_or_default(), visit);
    let last = replay.run(&found, start).await?;
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

/// Goes through the records until there is no more.
struct Replay<V> {
    visit: V,
    wanted: Position,
    began: Position,
    records: u64,
    /// Behind the last good record.
    end: Position,
    /// The highest position that a good record or header states as synced.
    stated: Position,
}

impl<V: FnMut(Record) -> Result<(), VisitError>> Replay<V> {
    fn new(wanted: Position, visit: V) -> Self {
        Self {
            visit,
            wanted,
            began: Position::START,
            records: 0,
            end: Position::START,
            stated: Position::START,
        }
    }

    /// Replays from the segment `start` on; returns the index of the one where the records end.
    async fn run(&mut self, found: &[Found], start: usize) -> Result<usize, OpenError> {
        let Some(first) = found.get(start) else {
            return Ok(start);
        };
        self.end = match first.header {
            Some(_) => self.wanted.max(first.base),
            None => first.base,
        };
        self.began = self.end;
        let mut at = start;
        while let Some(segment) = found.get(at).and_then(Found::segment) {
            self.end = self.end.max(segment.first);
            self.began = if at == start { self.end } else { self.began };
            self.stated = self
                .stated
                .max(found[at].header.as_ref().map_or(self.stated, |h| h.synced));
            let bytes = found[at].load().await?;
            self.run_segment(&segment, &bytes)?;
            let goes_on = found.get(at + 1).and_then(|next| next.header.as_ref());
            let goes_on = goes_on
                .is_some_and(|next| next.base == segment.limit() && next.previous_end == self.end);
            if !goes_on {
                if at == start && self.records == 0 {
                    self.end = walk(&segment, &bytes, self.end);
                }
                break;
            }
            at += 1;
        }
        Ok(at)
    }

    fn run_segment(&mut self, segment: &Segment, bytes: &Bytes) -> Result<(), OpenError> {
        loop {
            let at = (self.end.0 - segment.base.0) as usize;
            if at >= bytes.len() {
                return Ok(());
            }
            let Some((record, frame)) = decode_record(&bytes.slice(at..), segment.nonce, self.end)
            else {
                return Ok(());
            };
            let position = record.position;
            (self.visit)(record).map_err(|source| OpenError::Visit { position, source })?;
            self.records += 1;
            self.stated = self.stated.max(frame.synced);
            self.end = position.after(frame.bytes());
        }
    }
}

/// The last place up to `wanted` that records reach from the segment's beginning on. Where the replay
/// finds nothing, nothing else shows that its beginning is a place of this log.
fn walk(segment: &Segment, bytes: &Bytes, wanted: Position) -> Position {
    let mut end = segment.first;
    while end < wanted {
        let at = (end.0 - segment.base.0) as usize;
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(frame) = Frame::decode(rest, segment.nonce, end) else {
            break;
        };
        let next = end.after(frame.bytes());
        if next > wanted {
            break;
        }
        end = next;
    }
    end
}

/// What is to be changed.
struct Judged {
    torn_tail: Option<TornTail>,
    /// Bytes behind the end in the last segment, to be zeroed.
    dirty: Range<u64>,
    /// The same of each later file, all of it but the birth.
    later: Vec<Range<u64>>,
}

/// Tells a torn tail from damage. Changes nothing.
async fn judge<V>(
    found: &[Found],
    last: usize,
    replay: &Replay<V>,
    must_reach: Position,
) -> Result<Judged, OpenError> {
    let end = replay.end;
    let mut judged = Judged {
        torn_tail: None,
        dirty: 0..0,
        later: Vec::new(),
    };
    let Some(segment) = found.get(last) else {
        return ends_at(end, must_reach).map(|()| judged);
    };
    let offset = end.0 - segment.base.0;
    let mut stated = replay.stated;
    let mut torn_bytes = 0;
    for (index, other) in found.iter().enumerate().skip(last) {
        let from = if index == last { offset } else { 0 };
        let remains = other.remains(&other.load().await?, from)?;
        stated = stated.max(remains.stated);
        torn_bytes += remains.dirty.end - remains.dirty.start;
        if index == last {
            judged.dirty = remains.dirty;
        } else {
            judged.later.push(remains.dirty);
        }
    }
    if stated > end {
        let what = match found.get(last + 1) {
            Some(next) if segment.header.is_some() && is_whole_until(segment, next, end) => {
                "the segment after it is missing or unreadable"
            }
            _ => "no valid record is there",
        };
        return Err(segment.damaged(offset, what));
    }
    ends_at(end, must_reach)?;
    if torn_bytes > 0 {
        let file = segment.path.clone();
        let bytes = torn_bytes;
        judged.torn_tail = Some(TornTail {
            file,
            offset,
            bytes,
        });
    }
    Ok(judged)
}

/// Whether the records of `segment` end where the one after says, so that what is missing is between.
fn is_whole_until(segment: &Found, next: &Found, end: Position) -> bool {
    let follows = segment
        .header
        .as_ref()
        .map(|header| header.base.0 + header.capacity);
    let previous_end = next.header.as_ref().map(|header| header.previous_end);
    follows != Some(next.base.0) || previous_end.is_none_or(|previous| previous == end)
}

fn ends_at(end: Position, must_reach: Position) -> Result<(), OpenError> {
    if end < must_reach {
        let wanted = must_reach;
        return Err(OpenError::EndsBefore { wanted, end });
    }
    Ok(())
}

/// The parts of the log that take what comes next.
struct Repaired {
    spare: Option<Spare>,
    /// Where the spare is, or will be.
    spare_base: Position,
}

async fn repair<V>(
    seams: &LogSeams,
    options: &LogOptions,
    found: &[Found],
    last: usize,
    replay: &Replay<V>,
    judged: &Judged,
) -> Result<Repaired, OpenError> {
    let current = found.get(last).and_then(Found::segment);
    let mut spare_base = found
        .get(last)
        .map_or(Position::START, |segment| segment.base);
    let mut unused = found.get(last..).unwrap_or_default();
    let mut dirty = Vec::new();
    match &current {
        Some(segment) => {
            let sure = confirm(&found[last], segment, replay, &judged.dirty).await;
            sure.map_err(io_error(&segment.path, "repairing"))?;
            spare_base = segment.limit();
            unused = &unused[1..];
        }
        None if !unused.is_empty() => dirty.push(judged.dirty.clone()),
        None => {}
    }
    dirty.extend(judged.later.iter().cloned());
    let mut spare = None;
    for (segment, dirty) in unused.iter().zip(dirty) {
        let reused = reuse(seams, options, segment, spare_base, dirty).await;
        spare = reused
            .map_err(io_error(&segment.path, "repairing"))?
            .or(spare);
    }
    if current.is_none() && spare.is_none() {
        // The log has no other room; a full disk is no reason not to start and read.
        spare = match segment::prepare(seams, options, spare_base).await {
            Ok(spare) => Some(spare),
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => None,
            Err(error) => return Err(io_error(&options.folder, "allocating")(error)),
        };
    }
    Ok(Repaired { spare, spare_base })
}

/// Cuts off what is behind the end, and makes durable what is before it. What no later record proves
/// to be synced is written once more: after a failed sync the system may hold it for clean though
/// the device never got it, and would sync nothing.
async fn confirm<V>(
    found: &Found,
    segment: &Segment,
    replay: &Replay<V>,
    dirty: &Range<u64>,
) -> std::io::Result<()> {
    let file = segment.file.as_ref();
    if found.len < segment.capacity {
        file.allocate(segment.capacity).await?;
    }
    segment::zero(file, dirty.clone()).await?;
    let sure = replay.stated.0.saturating_sub(segment.base.0);
    let unsure = sure.max(BIRTH_BYTES as u64)..replay.end.0 - segment.base.0;
    if !unsure.is_empty() {
        let len = usize::try_from(unsure.end - unsure.start).unwrap_or(usize::MAX);
        let bytes = file.read_at(unsure.start, len).await?;
        file.write_at(unsure.start, bytes).await?;
    }
    file.sync().await
}

/// Takes a file without records as the spare, if it fits, or removes it.
async fn reuse(
    seams: &LogSeams,
    options: &LogOptions,
    found: &Found,
    base: Position,
    dirty: Range<u64>,
) -> std::io::Result<Option<Spare>> {
    let fits = found.base == base && found.len == options.segment_bytes;
    let birth = found
        .birth
        .filter(|birth| fits && birth.capacity == options.segment_bytes);
    let Some(birth) = birth else {
        segment::remove_if_there(seams.files.as_ref(), &found.path).await?;
        seams.files.sync_folder(&options.folder).await?;
        return Ok(None);
    };
    let file = Arc::clone(&found.file);
    let spare = segment::recycle(seams, found.path.clone(), file, birth, dirty).await?;
    Ok(Some(spare))
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
    let shared = Arc::new(Shared::new(kept, options.tail_bytes_max));
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
