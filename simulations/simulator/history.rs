//! What clients did in a run and what they were told, for the checkers to judge afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use likewise::codec::text::NamedSeq;
use likewise::ids::Replica;
use parking_lot::{Mutex, MutexGuard};

use super::story::Story;
use super::world::time::SimTime;

/// What an operation asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Like,
    Unlike,
    /// Of these likes, whatever others there are.
    UnlikeById(Vec<NamedSeq>),
    Add {
        counter: &'static str,
        delta: i64,
    },
    /// As of the client's token at least. The client knows what it must see, or does not.
    Read {
        expected: Option<bool>,
    },
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet; at the end of a run, whatever may come of it.
    Pending,
    Liked {
        dots: Vec<NamedSeq>,
        replaced: Vec<NamedSeq>,
    },
    Unliked {
        removed: Vec<NamedSeq>,
    },
    Added,
    Shown {
        likes: bool,
        count: u64,
    },
    /// The node's word that nothing happened, and why.
    Refused(String),
    /// Nothing was sent.
    NotReached,
    /// It may have happened, now or later.
    Unknown,
}

/// One try of an operation.
#[derive(Debug, Clone)]
pub struct Operation {
    pub client: usize,
    pub machine: usize,
    pub at: Duration,
    pub ended: Duration,
    pub post: String,
    /// Empty for what concerns no user.
    pub user: String,
    pub action: Action,
    /// The earlier try of the same request, where it is a retry.
    pub retries: Option<usize>,
    pub outcome: Outcome,
    /// What the answer's token covers of the answering region: the operation is among it.
    pub through: Vec<NamedSeq>,
}

/// Events of a replica beyond a number stood on one disk alone, which is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub replica: Replica,
    pub beyond: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct History {
    pub operations: Vec<Operation>,
    /// When the run was over.
    pub over: Duration,
    pub lost: Vec<Lost>,
    /// When a machine's folder was lost or became an older one.
    pub destroyed: Vec<(usize, Duration)>,
    /// When a machine's memory was damaged: what it shows may be wrong until it is mended.
    pub damaged: Vec<(usize, Duration)>,
    /// Post and user of each liker that was lost so.
    pub lost_from_memory: Vec<(String, String)>,
    /// An operator held a damaged node's state to be right.
    pub is_damage_chosen: bool,
    /// When a machine cannot be expected to answer: its node is down, not ready, or its disk fails.
    pub excused: BTreeMap<usize, Vec<(Duration, Duration)>>,
}

impl History {
    /// Whether these events may have been lost with a disk.
    pub fn is_lost(&self, dots: &[NamedSeq]) -> bool {
        let is_beyond = |lost: &Lost| {
            dots.iter()
                .any(|(replica, seq)| *replica == lost.replica && *seq > lost.beyond)
        };
        self.lost.iter().any(is_beyond)
    }

    /// What finally came of an operation: a retry's success is that of all its earlier tries, unless the folder that
    /// remembered the request was lost since the first, or became one that may hold what the first had left unsynced.
    /// None for tries whose outcome another one tells.
    pub fn outcomes(&self) -> Vec<Option<Outcome>> {
        let mut outcomes: Vec<Option<Outcome>> = self
            .operations
            .iter()
            .map(|operation| Some(operation.outcome.clone()))
            .collect();
        for operation in &self.operations {
            let is_success = matches!(
                operation.outcome,
                Outcome::Liked { .. } | Outcome::Unliked { .. } | Outcome::Added
            );
            if !is_success {
                continue;
            }
            let mut earlier = operation.retries;
            while let Some(try_at) = earlier {
                let tried = &self.operations[try_at];
                let mut destroyed = self.destroyed.iter();
                let is_remembered = !destroyed
                    .any(|(machine, at)| *machine == operation.machine && tried.at <= *at);
                if is_remembered {
                    outcomes[try_at] = None;
                }
                earlier = tried.retries;
            }
        }
        outcomes
    }

    /// What one machine held may be gone for good, but for what others have.
    pub fn lose<'a>(
        &mut self,
        held: &BTreeMap<Replica, u64>,
        survivors: impl Iterator<Item = &'a BTreeMap<Replica, u64>> + Clone,
    ) {
        for replica in held.keys() {
            let survived = survivors.clone().filter_map(|vector| vector.get(replica));
            self.lost.push(Lost {
                replica: replica.clone(),
                beyond: survived.max().copied().unwrap_or_default(),
            });
        }
    }

    /// Whether the machine's memory may be damaged: by itself, or by a snapshot of a machine that was. It may differ
    /// until it is mended.
    pub fn may_have_damage(&self, machine: usize) -> bool {
        self.damaged.iter().any(|(damaged, _)| *damaged == machine)
    }

    /// A machine has merged a snapshot, and its sender may have been damaged.
    pub fn merged(&mut self, machine: usize, now: Duration) {
        if !self.damaged.is_empty() && !self.may_have_damage(machine) {
            self.damaged.push((machine, now));
        }
    }

    /// Whether a like may be lost for good: damage that a snapshot carried on, before anybody had found it, outvotes
    /// those who are whole, or an operator had no better choice.
    pub fn may_be_outvoted(&self, liker: &(String, String)) -> bool {
        let is_outvoted = self.damaged.len() > 1 || self.is_damage_chosen;
        is_outvoted && self.lost_from_memory.contains(liker)
    }

    /// Whether the machine's memory had been damaged when it answered: it may have said that a like is not there
    /// which others hold.
    pub fn is_damaged(&self, operation: &Operation) -> bool {
        let mut damaged = self.damaged.iter();
        damaged.any(|(machine, at)| *machine == operation.machine && *at <= operation.ended)
    }

    pub fn is_excused(&self, machine: usize, from: Duration, to: Duration) -> bool {
        let excuses = self.excused.get(&machine);
        let overlaps = |(begin, end): &(Duration, Duration)| *begin <= to && from <= *end;
        excuses.is_some_and(|excuses| excuses.iter().any(overlaps))
    }
}

/// What is written down while a run goes on. Clones share it.
#[derive(Clone)]
pub struct Recorder {
    time: SimTime,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
pub struct Inner {
    pub history: History,
    pub story: Story,
    /// Machines that were turned on: what clients can call, by number and name.
    pub machines: Vec<(usize, &'static str)>,
    /// Panics and other ends of nodes that nobody planned.
    pub failures: Vec<String>,
    /// How often nodes said something.
    pub said: BTreeMap<String, u64>,
}

impl Recorder {
    pub fn new(time: SimTime) -> Self {
        Self {
            time,
            inner: Arc::default(),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    pub fn now(&self) -> Duration {
        self.time.now()
    }

    pub fn tell(&self, what: impl Into<String>) {
        let now = self.now();
        self.lock().story.tell(now, what.into());
    }

    pub fn fail(&self, what: impl Into<String>) {
        let what = what.into();
        self.tell(format!("!! {what}"));
        self.lock().failures.push(what);
    }

    pub fn begin(&self, operation: Operation) -> usize {
        let mut inner = self.lock();
        inner.history.operations.push(operation);
        inner.history.operations.len() - 1
    }

    pub fn end(&self, index: usize, outcome: Outcome, through: Vec<NamedSeq>) {
        let now = self.now();
        let mut inner = self.lock();
        let operation = &mut inner.history.operations[index];
        (operation.outcome, operation.through, operation.ended) = (outcome, through, now);
    }
}
