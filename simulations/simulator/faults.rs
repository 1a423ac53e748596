//! Does to a world what a plan says, when it says it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use likewise::adapters::power::{CutPoint, Moment};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::history::Recorder;
use super::probe::{Probe, Return};
use super::scenario::{Fault, Plan, Site};
use super::world::World;
use super::world::machine::{Command, Image};

/// A node that was just started may need so long until it takes writes.
const STARTING: Duration = Duration::from_millis(1_500);
/// Whether a node has stopped is asked again after this.
const STOPPING: Duration = Duration::from_millis(100);
/// A cloned folder runs beside its origin in a machine of this name.
const CLONE_SUFFIX: &str = "-clone";

/// See the module.
pub struct Injector {
    plan: Plan,
    due: BTreeMap<(Duration, usize), Event>,
    next: usize,
    chance: StdRng,
    images: BTreeMap<usize, Image>,
    /// Since when a machine is excused, and how many faults say so.
    excuses: BTreeMap<usize, (Duration, usize)>,
    /// Machines that the plan holds down.
    down: BTreeSet<usize>,
    /// Faults that hold a link or a machine down at this moment.
    away: usize,
    /// Machines that run on a copy of a site's folder.
    pub clones: Vec<(usize, Site)>,
    pub counts: BTreeMap<&'static str, u64>,
    pub crashes_in_sync: u64,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Begin(usize),
    End(usize),
    /// The folder is copied, to be restored later.
    Image(usize),
    Retire(usize),
    Flap(usize, bool),
    Join(Site),
    /// The machine is well again.
    Well(usize),
}

impl Injector {
    pub fn new(plan: &Plan) -> Self {
        let mut injector = Self {
            plan: plan.clone(),
            due: BTreeMap::new(),
            next: 0,
            chance: StdRng::seed_from_u64(plan.seed ^ 0xfa_17),
            images: BTreeMap::new(),
            excuses: BTreeMap::new(),
            down: BTreeSet::new(),
            away: 0,
            clones: Vec::new(),
            counts: BTreeMap::new(),
            crashes_in_sync: 0,
        };
        for (site, region) in plan.regions.iter().enumerate() {
            injector.at(region.joins_at, Event::Join(site));
        }
        for (index, planned) in plan.faults.iter().enumerate() {
            injector.at(planned.at, Event::Begin(index));
            injector.at(planned.until, Event::End(index));
            match planned.fault {
                Fault::Restored { as_of, .. } => injector.at(as_of, Event::Image(index)),
                Fault::Retired { .. } => {
                    let half = planned.at + (planned.until - planned.at) / 2;
                    injector.at(half, Event::Retire(index));
                }
                _ => {}
            }
        }
        injector
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.due.insert((at, self.next), event);
        self.next += 1;
    }

    pub fn is_somebody_away(&self) -> bool {
        self.away > 0 || !self.down.is_empty()
    }

    /// Whatever is due; called after each step.
    pub fn step(&mut self, world: &mut World, recorder: &Recorder, probe: &mut Probe) {
        // First: an end that is due brings back whom it finds down.
        self.crash_who_lost_power(world, recorder);
        let now = recorder.now();
        while let Some(entry) = self.due.first_entry()
            && entry.key().0 <= now
        {
            let event = entry.remove();
            self.take(event, world, recorder, probe);
        }
    }

    /// A cut that was planned for a sync has come.
    fn crash_who_lost_power(&mut self, world: &mut World, recorder: &Recorder) {
        for number in 0..world.machines().len() {
            if self.down.contains(&number) || !world.is_running(number) {
                continue;
            }
            let machine = world.machine(number);
            if !machine.has_power() {
                recorder.tell(format!(
                    "{} loses its power in the middle of a sync",
                    machine.name()
                ));
                self.crash(number, true, world);
            }
        }
    }

    fn take(&mut self, event: Event, world: &mut World, recorder: &Recorder, probe: &mut Probe) {
        match event {
            Event::Join(site) => self.join(site, world, recorder),
            Event::Begin(index) => self.begin(index, world, recorder, probe),
            Event::End(index) => self.end(index, world, recorder),
            Event::Image(index) => {
                if let Fault::Restored { site, .. } = self.plan.faults[index].fault {
                    let mut image = world.machine(site).image(self.chance.random());
                    image.vector = probe.vectors.newest(site).cloned().unwrap_or_default();
                    self.images.insert(index, image);
                    recorder.tell(format!(
                        "the folder of {} is backed up",
                        self.plan.name(site)
                    ));
                }
            }
            Event::Retire(index) => {
                if let Fault::Retired { site, by } = self.plan.faults[index].fault {
                    let (region, by_name) = (self.plan.name(site), self.plan.name(by));
                    recorder.tell(format!("{by_name} is told that {region} is retired"));
                    world
                        .machine(by)
                        .command(Command::Retire(region.to_owned()));
                }
            }
            Event::Flap(index, is_cut) => self.flap(index, is_cut, world),
            Event::Well(number) => self.unexcuse(number, recorder),
        }
    }

