//! What audits and scrubs found: which ranges are disputed, with whom, and what is to be done about each.
//!
//! Decides by the rules of `docs/architecture.md`, "Audit and repair"; does nothing itself. Sessions and the
//! scrub tell what they found, `mending` asks for work and tells what became of it, status shows it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::counts::Counts;
use crate::crdt::fingerprint::Fingerprint;
use crate::crdt::ranges::RangeSet;
use crate::engine::Engine;
use crate::engine::mending::{Checked, Hearsay, Outcome, Taken};
use crate::ids::{Region, Replica};
use crate::limits::REPAIRS_WAITING_MAX;
use crate::replication::session::Compared;

/// The pause before what could not be done is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A region that has not given a range after so many tries is not counted on. It is asked again all the same.
const TRIES_MAX: u32 = 3;

/// What a region was last known to hold of a range, compared with the sum kept here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Equal {
        /// It has said so since the dispute began.
        is_fresh: bool,
    },
    /// By how much its sum differs.
    Different(Fingerprint),
    /// It differed before the range was changed here; it has not said anything since.
    Before,
}

/// What this node knows of its own state of a disputed range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    /// Not looked at since the dispute began.
    Unchecked,
    /// Memory, kept sum, checkpoint and log agree.
    Sound,
    /// They do not, and this node alone cannot tell which is right.
    Unclear,
}

struct Dispute {
    since_ms: u64,
    own: Own,
    /// The scrub found that the entries are not those of the kept sum, and nothing was put right since.
    is_suspected: bool,
    /// An operator holds what is here to be right.
    is_chosen: bool,
    /// Heard when the state was last looked at.
    checked_with: Hearsay,
    again: Instant,
    /// How often the range could not be had from a region.
    failures: BTreeMap<Region, u32>,
    /// What was last logged of it.
    told: String,
}

#[derive(Default)]
struct Range {
    heard: BTreeMap<Region, Heard>,
    dispute: Option<Dispute>,
}

/// A disputed range, as status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisputeView {
    pub range: usize,
    pub regions: Vec<Region>,
    pub since_ms: u64,
    /// What is done about it.
    pub state: String,
    /// Nothing more is done: an operator has to choose.
    pub is_undecided: bool,
}

/// Why a range was not taken from another region. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RepairError {
    #[error("{REPAIRS_WAITING_MAX} repairs wait already")]
    TooMany,
    #[error("range {range} was not taken from {from}: {why}")]
    Failed {
        range: usize,
        from: Region,
        why: String,
    },
    #[error("the node is stopping")]
    Stopping,
}

/// Where the outcome of an operator's repair goes.
pub(super) type Answer = oneshot::Sender<Result<Taken, RepairError>>;

/// What is to be done next.
pub(super) enum Work {
    /// Compare the range with this node's checkpoint and log.
    Check { range: usize, hearsay: Hearsay },
    /// Take the range from a region.
    Take {
        range: usize,
        from: Region,
        /// By how much the kept sum will change, unless an operator chose.
        expected: Option<Fingerprint>,
        answer: Option<Answer>,
    },
}

#[derive(Default)]
struct State {
    ranges: BTreeMap<usize, Range>,
    /// Operators' repairs. At most [`REPAIRS_WAITING_MAX`]; a further one is refused.
    repairs: VecDeque<(usize, Region, Answer)>,
}

pub struct Audits {
    engine: Arc<Engine>,
    counts: Arc<Counts>,
    /// Guards what was found. Never held while anything waits.
    state: Mutex<State>,
    pub(super) work: Notify,
}

impl Audits {
    pub fn new(engine: Arc<Engine>, counts: Arc<Counts>) -> Arc<Self> {
        Arc::new(Self {
            engine,
            counts,
            state: Mutex::default(),
            work: Notify::new(),
        })
    }

