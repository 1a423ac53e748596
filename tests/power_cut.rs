//! The power fails at every sync of a run, before, during and after it, and once more while the node
//! recovers. Each time the node is opened again and compared with all that was acknowledged, sent or shown.
//!
//! The run is a sequence of lives of one machine. At the beginning of each the machine is copied, and each
//! copy lives this life up to another cut. What peers did, they did between two lives.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use likewise::adapters::power::{CutPoint, Moment};
use likewise::codec::text::decode_token;
use likewise::engine::Engine;
use likewise::engine::checkpoint::Checkpointer;
use likewise::engine::command::{Command, Write};
use likewise::engine::merge::{MergeError, merge_stage};
use likewise::engine::read::Detail;
use likewise::engine::record;
use likewise::engine::remote::Applied;
use likewise::engine::requests::Outcome;
use likewise::engine::stage::{self, StageWriter};
use likewise::engine::write::Written;
use likewise::ids::{CounterName, PostId, Replica, RequestId, UserId};
use likewise::log::{LogOptions, Position};
use likewise::replication::staged::StagedSnapshot;
use likewise::seams::Files;
use likewise::versions::{PROTOCOL_MAX, PROTOCOL_MIN};
use likewise::wire::replication::{SnapshotRequest, SnapshotResponse};
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::oracle::{Did, NamedDot, NamedVector, Oracle};
use support::{Cutting, Machine, Node, add, like, unlike, unlike_dots};

const LIVES: u64 = 18;
/// Kills of the process alone, in each life.
const KILLS: usize = 8;
const SEGMENT_BYTES: u64 = 32 << 10;
const MOMENTS: [Moment; 3] = [Moment::Before, Moment::During, Moment::After];
const POSTS: u64 = 6;
const USERS: u64 = 12;

/// One thing that happens in a life.
enum Step {
    /// Calls at the same time, each with its request id.
    Calls(Vec<Call>),
    /// Calls, and blocks of peers between them.
    Blocks(Vec<Bytes>, Vec<Call>),
    /// A checkpoint, and calls meanwhile.
    Checkpoint(Vec<Call>),
    /// A peer's snapshot is staged and merged, and calls meanwhile.
    Merge(Vec<SnapshotResponse>, Vec<Call>),
}

/// An answer of before: outcome, own dot, removed dots.
type NamedDone = (Outcome, Option<NamedDot>, Vec<NamedDot>);

/// What was promised.
#[derive(Clone, Default)]
struct Ledger {
    /// Everything that was sent, and everything that peers made.
    oracle: Oracle,
    /// The highest frontier that was ever shown, in a token or on the board.
    shown: NamedVector,
    /// Dots that an acknowledged command removed.
    dead: BTreeSet<NamedDot>,
    /// Answers to requests with an id.
    answers: Vec<(String, Vec<Command>, Vec<NamedDone>)>,
    /// Likes (true) and unlikes (false) that were ever asked for.
    attempted: BTreeSet<(bool, PostId, UserId)>,
    /// Per post and counter: what was acknowledged, and what was asked for.
    adds: BTreeMap<(PostId, CounterName), (u64, u64)>,
    /// Where the log was read up to.
    sent_to: Position,
    /// Blocks of this life that were sent.
    sent: Vec<Bytes>,
}

/// Commands, and the id of their request.
type Call = (Vec<Command>, Option<String>);

impl Ledger {
    fn note_attempt(&mut self, commands: &[Command]) {
        for command in commands {
            match command {
                Command::Like { post, user } => {
                    self.attempted.insert((true, post.clone(), user.clone()));
                }
                Command::Unlike { post, user, .. } => {
                    self.attempted.insert((false, post.clone(), user.clone()));
                }
                Command::Add {
                    post,
                    counter,
                    delta,
                } => {
                    let place = self
                        .adds
                        .entry((post.clone(), counter.clone()))
                        .or_default();
                    place.1 += delta.unsigned_abs();
                }
            }
        }
    }