    fn join(&mut self, site: Site, world: &mut World, recorder: &Recorder) {
        recorder.tell(format!("{} starts", self.plan.name(site)));
        self.turn_on(site, world, recorder);
        for link in &self.plan.links {
            let (a, b) = link.between;
            if world.is_on(a) && world.is_on(b) {
                world.set_latency(a, b, link.latency);
            }
        }
    }

    fn turn_on(&mut self, number: usize, world: &mut World, recorder: &Recorder) {
        world.turn_on(number);
        let name = world.machine(number).name();
        recorder.lock().machines.push((number, name));
        self.excuse(number, recorder);
        self.at(recorder.now() + STARTING, Event::Well(number));
    }

    fn excuse(&mut self, number: usize, recorder: &Recorder) {
        let now = recorder.now();
        self.excuses.entry(number).or_insert((now, 0)).1 += 1;
    }

    fn unexcuse(&mut self, number: usize, recorder: &Recorder) {
        let Some((since, faults)) = self.excuses.get_mut(&number) else {
            return;
        };
        *faults -= 1;
        if *faults == 0 {
            let since = *since;
            self.excuses.remove(&number);
            let span = (since, recorder.now());
            let mut inner = recorder.lock();
            inner.history.excused.entry(number).or_default().push(span);
        }
    }

    /// Excuses that still hold are written down.
    pub fn finish(&mut self, recorder: &Recorder) {
        for (number, (since, _)) in std::mem::take(&mut self.excuses) {
            let mut inner = recorder.lock();
            let excused = inner.history.excused.entry(number).or_default();
            excused.push((since, Duration::MAX));
        }
    }

    /// The machine is off until it is brought back. A cut that was planned for a sync fell into one.
    fn crash(&mut self, number: usize, was_in_sync: bool, world: &mut World) {
        let is_in_sync = was_in_sync || world.machine(number).is_in_sync();
        self.crashes_in_sync += u64::from(is_in_sync);
        world.crash(number);
        self.down.insert(number);
    }

    fn bring_back(&mut self, number: usize, world: &mut World, recorder: &Recorder) {
        if self.down.remove(&number) || !world.is_running(number) {
            world.restart(number);
            recorder.tell(format!("{} starts again", world.machine(number).name()));
        }
        self.at(recorder.now() + STARTING, Event::Well(number));
    }

    /// What only this machine's folder held may be gone for good.
    fn destroy(
        &mut self,
        number: usize,
        kept: &BTreeMap<likewise::ids::Replica, u64>,
        world: &World,
        recorder: &Recorder,
        probe: &mut Probe,
    ) {
        let Some(held) = probe.vectors.newest(number) else {
            return;
        };
        let others = (0..world.machines().len()).filter(|other| *other != number);
        let others = others.filter_map(|other| probe.vectors.newest(other));
        let mut inner = recorder.lock();
        inner.history.lose(held, others.chain([kept]));
        inner.history.destroyed.push((number, recorder.now()));
        probe.vectors.begin_anew(number);
    }

