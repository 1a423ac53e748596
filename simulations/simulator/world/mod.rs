//! The world of a run: machines, the links between them, and time, in one thread.

pub mod caller;
pub mod hostile;
pub mod machine;
pub mod network;
pub mod time;
pub mod trace;
pub mod traced_disk;
pub mod watchers;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use turmoil::Sim;

use machine::{Image, Machine};
use time::SimTime;
use trace::{Kind, Trace};

use super::history::Recorder;
use super::scenario::NodePlan;

/// How much time passes at once. What travels arrives at the end of a step, and power fails there.
const STEP: Duration = Duration::from_millis(4);
/// Longer than any run.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);
/// Where the wall clocks begin: 2026-01-01 UTC.
pub const BEGINNING: Duration = Duration::from_millis(time::BEGINNING_MS);
/// Between a client and any machine.
const CLIENT_LATENCY: Duration = STEP;
/// In the trace, callers stand behind machines.
const CALLERS_FROM: usize = 1_000;

/// See the module.
pub struct World {
    sim: Sim<'static>,
    pub time: SimTime,
    pub trace: Trace,
    pub recorder: Recorder,
    /// Drawn from by whoever asks for the next seed, in the order of the run.
    chance: StdRng,
    machines: Vec<Arc<Machine>>,
    /// Which of them were turned on.
    on: Vec<bool>,
    callers: usize,
    /// How many faults hold a way cut, from and to.
    cuts: BTreeMap<(usize, usize), usize>,
}

impl World {
    pub fn new(seed: u64, usual_latency: (Duration, Duration), lines: Option<File>) -> Self {
        let mut builder = turmoil::Builder::new();
        builder
            .epoch(SystemTime::UNIX_EPOCH + BEGINNING)
            .rng_seed(seed)
            .tick_duration(STEP)
            .simulation_duration(FOR_EVER)
            .min_message_latency(usual_latency.0)
            .max_message_latency(usual_latency.1)
            .tcp_capacity(1 << 16);
        let time = SimTime::default();
        Self {
            sim: builder.build(),
            trace: Trace::new(time.clone(), lines),
            recorder: Recorder::new(time.clone()),
            time,
            chance: StdRng::seed_from_u64(seed ^ 0x5ee_d0f_c4a_0ce),
            machines: Vec::new(),
            on: Vec::new(),
            callers: 0,
            cuts: BTreeMap::new(),
        }
    }

    /// Sets up a machine of this name and region, with an empty folder or a given one. Its node is told of `seeds`,
    /// by their names.
    pub fn add_machine(
        &mut self,
        (name, region): (&str, &str),
        seeds: &[&str],
        plan: &NodePlan,
        image: Option<Image>,
    ) -> usize {
        let number = self.machines.len();
        let seed = self.chance.random();
        let config = machine::config((name, region), seeds, plan);
        let around = (self.time.clone(), self.trace.clone(), self.recorder.clone());
        let machine = Machine::new((number, name), config, plan, seed, around, image);
        self.machines.push(Arc::new(machine));
        self.on.push(false);
        number
    }

    /// Its node starts with the next step.
    pub fn turn_on(&mut self, number: usize) {
        let machine = self.machines[number].clone();
        self.note(&format!("turn on {}", machine.name()));
        let name = machine.name();
        self.on[number] = true;
        self.sim.host(name, move || {
            let machine = machine.clone();
            async move { machine.run().await.map_err(Into::into) }
        });
        for caller in 0..self.callers {
            self.sim
                .set_link_latency(caller_name(caller), name, CLIENT_LATENCY);
        }
        // What was cut before there was anybody.
        for ((from, to), cuts) in &self.cuts {
            let is_its_own = *from == number || *to == number;
            if is_its_own && *cuts > 0 && self.on[*from] && self.on[*to] {
                self.sim.partition_oneway(self.name(*from), self.name(*to));
            }
        }
    }

    pub fn is_on(&self, number: usize) -> bool {
        self.on[number]
    }

    pub fn machine(&self, number: usize) -> &Arc<Machine> {
        &self.machines[number]
    }

    pub fn machines(&self) -> &[Arc<Machine>] {
        &self.machines
    }