    fn note_answer(&mut self, engine: &Engine, call: &Call, written: &Written) {
        let (commands, request) = call;
        let token = decode_token(engine.cluster(), &written.token).expect("our own token");
        for (replica, seq) in token {
            raise(&mut self.shown, replica, seq);
        }
        let answers = named(engine, written);
        for (command, (outcome, dot, removed)) in commands.iter().zip(&answers) {
            if let Some((replica, seq)) = dot {
                assert!(
                    engine.board().newest().seq(replica) >= *seq,
                    "acknowledged, not covered"
                );
                raise(&mut self.shown, replica.clone(), *seq);
            }
            self.dead.extend(removed.iter().cloned());
            if let (
                Command::Add {
                    post,
                    counter,
                    delta,
                },
                Outcome::Added,
            ) = (command, outcome)
            {
                let place = self
                    .adds
                    .entry((post.clone(), counter.clone()))
                    .or_default();
                place.0 += delta.unsigned_abs();
            }
        }
        if let Some(id) = request {
            self.answers.push((id.clone(), commands.clone(), answers));
        }
    }

    /// Reads what could have been sent by now, and looks at the board.
    /// Returns the events that were not known before.
    async fn look(&mut self, node: &Node) -> Vec<(NamedDot, Did)> {
        for (replica, seq) in node.durable().0 {
            raise(&mut self.shown, replica, seq);
        }
        let mut new = Vec::new();
        while self.sent_to < node.reader.synced() {
            let Ok(chunk) = node.reader.read(self.sent_to, 1 << 20).await else {
                return new;
            };
            for read in &chunk.records {
                for block in record::blocks(&read.payload).expect("well formed") {
                    new.extend(self.oracle.learn(&block));
                    self.sent.push(block);
                }
            }
            self.sent_to = chunk.next;
        }
        new
    }
}

fn raise(vector: &mut NamedVector, replica: Replica, seq: u64) {
    let entry = vector.entry(replica).or_default();
    *entry = (*entry).max(seq);
}

fn named(engine: &Engine, written: &Written) -> Vec<NamedDone> {
    let all = engine.replicas().all();
    let name = |dot: &likewise::crdt::dot::Dot| (all.id(dot.replica).clone(), dot.seq);
    let done = written.done.iter();
    done.map(|done| {
        let removed = done.removed.iter().map(name).collect();
        (done.outcome, done.dot.as_ref().map(name), removed)
    })
    .collect()
}

async fn merge_staged(
    engine: &Arc<Engine>,
    checkpointer: &mut Checkpointer,
    files: Arc<dyn Files>,
) -> Result<(), MergeError> {
    let staged = StagedSnapshot {
        engine: engine.clone(),
        files: files.clone(),
    };
    merge_stage(engine, checkpointer, &staged).await?;
    Ok(stage::clear(files.as_ref()).await?)
}

/// Opens the machine's node as a process does: recovery, then a snapshot that waits to be merged.
async fn open(machine: &Machine) -> Option<Node> {
    let mut node = match machine.try_start().await {
        Ok(node) => node,
        Err(error) => {
            assert!(!machine.power.is_on(), "recovery failed: {error:?}");
            return None;
        }
    };
    let files = machine.disk.files();
    let merged = match stage::is_ready(files.as_ref()).await {
        Ok(false) => Ok(()),
        Ok(true) => merge_staged(&node.engine, &mut node.checkpointer, files.clone()).await,
        Err(error) => Err(error.into()),
    };
    match merged {
        Ok(()) => Some(node),
        Err(error) => {
            assert!(
                !machine.power.is_on(),
                "the stage cannot be merged: {error:?}"
            );
            node.stop().await;
            None
        }
    }
}

/// The steps of a life, as far as the power lasts. Returns how many commands and events it had.
async fn live(machine: &Machine, node: &mut Node, steps: &[Step], ledger: &mut Ledger) -> usize {
    let mut done = 0;
    let engine = node.engine.clone();
    for step in steps {
        done += match step {
            Step::Calls(calls) => call(machine, &engine, calls, ledger).await,
            Step::Blocks(blocks, calls) => {
                let (half, rest) = calls.split_at(calls.len() / 2);
                let before = call(machine, &engine, half, ledger).await;
                let events = apply(machine, &engine, blocks, ledger).await;
                before + events + call(machine, &engine, rest, ledger).await
            }
            Step::Checkpoint(calls) => {
                // The calls come first: rows are read that show what is not synced yet.
                let calls = call(machine, &engine, calls, ledger);
                let (done, outcome) = tokio::join!(calls, node.checkpointer.checkpoint());
                assert!(outcome.is_ok() || !machine.power.is_on(), "{outcome:?}");
                done
            }
            Step::Merge(parts, calls) => {
                let merge = stage_and_merge(machine, &engine, &mut node.checkpointer, parts);
                let (outcome, done) = tokio::join!(merge, call(machine, &engine, calls, ledger));
                assert!(outcome.is_ok() || !machine.power.is_on(), "{outcome:?}");
                done
            }
        };
        ledger.look(node).await;
        if !machine.power.is_on() {
            return done;
        }
    }
    // The next segment is prepared in the background: its syncs belong to this life.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    done
}

