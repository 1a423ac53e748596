//! The receiving half: blocks go to the engine in order; what cannot be applied is dropped and asked
//! for again.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::codec::DecodeError;
use crate::codec::block::{BlockHead, HeadAndPredecessors};
use crate::crdt::dot::ReplicaIndex;
use crate::engine::published::Published;
use crate::replication::frame::{CloseReason, Frame};
use crate::replication::session::effect::{Effect, Verdict};
use crate::replication::session::{Fault, Session};

/// How long a block waits that the engine had no place for.
const BUSY_PAUSE_MS: u64 = 5;
/// The least time between two requests to go on from the durable frontier.
const RESUME_PAUSE_MS: u64 = 1_000;
/// What that time grows to while they do not help, such as during the merge of a snapshot.
const RESUME_PAUSE_MAX_MS: u64 = 4_000;

#[derive(Debug, Default)]
pub(super) struct Receiving {
    /// The last frame that came.
    last: u64,
    /// Frames that are applied and not durable. The sender's window bounds them.
    undurable: VecDeque<u64>,
    /// The block that is with the engine, or waits to go there again.
    applying: Option<(u64, Bytes)>,
    /// When it goes there again.
    retry_ms: Option<u64>,
    /// The first frame dropped since the last Resume: it and those after it are not dealt with, so that
    /// the sender's window closes.
    dropped_from: Option<u64>,
    /// What was dropped and has not come since: for each replica the highest number.
    dropped: BTreeMap<ReplicaIndex, u64>,
    resume_ms: Option<u64>,
    resume_pause_ms: u64,
    problem: &'static str,
    /// Replicas whose events are passed over from these numbers on: they are of a kind that this node does not
    /// know, or follow on such ones.
    withheld: BTreeMap<ReplicaIndex, u64>,
    /// The first of them, and its kind.
    unknown: Option<(ReplicaIndex, u64)>,
}

impl Receiving {
    pub fn is_stalled(&self) -> bool {
        self.applying.is_some()
    }

