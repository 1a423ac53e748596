//! The world of a run: machines, the links between them, and time, in one thread.

pub mod caller;
pub mod machine;
pub mod network;
pub mod time;
pub mod trace;
pub mod traced_disk;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use likewise::ids::Region;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use turmoil::Sim;

use machine::{Machine, MachineOptions};
use time::SimTime;
use trace::{Kind, Trace};

/// How much time passes at once. Whatever waits, waits for whole steps.
const STEP: Duration = Duration::from_millis(1);
/// Longer than any run.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);
/// Where the wall clocks begin: 2026-01-01 UTC.
pub const BEGINNING: Duration = Duration::from_millis(time::BEGINNING_MS);
/// Between two machines, where nothing else was said.
const LATENCY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(5));

/// See the module.
pub struct World {
    sim: Sim<'static>,
    pub time: SimTime,
    pub trace: Trace,
    /// Drawn from by whoever asks for the next seed, in the order of the run.
    chance: StdRng,
    machines: Vec<Arc<Machine>>,
    callers: usize,
}

impl World {
    pub fn new(seed: u64, trace_lines: Option<std::fs::File>) -> Self {
        let mut builder = turmoil::Builder::new();
        builder
            .epoch(SystemTime::UNIX_EPOCH + BEGINNING)
            .rng_seed(seed)
            .tick_duration(STEP)
            .simulation_duration(FOR_EVER)
            .min_message_latency(LATENCY.0)
            .max_message_latency(LATENCY.1)
            .tcp_capacity(1 << 16);
        let time = SimTime::default();
        Self {
            sim: builder.build(),
            trace: Trace::new(time.clone(), trace_lines),
            time,
            chance: StdRng::seed_from_u64(seed ^ 0x5ee_d0f_c4a_0ce),
            machines: Vec::new(),
            callers: 0,
        }
    }

    /// Adds the machine of a region; its node starts with the next step. `seeds` are the regions that it is told
    /// of, by name.
    pub fn add_machine(&mut self, region: &Region, seeds: &[Region], options: MachineOptions) {
        let number = self.machines.len();
        let seed = self.chance.random();
        let machine = Machine::new(number, region.clone(), seeds, seed, options, self);
        let machine = Arc::new(machine);
        self.machines.push(machine.clone());
        self.sim.host(region.as_str(), move || {
            let machine = machine.clone();
            async move { machine.run().await.map_err(Into::into) }
        });
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
        self.sim.client(format!("caller-{number}"), async move {
            running.await;
            Ok(())
        });
    }

    /// Lets one step pass. Whatever ends a node but the end of its machine is an error.
    pub fn step(&mut self) -> anyhow::Result<()> {
        let stepped = self.sim.step();
        self.time.set(self.sim.elapsed());
        stepped.map_err(|error| anyhow::anyhow!("a node ended: {error}"))?;
        Ok(())
    }

    pub fn run_for(&mut self, span: Duration) -> anyhow::Result<()> {
        let end = self.sim.elapsed() + span;
        while self.sim.elapsed() < end {
            self.step()?;
        }
        Ok(())
    }

    /// Steps until it holds. False if it did not within the time.
    pub fn run_until(
        &mut self,
        within: Duration,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> anyhow::Result<bool> {
        let end = self.sim.elapsed() + within;
        while !holds(self) {
            if self.sim.elapsed() >= end {
                return Ok(false);
            }
            self.step()?;
        }
        Ok(true)
    }

    fn note(&self, what: &str) {
        self.trace.note(Kind::World, 0, what.as_bytes(), &[]);
    }

    /// Nothing passes from one machine to another.
    pub fn cut(&mut self, from: usize, to: usize) {
        let (a, b) = (self.name(from), self.name(to));
        self.note(&format!("cut {a} {b}"));
        self.sim.partition_oneway(a, b);
    }

    pub fn heal(&mut self, from: usize, to: usize) {
        let (a, b) = (self.name(from), self.name(to));
        self.note(&format!("heal {a} {b}"));
        self.sim.repair_oneway(a, b);
    }

    /// What is sent between them waits until it is [released](Self::release).
    pub fn hold(&mut self, a: usize, b: usize) {
        let (a, b) = (self.name(a), self.name(b));
        self.note(&format!("hold {a} {b}"));
        self.sim.hold(a, b);
    }

    pub fn release(&mut self, a: usize, b: usize) {
        let (a, b) = (self.name(a), self.name(b));
        self.note(&format!("release {a} {b}"));
        self.sim.release(a, b);
    }

    pub fn set_latency(&mut self, a: usize, b: usize, latency: Duration) {
        let (a, b) = (self.name(a), self.name(b));
        self.note(&format!("latency {a} {b} {latency:?}"));
        self.sim.set_link_latency(a, b, latency);
    }

    fn name(&self, machine: usize) -> &'static str {
        // Names live as long as the process: a run has few of them.
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

    /// Whether the machine's node runs, apart from its end by a cut.
    pub fn is_running(&mut self, number: usize) -> bool {
        let name = self.name(number);
        self.sim.is_host_running(name)
    }
}

/// In the trace, callers stand behind machines.
const CALLERS_FROM: usize = 1_000;