    /// A session compared ranges with its peer's.
    pub(super) fn note(&self, peer: &Replica, compared: &[Compared]) {
        let mut state = self.state.lock();
        for one in compared {
            let range = state.ranges.entry(one.range).or_default();
            let heard = match one.is_equal() {
                true => Heard::Equal {
                    is_fresh: range.dispute.is_some(),
                },
                false => Heard::Different(one.difference()),
            };
            range.heard.insert(peer.region.clone(), heard);
            if !one.is_equal() && range.dispute.is_none() {
                self.counts.ranges_diverged.one_more();
                let own = self.engine.own();
                tracing::error!(
                    range = one.range, ours = %one.ours, theirs = %one.theirs,
                    "{} and {} hold the same events of a range and different state",
                    own.region, peer.region
                );
                range.begin(Dispute::new(self.engine.now_ms()));
            }
        }
        self.follow(&mut state);
    }

    /// The scrub found that entries and kept sum do not agree.
    pub fn suspect(&self, checked: &Checked) {
        let mut state = self.state.lock();
        let range = state.ranges.entry(checked.range).or_default();
        if range.dispute.is_none() {
            tracing::error!(
                range = checked.range, memory = %checked.memory, kept = %checked.kept,
                "{}: the entries of a range are not those that its changes made",
                self.engine.own().region
            );
            range.begin(Dispute::new(self.engine.now_ms()));
        }
        if let Some(dispute) = &mut range.dispute {
            dispute.own = Own::Unchecked;
            dispute.is_suspected = true;
        }
        self.follow(&mut state);
    }

    /// What this node's checkpoint and log say of a disputed range.
    pub(super) fn note_checked(&self, hearsay: Hearsay, checked: &Checked) {
        let mut state = self.state.lock();
        let range = state.ranges.entry(checked.range).or_default();
        self.say_checked(checked);
        let Some(dispute) = &mut range.dispute else {
            return;
        };
        dispute.checked_with = hearsay;
        dispute.own = match checked.outcome {
            Outcome::Unclear => Own::Unclear,
            _ => Own::Sound,
        };
        dispute.is_suspected &= dispute.own == Own::Unclear;
        if checked.changes_sum() {
            range.forget();
        }
        self.follow(&mut state);
    }

    fn say_checked(&self, checked: &Checked) {
        let Checked {
            range,
            memory,
            kept,
            outcome,
            ..
        } = *checked;
        let rebuilt = checked.rebuilt.map(|sum| sum.to_string());
        let what = match outcome {
            Outcome::Sound | Outcome::Unclear => return,
            Outcome::MemoryMended => "memory was put right from checkpoint and log",
            Outcome::RowsMended => "the rows of the checkpoint are written again",
            Outcome::SumMended => "the kept sum was put right",
        };
        self.counts.ranges_mended.one_more();
        tracing::warn!(range, %memory, %kept, ?rebuilt, "{}: {what}", self.engine.own().region);
    }

    /// Rows were damaged, and memory is known to be right: the scrub has seen to it.
    pub fn note_rows_mended(&self, checked: &Checked) {
        self.say_checked(checked);
    }

    /// What became of a range that was to be taken.
    pub(super) fn note_taken(&self, from: &Region, taken: &Taken) {
        self.counts.ranges_mended.one_more();
        tracing::warn!(
            range = taken.range, before = %taken.before, after = %taken.after,
            removed = taken.difference.removed, added = taken.difference.added,
            "{} has taken a range from {from}", self.engine.own().region
        );
        let mut state = self.state.lock();
        let range = state.ranges.entry(taken.range).or_default();
        range.forget();
        if let Some(dispute) = &mut range.dispute {
            dispute.own = Own::Sound;
            dispute.is_suspected = false;
            dispute.is_chosen = *from == self.engine.own().region;
        }
        self.follow(&mut state);
    }

    /// It is tried again in a moment; where it was to come from a region, from another one first.
    pub(super) fn note_failed(&self, range: usize, from: Option<&Region>) {
        let mut state = self.state.lock();
        let dispute = state.ranges.get_mut(&range);
        if let Some(dispute) = dispute.and_then(|range| range.dispute.as_mut()) {
            dispute.again = Instant::now() + AGAIN_AFTER;
            if let Some(from) = from {
                *dispute.failures.entry(from.clone()).or_default() += 1;
            }
        }
    }

