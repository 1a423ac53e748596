//! Random histories over three engines, compared with an oracle by dots: after every step each settled
//! node holds exactly what follows from the events that it covers, and after the last heal all are equal.
//!
//! A failing history prints its seed; `LIKEWISE_SEED=n cargo test --test convergence` runs it alone.

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use likewise::adapters::power::{CutPoint, Moment};
use likewise::engine::Settlement;
use likewise::engine::command::{Command, Write};
use likewise::engine::remote::Applied;
use likewise::engine::snapshot::{Snapshot, SnapshotError};
use likewise::ids::{PostId, UserId};
use likewise::log::{LogOptions, Position};
use likewise::replication::parts;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::audit::{Found, Said};
use support::oracle::{NamedDot, NamedVector, Oracle};
use support::transfer::{Offer, Transfer};
use support::{Cutting, Machine, Node, add, like, post, unlike, unlike_dots, user};

const REGIONS: [&str; 3] = ["ap", "eu", "us"];
const STEPS: usize = 110;
/// Without a seed, histories are tried for this long.
const BUDGET: Duration = Duration::from_secs(25);
/// What was said and is still to be heard.
const SAID_MAX: usize = 12;
const HISTORIES_MIN: u64 = 60;

/// A snapshot on its way to a node. When it is whole it will be merged, whatever happens.
struct Incoming {
    from: usize,
    /// None while nobody sends.
    snapshot: Option<Box<Snapshot>>,
    transfer: Transfer,
}

impl Incoming {
    fn is_ready(&self) -> bool {
        self.transfer.is_whole()
    }
}

struct World {
    rng: StdRng,
    machines: [Machine; 3],
    nodes: [Option<Node>; 3],
    incoming: [Option<Incoming>; 3],
    oracle: Oracle,
    /// Blocks on their way, with the place they go to.
    messages: Vec<(usize, Bytes)>,
    likes: Vec<(NamedDot, PostId, UserId)>,
    dense: bool,
    merges: u64,
    /// Snapshots that went on after a break, those of them with another sender, and ranges left out.
    resumed: [u64; 3],
    /// What nodes said of their ranges, at any moment. It may be heard late.
    said: Vec<Said>,
    found: Found,
}