    fn begin(&mut self, index: usize, world: &mut World, recorder: &Recorder, probe: &mut Probe) {
        let planned = self.plan.faults[index].clone();
        *self.counts.entry(planned.fault.name()).or_default() += 1;
        recorder.tell(self.told(&planned.fault));
        let lasts = planned.until - planned.at;
        match planned.fault {
            Fault::Cut {
                from,
                to,
                is_one_way,
            } => {
                self.away += 1;
                for (a, b) in directed(&from, &to, is_one_way) {
                    world.cut(a, b);
                }
            }
            Fault::Hold { between: (a, b) } => {
                self.away += 1;
                world.hold(a, b);
            }
            Fault::Slow { between, latency } => world.set_latency(between.0, between.1, latency),
            Fault::Lossy { between, share } => world.set_loss(between.0, between.1, share),
            Fault::Flapping { .. } => self.flap(index, true, world),
            Fault::Crash { site } => {
                self.excuse(site, recorder);
                self.crash(site, false, world);
            }
            Fault::Retired { site, .. } => {
                self.excuse(site, recorder);
                self.crash(site, false, world);
                probe.expect_back(site, Return::Retired);
            }
            Fault::CrashInSync { site } => {
                self.excuse(site, recorder);
                let number = world.machine(site).power().syncs() + self.chance.random_range(1..=6);
                let moments = [Moment::Before, Moment::During, Moment::After];
                let moment = moments[self.chance.random_range(0..moments.len())];
                world
                    .machine(site)
                    .power()
                    .cut_at(CutPoint::Sync { number, moment });
            }
            Fault::Restart { site } => {
                self.excuse(site, recorder);
                world.machine(site).command(Command::Stop);
            }
            Fault::DiskFull { site } => {
                self.excuse(site, recorder);
                world.machine(site).fill_disk(true);
            }
            Fault::SyncFails { site } => {
                self.excuse(site, recorder);
                let power = world.machine(site).power();
                let next = power.syncs() + self.chance.random_range(1..=4);
                power.fail_sync(next);
                power.fail_sync(next + 1);
            }
            Fault::ClockJump { site, by_ms } => world.machine(site).clock.jump(by_ms),
            Fault::ClockDrift { site, per_million } => world.machine(site).clock.drift(per_million),
            Fault::Restored { site, .. } => {
                self.excuse(site, recorder);
                self.crash(site, false, world);
                if let Some(image) = self.images.remove(&index) {
                    // Damage may have been copied as well: it stays excused.
                    self.destroy(site, &image.vector, world, recorder, probe);
                    world.machine(site).replace(Some(image));
                    probe.expect_back(site, Return::Restored);
                }
            }
            Fault::Wiped { site } => {
                self.excuse(site, recorder);
                self.crash(site, false, world);
                self.destroy(site, &BTreeMap::new(), world, recorder, probe);
                world.machine(site).replace(None);
            }
            Fault::Cloned { site } => {
                let image = world.machine(site).image(self.chance.random());
                let name = format!("{}{CLONE_SUFFIX}", self.plan.name(site));
                let seeds = (0..self.plan.regions.len()).filter(|other| *other != site);
                let seeds: Vec<&str> = seeds.map(|other| self.plan.name(other)).collect();
                let region = self.plan.name(site);
                let number =
                    world.add_machine((&name, region), &seeds, &self.plan.node, Some(image));
                self.clones.push((number, site));
                self.turn_on(number, world, recorder);
            }
            Fault::Hostile { site } => super::world::hostile::attack(
                world,
                site,
                lasts.max(Duration::from_millis(500)),
                self.chance.random(),
            ),
            Fault::SlowWatchers { site } => super::world::watchers::watch_slowly(
                world,
                site,
                lasts.max(Duration::from_secs(1)),
                self.plan.workload.posts,
            ),
            Fault::Damaged { site } => {
                let machine = world.machine(site);
                if let Some(liker) = machine.damage(&mut self.chance, self.plan.workload.posts) {
                    let now = recorder.now();
                    let history = &mut recorder.lock().history;
                    history.damaged.push((site, now));
                    history.lost_from_memory.push(liker);
                }
            }
        }
    }

    fn end(&mut self, index: usize, world: &mut World, recorder: &Recorder) {
        let planned = self.plan.faults[index].clone();
        match planned.fault {
            Fault::Cut {
                from,
                to,
                is_one_way,
            } => {
                self.away -= 1;
                for (a, b) in directed(&from, &to, is_one_way) {
                    world.heal(a, b);
                }
                recorder.tell(format!("healed: {}", self.ways(&from, &to, is_one_way)));
            }
            Fault::Hold { between: (a, b) } => {
                self.away -= 1;
                world.release(a, b);
            }
            Fault::Slow { between, .. } => {
                let link =
                    self.plan.links.iter().find(|link| {
                        link.between == between || link.between == (between.1, between.0)
                    });
                let latency = link.map_or(self.plan.usual_latency, |link| link.latency);
                world.set_latency(between.0, between.1, latency);
            }
            Fault::Lossy { between, .. } => world.set_loss(between.0, between.1, 0.0),
            // The last change of a flapping link heals it.
            Fault::Flapping { .. } => {}
            Fault::Crash { site }
            | Fault::Retired { site, .. }
            | Fault::Restored { site, .. }
            | Fault::Wiped { site } => self.bring_back(site, world, recorder),
            // It may take its time to stop.
            Fault::Restart { site } if world.is_running(site) => {
                let soon = recorder.now() + STOPPING;
                self.at(soon, Event::End(index));
            }
            Fault::Restart { site } => self.bring_back(site, world, recorder),
            Fault::CrashInSync { site } => {
                world.machine(site).power().cancel_cut();
                self.bring_back(site, world, recorder);
            }
            Fault::SyncFails { site } => {
                self.crash(site, false, world);
                self.bring_back(site, world, recorder);
            }
            Fault::DiskFull { site } => {
                world.machine(site).fill_disk(false);
                recorder.tell(format!(
                    "the disk of {} has room again",
                    self.plan.name(site)
                ));
                self.at(recorder.now() + STARTING, Event::Well(site));
            }
            Fault::ClockDrift { site, .. } => world.machine(site).clock.drift(0),
            Fault::ClockJump { .. }
            | Fault::Cloned { .. }
            | Fault::Hostile { .. }
            | Fault::SlowWatchers { .. }
            | Fault::Damaged { .. } => {}
        }
    }