    /// Runs a client's program on a machine of its own.
    pub fn add_caller<F>(&mut self, program: impl FnOnce(caller::Caller) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        let number = self.callers;
        self.callers += 1;
        let caller = caller::Caller::new(self.trace.clone(), CALLERS_FROM + number);
        let running = program(caller);
        self.sim.client(caller_name(number), async move {
            running.await;
            Ok(())
        });
        for (machine, _) in self.machines.iter().zip(&self.on).filter(|(_, on)| **on) {
            let name = machine.name();
            self.sim
                .set_link_latency(caller_name(number), name, CLIENT_LATENCY);
        }
    }

    /// Lets one step pass.
    pub fn step(&mut self) -> anyhow::Result<()> {
        let stepped = self.sim.step();
        self.time.set(self.sim.elapsed());
        stepped.map_err(|error| anyhow::anyhow!("a machine ended: {error}"))?;
        Ok(())
    }

    fn note(&self, what: &str) {
        self.trace.note(Kind::World, 0, what.as_bytes(), &[]);
    }

    /// Nothing passes from one machine to another, until as many have healed it as have cut it.
    pub fn cut(&mut self, from: usize, to: usize) {
        let cuts = self.cuts.entry((from, to)).or_default();
        *cuts += 1;
        if *cuts == 1 && self.on[from] && self.on[to] {
            let (a, b) = (self.name(from), self.name(to));
            self.note(&format!("cut {a} {b}"));
            self.sim.partition_oneway(a, b);
        }
    }

    pub fn heal(&mut self, from: usize, to: usize) {
        let cuts = self.cuts.entry((from, to)).or_default();
        *cuts = cuts.saturating_sub(1);
        if *cuts == 0 && self.on[from] && self.on[to] {
            let (a, b) = (self.name(from), self.name(to));
            self.note(&format!("heal {a} {b}"));
            self.sim.repair_oneway(a, b);
        }
    }

    /// Whether nothing passes between two machines, either way.
    pub fn are_apart(&self, a: usize, b: usize) -> bool {
        let is_cut = |way| self.cuts.get(&way).is_some_and(|cuts| *cuts > 0);
        is_cut((a, b)) && is_cut((b, a))
    }

    /// What is sent between them waits until it is [released](Self::release).
    pub fn hold(&mut self, a: usize, b: usize) {
        if self.on[a] && self.on[b] {
            self.note(&format!("hold {a} {b}"));
            self.sim.hold(self.name(a), self.name(b));
        }
    }

    pub fn release(&mut self, a: usize, b: usize) {
        if self.on[a] && self.on[b] {
            self.note(&format!("release {a} {b}"));
            self.sim.release(self.name(a), self.name(b));
        }
        // A hold and a release forget cuts of the same link.
        for (from, to) in [(a, b), (b, a)] {
            if self.cuts.get(&(from, to)).is_some_and(|cuts| *cuts > 0) {
                self.sim.partition_oneway(self.name(from), self.name(to));
            }
        }
    }

    pub fn set_latency(&mut self, a: usize, b: usize, latency: (Duration, Duration)) {
        if self.on[a] && self.on[b] {
            self.note(&format!("latency {a} {b} {latency:?}"));
            let (a, b) = (self.name(a), self.name(b));
            self.sim.set_link_latency(a, b, latency.0);
            self.sim.set_link_max_message_latency(a, b, latency.1);
        }
    }

    /// Of messages between them this share is lost.
    pub fn set_loss(&mut self, a: usize, b: usize, share: f64) {
        if self.on[a] && self.on[b] {
            self.note(&format!("loss {a} {b} {share}"));
            let (a, b) = (self.name(a), self.name(b));
            self.sim.set_link_fail_rate(a, b, share);
        }
    }

    fn name(&self, machine: usize) -> &'static str {
        self.machines[machine].name()
    }

    /// The machine loses its power: what was not synced may be lost. It stays off.
    pub fn crash(&mut self, number: usize) {
        let machine = self.machines[number].clone();
        self.note(&format!("crash {}", machine.name()));
        machine.cut_power();
        self.sim.crash(machine.name());
        machine.has_ended();
    }

    /// The machine is turned on again.
    pub fn restart(&mut self, number: usize) {
        let machine = self.machines[number].clone();
        self.note(&format!("restart {}", machine.name()));
        machine.power_on();
        self.sim.bounce(machine.name());
    }

    /// Whether the machine's node runs or starts.
    pub fn is_running(&mut self, number: usize) -> bool {
        self.on[number] && self.sim.is_host_running(self.name(number))
    }
}

fn caller_name(number: usize) -> String {
    format!("caller-{number}")
}
