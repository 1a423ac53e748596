//! The audits of a session: which ranges are sent when, and what is made of those that come.
//!
//! Ranges whose sums changed since they were last sent go first, some at a time; besides, all are gone round in
//! a stated time. What cannot be compared when it comes is looked at again for a while: the events that it rests
//! on are still being synced. A difference is answered, and so is its end, so that both sides know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::crdt::fingerprint::{Fingerprint, RANGES};
use crate::crdt::version_vector::VersionVector;
use crate::engine::audit::{Comparison, RangeState, compare};
use crate::engine::published::Published;
use crate::limits::AUDIT_CHANGED_MAX;
use crate::replication::frame::{Audit, Frame, RangeAudit};
use crate::replication::session::effect::{Compared, Effect, Knowledge};
use crate::replication::session::{Fault, Session};

/// Audits in one round over all ranges.
const AUDITS_PER_ROUND: u64 = 32;
const PAUSE_MIN_MS: u64 = 20;
const PAUSE_MAX_MS: u64 = 1_000;
/// How long what came is looked at again.
const PENDING_MS: u64 = 1_000;
const LOOK_AGAIN_MS: u64 = 20;

/// What came and could not be compared yet.
#[derive(Debug)]
struct Pending {
    frontier: Arc<VersionVector>,
    ranges: Vec<RangeState>,
    until_ms: u64,
    look_ms: u64,
}

#[derive(Debug)]
pub(super) struct Auditing {
    pause_ms: u64,
    ranges_at_once: usize,
    due_ms: u64,
    /// Where the round stands.
    next: usize,
    /// The sums that were last sent, by range.
    sent: BTreeMap<usize, Fingerprint>,
    /// Where the peer was found different.
    different: BTreeSet<usize>,
    /// What is to be answered.
    answers: BTreeSet<usize>,
    /// At most one audit of the peer; the next takes its place.
    pending: Option<Pending>,
}

impl Auditing {
    pub fn new(round_ms: u64) -> Self {
        let pause_ms = (round_ms / AUDITS_PER_ROUND).clamp(PAUSE_MIN_MS, PAUSE_MAX_MS);
        let at_once = (RANGES as u64 * pause_ms).div_ceil(round_ms.max(1));
        Self {
            pause_ms,
            ranges_at_once: (at_once as usize).clamp(1, RANGES),
            due_ms: 0,
            next: 0,
            sent: BTreeMap::new(),
            different: BTreeSet::new(),
            answers: BTreeSet::new(),
            pending: None,
        }
    }

    pub fn due_ms(&self) -> u64 {
        let look = self.pending.as_ref().map(|pending| pending.look_ms);
        look.map_or(self.due_ms, |look| look.min(self.due_ms))
    }

    /// Whether the peer was found different in a range, and not equal since.
    pub fn differs(&self) -> bool {
        !self.different.is_empty()
    }

    /// The ranges to send now, if it is time.
    pub fn take_due(&mut self, published: &Published, now_ms: u64) -> Vec<usize> {
        if now_ms < self.due_ms {
            return Vec::new();
        }
        self.due_ms = now_ms + self.pause_ms;
        let mut chosen = std::mem::take(&mut self.answers);
        chosen.extend(&self.different);
        let sums = &published.sums;
        let from = self.next;
        let round = (0..RANGES).map(|at| (from + at) % RANGES);
        let changed = round.filter(|range| self.sent.get(range) != Some(&sums.range(*range)));
        chosen.extend(changed.take(AUDIT_CHANGED_MAX));
        chosen.extend((0..self.ranges_at_once).map(|at| (from + at) % RANGES));
        self.next = (from + self.ranges_at_once) % RANGES;
        chosen.into_iter().collect()
    }

    pub fn note_sent(&mut self, ranges: &[RangeState]) {
        for state in ranges {
            self.sent.insert(state.range, state.sum);
        }
    }

    pub fn handle(&mut self, frontier: Arc<VersionVector>, ranges: Vec<RangeState>, now_ms: u64) {
        self.pending = Some(Pending {
            frontier,
            ranges,
            until_ms: now_ms + PENDING_MS,
            look_ms: now_ms,
        });
    }

    /// Compares what came, as far as it can be now.
    pub fn compare(&mut self, knowledge: &dyn Knowledge, now_ms: u64) -> Vec<Compared> {
        let Some(mut pending) = self.pending.take_if(|pending| now_ms >= pending.look_ms) else {
            return Vec::new();
        };
        let ranges: Vec<usize> = pending.ranges.iter().map(|state| state.range).collect();
        let mut compared = Vec::new();
        if let Some(ours) = knowledge.audited(&ranges) {
            let our_frontier = &ours.published.vector;
            let mut both = ours.ranges.iter().zip(std::mem::take(&mut pending.ranges));
            for (ours, theirs) in both.by_ref() {
                let found = compare((ours, our_frontier), (&theirs, &pending.frontier));
                match found {
                    Comparison::NotNow => pending.ranges.push(theirs),
                    Comparison::Equal | Comparison::Different => compared.push(Compared {
                        range: ours.range,
                        ours: ours.sum,
                        theirs: theirs.sum,
                    }),
                }
            }
        }
        compared.iter().for_each(|one| self.note(one));
        if !pending.ranges.is_empty() && now_ms < pending.until_ms {
            pending.look_ms = now_ms + LOOK_AGAIN_MS;
            self.pending = Some(pending);
        }
        compared
    }

    fn note(&mut self, compared: &Compared) {
        let range = compared.range;
        let is_news = match compared.is_equal() {
            true => self.different.remove(&range),
            false => self.different.insert(range),
        };
        if is_news {
            self.answers.insert(range);
        }
    }
}

impl Session {
    pub(super) fn handle_audit(
        &mut self,
        audit: Audit,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        let mut ranges = Vec::with_capacity(audit.ranges.len());
        for RangeAudit {
            range,
            sum,
            changed,
        } in audit.ranges
        {
            let changed = self.indexed(&changed, effects)?;
            ranges.push(RangeState {
                range,
                sum,
                changed,
            });
        }
        let (known, fell) = self.learn(&audit.frontier, audit.lineage, 0, effects)?;
        self.follow(fell, effects);
        if known {
            let peer = self.peer.as_ref().expect("open");
            self.auditing.handle(peer.acked.clone(), ranges, now_ms);
        }
        Ok(())
    }

    /// Compares what came, and sends what is due.
    pub(super) fn audit(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let compared = self.auditing.compare(self.knowledge.as_ref(), now_ms);
        if !compared.is_empty() {
            effects.push(Effect::Compared(compared));
        }
        if self.is_backlogged {
            return;
        }
        let ranges = self.auditing.take_due(&self.durable.published, now_ms);
        if ranges.is_empty() {
            return;
        }
        let Some(audited) = self.knowledge.audited(&ranges) else {
            return;
        };
        self.auditing.note_sent(&audited.ranges);
        let short = &audited.published.short;
        let audit = Audit {
            frontier: self.named(short),
            lineage: self.describe(short),
            ranges: audited
                .ranges
                .iter()
                .map(|state| RangeAudit {
                    range: state.range,
                    sum: state.sum,
                    changed: self.named(&state.changed),
                })
                .collect(),
        };
        effects.push(Effect::Send(Frame::Audit(audit)));
    }
}
