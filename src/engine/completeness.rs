//! Up to when this node's own events are durable: what others may take for "complete until".
//!
//! An event gets its time after its number is drawn. So whoever reads the clock, then the number drawn last,
//! and later finds that number durable, knows that every event with an earlier time is durable too.

use crate::crdt::dot::ReplicaIndex;
use crate::engine::Engine;

/// Guards: everything of this node with a time up to `until_ms` is durable.
#[derive(Debug, Default)]
pub struct Completeness {
    until_ms: u64,
    /// The clock, and then the number that was drawn last.
    mark: Option<(u64, (ReplicaIndex, u64))>,
}

impl Engine {
    /// Origin time up to which all events of this process are durable. Whoever looks at the board after it
    /// finds them there. Grows as long as somebody asks.
    pub fn complete_until_ms(&self) -> u64 {
        let now_ms = self.now_ms();
        let made = self.queue.own();
        let durable = self.board.newest();
        let is_durable = |(replica, seq): (ReplicaIndex, u64)| durable.vector.get(replica) >= seq;
        let mut known = self.completeness.lock();
        match known.mark {
            Some((at_ms, made)) if is_durable(made) => known.pass(at_ms),
            Some(_) => return known.until_ms,
            None => {}
        }
        match is_durable(made) {
            true => known.pass(now_ms),
            false => known.mark = Some((now_ms, made)),
        }
        known.until_ms
    }
}

impl Completeness {
    /// The running replica has ended with this number, which may not be durable: it comes before those of the
    /// next.
    pub(super) fn end(&mut self, made: (ReplicaIndex, u64), now_ms: u64) {
        let at_ms = self.mark.map_or(now_ms, |(at_ms, _)| at_ms);
        self.mark = Some((at_ms, made));
    }

    /// The mark is durable. An event of the same millisecond may have come after it.
    fn pass(&mut self, at_ms: u64) {
        self.mark = None;
        self.until_ms = self.until_ms.max(at_ms.saturating_sub(1));
    }
}
