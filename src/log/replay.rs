//! Following the records from where the replay begins to where they end.

use bytes::Bytes;

use super::format::{Frame, decode_record};
use super::segment::Segment;
use super::survey::Found;
use super::{OpenError, Position, Record, RefusedRecord, VisitError};

/// Sees the records of a log that is opened, in order.
pub trait Visitor {
    /// The next record. An error may be one of an earlier record.
    fn record(&mut self, record: Record) -> Result<(), RefusedRecord>;

    /// No more will come. Whatever is wrong with a record is said now at the latest, for nothing is changed before.
    fn end(&mut self) -> Result<(), RefusedRecord>;
}

/// Takes each record at once.
impl<F: FnMut(Record) -> Result<(), VisitError>> Visitor for F {
    fn record(&mut self, record: Record) -> Result<(), RefusedRecord> {
        let position = record.position;
        self(record).map_err(|source| RefusedRecord { position, source })
    }

    fn end(&mut self) -> Result<(), RefusedRecord> {
        Ok(())
    }
}

/// Goes through the records until there is no more.
pub(super) struct Replay<V> {
    visitor: V,
    wanted: Position,
    pub began: Position,
    pub records: u64,
    /// Behind the last good record.
    pub end: Position,
    /// The highest position that a good record or header states as synced.
    pub stated: Position,
}

impl<V: Visitor> Replay<V> {
    pub(super) fn new(wanted: Position, visitor: V) -> Self {
        Self {
            visitor,
            wanted,
            began: Position::START,
            records: 0,
            end: Position::START,
            stated: Position::START,
        }
    }

    /// Replays from the segment `start` on; returns the index of the one where the records end.
    pub(super) async fn run(&mut self, found: &[Found], start: usize) -> Result<usize, OpenError> {
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

    /// No more records come.
    pub(super) fn end(&mut self) -> Result<(), OpenError> {
        Ok(self.visitor.end()?)
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
            self.visitor.record(record)?;
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
