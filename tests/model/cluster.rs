//! A cluster of real engines on simulated disks, in one thread, where nothing happens but what an action says.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher as _;
use std::sync::Arc;

use likewise::adapters::simulated_disk::Operation;
use likewise::engine::command::{Command, Write};
use likewise::engine::write::{WriteError, Written};
use likewise::log::{LogOptions, Position};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::Xxh3Default;

use super::end::{End, RELAY_AFTER_MS};
use super::{Action, Bounds};
use crate::support::oracle::{NamedDot, Oracle};
use crate::support::{Machine, Node, StillClock, gate, like, unlike};

pub const POST: &str = "p";
pub const USER: &str = "ann";
const REGIONS: [&str; 3] = ["ap", "eu", "us"];
/// In so many turns of all tasks everything is done that nothing holds up.
const TURNS: usize = 16;
/// In so many what a frame brings is on its way to the disk.
const FRAME_TURNS: usize = 4;
/// How far time goes on at once: far enough for acknowledgements and relays.
const PASS_MS: u64 = 2 * RELAY_AFTER_MS;
/// More frames than a round can bring.
const DELIVERIES_MAX: usize = 200;
/// Nodes that refuse one another are dialled so often in a round, as those who dial wait longer and longer.
const DIALS_MAX: usize = 2;
/// Rounds after which a cluster that nothing holds up is equal.
const ROUNDS: usize = 12;

type Writing = JoinHandle<Result<Written, WriteError>>;

/// A machine, and the node that runs on it.
struct Site {
    machine: Machine,
    node: Option<Node>,
    syncs: watch::Sender<bool>,
    starts: usize,
    /// Likes and unlikes that nobody was answered yet.
    writing: Vec<Writing>,
}

impl Site {
    async fn begin(machine: Machine) -> Self {
        let syncs = gate(&machine.disk, Operation::Sync, true);
        let mut site = Self {
            machine,
            node: None,
            syncs,
            starts: 0,
            writing: Vec::new(),
        };
        site.start().await;
        site
    }

    async fn start(&mut self) {
        self.starts += 1;
        self.syncs.send_replace(true);
        self.node = Some(self.machine.start().await);
        settle(TURNS).await;
        self.syncs.send_replace(false);
    }

    fn node(&self) -> &Node {
        self.node.as_ref().expect("it runs between actions")
    }
}