async fn stage_and_merge(
    machine: &Machine,
    engine: &Arc<Engine>,
    checkpointer: &mut Checkpointer,
    parts: &[SnapshotResponse],
) -> Result<(), MergeError> {
    let files = machine.disk.files();
    let mut writer = StageWriter::create(files.clone()).await?;
    let request = SnapshotRequest {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        ..SnapshotRequest::default()
    };
    writer.push(&request.encode_to_vec()).await?;
    for part in parts {
        writer.push(&part.encode_to_vec()).await?;
    }
    writer.finish().await?;
    merge_staged(engine, checkpointer, files).await
}

fn write_of((commands, id): &Call) -> Write {
    Write {
        commands: commands.clone(),
        request: id.as_deref().map(|id| RequestId::new(id).expect("valid")),
    }
}

async fn call(machine: &Machine, engine: &Engine, calls: &[Call], ledger: &mut Ledger) -> usize {
    calls
        .iter()
        .for_each(|(commands, _)| ledger.note_attempt(commands));
    let answers = calls
        .iter()
        .map(async |call| engine.write(&write_of(call)).await);
    for (call, answer) in calls.iter().zip(join_all(answers).await) {
        match answer {
            Ok(written) => ledger.note_answer(engine, call, &written),
            Err(error) => assert!(!machine.power.is_on(), "{error:?}"),
        }
    }
    calls.iter().map(|(commands, _)| commands.len()).sum()
}

async fn apply(machine: &Machine, engine: &Engine, blocks: &[Bytes], ledger: &mut Ledger) -> usize {
    let mut events = 0;
    let mut waits = Vec::new();
    for block in blocks {
        match engine.apply_remote(block) {
            Ok(Applied::New(wait)) => {
                events += support::oracle::facts(block).len();
                waits.push(wait);
            }
            Ok(Applied::Known | Applied::NotYet) => {}
            Err(error) => assert!(!machine.power.is_on(), "{error:?}"),
        }
    }
    for wait in waits {
        match wait.await {
            Ok(published) => published
                .named()
                .for_each(|(replica, seq)| raise(&mut ledger.shown, replica.clone(), seq)),
            Err(error) => assert!(!machine.power.is_on(), "{error:?}"),
        }
    }
    events
}

/// Compares a node that was opened again with what was promised.
async fn check(node: &Node, ledger: &mut Ledger, what: &str) {
    let own = node.engine.own();
    ledger.sent_to = node
        .reader
        .segments()
        .first()
        .map_or(Position::START, |first| first.base);
    let before = ledger.shown.clone();
    let new = ledger.look(node).await;
    let covered: NamedVector = node.durable().0.into_iter().collect();
    for (replica, seq) in &before {
        let has = covered.get(replica).copied().unwrap_or(0);
        assert!(
            has >= *seq,
            "{what}: {replica} was shown up to {seq}, now {has}"
        );
    }
    for (dot, did) in &new {
        let (is_like, post, user) = match did {
            Did::Like(post, user, ..) => (true, post, user),
            Did::Unlike(post, user, ..) => (false, post, user),
            Did::Nothing | Did::Add(..) => continue,
        };
        let asked = ledger
            .attempted
            .contains(&(is_like, post.clone(), user.clone()));
        assert!(asked, "{what}: {dot:?} was never asked for: {did:?}");
    }
    assert!(
        !covered.contains_key(&own),
        "{what}: a fresh epoch has made nothing"
    );
    let expected = ledger.oracle.state(&covered);
    if let Err(difference) = expected.check(node) {
        panic!("{what}: {difference}");
    }
    for dots in expected.likers.values() {
        let revived = dots.iter().find(|dot| ledger.dead.contains(**dot));
        assert!(
            revived.is_none(),
            "{what}: {revived:?} was unliked and lives"
        );
    }
    for ((post, counter), (acknowledged, asked)) in &ledger.adds {
        let views = node
            .engine
            .view_counters(post, std::slice::from_ref(counter), Detail::Regions);
        let ours = views[0]
            .regions
            .iter()
            .find(|region| region.region == own.region);
        let found = ours.map_or(0, |region| region.increments);
        assert!(
            (*acknowledged..=*asked).contains(&found),
            "{what}: {counter} of {post} is {found}"
        );
    }
}

