//! Requests that carry an id: a retry gets the earlier answer and does nothing.
//!
//! What is remembered is (request id, item). It stands in the log beside the events it made, or alone
//! where it made none, so that a retry after a restart is recognised too; items of a batch that did
//! not become durable run at the retry.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::crdt::dot::{Dot, Dots};
use crate::ids::RequestId;

/// What became of one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Liked,
    LikedAgain,
    Unliked,
    NotLiked,
    Added,
    /// The add would have gone beyond the counter's bound.
    BeyondBound,
    /// Too many unresolved removals of likes that have not arrived here.
    OrphanRemovalsFull,
}

/// The answer to one command, without the figures of the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    pub outcome: Outcome,
    /// The dot of a like.
    pub dot: Option<Dot>,
    /// The dots that a like replaced or an unlike removed.
    pub removed: Dots,
}

/// What the log keeps of a request: the items that one slot made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    pub id: RequestId,
    /// Frozen hash of the contents.
    pub digest: u64,
    pub at_ms: u64,
    /// Items of the whole request.
    pub items: u32,
    pub done: Vec<(u32, Done)>,
}

/// A call that is under way. Whoever asks late learns too that it has ended.
#[derive(Debug)]
pub struct Running {
    ended: watch::Sender<bool>,
}

impl Running {
    fn new() -> Arc<Self> {
        let ended = watch::Sender::new(false);
        Arc::new(Self { ended })
    }

    /// Returns when the call has ended.
    pub async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        let outcome = ended.wait_for(|ended| *ended).await;
        outcome.expect("the sender is held here");
    }
}

/// A request as remembered.
#[derive(Debug, Clone)]
pub struct Remembered {
    pub digest: u64,
    pub at_ms: u64,
    /// When it was taken into the table, by the table's own time.
    since_ms: u64,
    pub items: Vec<Option<Done>>,
    /// The token of the answer, once all items are durable.
    pub token: Option<Arc<str>>,
    /// A call is under way that runs the missing items, or left slots behind that are not durable yet:
    /// a client that gave up and tries again must not run them twice.
    running: Option<Arc<Running>>,
    /// Slots that hold items of it and are not durable yet.
    pending: usize,
    /// The call under way has ended; its slots have not.
    left: bool,
}

impl Remembered {
    fn new(record: &RequestRecord) -> Self {
        Self {
            digest: record.digest,
            at_ms: record.at_ms,
            since_ms: 0,
            items: vec![None; record.items as usize],
            token: None,
            running: None,
            pending: 0,
            left: false,
        }
    }

    fn is_complete(&self) -> bool {
        self.items.iter().all(Option::is_some)
    }
}

/// How many items are remembered, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub items_max: usize,
    pub age_max_ms: u64,
}

/// Time as the table knows it: it follows the wall clock, but for jumps. A clock that jumps by the age of a request, or a node
/// that was down for so long, must not make a retry of a moment later a new request.
#[derive(Default)]
struct TableTime {
    wall_ms: u64,
    passed_ms: u64,
}

impl TableTime {
    /// Of what lies between two looks at the clock at most this share of the window counts.
    const SHARE: u64 = 10;

    fn follow(&mut self, wall_ms: u64, window: Window) {
        let most = (window.age_max_ms / Self::SHARE).max(1);
        let since = wall_ms.saturating_sub(self.wall_ms);
        self.passed_ms += since.min(most);
        // Records come a little later than the calls after them; only a clock that was set back is followed back.
        if since > 0 || self.wall_ms - wall_ms > most {
            self.wall_ms = wall_ms;
        }
    }
}

#[derive(Default)]
struct State {
    by_id: HashMap<RequestId, Remembered>,
    /// In the order in which they were first seen.
    order: VecDeque<RequestId>,
    items: usize,
    time: TableTime,
    /// The log failed: what is pending will never be told.
    failed: bool,
}

/// What a call with a request id is to do.
pub enum Begun {
    /// Run the items that have no answer yet; the others have this one.
    Run(Vec<Option<Done>>),
    /// Wait for the call that is under way, then ask again.
    Wait(Arc<Running>),
    /// Answer as before.
    Answer(Vec<Done>, Arc<str>),
    /// The id was used with other contents.
    Reused,
}

/// The table of remembered requests. Bounded by [`Window`]: the oldest go first.
pub struct Requests {
    window: Window,
    state: Mutex<State>,
}

impl Requests {
    pub fn new(window: Window) -> Self {
        Self {
            window,
            state: Mutex::default(),
        }
    }

