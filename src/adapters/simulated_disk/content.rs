//! The bytes of one simulated file: what is durable, and what was changed since.

use std::collections::VecDeque;

use super::{Moment, SECTOR_BYTES};

/// A source of numbers below a bound.
pub(super) type Below<'a> = dyn FnMut(u64) -> u64 + 'a;

#[derive(Default)]
pub(super) struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: VecDeque<Change>,
    /// Changes that were synced, so that a sync covers exactly those made before its call.
    settled: u64,
}

enum Change {
    Write { offset: u64, data: bytes::Bytes },
    Extend { len: u64 },
    Truncate { len: u64 },
}

impl Content {
    pub(super) fn live(&self) -> &[u8] {
        &self.live
    }

    pub(super) fn write(&mut self, offset: u64, data: bytes::Bytes) {
        self.change(Change::Write { offset, data });
    }

    pub(super) fn extend(&mut self, len: u64) {
        self.change(Change::Extend { len });
    }

    pub(super) fn truncate(&mut self, len: u64) {
        self.change(Change::Truncate { len });
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.unsynced.push_back(change);
    }

    /// The number of the last change made.
    pub(super) fn changes(&self) -> u64 {
        self.settled + self.unsynced.len() as u64
    }

    /// Makes the changes up to this number durable.
    pub(super) fn sync_through(&mut self, number: u64) {
        while self.settled < number
            && let Some(change) = self.unsynced.pop_front()
        {
            change.apply(&mut self.durable);
            self.settled += 1;
        }
    }

    /// A sync failed: the system takes the changes for written, though any part of them may be
    /// missing on the device. Processes go on seeing them, until the power fails.
    pub(super) fn fail_sync(&mut self, below: &mut Below<'_>) {
        self.settle_in_part(Moment::During, below);
    }

    /// The power failed.
    pub(super) fn lose_unsynced(&mut self, moment: Moment, below: &mut Below<'_>) {
        self.settle_in_part(moment, below);
        self.live = self.durable.clone();
    }

    fn settle_in_part(&mut self, moment: Moment, below: &mut Below<'_>) {
        self.settled = self.changes();
        for change in std::mem::take(&mut self.unsynced) {
            if moment != Moment::Before {
                change.survive(&mut self.durable, below);
            }
        }
    }

    pub(super) fn tamper(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        self.sync_through(self.changes());
        change(&mut self.durable);
        self.live = self.durable.clone();
    }

    pub(super) fn settled(&self) -> Self {
        Self {
            live: self.live.clone(),
            durable: self.live.clone(),
            ..Self::default()
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => put(bytes, *offset, data),
            Self::Extend { len } => grow(bytes, *len),
            Self::Truncate { len } => bytes.truncate(*len as usize),
        }
    }

    /// Wholly, not at all, as a prefix of its sectors, or as any of them.
    fn survive(&self, bytes: &mut Vec<u8>, below: &mut Below<'_>) {
        match (below(4), self) {
            (0, _) => {}
            (1, _) => self.apply(bytes),
            (2, Self::Write { offset, data }) => {
                let sectors: Vec<_> = sectors(*offset, data).collect();
                // Of several some, for a write that is torn is what is found least often; all and none have their share above.
                let kept = match sectors.len() as u64 {
                    len @ (0 | 1) => below(len + 1),
                    len => 1 + below(len - 1),
                };
                for (offset, data) in &sectors[..kept as usize] {
                    put(bytes, *offset, data);
                }
            }
            (_, Self::Write { offset, data }) => {
                for (offset, data) in sectors(*offset, data) {
                    if below(2) == 1 {
                        put(bytes, offset, data);
                    }
                }
            }
            (_, Self::Extend { len }) => {
                let from = bytes.len() as u64;
                grow(bytes, from + below(len.saturating_sub(from) + 1));
            }
            (_, Self::Truncate { .. }) => {}
        }
    }
}

/// The parts of a write that fall into one sector each.
fn sectors(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let end = offset + data.len() as u64;
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let next = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
        let part = &data[(at - offset) as usize..(next.min(end) - offset) as usize];
        let from = at;
        at = next;
        Some((from, part))
    })
}

fn put(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let (from, to) = (offset as usize, offset as usize + data.len());
    grow(bytes, to as u64);
    bytes[from..to].copy_from_slice(data);
}

fn grow(bytes: &mut Vec<u8>, len: u64) {
    if bytes.len() < len as usize {
        bytes.resize(len as usize, 0);
    }
}
