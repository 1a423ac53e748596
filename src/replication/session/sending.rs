//! The sending half: two readers of the log, a window, and what the log no longer reaches.
//!
//! The *own* reader sends blocks of this region's replicas as they become durable. The *relay* lags
//! behind: it takes samples of the log's end, and when one is `relay_after_ms` old and the peer's
//! frontier covers what it holds of other regions, the reader jumps there without reading; else it
//! reads up to there and sends what the peer lacks. So a full mesh carries each event once, and a
//! missing link is bridged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::crdt::dot::ReplicaIndex;
use crate::crdt::frontier::ShortForm;
use crate::crdt::version_vector::VersionVector;
use crate::engine::published::Published;
use crate::limits::RELAY_SAMPLES_MAX;
use crate::log::Position;
use crate::planted::{Bug, is_planted};
use crate::replication::frame::{CloseReason, Frame};
use crate::replication::session::Fault;
use crate::replication::session::effect::{
    Cursor, Durable, Effect, LogBlock, LogFault, LogPiece, LogSurvey, Settings,
};
use crate::replication::session::peer::Peer;

/// Samples are taken this many times while one becomes due.
const SAMPLES_A_RELAY: u64 = 4;

/// Whether a replica is of this node's region.
type IsOwn<'a> = &'a dyn Fn(ReplicaIndex) -> bool;

#[derive(Debug)]
pub(super) struct Sending {
    relay_after_ms: u64,
    window_bytes: usize,
    block_bytes: usize,
    /// Counts the beginnings; what was read for an earlier one is dropped.
    generation: u64,
    /// Whether the readers know where to begin.
    is_placed: bool,
    own: Position,
    relay: Position,
    /// The newest sample that became due: the relay goes up to it.
    relay_to: Option<Arc<Published>>,
    /// Not due yet, oldest first.
    samples: VecDeque<(u64, Arc<Published>)>,
    sampled_ms: u64,
    sampled: Position,
    /// The reader for which the log is being read.
    reading: Option<Cursor>,
    last_read: Cursor,
    /// Read and not sent. Holds one read of the log at most.
    outbox: VecDeque<(Cursor, LogBlock)>,
    /// Sent and not acknowledged: frame and bytes.
    in_flight: VecDeque<(u64, usize)>,
    in_flight_bytes: usize,
    last_frame: u64,
    acknowledged: u64,
    /// Replicas that the log cannot go on with until the peer covers these numbers. Their blocks are not
    /// sent.
    behind: BTreeMap<ReplicaIndex, u64>,
    /// Replicas that follow on those: the peer could not apply their events either.
    waiting: BTreeSet<ReplicaIndex>,
    /// Replicas of which the peer wants no events from these numbers on, in this session.
    withheld: BTreeMap<ReplicaIndex, u64>,
}

impl Sending {
    pub fn new(settings: &Settings) -> Self {
        Self {
            relay_after_ms: settings.relay_after_ms,
            window_bytes: settings.window_bytes,
            block_bytes: settings.block_bytes,
            generation: 0,
            is_placed: false,
            own: Position::START,
            relay: Position::START,
            relay_to: None,
            samples: VecDeque::new(),
            sampled_ms: 0,
            sampled: Position::START,
            reading: None,
            last_read: Cursor::Relay,
            outbox: VecDeque::new(),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            last_frame: 0,
            acknowledged: 0,
            behind: BTreeMap::new(),
            waiting: BTreeSet::new(),
            withheld: BTreeMap::new(),
        }
    }

    pub fn behind_replicas(&self) -> usize {
        self.behind.len()
    }

    pub fn withheld_replicas(&self) -> usize {
        self.withheld.len()
    }

    /// The peer wants no events of these replicas from these numbers on.
    pub fn withhold(&mut self, replicas: ShortForm) {
        self.withheld.extend(replicas);
    }

    /// Whether the peer lacks an event up to this number that may be sent to it.
    fn lacks(&self, acked: &VersionVector, replica: ReplicaIndex, number: u64) -> bool {
        let wanted = self
            .withheld
            .get(&replica)
            .map_or(u64::MAX, |from| from - 1);
        acked.get(replica) < number.min(wanted) && !self.is_stuck(replica)
    }

    /// Whether the log cannot go on with the replica for now.
    fn is_stuck(&self, replica: ReplicaIndex) -> bool {
        self.behind.contains_key(&replica) || self.waiting.contains(&replica)
    }