    /// A flapping link changes; the next change is planned unless this is the last one.
    fn flap(&mut self, index: usize, is_cut: bool, world: &mut World) {
        let planned = &self.plan.faults[index];
        let (
            Fault::Flapping {
                between: (a, b),
                period,
            },
            until,
        ) = (planned.fault.clone(), planned.until)
        else {
            return;
        };
        for (from, to) in [(a, b), (b, a)] {
            match is_cut {
                true => world.cut(from, to),
                false => world.heal(from, to),
            }
        }
        let next = world.time.now() + period;
        if is_cut {
            self.at(next.min(until), Event::Flap(index, false));
        } else if next < until {
            self.at(next, Event::Flap(index, true));
        }
    }

    /// Each fault of the plan: from when until when, and what.
    pub fn spans(&self) -> Vec<(Duration, Duration, String)> {
        let faults = self.plan.faults.iter();
        faults
            .map(|planned| (planned.at, planned.until, self.told(&planned.fault)))
            .collect()
    }

    fn names(&self, sites: &[Site]) -> String {
        let names: Vec<&str> = sites.iter().map(|site| self.plan.name(*site)).collect();
        names.join("+")
    }

    fn ways(&self, from: &[Site], to: &[Site], is_one_way: bool) -> String {
        let arrow = if is_one_way { "→" } else { "↔" };
        format!("{} {arrow} {}", self.names(from), self.names(to))
    }

    fn told(&self, fault: &Fault) -> String {
        let name = |site: &Site| self.plan.name(*site);
        let link = |(a, b): &(Site, Site)| format!("{} – {}", name(a), name(b));
        match fault {
            Fault::Cut {
                from,
                to,
                is_one_way,
            } => format!("cut: {}", self.ways(from, to, *is_one_way)),
            Fault::Hold { between } => format!("{}: everything is held back", link(between)),
            Fault::Slow { between, latency } => {
                format!(
                    "{}: slow, {:?} to {:?}",
                    link(between),
                    latency.0,
                    latency.1
                )
            }
            Fault::Lossy { between, share } => {
                format!(
                    "{}: {:.0} % of the messages are lost",
                    link(between),
                    share * 100.0
                )
            }
            Fault::Flapping { between, period } => {
                format!("{}: flapping, every {period:?}", link(between))
            }
            Fault::Crash { site } => format!("{} loses its power", name(site)),
            Fault::CrashInSync { site } => format!("{} will lose its power in a sync", name(site)),
            Fault::Restart { site } => format!("{} is told to stop", name(site)),
            Fault::DiskFull { site } => format!("the disk of {} is full", name(site)),
            Fault::SyncFails { site } => format!("a sync of {} will fail", name(site)),
            Fault::ClockJump { site, by_ms } => {
                format!("the clock of {} jumps by {by_ms} ms", name(site))
            }
            Fault::ClockDrift { site, per_million } => {
                format!(
                    "the clock of {} drifts by {per_million} µs a second",
                    name(site)
                )
            }
            Fault::Restored { site, as_of } => {
                format!(
                    "{} loses its power; its folder will be that of {as_of:?}",
                    name(site)
                )
            }
            Fault::Cloned { site } => format!("a copy of the folder of {} runs, too", name(site)),
            Fault::Wiped { site } => format!("{} loses its power and its disk", name(site)),
            Fault::Retired { site, by } => {
                format!(
                    "{} loses its power; {} will retire it",
                    name(site),
                    name(by)
                )
            }
            Fault::Hostile { site } => format!("somebody attacks {}", name(site)),
            Fault::SlowWatchers { site } => format!("slow watchers come to {}", name(site)),
            Fault::Damaged { site } => format!("a liker is lost from the memory of {}", name(site)),
        }
    }
}

/// Each way from one side to the other and, unless it is one-way, back.
fn directed(from: &[Site], to: &[Site], is_one_way: bool) -> Vec<(Site, Site)> {
    let there = from.iter().flat_map(|a| to.iter().map(|b| (*a, *b)));
    let mut ways: Vec<_> = there.collect();
    if !is_one_way {
        let back: Vec<_> = ways.iter().map(|(a, b)| (*b, *a)).collect();
        ways.extend(back);
    }
    ways
}
