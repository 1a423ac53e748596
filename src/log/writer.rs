//! Appending: encode, write once, sync once, tell.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::format::{self, BIRTH_BYTES, Header, RECORD_HEADER_BYTES, framed_bytes};
use super::reader::{Shared, Synced};
use super::segment::{Segment, Spare};
use super::space::{Room, Space};
use super::{AppendError, LogIdentity, LogOptions, Position, Record, RecordKind};
use crate::limits;

/// The one writer of a log.
pub struct LogWriter {
    pub(super) shared: Arc<Shared>,
    pub(super) space: Arc<Space>,
    pub(super) synced: watch::Sender<Synced>,
    pub(super) options: LogOptions,
    pub(super) identity: LogIdentity,
    /// None in a log that has no record yet.
    pub(super) current: Option<Arc<Segment>>,
    pub(super) end: Position,
    /// An append failed, or was given up half way.
    pub(super) is_poisoned: bool,
}

/// Where a group is, now that it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Of each record, in the order given.
    pub positions: Vec<Position>,
    /// The log is synced up to here.
    pub end: Position,
}

impl LogWriter {
    /// The end of the log; everything before it is durable.
    pub fn end(&self) -> Position {
        self.end
    }

    /// How much may still be appended, for any thread to ask.
    pub fn room(&self) -> Room {
        Room::new(Arc::clone(&self.space))
    }

    /// Appends the records, whose payloads come in pieces, as one group: one write and one sync, after
    /// which all are durable. `context` is asked for if a segment begins with this group; it should say
    /// what holds before the group's first record.
    ///
    /// After [`AppendError::Failed`], or when the future is dropped before its end, the log takes
    /// nothing more, and whether the group is there after a restart is unknown. Every other error
    /// changes nothing.
    pub async fn append(
        &mut self,
        records: Vec<(RecordKind, Vec<Bytes>)>,
        context: impl FnOnce() -> Bytes,
    ) -> Result<Appended, AppendError> {
        if self.is_poisoned {
            return Err(AppendError::Poisoned);
        }
        let bytes = self.check_size(&records)?;
        if records.is_empty() {
            let positions = Vec::new();
            return Ok(Appended {
                positions,
                end: self.end,
            });
        }
        let fits = |segment: &Arc<Segment>| self.end.0 + bytes <= segment.limit().0;
        let current = self.current.clone().filter(fits);
        let mut group = match current {
            Some(segment) => Group::continuing(segment, self.end),
            None => self.begin_segment(bytes, context)?,
        };
        for (kind, payload) in &records {
            group.push(self.end, *kind, payload);
        }
        self.commit(group).await
    }

    /// Framed bytes of the records.
    fn check_size(&self, records: &[(RecordKind, Vec<Bytes>)]) -> Result<u64, AppendError> {
        let mut total = 0;
        for (_, payload) in records {
            let bytes: usize = payload.iter().map(Bytes::len).sum();
            if bytes > limits::RECORD_BYTES_MAX {
                let (bytes, max) = (bytes as u64, limits::RECORD_BYTES_MAX as u64);
                return Err(AppendError::TooLarge { bytes, max });
            }
            total += framed_bytes(bytes) as u64;
        }
        let max = self.options.group_bytes_max;
        if total > max {
            return Err(AppendError::TooLarge { bytes: total, max });
        }
        Ok(total)
    }

    fn begin_segment(
        &self,
        bytes: u64,
        context: impl FnOnce() -> Bytes,
    ) -> Result<Group, AppendError> {
        let context = context();
        let max = self.options.context_bytes_max;
        if context.len() > max {
            let bytes = context.len();
            return Err(AppendError::ContextTooLarge { bytes, max });
        }
        let spare = self
            .space
            .take_spare(bytes)
            .ok_or_else(|| AppendError::NoRoom {
                bytes,
                room: self.space.room(),
            })?;
        Ok(Group::beginning(spare, self.end, &self.identity, context))
    }

