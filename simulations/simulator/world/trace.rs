//! The hash over everything that a run does: each frame's bytes, each file operation and its result, each
//! operation of a client and its answer, in order, with simulated time. Two runs of one seed have the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::sync::Arc;

use parking_lot::Mutex;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::time::SimTime;

/// Of so many connections between nodes the first bytes are kept, to be replayed by somebody who means no good.
const CAPTURED_MAX: usize = 64;
const CAPTURED_BYTES: usize = 8 << 10;

/// What an entry is about.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub enum Kind {
    /// A connection was opened, accepted, or failed to be.
    Connection = 1,
    /// Bytes were handed to a connection.
    Sent = 2,
    /// Bytes came out of a connection.
    Received = 3,
    /// An operation of a disk, with its result.
    Disk = 4,
    /// A step of a client.
    Client = 5,
    /// What the simulator did to the world, or saw of it.
    World = 6,
}

/// Clones share it.
#[derive(Clone)]
pub struct Trace {
    time: SimTime,
    /// Guards the hash and the file.
    state: Arc<Mutex<State>>,
}

struct State {
    hasher: Xxh3Default,
    /// Every entry as a line, to find where two runs part.
    lines: Option<BufWriter<File>>,
    line: String,
    /// The first bytes of connections between nodes, by their names.
    captured: BTreeMap<Box<[u8]>, Vec<u8>>,
}

impl Trace {
    pub fn new(time: SimTime, lines: Option<File>) -> Self {
        let state = State {
            hasher: Xxh3Default::new(),
            lines: lines.map(BufWriter::new),
            line: String::new(),
            captured: BTreeMap::new(),
        };
        Self {
            time,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Notes what happened now, on the machine of this number.
    pub fn note(&self, kind: Kind, machine: usize, what: &[u8], bytes: &[u8]) {
        let now = self.time.now_micros();
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut head = [0; 25];
        head[..8].copy_from_slice(&now.to_le_bytes());
        head[8] = kind as u8;
        head[9..17].copy_from_slice(&(machine as u64).to_le_bytes());
        head[17..].copy_from_slice(&(what.len() as u64).to_le_bytes());
        state.hasher.update(&head);
        state.hasher.update(what);
        state.hasher.update(&(bytes.len() as u64).to_le_bytes());
        state.hasher.update(bytes);
        if let Some(lines) = &mut state.lines {
            state.line.clear();
            let what = String::from_utf8_lossy(what);
            let digest = xxh3_64(bytes);
            let written = writeln!(
                state.line,
                "{now} {kind:?} {machine} {what} {}:{digest:016x}",
                bytes.len()
            );
            if written.is_ok() && lines.write_all(state.line.as_bytes()).is_err() {
                state.lines = None;
            }
        }
    }

    /// Keeps what is sent through a connection at first, of the first connections.
    pub fn capture(&self, connection: &[u8], bytes: &[u8]) {
        let captured = &mut self.state.lock().captured;
        if !captured.contains_key(connection) {
            if captured.len() >= CAPTURED_MAX {
                return;
            }
            captured.insert(connection.into(), Vec::new());
        }
        if let Some(beginning) = captured.get_mut(connection) {
            let room = CAPTURED_BYTES.saturating_sub(beginning.len());
            beginning.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// Of how many connections something is kept.
    pub fn captured(&self) -> usize {
        self.state.lock().captured.len()
    }

    /// What is kept of one of them.
    pub fn beginning(&self, index: usize) -> Vec<u8> {
        let state = self.state.lock();
        state
            .captured
            .values()
            .nth(index)
            .cloned()
            .unwrap_or_default()
    }

    /// What was noted so far, in one number.
    pub fn hash(&self) -> u128 {
        self.state.lock().hasher.digest128()
    }
}