    /// An operator chooses the region that is right.
    pub async fn repair(&self, range: usize, from: Region) -> Result<Taken, RepairError> {
        let (answer, outcome) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if state.repairs.len() >= REPAIRS_WAITING_MAX {
                return Err(RepairError::TooMany);
            }
            state.repairs.push_back((range, from, answer));
        }
        self.work.notify_one();
        outcome.await.unwrap_or(Err(RepairError::Stopping))
    }

    /// The disputed ranges.
    pub fn disputes(&self) -> Vec<DisputeView> {
        let state = self.state.lock();
        let disputed = state.ranges.iter().filter_map(|(number, range)| {
            let dispute = range.dispute.as_ref()?;
            Some(DisputeView {
                range: *number,
                regions: range.unequal().cloned().collect(),
                since_ms: dispute.since_ms,
                state: range.told(*number, dispute),
                is_undecided: range.is_undecided(dispute),
            })
        });
        disputed.collect()
    }

    /// The next thing to do, if there is one now.
    pub(super) fn next(&self, now: Instant) -> Option<Work> {
        let mut state = self.state.lock();
        while let Some((range, from, answer)) = state.repairs.pop_front() {
            if !answer.is_closed() {
                return Some(Work::Take {
                    range,
                    from,
                    expected: None,
                    answer: Some(answer),
                });
            }
        }
        let mut works = state.ranges.iter().filter_map(|(number, range)| {
            let dispute = range.dispute.as_ref()?;
            (dispute.again <= now).then(|| range.work(*number, dispute))?
        });
        works.next()
    }

    /// After anything was told: closes what is over, and says what is in doubt.
    fn follow(&self, state: &mut State) {
        let mut doubts = RangeSet::default();
        for (number, range) in &mut state.ranges {
            let Some(mut dispute) = range.dispute.take() else {
                continue;
            };
            let is_sound = match dispute.own {
                Own::Sound => true,
                Own::Unchecked => !dispute.is_suspected,
                Own::Unclear => false,
            };
            let is_over = is_sound && range.unequal().next().is_none();
            if is_over {
                tracing::info!(range = number, "a range is no longer disputed");
                continue;
            }
            let told = range.told(*number, &dispute);
            if dispute.told != told {
                tracing::warn!(range = number, "{}: {told}", self.engine.own().region);
                dispute.told = told;
            }
            if !range.is_known_right(&dispute) {
                doubts.insert(*number);
            }
            range.dispute = Some(dispute);
        }
        self.engine.set_doubts(doubts);
        self.work.notify_one();
    }
}

impl Dispute {
    fn new(since_ms: u64) -> Self {
        Self {
            since_ms,
            own: Own::Unchecked,
            is_suspected: false,
            is_chosen: false,
            checked_with: Hearsay::default(),
            again: Instant::now(),
            failures: BTreeMap::new(),
            told: String::new(),
        }
    }

    /// Whether none of these regions gives the range.
    fn have_failed(&self, regions: Vec<&Region>) -> bool {
        let failures = |region| self.failures.get(region).copied().unwrap_or_default();
        regions
            .into_iter()
            .all(|region| failures(region) >= TRIES_MAX)
    }
}

impl Range {
    fn unequal(&self) -> impl Iterator<Item = &Region> {
        let unequal = self
            .heard
            .iter()
            .filter(|(_, heard)| !matches!(heard, Heard::Equal { .. }));
        unequal.map(|(region, _)| region)
    }

    fn equal(&self) -> impl Iterator<Item = &Region> {
        let equal = self.heard.iter();
        let equal = equal.filter(|(_, heard)| matches!(heard, Heard::Equal { .. }));
        equal.map(|(region, _)| region)
    }

    fn is_shared(&self) -> bool {
        self.equal().next().is_some()
    }

    /// The range was changed here: what was heard before tells who must speak again.
    fn forget(&mut self) {
        self.heard
            .retain(|_, heard| !matches!(heard, Heard::Equal { .. }));
        self.heard
            .values_mut()
            .for_each(|heard| *heard = Heard::Before);
    }

    fn begin(&mut self, dispute: Dispute) {
        for heard in self.heard.values_mut() {
            if let Heard::Equal { is_fresh } = heard {
                *is_fresh = false;
            }
        }
        self.dispute = Some(dispute);
    }