    async fn commit(&mut self, group: Group) -> Result<Appended, AppendError> {
        let (segment, from) = (group.segment, group.from);
        let bytes = group.out.freeze();
        // Until the sync has returned nothing is known; a future that is dropped here leaves it so.
        self.is_poisoned = true;
        let offset = from.0 - segment.base.0;
        if let Err(source) = segment.file.write_at(offset, bytes.clone()).await {
            return Err(self.fail(&segment, "writing", source));
        }
        if let Err(source) = segment.file.sync().await {
            return Err(self.fail(&segment, "syncing", source));
        }
        self.is_poisoned = false;
        let end = from.after(bytes.len());
        let placed = group.placed.into_iter();
        let records: Vec<Record> = placed.map(|placed| placed.record(from, &bytes)).collect();
        let positions = records.iter().map(|record| record.position).collect();
        self.publish(segment, records, end);
        Ok(Appended { positions, end })
    }

    fn publish(&mut self, segment: Arc<Segment>, records: Vec<Record>, end: Position) {
        self.shared.add_segment(&segment);
        {
            let mut recent = self.shared.recent.lock();
            let mut before = self.end;
            for record in records {
                let after = record.end();
                recent.push(before, record);
                before = after;
            }
        }
        self.space.set_rest(segment.limit().0 - end.0);
        self.current = Some(segment);
        self.end = end;
        let is_poisoned = false;
        self.synced.send_replace(Synced { end, is_poisoned });
    }

    fn fail(
        &mut self,
        segment: &Segment,
        action: &'static str,
        source: std::io::Error,
    ) -> AppendError {
        self.space.close();
        let (end, is_poisoned) = (self.end, true);
        self.synced.send_replace(Synced { end, is_poisoned });
        let file = segment.path.clone();
        AppendError::Failed {
            file,
            action,
            source,
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.space.close();
    }
}

/// What one append writes: contiguous bytes of one segment.
struct Group {
    segment: Arc<Segment>,
    /// Where the bytes begin: the first record, or the header of a segment that begins.
    from: Position,
    out: BytesMut,
    placed: Vec<Placed>,
}

/// A record in the bytes of its group.
struct Placed {
    kind: RecordKind,
    /// Where its frame begins.
    at: usize,
    payload_bytes: usize,
}

impl Placed {
    fn record(self, from: Position, bytes: &Bytes) -> Record {
        let payload = self.at + RECORD_HEADER_BYTES;
        Record {
            position: from.after(self.at),
            kind: self.kind,
            payload: bytes.slice(payload..payload + self.payload_bytes),
        }
    }
}

impl Group {
    fn continuing(segment: Arc<Segment>, end: Position) -> Self {
        Self {
            segment,
            from: end,
            out: BytesMut::new(),
            placed: Vec::new(),
        }
    }

    fn beginning(spare: Spare, end: Position, identity: &LogIdentity, context: Bytes) -> Self {
        let header = Header {
            base: spare.birth.base,
            capacity: spare.birth.capacity,
            nonce: spare.birth.nonce,
            previous_end: end,
            synced: end,
            identity: identity.clone(),
            context,
        };
        let mut out = BytesMut::new();
        header.encode_into(&mut out);
        Self {
            from: header.base.after(BIRTH_BYTES),
            segment: Arc::new(Segment::new(spare.path, spare.file, &header)),
            out,
            placed: Vec::new(),
        }
    }

    fn push(&mut self, synced: Position, kind: RecordKind, payload: &[Bytes]) {
        let at = self.out.len();
        let (position, nonce) = (self.from.after(at), self.segment.nonce);
        format::encode_record(&mut self.out, nonce, position, synced, kind, payload);
        let payload_bytes = payload.iter().map(Bytes::len).sum();
        self.placed.push(Placed {
            kind,
            at,
            payload_bytes,
        });
    }
}