    pub fn problem(&self) -> &'static str {
        self.problem
    }

    /// Whose events were the first of an unknown kind, and of which.
    pub fn unknown_kind(&self) -> Option<(ReplicaIndex, u64)> {
        self.unknown
    }

    pub fn due_ms(&self) -> Option<u64> {
        let resume = self.resume_ms.filter(|_| !self.dropped.is_empty());
        [self.retry_ms, resume].into_iter().flatten().min()
    }

    /// The newest frame up to which all are dealt with.
    pub fn dealt(&self) -> u64 {
        let applying = self.applying.as_ref().map(|(frame, _)| *frame);
        let first = [self.undurable.front().copied(), applying, self.dropped_from];
        let first = first.into_iter().flatten().min();
        first.map_or(self.last, |first| first - 1)
    }

    pub fn handle_events(
        &mut self,
        frame: u64,
        block: Bytes,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        assert!(self.applying.is_none(), "frames come one at a time");
        if frame != self.last + 1 {
            let message = format!("Events frame {frame} after {}", self.last);
            return Err(Fault::protocol(message));
        }
        self.last = frame;
        self.applying = Some((frame, block.clone()));
        effects.push(Effect::Apply { frame, block });
        Ok(())
    }

    /// Takes the engine's word on the block that is with it. Returns a replica and a number from which on the sender
    /// is to send no more of it in this session.
    pub fn handle_verdict(
        &mut self,
        verdict: &Verdict,
        beginning: impl Fn(&[u8]) -> Result<HeadAndPredecessors, DecodeError>,
        published: &Published,
        now_ms: u64,
    ) -> Result<Option<(ReplicaIndex, u64)>, DecodeError> {
        if *verdict == Verdict::Busy {
            self.retry_ms = Some(now_ms + BUSY_PAUSE_MS);
            return Ok(None);
        }
        let (frame, block) = self.applying.take().expect("a block is with the engine");
        match verdict {
            Verdict::New => self.undurable.push_back(frame),
            Verdict::UnknownKind { kind } => {
                let (head, _) = beginning(&block)?;
                let from = self.withhold(head, published.vector.get(head.replica));
                if from.is_some() {
                    self.unknown.get_or_insert((head.replica, *kind));
                }
                return Ok(from);
            }
            Verdict::NotYet | Verdict::NoRoom => {
                let (head, predecessors) = beginning(&block)?;
                if self.follows_on_withheld(head, predecessors.as_deref().unwrap_or_default()) {
                    return Ok(self.withhold(head, published.vector.get(head.replica)));
                }
                self.problem = match verdict {
                    Verdict::NoRoom => "there is no room on this node's disk for the peer's events",
                    _ => "events came that cannot be applied yet",
                };
                self.drop_block(frame, head, now_ms);
            }
            _ => {}
        }
        Ok(None)
    }

    /// Passes over a replica's events from the first of this block on that is not covered. Returns what to ask of the
    /// sender, if it does not know.
    fn withhold(&mut self, head: BlockHead, covered: u64) -> Option<(ReplicaIndex, u64)> {
        let first = head.first_seq.max(covered + 1);
        let known = self.withheld.get(&head.replica);
        if first > head.last_seq() || known.is_some_and(|from| *from <= first) {
            return None;
        }
        self.withheld.insert(head.replica, first);
        Some((head.replica, first))
    }

    fn follows_on_withheld(&self, head: BlockHead, predecessors: &[(ReplicaIndex, u64)]) -> bool {
        let is_withheld = |replica: ReplicaIndex, number: u64| {
            let from = self.withheld.get(&replica);
            from.is_some_and(|from| number >= *from)
        };
        let mut predecessors = predecessors.iter();
        is_withheld(head.replica, head.last_seq())
            || predecessors.any(|(replica, number)| is_withheld(*replica, *number))
    }

    /// Whether what is withheld came another way: a new session goes on after it.
    pub fn is_withheld_covered(&self, published: &Published) -> bool {
        let mut withheld = self.withheld.iter();
        withheld.any(|(replica, from)| published.vector.get(*replica) >= *from)
    }

    fn drop_block(&mut self, frame: u64, head: BlockHead, now_ms: u64) {
        self.dropped_from.get_or_insert(frame);
        let highest = self.dropped.entry(head.replica).or_default();
        *highest = (*highest).max(head.last_seq());
        if self.resume_pause_ms == 0 {
            self.resume_pause_ms = RESUME_PAUSE_MS;
        }
        self.resume_ms.get_or_insert(now_ms);
    }

    pub fn handle_durable(&mut self, frame: u64) {
        assert_eq!(
            self.undurable.pop_front(),
            Some(frame),
            "blocks become durable in order"
        );
    }

    /// What was dropped may have come again, from here or from elsewhere.
    pub fn handle_published(&mut self, published: &Published) {
        if self.dropped.is_empty() {
            return;
        }
        let vector = &published.vector;
        self.dropped
            .retain(|replica, highest| vector.get(*replica) < *highest);
        if self.dropped.is_empty() {
            self.dropped_from = None;
            self.resume_pause_ms = RESUME_PAUSE_MS;
            self.problem = "";
        }
    }

    /// Hands the waiting block over again when it is time.
    pub fn retry(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.retry_ms.is_some_and(|due| now_ms >= due)
            && let Some((frame, block)) = self.applying.clone()
        {
            self.retry_ms = None;
            effects.push(Effect::Apply { frame, block });
        }
    }

    /// Whether to ask the sender now to go on from the durable frontier.
    pub fn take_resume(&mut self, now_ms: u64) -> bool {
        let is_due = self.resume_ms.is_some_and(|due| now_ms >= due);
        if self.dropped.is_empty() || !is_due {
            return false;
        }
        self.dropped_from = None;
        self.resume_ms = Some(now_ms + self.resume_pause_ms);
        self.resume_pause_ms = (self.resume_pause_ms * 2).min(RESUME_PAUSE_MAX_MS);
        true
    }
}

impl Session {
    pub(super) fn handle_verdict(
        &mut self,
        verdict: Verdict,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        match verdict {
            Verdict::Malformed(why) => Err(Fault::protocol(format!("a block was refused: {why}"))),
            Verdict::Stopped(why) => Err(Fault::new(CloseReason::Stopping, why)),
            Verdict::Alarm { claimed, made } => Err(self.alarm(claimed, made, effects)),
            Verdict::Conflict(why) => Err(Fault::new(CloseReason::Conflict, why)),
            Verdict::New
            | Verdict::Known
            | Verdict::NotYet
            | Verdict::NoRoom
            | Verdict::Busy
            | Verdict::UnknownKind { .. } => {
                let beginning = |block: &[u8]| self.knowledge.beginning(block);
                let published = &self.durable.published;
                let handled = self
                    .receiving
                    .handle_verdict(&verdict, beginning, published, now_ms);
                let withhold = handled.map_err(|error| Fault::protocol(error.to_string()))?;
                if let Some(from) = withhold {
                    let replicas = self.named(&[from]);
                    effects.push(Effect::Send(Frame::Withhold { replicas }));
                }
                Ok(())
            }
        }
    }
}
