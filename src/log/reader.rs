//! Reading beside the writer: only what is synced, from memory if it is recent, else from the
//! segments.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::format::{Frame, RECORD_HEADER_BYTES, decode_record};
use super::recent::Recent;
use super::segment::Segment;
use super::{Position, ReadError, Record};

/// A read from a file asks for this much at least.
const WINDOW_BYTES_MIN: usize = 64 << 10;

/// Shared by writer, readers and trimmer.
pub(super) struct Shared {
    /// Guards the table of kept segments, by base. The last one is the current. Never held across an
    /// await.
    segments: RwLock<BTreeMap<Position, Arc<Segment>>>,
    /// Guards the newest records; never held across an await.
    pub recent: Mutex<Recent>,
}

/// What the writer tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Synced {
    pub end: Position,
    pub is_poisoned: bool,
}

/// A kept segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    pub base: Position,
    /// The owner's bytes: what held before the segment's first record.
    pub context: Bytes,
}

/// A piece of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    pub records: Vec<Record>,
    /// Where to read on.
    pub next: Position,
}

/// Reads a log; clones are independent.
#[derive(Clone)]
pub struct LogReader {
    shared: Arc<Shared>,
    synced: watch::Receiver<Synced>,
}

impl Shared {
    pub(super) fn new(segments: Vec<Arc<Segment>>, recent_bytes: usize) -> Self {
        let by_base = |segment: Arc<Segment>| (segment.base, segment);
        Self {
            segments: RwLock::new(segments.into_iter().map(by_base).collect()),
            recent: Mutex::new(Recent::new(recent_bytes)),
        }
    }

    pub(super) fn add_segment(&self, segment: &Arc<Segment>) {
        let is_new = !self.segments.read().contains_key(&segment.base);
        if is_new {
            let mut segments = self.segments.write();
            segments.insert(segment.base, Arc::clone(segment));
        }
    }

    /// Takes the oldest segment out if all of it is before `position` and another follows.
    pub(super) fn take_before(&self, position: Position) -> Option<Arc<Segment>> {
        let mut segments = self.segments.write();
        let next = segments.values().nth(1)?;
        if next.previous_end > position {
            return None;
        }
        segments.pop_first().map(|(_, segment)| segment)
    }

    pub(super) fn first_base(&self) -> Option<Position> {
        self.segments.read().keys().next().copied()
    }

    /// The segment that holds what follows on `from`, where that begins, and where its records end.
    /// None if nothing was ever written.
    fn locate(&self, from: Position, synced: Position) -> Result<Option<Place>, ReadError> {
        let segments = self.segments.read();
        let Some(first) = segments.keys().next().copied() else {
            return Ok(None);
        };
        let Some((_, segment)) = segments.range(..=from).next_back() else {
            return Err(ReadError::Cut { first });
        };
        let start = from.max(segment.first);
        let Some((_, next)) = segments.range(Position(segment.base.0 + 1)..).next() else {
            return Ok(Some(Place::new(segment, start, synced)));
        };
        if start < next.previous_end {
            return Ok(Some(Place::new(segment, start, next.previous_end)));
        }
        let after = segments.range(Position(next.base.0 + 1)..).next();
        let end = after.map_or(synced, |(_, segment)| segment.previous_end);
        Ok(Some(Place::new(next, next.first, end)))
    }
}

struct Place {
    segment: Arc<Segment>,
    start: Position,
    end: Position,
}

impl Place {
    fn new(segment: &Arc<Segment>, start: Position, end: Position) -> Self {
        let segment = Arc::clone(segment);
        Self {
            segment,
            start,
            end,
        }
    }

    /// Up to `len` bytes from the place on, not beyond its end.
    async fn bytes(&self, len: usize) -> Result<Bytes, ReadError> {
        let rest = usize::try_from(self.end.0.saturating_sub(self.start.0)).unwrap_or(len);
        let offset = self.start.0 - self.segment.base.0;
        let read = self.segment.file.read_at(offset, len.min(rest));
        read.await.map_err(|source| ReadError::Io {
            file: self.segment.path.clone(),
            source,
        })
    }

    /// The records from the place on, at least one and else up to `bytes_max`.
    async fn records(&self, bytes_max: usize) -> Result<Vec<Record>, ReadError> {
        let mut bytes = self.bytes(bytes_max.max(WINDOW_BYTES_MIN)).await?;
        let nonce = self.segment.nonce;
        if let Some(frame) = Frame::decode(&bytes, nonce, self.start)
            && frame.bytes() > bytes.len()
        {
            bytes = self.bytes(frame.bytes()).await?;
        }
        let mut records: Vec<Record> = Vec::new();
        let (mut at, mut taken) = (0, 0);
        while bytes.len() - at >= RECORD_HEADER_BYTES {
            let position = self.start.after(at);
            let Some((record, frame)) = decode_record(&bytes.slice(at..), nonce, position) else {
                break;
            };
            taken += record.payload.len();
            if !records.is_empty() && taken > bytes_max {
                break;
            }
            records.push(record);
            at += frame.bytes();
        }
        if records.is_empty() {
            return Err(ReadError::Damaged {
                file: self.segment.path.clone(),
                offset: self.start.0 - self.segment.base.0,
            });
        }
        Ok(records)
    }
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>, synced: watch::Receiver<Synced>) -> Self {
        Self { shared, synced }
    }

    /// The log is synced up to here, and no further is read.
    pub fn synced(&self) -> Position {
        self.synced.borrow().end
    }

    /// The records from `from` on: at least one, if one is synced, and else up to `bytes_max` of
    /// payload. `from` is [`Position::START`], a segment's base, or a place that the log gave out.
    pub async fn read(&self, from: Position, bytes_max: usize) -> Result<LogChunk, ReadError> {
        let synced = self.synced();
        if from >= synced {
            let records = Vec::new();
            return Ok(LogChunk {
                records,
                next: from,
            });
        }
        let recent = self.shared.recent.lock().read(from, bytes_max);
        let records = match recent {
            Some(records) => records,
            None => match self.shared.locate(from, synced)? {
                Some(place) if place.start < place.end => place.records(bytes_max).await?,
                Some(_) | None => Vec::new(),
            },
        };
        // With nothing in between, whoever waits beyond `next` must not find itself there already.
        let next = records.last().map_or(synced, Record::end);
        Ok(LogChunk { records, next })
    }

    /// The kept segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let segments = self.shared.segments.read();
        let info = |segment: &Arc<Segment>| SegmentInfo {
            base: segment.base,
            context: segment.context.clone(),
        };
        segments.values().map(info).collect()
    }

    /// Returns the synced end once it is beyond `position`; fails if that will never be.
    pub async fn wait_beyond(&self, position: Position) -> Result<Position, ReadError> {
        let mut synced = self.synced.clone();
        let seen = synced
            .wait_for(|synced| synced.end > position || synced.is_poisoned)
            .await
            .map_err(|_| ReadError::Closed)?;
        if seen.end > position {
            return Ok(seen.end);
        }
        Err(ReadError::Poisoned)
    }
}
