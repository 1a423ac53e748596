//! All orders in which a few things can happen to a small cluster: the real session machine and the real engine, driven
//! action by action. A state is the actions that lead to it, carried out anew each time, and one number over all that
//! decides what can follow.

mod cluster;
mod end;

use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash, Hasher};

use cluster::Cluster;
use parking_lot::Mutex;
use stateright::{Checker as _, Model, Property};

use crate::support::Identity;

/// The rules that must hold in every state.
pub const ONE_MAKER: &str = "no dot is made by two processes";
pub const CONVERGENCE: &str = "all become equal when nothing more goes wrong";

/// What may happen in a run, and how often.
#[derive(Clone, Copy)]
pub struct Bounds {
    pub regions: usize,
    pub likes: usize,
    pub unlikes: usize,
    /// Power cuts and kills together.
    pub crashes: usize,
    pub clones: usize,
    /// Connections that break.
    pub breaks: usize,
    /// Times that time goes on.
    pub passes: usize,
    /// Actions in one run.
    pub depth: usize,
    pub identity: Identity,
}

/// Two regions, of which everything can happen once or twice, in a few steps.
pub const TWO: Bounds = Bounds {
    regions: 2,
    likes: 2,
    unlikes: 1,
    crashes: 1,
    clones: 1,
    breaks: 1,
    passes: 1,
    depth: 4,
    identity: Identity::Fresh,
};

/// One step of one part of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A client likes the post; nothing of it is synced.
    Like(usize),
    Unlike(usize),
    /// What a node has written and not synced is synced.
    Sync(usize),
    /// The next frame from the first to the second arrives.
    Deliver(usize, usize),
    /// A node loses its power and starts again: what was not synced may be lost.
    Crash(usize),
    /// Its process is killed and starts again: what was written is there.
    Kill(usize),
    /// A second node starts on a copy of the folder.
    Clone(usize),
    /// The connection breaks; what was on its way is lost.
    Break(usize, usize),
    /// Time goes on.
    Pass,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct State {
    path: Vec<Action>,
    digest: u128,
    possible: Vec<Action>,
    /// The rule that is broken, and how.
    broken: Option<(&'static str, String)>,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.digest.hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// All states within some bounds.
struct Search {
    bounds: Bounds,
    /// Guards the states that were judged; each is judged once.
    judged: Mutex<HashSet<u128>>,
    /// By rule, how it was broken first. Two threads may come to a state at once, and the checker keep the state of
    /// the one that did not judge it.
    found: Mutex<BTreeMap<&'static str, String>>,
}

impl Search {
    /// The state that these actions lead to. It is judged where it was not met before.
    fn state(&self, path: Vec<Action>) -> State {
        block_on(async {
            let mut cluster = Cluster::begin(&self.bounds).await;
            for action in &path {
                cluster.act(*action).await;
            }
            let (digest, possible) = (cluster.digest(), cluster.possible(&self.bounds));
            let is_new = self.judged.lock().insert(digest);
            let broken = match cluster.broken.clone() {
                Some(what) => Some((ONE_MAKER, what)),
                None if is_new => cluster
                    .converge()
                    .await
                    .err()
                    .map(|what| (CONVERGENCE, what)),
                None => None,
            };
            cluster.end().await;
            if let Some((rule, what)) = &broken {
                let told = || format!("{what}, after {path:?}");
                self.found.lock().entry(rule).or_insert_with(told);
            }
            State {
                path,
                digest,
                possible,
                broken,
            }
        })
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

impl Bounds {
    /// One region, whose folder names its processes; a few steps show what comes of it.
    pub fn naive(self) -> Self {
        Self {
            regions: 1,
            unlikes: 0,
            breaks: 0,
            passes: 0,
            depth: 5,
            identity: Identity::OfTheFolder,
            ..self
        }
    }

    /// Looks at all states. What was found against each rule.
    pub fn check(&self, threads: usize) -> Checked {
        let search = Search {
            bounds: *self,
            judged: Mutex::default(),
            found: Mutex::default(),
        };
        let checker = search.checker().threads(threads).spawn_bfs().join();
        let found = checker.model().found.lock().clone();
        Checked {
            states: checker.unique_state_count(),
            transitions: checker.state_count(),
            found,
        }
    }
}

/// What came of looking at all states.
#[derive(Debug)]
pub struct Checked {
    pub states: usize,
    /// Steps that were carried out; many lead to the same state.
    #[allow(dead_code, reason = "told by the bench alone")]
    pub transitions: usize,
    /// By rule that was broken.
    pub found: BTreeMap<&'static str, String>,
}

impl Model for Search {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.state(Vec::new())]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.path.len() < self.bounds.depth {
            actions.extend(&state.possible);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut path = state.path.clone();
        path.push(action);
        Some(self.state(path))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_MAKER, |_, state: &State| !state.breaks(ONE_MAKER)),
            Property::always(CONVERGENCE, |_, state: &State| !state.breaks(CONVERGENCE)),
        ]
    }
}

impl State {
    fn breaks(&self, rule: &str) -> bool {
        self.broken
            .as_ref()
            .is_some_and(|(broken, _)| *broken == rule)
    }
}
