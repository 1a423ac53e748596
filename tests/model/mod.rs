//! All orders in which a few things can happen to a small cluster: the real session machine and the real engine, driven
//! action by action. A state is the actions that lead to it, carried out anew each time, and one number over all that
//! decides what can follow.

mod cluster;
mod end;

use std::hash::{Hash, Hasher};

use cluster::Cluster;
use stateright::{Model, Property};

use crate::support::Identity;

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
    broken: Option<String>,
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

impl Bounds {
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        thread_local! {
            static RUNTIME: tokio::runtime::Runtime =
                tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        }
        RUNTIME.with(|runtime| runtime.block_on(future))
    }

    async fn replay(&self, path: &[Action]) -> Cluster {
        let mut cluster = Cluster::begin(self).await;
        for action in path {
            cluster.act(*action).await;
        }
        cluster
    }

    /// The state that these actions lead to.
    fn state(&self, path: Vec<Action>) -> State {
        Self::block_on(async {
            let cluster = self.replay(&path).await;
            let state = State {
                digest: cluster.digest(),
                possible: cluster.possible(self),
                broken: cluster.broken.clone(),
                path,
            };
            cluster.end().await;
            state
        })
    }

    /// What is wrong with a state, or with what becomes of it when nothing more goes wrong.
    pub fn problem(&self, state: &State) -> Option<String> {
        if state.broken.is_some() {
            return state.broken.clone();
        }
        Self::block_on(async {
            let mut cluster = self.replay(&state.path).await;
            let converged = cluster.converge().await;
            let broken = cluster.broken.clone();
            cluster.end().await;
            broken.or(converged.err())
        })
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.state(Vec::new())]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(&state.possible);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut path = state.path.clone();
        path.push(action);
        Some(self.state(path))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(
            "it converges, and no dot is made twice",
            |bounds: &Self, state| bounds.problem(state).is_none(),
        )]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.path.len() <= self.depth
    }
}
