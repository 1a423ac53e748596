//! One run: a plan, carried out and judged.

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::thread::ThreadId;
use std::time::Duration;

use parking_lot::Mutex;
use tracing_subscriber::layer::SubscriberExt as _;

use super::checkers::{self, Findings, State};
use super::faults::Injector;
use super::history::{Outcome, Recorder};
use super::operator::Operator;
use super::probe::{self, LOOK_EVERY, Probe, Return};
use super::scenario::Plan;
use super::story::Listener;
use super::summary::RunReport;
use super::workload::Client;
use super::world::World;

const LOOK_AT_ALL_EVERY: Duration = Duration::from_secs(1);
/// After the last heal, whether all are equal is asked this often.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Clients whose answers are on their way when the load ends.
const LAST_ANSWERS: Duration = Duration::from_secs(12);

/// Panics of this process, by the thread that they were in: a node's tasks swallow theirs.
static PANICS: Mutex<Vec<(ThreadId, String)>> = Mutex::new(Vec::new());

fn hear_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS
                .lock()
                .push((std::thread::current().id(), panic.to_string()));
            usual(panic);
        }));
    });
}

/// Carries out a plan. `lines` takes every entry of the trace, to find where two runs part.
pub fn run(plan: &Plan, lines: Option<File>) -> RunReport {
    hear_panics();
    let mut running = Running::new(plan, lines);
    let hearing = tracing_subscriber::registry().with(Listener(running.recorder.clone()));
    let carried_out = tracing::subscriber::with_default(hearing, || {
        catch_unwind(AssertUnwindSafe(|| running.carry_out()))
    });
    let here = std::thread::current().id();
    for (_, panic) in PANICS.lock().extract_if(.., |(thread, _)| *thread == here) {
        running.recorder.fail(panic);
    }
    match carried_out {
        Ok(Ok(())) => {}
        Ok(Err(error)) => running.world.recorder.fail(format!("{error:#}")),
        Err(_) => running.world.recorder.fail("the simulation panicked"),
    }
    running.judge()
}

struct Running<'a> {
    plan: &'a Plan,
    world: World,
    recorder: Recorder,
    injector: Injector,
    probe: Probe,
    next_look: Duration,
    next_look_at_all: Duration,
    operator: Operator,
    converged_after: Option<Duration>,
    /// Relayed: news of a region came to another that was cut off from it.
    relayed: u64,
    /// By pair of machines: what the first knew of the second when they were cut off.
    apart: BTreeMap<(usize, usize), u64>,
}

impl<'a> Running<'a> {
    fn new(plan: &'a Plan, lines: Option<File>) -> Self {
        let mut world = World::new(plan.seed, plan.usual_latency, lines);
        for (site, region) in plan.regions.iter().enumerate() {
            let is_seed =
                |other: &usize| *other != site && plan.regions[*other].joins_at <= region.joins_at;
            let seeds = (0..plan.regions.len()).filter(is_seed);
            let seeds: Vec<&str> = seeds.map(|other| plan.name(other)).collect();
            world.add_machine((&region.name, &region.name), &seeds, &plan.node, None);
        }
        let (workload, recorder) = (plan.workload.clone(), world.recorder.clone());
        let lasts = plan.lasts;
        let seed = plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // All on one machine: a machine has its price in each step, and nobody cuts clients off.
        world.add_caller(move |caller| async move {
            let clients = (0..workload.clients).map(|number| {
                let (workload, recorder) = (workload.clone(), recorder.clone());
                let (seed, caller) = (seed.wrapping_add(number as u64), caller.another(number));
                Client::new(number, workload, lasts, seed, caller, recorder).run()
            });
            let clients: Vec<_> = clients.map(tokio::task::spawn_local).collect();
            for client in clients {
                if let Err(error) = client.await {
                    recorder.fail(format!("a client: {error}"));
                }
            }
        });
        Self {
            plan,
            recorder: world.recorder.clone(),
            injector: Injector::new(plan),
            probe: Probe::default(),
            world,
            next_look: Duration::ZERO,
            next_look_at_all: Duration::ZERO,
            operator: Operator::default(),
            converged_after: None,
            relayed: 0,
            apart: BTreeMap::new(),
        }
    }

