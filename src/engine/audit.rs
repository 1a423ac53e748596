//! What may be compared with other nodes: for each range its sum and the events it rests on, with the
//! published frontier, all of one instant.
//!
//! The committer keeps it up in the order of the log, under one lock. Read piece by piece, a sum could
//! belong to another frontier than the one beside it, and two sound nodes would differ.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use crate::crdt::dot::{Dot, ReplicaIndex};
use crate::crdt::fingerprint::{Fingerprint, RANGES};
use crate::crdt::frontier::ShortForm;
use crate::crdt::version_vector::VersionVector;
use crate::engine::published::Published;
use crate::engine::section::Section;
use crate::engine::{Engine, Settlement};
use crate::planted::{Bug, is_planted};

/// One range of a durable state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeState {
    pub range: usize,
    pub sum: Fingerprint,
    /// The join of the dots of all events ever applied to it, with effect or without; entries that others
    /// imply may be left out.
    pub changed: ShortForm,
}

/// Ranges of one instant, and the frontier of that instant.
#[derive(Clone)]
pub struct Audited {
    pub published: Arc<Published>,
    pub ranges: Vec<RangeState>,
}

/// How a range of two settled nodes compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    /// Both have applied the same events of it and hold different entries.
    Different,
    /// One of them has applied an event of it that the other's frontier does not cover.
    NotNow,
}

/// Compares a range of this node with another's, each with the frontier of its instant.
pub fn compare(
    (ours, our_frontier): (&RangeState, &VersionVector),
    (theirs, their_frontier): (&RangeState, &VersionVector),
) -> Comparison {
    let covered = |changed: &ShortForm, frontier: &VersionVector| {
        changed
            .iter()
            .all(|(replica, seq)| frontier.get(*replica) >= *seq)
    };
    let comparable =
        covered(&theirs.changed, our_frontier) && covered(&ours.changed, their_frontier);
    match comparable {
        false => Comparison::NotNow,
        true if ours.sum == theirs.sum => Comparison::Equal,
        true => Comparison::Different,
    }
}

/// The last changes of a range since the base.
type Since = SmallVec<[(ReplicaIndex, u64); 4]>;

/// See the module. Behind one lock of the engine.
pub(super) struct Ledger {
    published: Arc<Published>,
    /// What every range rests on: the frontier of the start, or that of the last merge.
    base: ShortForm,
    since: Box<[Since]>,
}

/// The dots that a section brings to ranges.
pub(super) fn touched(section: &Section) -> Vec<(usize, Dot)> {
    let mut touched: Vec<(usize, Dot)> = section.further.clone();
    if let Some(dot) = section.last_dot() {
        for (range, _) in &section.prints {
            if touched.last() != Some(&(*range, dot)) {
                touched.push((*range, dot));
            }
        }
    }
    touched
}

impl Ledger {
    pub fn new(published: Arc<Published>) -> Self {
        let base = match is_planted(Bug::ChangedSinceStart) {
            true => ShortForm::default(),
            false => published.short.clone(),
        };
        let since = vec![Since::new(); RANGES].into_boxed_slice();
        Self {
            published,
            base,
            since,
        }
    }

    /// Events were applied to ranges. With the next call of [`Self::publish`], before the lock is given back.
    pub fn note(&mut self, touched: &[(usize, Dot)]) {
        for (range, dot) in touched {
            let since = &mut self.since[*range];
            match since.iter_mut().find(|(known, _)| *known == dot.replica) {
                Some((_, seq)) => *seq = (*seq).max(dot.seq),
                None => since.push((dot.replica, dot.seq)),
            }
        }
    }

    /// Anything may have been applied to any range, up to what is published now.
    pub fn rebase(&mut self, base: ShortForm) {
        self.base = base;
        self.since.iter_mut().for_each(SmallVec::clear);
    }

    pub fn publish(&mut self, published: Arc<Published>) {
        self.published = published;
    }

    fn state(&self, range: usize) -> RangeState {
        let mut changed = self.base.clone();
        for (replica, seq) in &self.since[range] {
            // A dot that joins beside its event may be older than the base.
            match changed.iter_mut().find(|(known, _)| known == replica) {
                Some((_, last)) => *last = (*last).max(*seq),
                None => changed.push((*replica, *seq)),
            }
        }
        RangeState {
            range,
            sum: self.published.sums.range(range),
            changed,
        }
    }
}

impl Engine {
    /// These ranges as they are durable; none while the node holds anything beyond its frontier.
    pub fn audited(&self, ranges: &[usize]) -> Option<Audited> {
        let merges = self.merges.load(Ordering::Acquire);
        if self.settlement() != Settlement::Settled {
            return None;
        }
        let audited = {
            let ledger = self.ledger.lock();
            Audited {
                published: ledger.published.clone(),
                ranges: ranges.iter().map(|range| ledger.state(*range)).collect(),
            }
        };
        // A merge that began and ended meanwhile may have shown its half.
        let is_settled = self.settlement() == Settlement::Settled
            && self.merges.load(Ordering::Acquire) == merges;
        is_settled.then_some(audited)
    }
}