    /// The session has begun: what is durable now is relayed if it is still missing after a while.
    pub fn open(&mut self, durable: &Durable, now_ms: u64) {
        self.push_sample(durable, now_ms);
    }

    /// Begins again from the peer's frontier; what is under way is forgotten.
    pub fn reset(&mut self, effects: &mut Vec<Effect>) {
        self.generation += 1;
        self.is_placed = false;
        self.reading = None;
        self.outbox.clear();
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        effects.push(Effect::SurveyLog);
    }

    /// Whether the peer covers now what a replica was waiting for.
    pub fn is_reached(&self, acked: &VersionVector) -> bool {
        let mut behind = self.behind.iter();
        behind.any(|(replica, number)| acked.get(*replica) >= *number)
    }

    /// Finds the replicas that the log does not reach, and returns them.
    pub fn find_behind(&mut self, survey: &LogSurvey, peer: &Peer) -> ShortForm {
        let mut whole_from = survey.floor.clone();
        if let Some((_, oldest)) = survey.segments.first() {
            whole_from.join(oldest);
        }
        let short = |(replica, number): &(ReplicaIndex, u64)| {
            peer.acked.get(*replica) < *number && *replica != peer.index
        };
        self.behind = whole_from.iter().filter(short).collect();
        self.behind
            .iter()
            .map(|(replica, number)| (*replica, *number))
            .collect()
    }

    /// Places both readers; `waiting` are the replicas that follow on those that the log does not reach.
    pub fn place(
        &mut self,
        survey: &LogSurvey,
        peer: &Peer,
        waiting: BTreeSet<ReplicaIndex>,
        is_own: IsOwn<'_>,
    ) {
        self.waiting = waiting;
        self.own = self.start(survey, &peer.acked, is_own);
        self.relay = self.start(survey, &peer.acked, &|replica| !is_own(replica));
        self.is_placed = true;
    }

    /// The newest segment before which the peer lacks nothing of these replicas.
    fn start(&self, survey: &LogSurvey, acked: &VersionVector, counts: IsOwn<'_>) -> Position {
        let lacks = |(replica, number): (ReplicaIndex, u64)| {
            counts(replica) && self.lacks(acked, replica, number)
        };
        let reached = |(_, context): &&(Position, VersionVector)| !context.iter().any(lacks);
        let newest = survey.segments.iter().rev().find(reached);
        let place = newest.or(survey.segments.first());
        place.map_or(Position::START, |(base, _)| *base)
    }

    fn sample_pause_ms(&self) -> u64 {
        (self.relay_after_ms / SAMPLES_A_RELAY).max(1)
    }

    /// When there is something to sample or a sample becomes due.
    pub fn sample_due_ms(&self, durable: &Durable) -> Option<u64> {
        let oldest = self.samples.front();
        let due = oldest.map(|(at, _)| at + self.relay_after_ms);
        let is_new = durable.published.position > self.sampled;
        let wanted = is_new && self.samples.len() < RELAY_SAMPLES_MAX;
        let sample = wanted.then(|| self.sampled_ms + self.sample_pause_ms());
        [due, sample].into_iter().flatten().min()
    }

    /// Takes a sample where it is time, and takes over those that are due.
    pub fn sample(&mut self, durable: &Durable, now_ms: u64) {
        while let Some((at, _)) = self.samples.front()
            && now_ms >= at + self.relay_after_ms
        {
            self.relay_to = self.samples.pop_front().map(|(_, published)| published);
        }
        let is_new = durable.published.position > self.sampled;
        let has_paused = now_ms >= self.sampled_ms + self.sample_pause_ms();
        if is_new && has_paused && self.samples.len() < RELAY_SAMPLES_MAX {
            self.push_sample(durable, now_ms);
        }
    }

    fn push_sample(&mut self, durable: &Durable, now_ms: u64) {
        self.sampled_ms = now_ms;
        self.sampled = durable.published.position;
        self.samples.push_back((now_ms, durable.published.clone()));
    }

    pub fn check_acknowledged(&self, frame: u64) -> Result<(), Fault> {
        if frame < self.acknowledged || frame > self.last_frame {
            let (from, to) = (self.acknowledged, self.last_frame);
            let message = format!("frame {frame} was acknowledged; expected {from} to {to}");
            return Err(Fault::protocol(message));
        }
        Ok(())
    }

    pub fn handle_acknowledged(&mut self, frame: u64) {
        self.acknowledged = frame;
        while let Some((sent, bytes)) = self.in_flight.front()
            && *sent <= frame
        {
            self.in_flight_bytes -= bytes;
            self.in_flight.pop_front();
        }
    }