/// Requests that were answered get the same answer, and do nothing.
async fn check_answers(node: &Node, ledger: &Ledger, what: &str, step: usize) {
    let position = node.reader.synced();
    let newest = ledger.answers.iter().rev().take(3);
    let some = ledger.answers.iter().skip(step % 7).step_by(7);
    for (id, commands, answers) in newest.chain(some) {
        let retried = node.try_write(commands.clone(), Some(id)).await;
        let retried = retried.unwrap_or_else(|error| panic!("{what}: retry of {id}: {error:?}"));
        assert_eq!(
            named(&node.engine, &retried),
            *answers,
            "{what}: answer to {id}"
        );
        let token = decode_token(node.engine.cluster(), &retried.token).expect("our token");
        assert!(
            node.engine.board().newest().covers(&token),
            "{what}: token of {id}"
        );
    }
    assert_eq!(
        node.reader.synced(),
        position,
        "{what}: a retry made events"
    );
}

/// Two regions that live elsewhere and are never harmed.
struct Peers {
    nodes: [Node; 2],
    /// Where each one's log was read up to.
    sent_to: [Position; 2],
    /// Blocks that they made, in an order in which they can be applied.
    blocks: Vec<Bytes>,
    /// How many of them the machine was sent.
    delivered: usize,
    /// What the machine sent, and how much of it each took.
    ours: Vec<Bytes>,
    taken: [usize; 2],
}

impl Peers {
    async fn new() -> Self {
        let machines = [Machine::new("ap", 501), Machine::new("us", 502)];
        Self {
            nodes: [machines[0].start().await, machines[1].start().await],
            sent_to: [Position::START; 2],
            blocks: Vec::new(),
            delivered: 0,
            ours: Vec::new(),
            taken: [0; 2],
        }
    }

    /// They take what the machine sent, or not yet, write, and exchange what they have, or not yet.
    async fn act(&mut self, rng: &mut StdRng, ids: &[(NamedDot, PostId, UserId)]) {
        for (node, taken) in self.nodes.iter().zip(&mut self.taken) {
            if rng.random_range(0..2) == 0 {
                for block in &self.ours[*taken..] {
                    node.apply(block).await.expect("an honest block");
                }
                *taken = self.ours.len();
            }
            for _ in 0..rng.random_range(4..14) {
                node.write(random_command(rng, ids)).await;
            }
        }
        if rng.random_range(0..2) == 0 {
            let [a, b] = &self.nodes;
            assert!(b.pull(a).await && a.pull(b).await);
        }
        let mut known: BTreeSet<Bytes> = self.blocks.iter().chain(&self.ours).cloned().collect();
        for (node, sent_to) in self.nodes.iter().zip(&mut self.sent_to) {
            for block in node.blocks(*sent_to).await {
                if known.insert(block.clone()) {
                    self.blocks.push(block);
                }
            }
            *sent_to = node.reader.synced();
        }
    }

    fn next(&mut self, count: usize) -> Vec<Bytes> {
        let until = (self.delivered + count).min(self.blocks.len());
        let next = self.blocks[self.delivered..until].to_vec();
        self.delivered = until;
        next
    }
}

fn random_command(rng: &mut StdRng, ids: &[(NamedDot, PostId, UserId)]) -> Command {
    let post = format!("p{}", rng.random_range(0..POSTS));
    let user = format!("u{}", rng.random_range(0..USERS));
    match rng.random_range(0..20) {
        0..=9 => like(&post, &user),
        10..=14 => unlike(&post, &user),
        15..=16 => add(&post, "views", rng.random_range(1..5)),
        17 => like("hot", &format!("h{}", rng.random_range(0..2_300))),
        18 => unlike("hot", &format!("h{}", rng.random_range(0..2_300))),
        _ if ids.is_empty() => like(&post, &user),
        _ => {
            let recent = ids.len().saturating_sub(40);
            let (dot, post, user) = &ids[rng.random_range(recent..ids.len())];
            unlike_dots(post.as_str(), user.text().as_str(), vec![dot.clone()])
        }
    }
}

/// Calls at the same time: alone, in batches, with and without request ids.
fn random_calls(rng: &mut StdRng, name: &str, ids: &[(NamedDot, PostId, UserId)]) -> Vec<Call> {
    (0..rng.random_range(2..5))
        .map(|number| {
            let commands = rng.random_range(1..6);
            let commands = (0..commands).map(|_| random_command(rng, ids)).collect();
            let id = (rng.random_range(0..2) == 0).then(|| format!("{name}-{number}"));
            (commands, id)
        })
        .collect()
}