    fn carry_out(&mut self) -> anyhow::Result<()> {
        self.injector
            .step(&mut self.world, &self.recorder, &mut self.probe);
        while self.recorder.now() < self.plan.lasts {
            self.step()?;
        }
        self.recorder
            .tell("clients begin nothing more; every fault that should end has ended");
        let healed = self.recorder.now();
        let deadline = healed + self.plan.settle_within;
        let last_answers = healed + LAST_ANSWERS;
        while self.recorder.now() < deadline {
            let ask_at = self.recorder.now() + ASK_EVERY;
            while self.recorder.now() < ask_at {
                self.step()?;
            }
            let core = self.core();
            if !probe::are_equal(&self.world, &core) {
                self.converged_after = None;
                let vectors = &self.probe.vectors;
                self.operator
                    .look(&self.world, &core, vectors, &self.recorder, healed);
                continue;
            }
            if self.converged_after.is_none() {
                self.converged_after = Some(self.recorder.now() - healed);
            }
            // Damage that nobody has found yet is no end, nor are answers on their way.
            let is_quiet = self.recorder.now() >= last_answers || !self.is_answering();
            if is_quiet && probe::are_sound(&self.world, &core) {
                break;
            }
        }
        Ok(())
    }

    fn step(&mut self) -> anyhow::Result<()> {
        self.world.step()?;
        self.injector
            .step(&mut self.world, &self.recorder, &mut self.probe);
        let now = self.recorder.now();
        if now >= self.next_look {
            self.next_look = now + LOOK_EVERY;
            let is_away = self.injector.is_somebody_away();
            self.probe.look(&self.world, &self.recorder, is_away);
            self.look_for_relays();
        }
        if now >= self.next_look_at_all {
            self.next_look_at_all = now + LOOK_AT_ALL_EVERY;
            self.probe
                .look_at_all(&self.world, &self.recorder, self.plan.workload.posts);
        }
        Ok(())
    }

    /// Whether some client waits for an answer.
    fn is_answering(&self) -> bool {
        let inner = self.recorder.lock();
        let newest = inner.history.operations.iter().rev().take(200);
        newest
            .into_iter()
            .any(|operation| operation.outcome == Outcome::Pending)
    }

    fn look_for_relays(&mut self) {
        let machines = self.plan.regions.len();
        for a in 0..machines {
            for b in (0..machines).filter(|b| *b != a) {
                if !self.world.are_apart(a, b) {
                    self.apart.remove(&(a, b));
                    continue;
                }
                let Some(seen) = self.world.machine(b).seen() else {
                    continue;
                };
                let known = self.probe.vectors.newest(a);
                let known = known.and_then(|known| known.get(&seen.engine.own()));
                let known = known.copied().unwrap_or_default();
                let before = self.apart.insert((a, b), known);
                self.relayed += u64::from(before.is_some_and(|before| before < known));
            }
        }
    }

    /// The machines that must become equal: the core's, and those that run on copies of its folders.
    fn core(&self) -> Vec<usize> {
        let clones = self.injector.clones.iter();
        let clones = clones.filter(|(_, site)| self.plan.core.contains(site));
        let clones = clones.map(|(number, _)| *number);
        self.plan.core.iter().copied().chain(clones).collect()
    }

    fn judge(mut self) -> RunReport {
        self.injector.finish(&self.recorder);
        self.recorder.lock().history.over = self.recorder.now();
        let core = self.core();
        let states: Vec<State> = core
            .iter()
            .filter_map(|number| self.world.machine(*number).seen())
            .map(|seen| probe::state_of(&seen, self.plan.workload.posts))
            .collect();
        let is_equal = probe::are_equal(&self.world, &core);
        let is_sound = is_equal && probe::are_sound(&self.world, &core);
        let likers = self
            .world
            .machine(core[0])
            .seen()
            .map_or(0, |seen| seen.engine.likers());
        self.give_up_what_is_outside(&core);
        let mut verdicts = Vec::new();
        let mut convergence = Findings::default();
        convergence.check(is_equal, || self.told_difference(&core));
        convergence.check(is_sound || !is_equal, || {
            "sums are not those of the entries".to_owned()
        });
        let difference = states.iter().find_map(|state| states[0].difference(state));
        convergence.check(difference.is_none(), || {
            let what = difference.unwrap_or_default();
            format!("different likers or counters: {what}")
        });
        verdicts.push(convergence.verdict("convergence"));
        let counts = self.probe.counts();
        let reached = self.reached(&counts);
        let Probe {
            vectors,
            fingerprints,
            figures,
            bounds,
            samples,
            lags,
            ..
        } = self.probe;
        let machines = self.world.machines().iter();
        let regions: Vec<&str> = machines.map(|machine| machine.region()).collect();
        let inner = self.recorder.lock();
        let mut soundness = Findings::default();
        soundness.check(inner.failures.is_empty(), || inner.failures.join("; "));
        verdicts.push(soundness.verdict("nodes run"));
        let history = &inner.history;
        let count_of = |name| counts.get(name).copied().unwrap_or_default();
        let alarms = count_of("ranges_diverged") + count_of("ranges_mended");
        let mut alarmed = Findings::default();
        alarmed.check(!history.damaged.is_empty() || alarms == 0, || {
            format!("{alarms} ranges were found different or mended, and nothing was damaged")
        });
        verdicts.push(alarmed.verdict("no false alarm"));
        if let Some(state) = states.first().filter(|_| is_equal) {
            verdicts.push(checkers::acknowledged(history, state));
            verdicts.push(checkers::counters(history, state, &regions));
            verdicts.push(checkers::dots(history, state));
        } else {
            verdicts.push(checkers::dots(history, &State::default()));
        }
        verdicts.extend([
            vectors.verdict(),
            figures.verdict(),
            fingerprints.verdict(),
            checkers::sessions(history),
            checkers::availability(history),
            bounds.verdict("queues stay in bounds"),
        ]);
        let count = |is: fn(&Outcome) -> bool| {
            let operations = history.operations.iter();
            operations
                .filter(|operation| is(&operation.outcome))
                .count() as u64
        };
        RunReport {
            title: self.plan.title.clone(),
            seed: self.plan.seed,
            regions: self
                .plan
                .regions
                .iter()
                .map(|region| region.name.clone())
                .collect(),
            hash: format!("{:032x}", self.world.trace.hash()),
            simulated: self.recorder.now(),
            operations: history.operations.len() as u64,
            acknowledged: count(|outcome| {
                matches!(
                    outcome,
                    Outcome::Liked { .. }
                        | Outcome::Unliked { .. }
                        | Outcome::Added
                        | Outcome::Shown { .. }
                )
            }),
            unknown: count(|outcome| matches!(outcome, Outcome::Unknown | Outcome::Pending)),
            refused: count(|outcome| matches!(outcome, Outcome::Refused(_) | Outcome::NotReached)),
            likers,
            converged_after: self.converged_after,
            faults: self
                .injector
                .counts
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
            reached,
            story: inner.story.lines.clone(),
            machines: self
                .world
                .machines()
                .iter()
                .map(|machine| machine.name().to_owned())
                .collect(),
            spans: self.injector.spans(),
            samples,
            lags,
            verdicts,
        }
    }

