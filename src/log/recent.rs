//! The newest records, in memory, for readers who keep up.

use std::collections::VecDeque;

use super::{Position, Record};

/// Records without a gap up to the end of the log.
pub(super) struct Recent {
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
}

struct Entry {
    /// Where the record before ends, perhaps in the segment before.
    from: Position,
    record: Record,
}

impl Recent {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// The record that follows on `from`.
    pub(super) fn push(&mut self, from: Position, record: Record) {
        self.bytes += record.payload.len();
        self.entries.push_back(Entry { from, record });
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.entries.pop_front() else {
                return;
            };
            self.bytes -= oldest.record.payload.len();
        }
    }

    /// The records from `from` on, at least one and else up to `bytes_max`, or none if that place
    /// is no longer here.
    pub(super) fn read(&self, from: Position, bytes_max: usize) -> Option<Vec<Record>> {
        if self.entries.front()?.from > from {
            return None;
        }
        let at = self
            .entries
            .partition_point(|entry| entry.record.position < from);
        let mut records: Vec<Record> = Vec::new();
        let mut bytes = 0;
        for entry in self.entries.range(at..) {
            bytes += entry.record.payload.len();
            if !records.is_empty() && bytes > bytes_max {
                break;
            }
            records.push(entry.record.clone());
        }
        Some(records)
    }
}