/// Likes of one post, which grows until its likers are spread over all shards.
fn bulk(from: u64, to: u64) -> Vec<Step> {
    let users: Vec<u64> = (from..to).collect();
    let steps = users.chunks(120).map(|users| {
        let commands = users.iter().map(|user| like("hot", &format!("h{user}")));
        Step::Calls(vec![(commands.collect(), None)])
    });
    steps.collect()
}

async fn plan(life: u64, rng: &mut StdRng, peers: &mut Peers, ledger: &Ledger) -> Vec<Step> {
    let ids = ledger.oracle.likes();
    let merge_at = (life % 6 == 5).then_some(life / 6 % 3);
    let mut steps = match life {
        0..=3 => bulk(life * 480, life * 480 + 480),
        5 => bulk(1_920, 2_260),
        _ => Vec::new(),
    };
    for turn in 0..7 {
        let calls = random_calls(rng, &format!("r{life}-{turn}"), &ids);
        let step = match rng.random_range(0..3) {
            _ if merge_at == Some(turn) => {
                Step::Merge(peers.nodes[0].whole_snapshot().await, calls)
            }
            _ if turn == 4 && life % 3 == 1 => Step::Checkpoint(calls),
            _ if turn < 3 && merge_at.is_some() => Step::Calls(calls),
            0 => Step::Calls(calls),
            _ => {
                let again = rng.random_range(0..peers.delivered.max(1));
                let again = peers.blocks.get(again).cloned();
                let mut blocks = peers.next(rng.random_range(3..14));
                blocks.extend(again);
                Step::Blocks(blocks, calls)
            }
        };
        steps.push(step);
    }
    steps
}

/// What the whole run came to.
#[derive(Debug, Default)]
struct Tally {
    steps: usize,
    syncs: u64,
    cuts: usize,
    cuts_in_recovery: usize,
    kills: usize,
    reopenings: usize,
    checkpoints: usize,
    merges: usize,
    segments: u64,
    log_begins_at: u64,
}

impl Tally {
    fn note(&mut self, node: &Node, steps: &[Step], syncs: u64) {
        self.syncs += syncs;
        let segments = node.reader.segments();
        self.log_begins_at = segments.first().map_or(0, |first| first.base.0);
        self.segments = segments
            .last()
            .map_or(0, |last| last.base.0 / SEGMENT_BYTES + 1);
        let count = |is: fn(&Step) -> bool| steps.iter().filter(|step| is(step)).count();
        self.checkpoints += count(|step| matches!(step, Step::Checkpoint(_)));
        self.merges += count(|step| matches!(step, Step::Merge(..)));
    }
}

/// Where the power fails, and which one of all cuts it is.
type Cut = ((u64, Moment), usize);

/// Tries these cuts, each in a thread that runs nothing else meanwhile.
fn on_all_cores(cuts: &[Cut], tally: &mut Tally, attempt: impl AsyncFn(Cut, &mut Tally) + Sync) {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let work = |first: usize| {
        let mut tally = Tally::default();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime");
        runtime.block_on(async {
            for cut in cuts.iter().skip(first).step_by(workers) {
                attempt(*cut, &mut tally).await;
            }
        });
        tally
    };
    let work = &work;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|first| scope.spawn(move || work(first)))
            .collect();
        for worker in workers {
            let tried = worker.join().expect("no cut lost anything");
            tally.cuts += tried.cuts;
            tally.cuts_in_recovery += tried.cuts_in_recovery;
            tally.reopenings += tried.reopenings;
        }
    });
}