    /// Begins a call. Whoever is told to run must end with [`Self::release`] or with all items durable.
    pub fn begin(&self, id: &RequestId, digest: u64, items: usize, now_ms: u64) -> Begun {
        let mut state = self.state.lock();
        state.time.follow(now_ms, self.window);
        state.forget_old(self.window);
        if let Some(known) = state.by_id.get_mut(id) {
            if known.digest != digest || known.items.len() != items {
                return Begun::Reused;
            }
            if let Some(running) = &known.running {
                // Made under the lock: a call that ends right after it is not missed.
                return Begun::Wait(running.clone());
            }
            if let (true, Some(token)) = (known.is_complete(), &known.token) {
                let done = known.items.iter().flatten().cloned().collect();
                return Begun::Answer(done, token.clone());
            }
            known.running = Some(Running::new());
            return Begun::Run(known.items.clone());
        }
        let remembered = Remembered {
            digest,
            at_ms: now_ms,
            since_ms: 0,
            items: vec![None; items],
            token: None,
            running: Some(Running::new()),
            pending: 0,
            left: false,
        };
        state.insert(id.clone(), remembered);
        Begun::Run(vec![None; items])
    }

    /// A slot was reserved that holds items of the call under way.
    pub fn note_pending(&self, id: &RequestId) {
        if let Some(known) = self.state.lock().by_id.get_mut(id) {
            known.pending += 1;
        }
    }

    /// The call ends, or was given up. What is durable stays, and what is on its way is waited for; a
    /// request of which nothing is either, is forgotten.
    pub fn release(&self, id: &RequestId) {
        let mut state = self.state.lock();
        let failed = state.failed;
        let Some(known) = state.by_id.get_mut(id) else {
            return;
        };
        known.left = true;
        if known.pending == 0 || failed {
            state.end(id);
        }
    }

    /// The log failed: nothing that is pending will become durable in this process's sight.
    pub fn fail(&self) {
        let mut state = self.state.lock();
        state.failed = true;
        let left = state.by_id.iter().filter(|(_, known)| known.left);
        let left: Vec<RequestId> = left.map(|(id, _)| id.clone()).collect();
        left.iter().for_each(|id| state.end(id));
    }

    /// A record is durable. Called in the order of the log, before its waiters learn of it.
    pub fn remember(&self, record: &RequestRecord, token: impl FnOnce() -> Arc<str>) {
        let mut state = self.state.lock();
        state.time.follow(record.at_ms, self.window);
        if !state.by_id.contains_key(&record.id) {
            state.insert(record.id.clone(), Remembered::new(record));
        }
        let known = state.by_id.get_mut(&record.id).expect("just inserted");
        for (item, done) in &record.done {
            if let Some(place) = known.items.get_mut(*item as usize) {
                *place = Some(done.clone());
            }
        }
        if known.is_complete() {
            known.token = Some(token());
        }
        known.pending = known.pending.saturating_sub(1);
        if known.left && known.pending == 0 {
            state.end(&record.id);
        }
        state.forget_old(self.window);
    }

    /// All complete or partly durable requests, oldest first, for a checkpoint.
    pub fn snapshot(&self) -> Vec<(RequestId, Remembered)> {
        let state = self.state.lock();
        let durable = |known: &Remembered| known.items.iter().any(Option::is_some);
        let all = state
            .order
            .iter()
            .filter_map(|id| Some((id, state.by_id.get(id)?)));
        all.filter(|(_, known)| durable(known))
            .map(|(id, known)| (id.clone(), known.clone()))
            .collect()
    }

    /// Takes over what a checkpoint held.
    pub fn restore(
        &self,
        id: RequestId,
        digest: u64,
        at_ms: u64,
        items: Vec<Option<Done>>,
        token: Option<Arc<str>>,
    ) {
        let remembered = Remembered {
            digest,
            at_ms,
            since_ms: 0,
            items,
            token,
            running: None,
            pending: 0,
            left: false,
        };
        let mut state = self.state.lock();
        state.time.follow(at_ms, self.window);
        state.insert(id, remembered);
    }
}

impl State {
    fn insert(&mut self, id: RequestId, mut remembered: Remembered) {
        remembered.since_ms = self.time.passed_ms;
        self.items += remembered.items.len();
        self.order.push_back(id.clone());
        self.by_id.insert(id, remembered);
    }

    /// Nothing of the call is under way any more.
    fn end(&mut self, id: &RequestId) {
        let Some(known) = self.by_id.get_mut(id) else {
            return;
        };
        (known.pending, known.left) = (0, false);
        if let Some(running) = known.running.take() {
            running.ended.send_replace(true);
        }
        if known.items.iter().all(Option::is_none) {
            self.items -= known.items.len();
            self.by_id.remove(id);
            self.order.retain(|other| other != id);
        }
    }