    /// Regions that have the sum that is kept here. This node is one of them if its entries have it too.
    fn supporters(&self, dispute: &Dispute) -> usize {
        self.equal().count() + usize::from(dispute.own != Own::Unclear)
    }

    /// The largest group of regions that differ from this node by the same.
    fn against(&self) -> (Option<Fingerprint>, Vec<&Region>) {
        let mut groups: BTreeMap<[u8; 16], (Fingerprint, Vec<&Region>)> = BTreeMap::new();
        for (region, heard) in &self.heard {
            if let Heard::Different(by) = heard {
                let group = groups.entry(by.to_bytes()).or_insert((*by, Vec::new()));
                group.1.push(region);
            }
        }
        let largest = groups
            .into_values()
            .max_by_key(|(_, regions)| regions.len());
        largest.map_or((None, Vec::new()), |(by, regions)| (Some(by), regions))
    }

    /// At least two regions hold something else in common, and more than hold what is here. Where this node's entries
    /// are not those of the kept sum, and a region has that sum now, no vote is needed: chance makes no two sums equal,
    /// but many may have one's damage.
    fn majority(&self, dispute: &Dispute) -> Option<(Vec<&Region>, Fingerprint)> {
        let mut heard = self.heard.values();
        let is_proved = heard.any(|heard| *heard == Heard::Equal { is_fresh: true });
        if dispute.own == Own::Unclear && is_proved {
            return None;
        }
        let (by, regions) = self.against();
        let wins = regions.len() >= 2 && regions.len() > self.supporters(dispute);
        wins.then_some((regions, by?))
    }

    fn is_known_right(&self, dispute: &Dispute) -> bool {
        let supporters = self.supporters(dispute);
        let is_shared = supporters >= 2 && supporters > self.against().1.len();
        dispute.is_chosen || dispute.own == Own::Sound && is_shared
    }

    fn hearsay(&self) -> Hearsay {
        let differences = self.heard.values().filter_map(|heard| match heard {
            Heard::Different(by) => Some(*by),
            Heard::Equal { .. } | Heard::Before => None,
        });
        Hearsay {
            is_shared: self.is_shared(),
            differences: differences.collect(),
        }
    }

    fn work(&self, range: usize, dispute: &Dispute) -> Option<Work> {
        let hearsay = self.hearsay();
        let take = |among: Vec<&Region>, by| {
            let from = among
                .into_iter()
                .min_by_key(|region| dispute.failures.get(*region))?;
            Some(Work::Take {
                range,
                from: from.clone(),
                expected: Some(by),
                answer: None,
            })
        };
        let of_majority = || {
            let (regions, by) = self.majority(dispute)?;
            take(regions, by)
        };
        match dispute.own {
            Own::Unchecked => Some(Work::Check { range, hearsay }),
            Own::Sound => of_majority(),
            Own::Unclear if self.majority(dispute).is_some() => of_majority(),
            // They have the sum that this node's entries should have.
            Own::Unclear if self.is_shared() => {
                take(self.equal().collect(), Fingerprint::default())
            }
            Own::Unclear if hearsay != dispute.checked_with => Some(Work::Check { range, hearsay }),
            Own::Unclear => None,
        }
    }

    /// Neither this node nor the other regions can tell who is right, or those who can do not give it.
    fn is_undecided(&self, dispute: &Dispute) -> bool {
        if let Some((regions, _)) = self.majority(dispute) {
            return dispute.have_failed(regions);
        }
        match dispute.own {
            Own::Unchecked => false,
            Own::Sound => !self.is_known_right(dispute) && !self.against().1.is_empty(),
            Own::Unclear => dispute.have_failed(self.equal().collect()),
        }
    }