/// The machine lives this life up to the cut, and once more fails while it recovers.
async fn cut_and_reopen(
    machine: Machine,
    steps: &[Step],
    mut ledger: Ledger,
    ((number, moment), turn): Cut,
    tally: &mut Tally,
) {
    let what = format!("cut at sync {number}, {moment:?}, turn {turn}");
    machine.power.cut_at(CutPoint::Sync { number, moment });
    if let Some(mut node) = open(&machine).await {
        live(&machine, &mut node, steps, &mut ledger).await;
        node.stop().await;
    }
    assert!(!machine.power.is_on(), "{what}: the cut never came");
    machine.reboot();
    tally.cuts += 1;
    machine.power.cut_at(CutPoint::Sync {
        number: machine.power.syncs() + 1 + turn as u64 % 3,
        moment: MOMENTS[turn / 3 % 3],
    });
    let node = match open(&machine).await {
        Some(node) if machine.power.is_on() => {
            // The recovery has fewer syncs, and what it shows is durable: it must survive as well.
            machine.power.cancel_cut();
            check(&node, &mut ledger, &what).await;
            node.stop().await;
            machine.reboot();
            open(&machine).await
        }
        early => {
            if let Some(node) = early {
                node.stop().await;
            }
            tally.cuts_in_recovery += 1;
            machine.reboot();
            open(&machine).await
        }
    };
    tally.reopenings += 2;
    let node = node.unwrap_or_else(|| panic!("{what}: does not open"));
    check(&node, &mut ledger, &what).await;
    if turn.is_multiple_of(4) {
        check_answers(&node, &ledger, &what, turn).await;
        node.write(like("p0", "after")).await;
        ledger
            .attempted
            .insert((true, support::post("p0"), support::user("after")));
        node.kill().await;
        let node = open(&machine).await.expect("opens");
        tally.reopenings += 1;
        check(&node, &mut ledger, &what).await;
        assert!(node.likes("p0", "after"));
        node.kill().await;
    } else {
        node.kill().await;
    }
}

/// The process alone ends somewhere in this life, with writes that the system has and the disk may not;
/// the next process shows what it found, and then the power fails.
async fn kill_and_cut(
    machine: Machine,
    steps: &[Step],
    mut ledger: Ledger,
    looks: u64,
    tally: &mut Tally,
) {
    let what = format!("killed after {looks} looks");
    let mut node = open(&machine).await.expect("opens");
    let yields = async {
        for _ in 0..looks {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        _ = live(&machine, &mut node, steps, &mut ledger) => {}
        () = yields => {}
    }
    node.kill().await;
    for _ in 0..2 {
        let node = open(&machine).await.expect("opens");
        tally.reopenings += 1;
        check(&node, &mut ledger, &what).await;
        node.stop().await;
        machine.reboot();
    }
    tally.kills += 1;
}

#[tokio::test]
async fn nothing_promised_is_lost_wherever_the_power_fails() {
    let mut machine = Machine::new("eu", 500);
    machine.cutting = Cutting::Always;
    machine.log = LogOptions {
        segment_bytes: SEGMENT_BYTES,
        group_bytes_max: 12 << 10,
        context_bytes_max: 1 << 10,
        ..support::small_log()
    };
    let mut rng = StdRng::seed_from_u64(500);
    let mut peers = Peers::new().await;
    let mut ledger = Ledger::default();
    let mut tally = Tally::default();
    let mut turn = 0;
    for life in 0..LIVES {
        let copy = machine.copy(life);
        let before = std::mem::replace(&mut machine, copy);
        ledger.sent.clear();
        let promised = ledger.clone();
        let steps = plan(life, &mut rng, &mut peers, &ledger).await;
        let mut node = open(&machine).await.expect("opens");
        tally.steps += live(&machine, &mut node, &steps, &mut ledger).await;
        let syncs = machine.power.syncs();
        tally.note(&node, &steps, syncs);
        node.kill().await;
        let cuts: Vec<Cut> = (1..=syncs)
            .flat_map(|number| MOMENTS.map(|moment| (number, moment)))
            .zip(turn..)
            .collect();
        turn += cuts.len();
        on_all_cores(&cuts, &mut tally, async |cut, tally| {
            let copy = before.copy(life << 32 | cut.1 as u64);
            cut_and_reopen(copy, &steps, promised.clone(), cut, tally).await;
        });
        for _ in 0..KILLS {
            let looks = rng.random_range(1..4 * syncs);
            let copy = before.copy(life << 32 | looks);
            kill_and_cut(copy, &steps, promised.clone(), looks, &mut tally).await;
        }
        peers.ours.append(&mut ledger.sent);
        let ids = ledger.oracle.likes();
        peers.act(&mut rng, &ids).await;
        for block in &peers.blocks {
            ledger.oracle.learn(block);
        }
    }
    println!("{tally:?}");
    println!("power cut: {} reopenings", tally.reopenings);
    assert!(
        tally.steps >= 2_000 && tally.reopenings >= 2_000,
        "{tally:?}"
    );
    assert!(tally.checkpoints >= 2 && tally.merges >= 1, "{tally:?}");
    assert!(tally.segments >= 3 && tally.log_begins_at > 0, "{tally:?}");
}