    /// What was written outside of the core, and has not come to it, may be there or not.
    fn give_up_what_is_outside(&self, core: &[usize]) {
        if core.len() == self.world.machines().len() {
            return;
        }
        let inside = self.probe.vectors.newest(core[0]);
        let outside = (0..self.world.machines().len()).filter(|number| !core.contains(number));
        let mut inner = self.recorder.lock();
        for held in outside.filter_map(|number| self.probe.vectors.newest(number)) {
            inner.history.lose(held, inside.into_iter());
        }
    }

    fn told_difference(&self, core: &[usize]) -> String {
        let told = core.iter().map(|number| {
            let machine = self.world.machine(*number);
            match machine.seen() {
                None => format!("{} does not run", machine.name()),
                Some(seen) => {
                    let newest = seen.engine.board().newest();
                    let vector = probe::vector_of(&newest);
                    let events = vector
                        .iter()
                        .map(|(replica, seq)| format!("{replica}:{seq}"));
                    format!(
                        "{}: {:?}, {:?}, {}, {}",
                        machine.name(),
                        seen.engine.serving(),
                        seen.engine.settlement(),
                        events.collect::<Vec<_>>().join(" "),
                        newest.sums.total()
                    )
                }
            }
        });
        let told: Vec<String> = told.collect();
        format!(
            "not equal within {:?}: {}",
            self.plan.settle_within,
            told.join("; ")
        )
    }

    /// What the summary wants to have been reached by some run.
    fn reached(&self, counts: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
        let inner = self.recorder.lock();
        let said = |part: &str| -> u64 {
            let said = inner
                .said
                .iter()
                .filter(|(message, _)| message.contains(part));
            said.map(|(_, count)| *count).sum()
        };
        let count = |name: &str| counts.get(name).copied().unwrap_or_default();
        let returned = |as_what| {
            self.probe
                .returned
                .get(&as_what)
                .copied()
                .unwrap_or_default()
        };
        let reached = [
            (
                "crash between write and sync",
                self.injector.crashes_in_sync,
            ),
            ("torn tail cut", said("was torn and is cut off")),
            ("snapshot catch-up", count("snapshots_merged")),
            ("resumed snapshot", count("snapshots_resumed")),
            (
                "log cut with a region away",
                self.probe.cuts_with_somebody_away,
            ),
            ("orphan removal made", self.probe.orphans_made),
            ("orphan removal resolved", self.probe.orphans_resolved),
            ("relay", self.relayed),
            ("retired region back", returned(Return::Retired)),
            ("duplicate frame", count("blocks_overlapping")),
            (
                "refused frame",
                count("frames_refused") + count("gossip_refused"),
            ),
            ("epoch after restore", returned(Return::Restored)),
            ("stage dropped", count("stages_dropped")),
            ("mismatch found", count("ranges_diverged")),
            ("mismatch mended", count("ranges_mended")),
        ];
        reached
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count))
            .collect()
    }
}