    /// What is done about it, in words.
    fn told(&self, range: usize, dispute: &Dispute) -> String {
        let (_, against) = self.against();
        match dispute.own {
            Own::Unchecked => "being compared with this node's checkpoint and log".to_owned(),
            _ if dispute.is_chosen => {
                "held to be right here, as an operator chose; the others are to take it".to_owned()
            }
            _ if self.heard.values().any(|heard| *heard == Heard::Before) => {
                "put right here; the other regions have not compared it yet".to_owned()
            }
            _ if self.majority(dispute).is_some() => {
                format!("taken from {}: {} regions agree on it", against[0], against.len())
            }
            Own::Unclear if !self.is_undecided(dispute) => {
                "memory, checkpoint and log do not agree here; taken from a region whose sum is right".to_owned()
            }
            Own::Unclear => format!(
                "memory, checkpoint and log do not agree here, and no other region decides; choose one with \
                 `likewise repair --range {range} --from REGION`"
            ),
            Own::Sound if self.is_known_right(dispute) => {
                "this node agrees with most regions; the others are to take it".to_owned()
            }
            _ => format!(
                "no majority decides: choose who is right with `likewise repair --range {range} --from REGION`"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> Region {
        Region::new(name).expect("valid")
    }

    fn from(range: &Range, dispute: &Dispute) -> Option<Region> {
        match range.work(1, dispute) {
            Some(Work::Take { from, .. }) => Some(from),
            _ => None,
        }
    }

    fn dispute(own: Own) -> Dispute {
        Dispute {
            own,
            ..Dispute::new(0)
        }
    }

    const OLD: Heard = Heard::Equal { is_fresh: false };

    fn heard<const N: usize>(heard: [(&str, Heard); N]) -> Range {
        let heard = heard.map(|(name, heard)| (region(name), heard));
        Range {
            heard: heard.into(),
            dispute: None,
        }
    }

    const OTHER: Heard = Heard::Different(Fingerprint(7));

    #[test]
    fn two_regions_that_differ_alike_outvote_one_whose_sum_may_be_old() {
        let range = heard([("af", OLD), ("ap", OTHER), ("eu", OTHER)]);
        assert_eq!(from(&range, &dispute(Own::Unclear)), Some(region("ap")));
        assert_eq!(from(&range, &dispute(Own::Sound)), None);
        let range = heard([("af", OLD), ("ap", OTHER)]);
        assert_eq!(from(&range, &dispute(Own::Unclear)), Some(region("af")));
    }

    #[test]
    fn no_vote_outweighs_a_region_that_has_the_right_sum_now() {
        let now = Heard::Equal { is_fresh: true };
        let mut range = heard([("af", now), ("ap", OTHER), ("eu", OTHER)]);
        assert_eq!(from(&range, &dispute(Own::Unclear)), Some(region("af")));
        range.begin(dispute(Own::Unclear));
        assert_eq!(from(&range, &dispute(Own::Unclear)), Some(region("ap")));
    }

    #[test]
    fn an_operator_is_needed_where_a_majority_gives_nothing() {
        let range = heard([("ap", OTHER), ("eu", OTHER)]);
        let mut dispute = dispute(Own::Sound);
        assert!(!range.is_undecided(&dispute));
        for name in ["ap", "eu"] {
            dispute.failures.insert(region(name), TRIES_MAX);
        }
        assert!(range.is_undecided(&dispute));
    }

    #[test]
    fn an_operator_is_needed_where_nobody_gives_the_right_state() {
        let range = heard([("af", OLD), ("ap", OTHER)]);
        let mut dispute = dispute(Own::Unclear);
        assert!(!range.is_undecided(&dispute));
        dispute.failures.insert(region("af"), TRIES_MAX);
        assert!(range.is_undecided(&dispute));
    }

    #[test]
    fn a_range_that_one_region_does_not_give_is_asked_of_another() {
        for (own, said) in [(Own::Unclear, OLD), (Own::Sound, OTHER)] {
            let names = ["ap", "eu"].map(region);
            let range = heard([("ap", said), ("eu", said)]);
            let mut dispute = dispute(own);
            let mut asked = Vec::new();
            for _ in 0..4 {
                let next = from(&range, &dispute).expect("somebody is asked");
                *dispute.failures.entry(next.clone()).or_default() += 1;
                asked.push(next);
            }
            assert_eq!(
                asked,
                [&names[0], &names[1], &names[0], &names[1]].map(Clone::clone)
            );
        }
    }
}