    /// Takes in a piece of the log.
    pub fn handle_read(
        &mut self,
        generation: u64,
        result: Result<LogPiece, LogFault>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        if generation != self.generation {
            return Ok(());
        }
        let cursor = self.reading.take().expect("one read at a time");
        match result {
            Ok(piece) => self.take_piece(cursor, piece),
            Err(LogFault::Cut) => self.reset(effects),
            Err(LogFault::Broken(why)) => {
                let message = format!("the log cannot be read: {why}");
                return Err(Fault::new(CloseReason::Fault, message));
            }
        }
        Ok(())
    }

    fn take_piece(&mut self, cursor: Cursor, piece: LogPiece) {
        let end = match cursor {
            Cursor::Own => None,
            Cursor::Relay => self.relay_to.as_ref().map(|sample| sample.position),
        };
        // Beyond the sample nothing is due.
        let is_due = |block: &LogBlock| end.is_none_or(|end| block.position < end);
        let due = piece.blocks.into_iter().filter(is_due);
        self.outbox.extend(due.map(|block| (cursor, block)));
        let next = end.map_or(piece.next, |end| piece.next.min(end));
        match cursor {
            Cursor::Own => self.own = next,
            Cursor::Relay => self.relay = next,
        }
    }

    /// Sends what the window takes, and asks for more of the log when there is room for it.
    pub fn pump(
        &mut self,
        durable: &Durable,
        peer: &Peer,
        is_own: IsOwn<'_>,
        effects: &mut Vec<Effect>,
    ) {
        if !self.is_placed {
            return;
        }
        while let Some((cursor, block)) = self.outbox.front() {
            if !self.is_wanted(*cursor, block, peer, is_own) {
                self.outbox.pop_front();
                continue;
            }
            let bytes = block.bytes.len();
            if self.in_flight_bytes > 0 && self.in_flight_bytes + bytes > self.window_bytes {
                return;
            }
            let (_, block) = self.outbox.pop_front().expect("looked at above");
            self.last_frame += 1;
            self.in_flight.push_back((self.last_frame, bytes));
            self.in_flight_bytes += bytes;
            effects.push(Effect::Send(Frame::Events {
                frame: self.last_frame,
                block: block.bytes,
            }));
        }
        self.read_on(durable, peer, is_own, effects);
    }

    fn is_wanted(&self, cursor: Cursor, block: &LogBlock, peer: &Peer, is_own: IsOwn<'_>) -> bool {
        let replica = block.head.replica;
        is_own(replica) == (cursor == Cursor::Own)
            && replica != peer.index
            && peer.acked.get(replica) < block.head.last_seq()
            && !self.is_stuck(replica)
            && self
                .withheld
                .get(&replica)
                .is_none_or(|from| block.head.last_seq() < *from)
    }

    fn read_on(
        &mut self,
        durable: &Durable,
        peer: &Peer,
        is_own: IsOwn<'_>,
        effects: &mut Vec<Effect>,
    ) {
        if self.reading.is_some() || self.in_flight_bytes >= self.window_bytes {
            return;
        }
        self.jump(peer, is_own);
        let own = self.own < durable.published.position;
        let relay_to = self.relay_to.as_ref();
        let relay = relay_to.is_some_and(|sample| self.relay < sample.position)
            && !is_planted(Bug::RelayOff);
        let cursor = match (own, relay) {
            (false, false) => return,
            (true, false) => Cursor::Own,
            (false, true) => Cursor::Relay,
            // In turns: neither starves the other.
            (true, true) => match self.last_read {
                Cursor::Own => Cursor::Relay,
                Cursor::Relay => Cursor::Own,
            },
        };
        self.reading = Some(cursor);
        self.last_read = cursor;
        effects.push(Effect::ReadLog {
            generation: self.generation,
            from: match cursor {
                Cursor::Own => self.own,
                Cursor::Relay => self.relay,
            },
            bytes_max: self.block_bytes,
        });
    }

    /// Spares the relay the reading where the peer has all of it.
    fn jump(&mut self, peer: &Peer, is_own: IsOwn<'_>) {
        let Some(sample) = &self.relay_to else {
            return;
        };
        if self.relay >= sample.position {
            return;
        }
        let lacks = |(replica, seq): (ReplicaIndex, u64)| {
            !is_own(replica) && replica != peer.index && self.lacks(&peer.acked, replica, seq)
        };
        if !sample.vector.iter().any(lacks) {
            self.relay = sample.position;
        }
    }
}