async fn settle(turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

/// See the module.
pub struct Cluster {
    sites: Vec<Site>,
    /// By the node that sends and the node that receives.
    ends: BTreeMap<(usize, usize), End>,
    links: BTreeSet<(usize, usize)>,
    now_ms: u64,
    spent: Spent,
    /// Dots of likes that were acknowledged, and the process that made each: its site, and which of those that ran there.
    made: BTreeMap<NamedDot, (usize, usize)>,
    pub broken: Option<String>,
}

/// How often what is bounded has happened.
#[derive(Debug, Default, Clone, Copy)]
struct Spent {
    likes: usize,
    unlikes: usize,
    crashes: usize,
    clones: usize,
    passes: usize,
    breaks: usize,
}

impl Cluster {
    pub async fn begin(bounds: &Bounds) -> Self {
        let mut cluster = Self {
            sites: Vec::new(),
            ends: BTreeMap::new(),
            links: BTreeSet::new(),
            now_ms: 0,
            spent: Spent::default(),
            made: BTreeMap::new(),
            broken: None,
        };
        for (number, region) in REGIONS.iter().take(bounds.regions).enumerate() {
            let mut machine = Machine::new(region, number as u64 + 1);
            machine.shards = 1;
            machine.clock = || Arc::new(StillClock);
            machine.identity = bounds.identity;
            machine.log = LogOptions {
                segment_bytes: 8 << 10,
                group_bytes_max: 2 << 10,
                context_bytes_max: 1 << 10,
                ..LogOptions::default()
            };
            cluster.sites.push(Site::begin(machine).await);
        }
        // A chain: what the first writes reaches the last by relay alone.
        for number in 1..bounds.regions {
            cluster.connect((number - 1, number)).await;
        }
        // They have greeted one another.
        cluster.deliver_all().await;
        cluster
    }

    async fn connect(&mut self, (a, b): (usize, usize)) {
        self.links.insert((a, b));
        for (here, there) in [(a, b), (b, a)] {
            let end = End::begin(self.sites[here].node(), self.now_ms).await;
            self.ends.insert((here, there), end);
        }
    }

    async fn reconnect(&mut self, of: impl Fn((usize, usize)) -> bool) {
        for link in self.links.clone().into_iter().filter(|link| of(*link)) {
            self.connect(link).await;
        }
    }

    /// What may happen next.
    pub fn possible(&self, bounds: &Bounds) -> Vec<Action> {
        let spent = &self.spent;
        let mut actions = Vec::new();
        for at in 0..self.sites.len() {
            if spent.likes < bounds.likes {
                actions.push(Action::Like(at));
            }
            if spent.unlikes < bounds.unlikes {
                actions.push(Action::Unlike(at));
            }
            if self.has_unsynced(at) {
                actions.push(Action::Sync(at));
            }
            if spent.crashes < bounds.crashes {
                actions.extend([Action::Crash(at), Action::Kill(at)]);
            }
            if spent.clones < bounds.clones {
                actions.push(Action::Clone(at));
            }
        }
        for ((from, to), end) in &self.ends {
            if !end.sent.is_empty() && self.ends[&(*to, *from)].wants_frames() {
                actions.push(Action::Deliver(*from, *to));
            }
        }
        if spent.breaks < bounds.breaks {
            actions.extend(self.links.iter().map(|(a, b)| Action::Break(*a, *b)));
        }
        if spent.passes < bounds.passes {
            actions.push(Action::Pass);
        }
        actions
    }

    fn has_unsynced(&self, at: usize) -> bool {
        let engine = &self.sites[at].node().engine;
        let (own, made) = engine.made();
        let mut ends = self.ends.iter().filter(|((from, _), _)| *from == at);
        engine.board().newest().vector.get(own) < made
            || !self.sites[at].writing.is_empty()
            || ends.any(|(_, end)| end.has_unsynced())
    }

    pub async fn act(&mut self, action: Action) {
        match action {
            Action::Like(at) => {
                self.spent.likes += 1;
                self.write(at, like(POST, USER)).await;
            }
            Action::Unlike(at) => {
                self.spent.unlikes += 1;
                self.write(at, unlike(POST, USER)).await;
            }
            Action::Sync(at) => self.sync(at).await,
            Action::Deliver(from, to) => {
                self.deliver(from, to).await;
                self.redial_what_ended().await;
            }
            Action::Crash(at) => {
                self.spent.crashes += 1;
                self.end_node(at).await.stop().await;
                self.sites[at].machine.reboot();
                self.start_again(at).await;
            }
            Action::Kill(at) => {
                self.spent.crashes += 1;
                self.end_node(at).await.kill().await;
                self.start_again(at).await;
            }
            Action::Clone(at) => {
                self.spent.clones += 1;
                let number = self.sites.len();
                let machine = self.sites[at].machine.cloned(100 + number as u64);
                let site = Site::begin(machine).await;
                self.sites.push(site);
                // It dials whom its origin dials, and its origin.
                for other in 0..number {
                    let is_linked =
                        |(a, b): &(usize, usize)| (*a, *b) == (at.min(other), at.max(other));
                    if other == at || self.links.iter().any(is_linked) {
                        self.connect((other, number)).await;
                    }
                }
            }
            Action::Break(a, b) => {
                self.spent.breaks += 1;
                self.connect((a, b)).await;
            }
            Action::Pass => {
                self.spent.passes += 1;
                self.pass().await;
            }
        }
        self.collect_answers().await;
    }

    async fn write(&mut self, at: usize, command: Command) {
        let engine = self.sites[at].node().engine.clone();
        let writing = tokio::spawn(async move {
            let (commands, request) = (vec![command], None);
            engine.write(&Write { commands, request }).await
        });
        self.sites[at].writing.push(writing);
        settle(TURNS).await;
    }

    async fn sync(&mut self, at: usize) {
        self.sites[at].syncs.send_replace(true);
        settle(TURNS).await;
        self.sites[at].syncs.send_replace(false);
        self.look(at).await;
    }

    async fn deliver(&mut self, from: usize, to: usize) {
        let now_ms = self.now_ms;
        let sender = self.ends.get_mut(&(from, to)).expect("they are linked");
        let Some(frame) = sender.sent.pop_front() else {
            return;
        };
        let receiver = self.ends.get_mut(&(to, from)).expect("both ways");
        receiver.receive(&frame, now_ms).await;
        settle(FRAME_TURNS).await;
    }

    /// A session that ended is begun anew.
    async fn redial_what_ended(&mut self) {
        for link in self.ended() {
            self.connect(link).await;
        }
    }

    /// Links whose session has ended.
    fn ended(&self) -> Vec<(usize, usize)> {
        let is_ended = |(a, b): &(usize, usize)| {
            self.ends[&(*a, *b)].ended.is_some() || self.ends[&(*b, *a)].ended.is_some()
        };
        self.links.iter().copied().filter(is_ended).collect()
    }

    async fn pass(&mut self) {
        self.now_ms += PASS_MS;
        for at in 0..self.sites.len() {
            self.look(at).await;
        }
    }

    /// A node's sessions see what has become durable, and what time it is.
    async fn look(&mut self, at: usize) {
        let now_ms = self.now_ms;
        for (_, end) in self.ends.iter_mut().filter(|((from, _), _)| *from == at) {
            end.look(now_ms).await;
        }
        self.redial_what_ended().await;
    }

    async fn end_node(&mut self, at: usize) -> Node {
        self.ends.retain(|(a, b), _| *a != at && *b != at);
        let site = &mut self.sites[at];
        for writing in site.writing.drain(..) {
            writing.abort();
        }
        site.node.take().expect("it runs between actions")
    }

    async fn start_again(&mut self, at: usize) {
        self.sites[at].start().await;
        self.reconnect(|(a, b)| a == at || b == at).await;
    }

    /// Whoever was answered holds a dot that nobody else may be given for something else.
    async fn collect_answers(&mut self) {
        for (at, site) in self.sites.iter_mut().enumerate() {
            let (done, waiting) = std::mem::take(&mut site.writing)
                .into_iter()
                .partition::<Vec<_>, _>(JoinHandle::is_finished);
            site.writing = waiting;
            for written in done {
                let Ok(Ok(written)) = written.await else {
                    continue;
                };
                let all = site.node.as_ref().expect("it runs").engine.replicas().all();
                for dot in written.done.iter().filter_map(|done| done.dot) {
                    let dot: NamedDot = (all.id(dot.replica).clone(), dot.seq);
                    let process = (at, site.starts);
                    let maker = *self.made.entry(dot.clone()).or_insert(process);
                    if maker != process {
                        self.broken = Some(format!("{dot:?} was made by two processes"));
                    }
                }
            }
        }
    }

    async fn deliver_all(&mut self) {
        let mut dials: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for _ in 0..DELIVERIES_MAX {
            for link in self.ended() {
                let dials = dials.entry(link).or_default();
                if *dials < DIALS_MAX {
                    *dials += 1;
                    self.connect(link).await;
                }
            }
            let ended = self.ended();
            let Some((from, to)) = self.ends.iter().find_map(|(way, end)| {
                let link = (way.0.min(way.1), way.0.max(way.1));
                let is_due = !end.sent.is_empty() && self.ends[&(way.1, way.0)].wants_frames();
                (is_due && !ended.contains(&link)).then_some(*way)
            }) else {
                return;
            };
            self.deliver(from, to).await;
        }
    }

    /// All that decides what can happen from here on, as one number.
    pub fn digest(&self) -> u128 {
        let mut hasher = Xxh3Default::new();
        let mut text = String::new();
        for site in &self.sites {
            let engine = &site.node().engine;
            for path in site.machine.disk.paths() {
                hasher.update(&site.machine.disk.image(&path).unwrap_or_default());
            }
            hasher.write_usize(site.writing.len());
            let newest = engine.board().newest();
            text += &format!(
                "{:?} {:?} {} {}",
                newest,
                engine.made(),
                engine.recompute_sums().total(),
                engine.orphan_removals()
            );
        }
        for (way, end) in &self.ends {
            text += &format!("{way:?} {}", end.told());
            for frame in &end.sent {
                hasher.write_usize(frame.len());
                hasher.update(frame);
            }
        }
        text += &format!("{} {:?}", self.now_ms, self.spent);
        hasher.update(text.as_bytes());
        hasher.digest128()
    }

    /// Nothing holds anything up any more: all must become equal, hold what all events together say, and have
    /// everything that was acknowledged.
    pub async fn converge(&mut self) -> Result<(), String> {
        for _ in 0..ROUNDS {
            for at in 0..self.sites.len() {
                self.sync(at).await;
            }
            self.deliver_all().await;
            self.pass().await;
            self.collect_answers().await;
            if self.is_equal() {
                return self.check_entries().await;
            }
        }
        let all = self.sites.iter().map(|site| site.node().durable());
        Err(format!(
            "not equal in the end: {:?}",
            all.collect::<Vec<_>>()
        ))
    }

    /// Whether all have published the same, and nothing is on its way.
    fn is_equal(&self) -> bool {
        let first = self.sites[0].node().durable();
        let mut all = 0..self.sites.len();
        all.all(|at| !self.has_unsynced(at) && self.sites[at].node().durable() == first)
    }

    async fn check_entries(&self) -> Result<(), String> {
        let mut oracle = Oracle::default();
        for site in &self.sites {
            for block in site.node().blocks(Position::START).await {
                oracle.try_learn(&block)?;
            }
        }
        if let Some((lost, _)) = self.made.iter().find(|(dot, _)| !oracle.knows(dot)) {
            return Err(format!("the acknowledged {lost:?} is lost"));
        }
        for site in &self.sites {
            let node = site.node();
            let covered = node.durable().0.into_iter().collect();
            oracle.state(&covered).check(node)?;
        }
        Ok(())
    }

    pub async fn end(mut self) {
        for at in 0..self.sites.len() {
            self.end_node(at).await.stop().await;
        }
    }
}
