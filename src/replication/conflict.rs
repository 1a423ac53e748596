//! A known number with other contents: somebody made a number twice, or a peer does not relay honestly.
//!
//! Where a block covers numbers that this node has, what is new of it is not applied before the rest was
//! compared with the own log, as far as that reaches back. Blocks overlap rarely (after a break, or when
//! two peers relay the same), and a comparison may read a whole segment: one at a time, with pauses;
//! others are let through and counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::codec::block;
use crate::crdt::event::Block;
use crate::engine::Engine;
use crate::engine::record::{COMMIT_RECORD, blocks};
use crate::log::{LogReader, Position, RecordKind};

/// Bytes of the log that are looked at at a time.
const PIECE_BYTES: usize = 256 << 10;
/// After a comparison there is none for this many times as long as it took: a peer that sends everything
/// again costs a tenth of a core and of the disk at most.
const REST_TIMES: u32 = 9;

/// Sees to it that one comparison runs at a time on a node.
#[derive(Default)]
pub(super) struct Turns {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_taken: bool,
    not_before: Option<Instant>,
}

/// Until it is dropped, nobody else compares.
pub(super) struct Turn {
    turns: Arc<Turns>,
    begun: Instant,
}

impl Turns {
    pub fn take(self: &Arc<Self>) -> Option<Turn> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.is_taken || state.not_before.is_some_and(|then| now < then) {
            return None;
        }
        state.is_taken = true;
        Some(Turn {
            turns: self.clone(),
            begun: now,
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let took: Duration = self.begun.elapsed();
        let mut state = self.turns.state.lock();
        state.is_taken = false;
        state.not_before = Some(Instant::now() + took * REST_TIMES);
    }
}

/// Whether the block names numbers that are durable here.
pub(super) fn overlaps(engine: &Engine, bytes: &[u8]) -> bool {
    let head = block::head(bytes, &mut engine.replicas());
    head.is_ok_and(|head| engine.board().newest().vector.get(head.replica) >= head.first_seq)
}

/// The first number that the block gives other contents than this node's log; none if all that the log holds is
/// the same. What cannot be read is not compared: it is told where it is needed.
pub(super) async fn difference(engine: Arc<Engine>, log: LogReader, bytes: Bytes) -> Option<u64> {
    let sent = engine.decode_block(&bytes).ok()?;
    let have = engine.board().newest().vector.get(sent.replica);
    let last = sent.last_seq().min(have);
    let mut next = beginning(&engine, &log, &sent);
    loop {
        let piece = log.read(next, PIECE_BYTES).await.ok()?;
        if piece.records.is_empty() {
            return None;
        }
        let commits = piece.records.iter();
        for record in commits.filter(|record| record.kind == RecordKind(COMMIT_RECORD)) {
            for bytes in blocks(&record.payload).ok()? {
                let head = block::head(&bytes, &mut engine.replicas()).ok()?;
                if head.replica != sent.replica || head.last_seq() < sent.first_seq {
                    continue;
                }
                let known = engine.decode_block(&bytes).ok()?;
                let differing = sent.differs_from(&known);
                if differing.is_some() || head.last_seq() >= last {
                    return differing;
                }
            }
        }
        next = piece.next;
    }
}

/// The newest segment before which nothing of the block stands.
fn beginning(engine: &Engine, log: &LogReader, sent: &Block) -> Position {
    let segments = log.segments();
    let is_before = |context: &[u8]| {
        let vector = engine.read_context(context);
        vector.is_some_and(|vector| vector.get(sent.replica) < sent.first_seq)
    };
    let newest = segments
        .iter()
        .rev()
        .find(|segment| is_before(&segment.context));
    let place = newest.or(segments.first());
    place.map_or(Position::START, |segment| segment.base)
}