impl World {
    async fn new(seed: u64) -> Self {
        let machine = |at: usize| {
            let mut machine = Machine::new(REGIONS[at], seed * 10 + at as u64);
            // Where logs are cut all the time, few others can go on with a broken snapshot.
            machine.cutting = [Cutting::Always, Cutting::Never][(seed / 2 % 2) as usize];
            machine.log = LogOptions {
                segment_bytes: 8 << 10,
                group_bytes_max: 4 << 10,
                context_bytes_max: 1 << 10,
                ..support::small_log()
            };
            machine
        };
        let machines = [machine(0), machine(1), machine(2)];
        let mut nodes = [None, None, None];
        for (node, machine) in nodes.iter_mut().zip(&machines) {
            *node = Some(machine.start().await);
        }
        Self {
            rng: StdRng::seed_from_u64(seed),
            machines,
            nodes,
            incoming: [None, None, None],
            oracle: Oracle::default(),
            messages: Vec::new(),
            likes: Vec::new(),
            dense: seed % 2 == 1,
            merges: 0,
            resumed: [0; 3],
            said: Vec::new(),
            found: Found::default(),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.rng.random_range(0..bound)
    }

    fn place(&mut self) -> (String, String) {
        let (posts, users) = if self.dense { (1, 2) } else { (2, 4) };
        // One post is rarely touched, so that nodes often hold the same of it.
        let post = match self.below(24) {
            0 => 2,
            _ => self.below(posts),
        };
        (format!("p{post}"), format!("u{}", self.below(users)))
    }

    fn command(&mut self) -> Command {
        let (p, u) = self.place();
        match self.below(20) {
            0..=9 => like(&p, &u),
            10..=15 => unlike(&p, &u),
            16 => add(&p, "views", [3, -2][self.below(2)]),
            _ if self.likes.is_empty() => like(&p, &u),
            _ => {
                let recent = self.likes.len().saturating_sub(6);
                let at = recent + self.below(self.likes.len() - recent);
                let (dot, post, user) = &self.likes[at];
                unlike_dots(post.as_str(), user.text().as_str(), vec![dot.clone()])
            }
        }
    }

    async fn step(&mut self) {
        let (at, other) = (self.below(3), self.below(3));
        let receivers = (0..3).filter(|at| self.incoming[*at].is_some());
        let receivers: Vec<usize> = receivers.collect();
        let receiver = receivers.get(at % receivers.len().max(1));
        let receiver = receiver.copied().unwrap_or(at);
        match self.below(100) {
            0..=34 => self.write(at).await,
            35..=49 => self.transfer(at, other).await,
            50..=55 => self.send(at, other).await,
            56..=62 => self.receive().await,
            63..=67 => self.checkpoint(at).await,
            68..=73 => self.begin_snapshot(at, other).await,
            74..=84 => self.read_snapshot(receiver).await,
            85..=91 => self.merge(receiver).await,
            92..=93 => self.merge_and_crash(receiver).await,
            94 => self.break_snapshot(receiver),
            95 => self.hand_over(receiver).await,
            96..=97 => self.crash(at).await,
            _ => self.start(at).await,
        }
    }

    /// Up to three commands at once, one of them a batch.
    async fn write(&mut self, at: usize) {
        let commands: Vec<Command> = (0..1 + self.below(3)).map(|_| self.command()).collect();
        let alone = self.command();
        let Some(node) = &self.nodes[at] else { return };
        let (a, b) = tokio::join!(
            node.try_write(commands, None),
            node.try_write(vec![alone], None)
        );
        assert!(a.is_ok() && b.is_ok(), "{a:?} {b:?}");
        self.harvest(at).await;
    }

    /// Notes what a node's log holds.
    async fn harvest(&mut self, at: usize) {
        let Some(node) = &self.nodes[at] else { return };
        for block in log_of(node).await {
            let new = !self.oracle.learn(&block).is_empty();
            if new {
                let likes = support::oracle::likes_of(&block);
                self.likes.extend(likes);
            }
        }
    }

    /// Some blocks that the other lacks, in order.
    async fn transfer(&mut self, from: usize, to: usize) {
        let (skip, count) = (self.below(3), 1 + self.below(4));
        let (Some(a), Some(b)) = (&self.nodes[from], &self.nodes[to]) else {
            return;
        };
        let missing = missing(a, b).await;
        for block in missing.iter().skip(skip).take(count) {
            b.apply(block).await.expect("an honest block");
        }
    }

    /// A block goes on its way. It may arrive late, twice, or never.
    async fn send(&mut self, from: usize, to: usize) {
        let pick = self.below(1_000);
        let Some(node) = &self.nodes[from] else {
            return;
        };
        let blocks = log_of(node).await;
        if !blocks.is_empty() {
            self.messages
                .push((to, blocks[pick % blocks.len()].clone()));
        }
    }

    async fn receive(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let (at, keep) = (self.below(self.messages.len()), self.below(3) == 0);
        let (to, block) = self.messages[at].clone();
        if !keep {
            self.messages.remove(at);
        }
        if let Some(node) = &self.nodes[to] {
            node.apply(&block).await.expect("an honest block");
        }
    }

    /// A checkpoint, cutting the log, with a write meanwhile.
    async fn checkpoint(&mut self, at: usize) {
        let command = self.command();
        self.harvest(at).await;
        let Some(node) = &mut self.nodes[at] else {
            return;
        };
        let engine = node.engine.clone();
        let write = Write {
            commands: vec![command],
            request: None,
        };
        let (stored, written) = tokio::join!(node.checkpointer.checkpoint(), engine.write(&write));
        assert!(stored.is_ok() && written.is_ok());
        self.harvest(at).await;
    }

    /// Whatever one log still holds.
    async fn transfer_all(&self, from: usize, to: usize) {
        let (Some(a), Some(b)) = (&self.nodes[from], &self.nodes[to]) else {
            return;
        };
        for block in missing(a, b).await {
            b.apply(&block).await.expect("an honest block");
        }
    }

    /// The sender is lost, and the third node, which has all that it had, goes on.
    async fn hand_over(&mut self, to: usize) {
        let Some(from) = self.incoming[to].as_ref().map(|stage| stage.from) else {
            return;
        };
        let third = 3 - to - from;
        self.break_snapshot(to);
        self.transfer_all(from, third).await;
        self.resume_snapshot(third, to, false);
    }

    async fn begin_snapshot(&mut self, from: usize, to: usize) {
        let (Some(a), Some(_)) = (&self.nodes[from], &self.nodes[to]) else {
            return;
        };
        let settled = a.engine.settlement() == Settlement::Settled;
        if from == to || self.incoming[to].is_some() || !settled {
            return;
        }
        let offer = [Offer::Nothing, Offer::Sums][self.below(2)];
        if offer == Offer::Sums {
            // They hold the same of what was not written since.
            self.transfer_all(from, to).await;
            self.transfer_all(to, from).await;
            self.write(from).await;
        }
        let (Some(a), Some(b)) = (&self.nodes[from], &self.nodes[to]) else {
            return;
        };
        let transfer = Transfer::new(b, offer);
        let snapshot = a.serve(&transfer.request(b)).expect("settled");
        self.incoming[to] = Some(Incoming {
            from,
            snapshot: Some(Box::new(snapshot)),
            transfer,
        });
    }

    /// The sender is lost. What cannot go on is dropped.
    fn break_snapshot(&mut self, to: usize) {
        let Some(mut stage) = self.incoming[to].take() else {
            return;
        };
        stage.snapshot = None;
        let goes_on = stage.is_ready() || stage.transfer.resume().is_some();
        self.incoming[to] = goes_on.then_some(stage);
    }

    /// Some node goes on with what broke off, if it can.
    fn resume_snapshot(&mut self, from: usize, to: usize, gives_up: bool) {
        let (Some(a), Some(b), Some(stage)) =
            (&self.nodes[from], &self.nodes[to], &mut self.incoming[to])
        else {
            return;
        };
        if from == to || stage.is_ready() || stage.snapshot.is_some() {
            return;
        }
        match a.serve(&stage.transfer.request(b)) {
            Ok(snapshot) => {
                self.resumed[0] += 1;
                self.resumed[1] += u64::from(from != stage.from);
                stage.from = from;
                stage.snapshot = Some(Box::new(snapshot));
            }
            Err(SnapshotError::NotCovered | SnapshotError::Cut) if gives_up => {
                self.incoming[to] = None;
            }
            Err(SnapshotError::NotCovered | SnapshotError::Cut | SnapshotError::Unsettled) => {}
            Err(error) => panic!("{error:?}"),
        }
    }

    async fn read_snapshot(&mut self, to: usize) {
        let count = 1 + self.below(4);
        let (from, gives_up) = (self.below(3), self.below(4) == 0);
        self.resume_snapshot(from, to, gives_up);
        let Some(stage) = &mut self.incoming[to] else {
            return;
        };
        for _ in 0..count {
            let (Some(snapshot), Some(sender), Some(receiver)) = (
                &mut stage.snapshot,
                &self.nodes[stage.from],
                &self.nodes[to],
            ) else {
                return;
            };
            match snapshot.next().await {
                Ok(Some(part)) => {
                    let part = parts::write(part, &sender.engine.replicas().all());
                    let taken = stage.transfer.take(receiver, part);
                    taken.expect("an honest sender");
                }
                Ok(None) => {
                    stage.snapshot = None;
                    let equal = stage.transfer.equal().iter().count();
                    self.resumed[2] += equal as u64;
                }
                Err(error) => {
                    assert!(matches!(error, SnapshotError::Unsettled), "{error:?}");
                    return self.break_snapshot(to);
                }
            }
        }
    }

    /// Merges while clients write and streams bring what they have.
    async fn merge(&mut self, to: usize) {
        let ready = self.incoming[to].as_ref().is_some_and(Incoming::is_ready);
        if !ready || self.nodes[to].is_none() {
            return;
        }
        let stage = self.incoming[to].take().expect("it is ready");
        let commands: Vec<Command> = (0..4).map(|_| self.command()).collect();
        let mut blocks = Vec::new();
        for other in self.nodes.iter().flatten() {
            blocks.extend(log_of(other).await);
        }
        let Some(node) = &mut self.nodes[to] else {
            return;
        };
        let engine = node.engine.clone();
        let meanwhile = async {
            let mut blocks = blocks.iter().cycle();
            for command in commands {
                for block in blocks.by_ref().take(8) {
                    match engine.apply_remote(block) {
                        Ok(Applied::New(wait)) => drop(wait.await.expect("durable")),
                        Ok(_) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
                let write = Write {
                    commands: vec![command],
                    request: None,
                };
                engine.write(&write).await.expect("taken");
            }
        };
        let (merged, ()) = tokio::join!(node.merge(&stage.transfer.parts), meanwhile);
        merged.expect("a whole snapshot");
        self.merges += 1;
        self.harvest(to).await;
    }

    /// The process ends in the middle of a merge, or the power fails at one of its syncs; the stage is
    /// merged again by the next process, before anything else.
    async fn merge_and_crash(&mut self, to: usize) {
        let ready = self.incoming[to].as_ref().is_some_and(Incoming::is_ready);
        if !ready || self.nodes[to].is_none() {
            return;
        }
        let stage = self.incoming[to].as_ref().expect("ready");
        let parts = stage.transfer.parts.clone();
        let (stop, sync) = (1 + self.below(parts.len()), 1 + self.below(4) as u64);
        let by_power = self.below(2) == 0;
        let command = self.command();
        let machine = &self.machines[to];
        let mut node = self.nodes[to].take().expect("it runs");
        let outcome = if by_power {
            let number = machine.power.syncs() + sync;
            let moment = Moment::During;
            machine.power.cut_at(CutPoint::Sync { number, moment });
            let outcome = node.merge(&parts).await;
            machine.power.cancel_cut();
            outcome
        } else {
            let outcome = node.merge_and_stop(&parts, stop).await;
            node.write(command).await;
            outcome
        };
        if outcome.is_ok() {
            self.incoming[to] = None;
        }
        self.nodes[to] = Some(node);
        if !by_power {
            self.harvest(to).await;
        }
        let node = self.nodes[to].take().expect("just put");
        node.stop().await;
        match by_power {
            true => self.machines[to].reboot(),
            false => self.machines[to].disk.kill(),
        }
        self.drop_snapshots(to);
        self.start(to).await;
    }

    async fn crash(&mut self, at: usize) {
        let by_power = self.below(2) == 0;
        let Some(node) = self.nodes[at].take() else {
            return;
        };
        node.stop().await;
        match by_power {
            true => self.machines[at].reboot(),
            false => self.machines[at].disk.kill(),
        }
        self.drop_snapshots(at);
    }

    /// A process ended: what it was sending breaks off, and what it was receiving.
    fn drop_snapshots(&mut self, at: usize) {
        for to in 0..3 {
            let stage = self.incoming[to].as_ref();
            if to == at || stage.is_some_and(|stage| stage.from == at) {
                self.break_snapshot(to);
            }
        }
    }

    async fn start(&mut self, at: usize) {
        if self.nodes[at].is_some() {
            return;
        }
        let mut node = self.machines[at].start().await;
        if let Some(stage) = &mut self.incoming[at] {
            match stage.is_ready() {
                true => {}
                false => stage.transfer.recover(&node),
            }
        }
        if let Some(stage) = self.incoming[at].take_if(|stage| stage.is_ready()) {
            node.merge(&stage.transfer.parts)
                .await
                .expect("a whole snapshot");
            self.merges += 1;
        }
        self.nodes[at] = Some(node);
        self.harvest(at).await;
    }

    /// Nodes that hold the same events of a range hold the same entries, whenever they say so.
    fn audit(&mut self) {
        self.said
            .extend(self.nodes.iter().flatten().filter_map(Said::of));
        let surplus = self.said.len().saturating_sub(SAID_MAX);
        self.said.drain(..surplus);
        for said in &self.said {
            for node in self.nodes.iter().flatten() {
                let found = said.heard_by(node);
                let (by, own) = (&said.by, node.engine.own());
                assert_eq!(found.different, 0, "{own} finds {by} different: {found:?}");
                if *by != own {
                    self.found.equal += found.equal;
                    self.found.not_now += found.not_now;
                }
            }
        }
    }

    fn check(&self) {
        for node in self.nodes.iter().flatten() {
            let covered: NamedVector = node.durable().0.into_iter().collect();
            if let Err(difference) = self.oracle.state(&covered).check(node) {
                panic!("{}: {difference}", node.engine.own());
            }
        }
    }

    /// Everything comes back, and is exchanged until nobody lacks anything.
    async fn heal(&mut self) {
        for at in 0..3 {
            self.start(at).await;
            self.incoming[at] = self.incoming[at].take().filter(Incoming::is_ready);
            self.merge(at).await;
            self.incoming[at] = None;
        }
        for _round in 0..40 {
            for (from, to) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
                let (Some(a), Some(b)) = (&self.nodes[from], &self.nodes[to]) else {
                    continue;
                };
                for block in missing(a, b).await {
                    b.apply(&block).await.expect("an honest block");
                }
            }
            let all: Vec<_> = self.nodes.iter().flatten().map(Node::durable).collect();
            if all.windows(2).all(|pair| pair[0] == pair[1]) {
                return;
            }
            let (from, to) = (self.below(3), self.below(3));
            if from != to {
                let parts = self.nodes[from]
                    .as_ref()
                    .expect("all run")
                    .whole_snapshot()
                    .await;
                let node = self.nodes[to].as_mut().expect("all run");
                node.merge(&parts).await.expect("a whole snapshot");
                self.merges += 1;
            }
        }
        panic!("they never become equal");
    }

    /// All equal, nothing acknowledged lost, each liker and entry as the oracle says.
    fn check_end(&self) {
        self.check();
        let nodes: Vec<&Node> = self.nodes.iter().flatten().collect();
        support::assert_equal(&nodes, &["p0", "p1", "p2"]);
        let covered: NamedVector = nodes[0].durable().0.into_iter().collect();
        for dot in self.oracle.dots() {
            let seq = covered.get(&dot.0).copied().unwrap_or(0);
            assert!(seq >= dot.1, "{dot:?} is lost");
        }
        let state = self.oracle.state(&covered);
        for (p, u) in [("p0", "u0"), ("p0", "u1"), ("p1", "u2"), ("p1", "u3")] {
            let likes = state.likers.contains_key(&(&post(p), &user(u)));
            assert!(
                nodes.iter().all(|node| node.likes(p, u) == likes),
                "{u} on {p}"
            );
        }
    }
}

/// All blocks that a node's log still holds.
async fn log_of(node: &Node) -> Vec<Bytes> {
    let first = node
        .reader
        .segments()
        .first()
        .map_or(Position::START, |first| first.base);
    node.blocks(first).await
}

/// Blocks of one log whose last event another node does not cover.
async fn missing(from: &Node, to: &Node) -> Vec<Bytes> {
    let covered: NamedVector = to.durable().0.into_iter().collect();
    let lacks = |block: &Bytes| {
        let (last, _) = support::oracle::facts(block).pop().expect("never empty");
        covered.get(&last.0).copied().unwrap_or(0) < last.1
    };
    let mut blocks = log_of(from).await;
    blocks.retain(lacks);
    blocks
}

/// How many snapshots were merged, what else happened to them, and what audits found.
async fn history(seed: u64) -> ([u64; 4], Found) {
    let mut world = World::new(seed).await;
    for _ in 0..STEPS {
        world.step().await;
        world.check();
        world.audit();
    }
    world.heal().await;
    world.check_end();
    world.said.clear();
    world.audit();
    assert!(world.found.equal > 0, "{:?}", world.found);
    let [resumed, elsewhere, equal] = world.resumed;
    ([world.merges, resumed, elsewhere, equal], world.found)
}

fn run(seed: u64) -> ([u64; 4], Found) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.expect("a runtime").block_on(history(seed))
}

#[test]
fn random_histories_converge_to_what_the_dots_say() {
    if let Ok(seed) = std::env::var("LIKEWISE_SEED") {
        let seed = seed.parse().expect("LIKEWISE_SEED is a number");
        let (happened, found) = run(seed);
        println!("seed {seed}: {}; audits: {found:?}", told(happened));
        return;
    }
    let begun = Instant::now();
    let (mut seed, mut sums, mut audits) = (0, [0; 4], 0);
    while seed < HISTORIES_MIN || begun.elapsed() < BUDGET {
        let outcome = std::panic::catch_unwind(|| run(seed));
        let (happened, found) = outcome.unwrap_or_else(|_| {
            panic!("history {seed} failed; run it alone with LIKEWISE_SEED={seed}")
        });
        for (sum, more) in sums.iter_mut().zip(happened) {
            *sum += more;
        }
        audits += found.equal;
        seed += 1;
    }
    println!("{seed} histories: {}; {audits} audits equal", told(sums));
    let [merges, resumed, elsewhere, equal] = sums;
    assert!(merges * 2 > seed, "snapshots must be a part of it");
    assert!(
        resumed * 10 > seed && elsewhere * 20 > seed && equal > 0,
        "and broken ones"
    );
}

fn told([merges, resumed, elsewhere, equal]: [u64; 4]) -> String {
    format!(
        "{merges} snapshots merged; {resumed} went on after a break, {elsewhere} of them with another \
         sender; {equal} ranges left out"
    )
}