    /// Forgets the oldest beyond the window. A request that is under way is never forgotten.
    fn forget_old(&mut self, window: Window) {
        while let Some(oldest) = self.order.front() {
            let Some(known) = self.by_id.get(oldest) else {
                self.order.pop_front();
                continue;
            };
            let old = known.since_ms.saturating_add(window.age_max_ms) < self.time.passed_ms;
            if known.running.is_some() || !(old || self.items > window.items_max) {
                return;
            }
            self.items -= known.items.len();
            let oldest = self.order.pop_front().expect("just seen");
            self.by_id.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> RequestId {
        RequestId::new(text).expect("valid")
    }

    fn done() -> Done {
        Done {
            outcome: Outcome::Liked,
            dot: None,
            removed: Dots::new(),
        }
    }

    fn record(text: &str, items: u32, item: u32, at_ms: u64) -> RequestRecord {
        RequestRecord {
            id: id(text),
            digest: 7,
            at_ms,
            items,
            done: vec![(item, done())],
        }
    }

    fn table(items_max: usize) -> Requests {
        Requests::new(Window {
            items_max,
            age_max_ms: 1_000,
        })
    }

    #[test]
    fn a_retry_gets_the_earlier_answer_and_other_contents_are_refused() {
        let table = table(10);
        assert!(matches!(table.begin(&id("a"), 7, 1, 0), Begun::Run(_)));
        assert!(matches!(table.begin(&id("a"), 7, 1, 0), Begun::Wait(_)));
        table.remember(&record("a", 1, 0, 0), || "t".into());
        table.release(&id("a"));
        assert!(matches!(table.begin(&id("a"), 7, 1, 0), Begun::Answer(..)));
        assert!(matches!(table.begin(&id("a"), 8, 1, 0), Begun::Reused));
    }

    #[test]
    fn a_call_that_was_given_up_ends_when_its_slots_are_durable() {
        let table = table(10);
        assert!(matches!(table.begin(&id("a"), 7, 2, 0), Begun::Run(_)));
        table.note_pending(&id("a"));
        table.note_pending(&id("a"));
        table.release(&id("a"));
        assert!(matches!(table.begin(&id("a"), 7, 2, 0), Begun::Wait(_)));
        table.remember(&record("a", 2, 0, 0), || "t".into());
        assert!(matches!(table.begin(&id("a"), 7, 2, 0), Begun::Wait(_)));
        table.remember(&record("a", 2, 1, 0), || "t".into());
        assert!(matches!(table.begin(&id("a"), 7, 2, 0), Begun::Answer(..)));
    }

    #[test]
    fn nobody_waits_for_a_log_that_failed() {
        let table = table(10);
        for (name, fails_first) in [("a", false), ("b", true)] {
            assert!(matches!(table.begin(&id(name), 7, 1, 0), Begun::Run(_)));
            table.note_pending(&id(name));
            if fails_first {
                table.fail();
            }
            table.release(&id(name));
        }
        table.fail();
        for name in ["a", "b"] {
            assert!(matches!(table.begin(&id(name), 7, 1, 0), Begun::Run(_)));
        }
    }

    #[tokio::test]
    async fn who_asks_late_learns_that_the_call_has_ended() {
        let table = table(10);
        assert!(matches!(table.begin(&id("a"), 7, 1, 0), Begun::Run(_)));
        let Begun::Wait(running) = table.begin(&id("a"), 7, 1, 0) else {
            panic!("a call is under way");
        };
        table.release(&id("a"));
        running.ended().await;
    }

    #[test]
    fn only_items_that_are_not_durable_run_again() {
        let table = table(10);
        table.remember(&record("a", 3, 1, 0), || "t".into());
        let Begun::Run(items) = table.begin(&id("a"), 7, 3, 0) else {
            panic!("two items are missing");
        };
        assert_eq!(items, vec![None, Some(done()), None]);
    }

    #[test]
    fn the_oldest_are_forgotten_by_number_and_by_age() {
        let table = table(2);
        for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
            table.remember(&record(name, 1, 0, number as u64), || "t".into());
        }
        assert!(matches!(table.begin(&id("a"), 7, 1, 5), Begun::Run(_)));
        table.release(&id("a"));
        assert!(matches!(table.begin(&id("c"), 7, 1, 5), Begun::Answer(..)));
        for now_ms in (100..1_200).step_by(50) {
            assert!(matches!(table.begin(&id("x"), 7, 1, now_ms), Begun::Run(_)));
            table.release(&id("x"));
        }
        assert!(matches!(table.begin(&id("c"), 7, 1, 1_200), Begun::Run(_)));
    }

    #[test]
    fn a_clock_that_jumps_makes_no_request_new() {
        let table = table(10);
        table.remember(&record("a", 1, 0, 500_000), || "t".into());
        for now_ms in [900_000, 200_000, 900_000, 900_500] {
            let again = table.begin(&id("a"), 7, 1, now_ms);
            assert!(matches!(again, Begun::Answer(..)), "{now_ms}");
        }
    }

    #[test]
    fn records_that_come_later_than_calls_make_no_time_pass() {
        let table = table(10);
        table.remember(&record("a", 1, 0, 0), || "t".into());
        for now_ms in 50..550 {
            assert!(matches!(table.begin(&id("x"), 7, 1, now_ms), Begun::Run(_)));
            table.release(&id("x"));
            table.remember(&record("b", 1, 0, now_ms - 50), || "t".into());
        }
        assert!(matches!(
            table.begin(&id("a"), 7, 1, 550),
            Begun::Answer(..)
        ));
    }

    #[test]
    fn a_request_that_did_nothing_is_forgotten_when_it_ends() {
        let table = table(10);
        assert!(matches!(table.begin(&id("a"), 7, 1, 0), Begun::Run(_)));
        table.release(&id("a"));
        assert!(matches!(table.begin(&id("a"), 8, 1, 0), Begun::Run(_)));
    }
}
