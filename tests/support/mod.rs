//! A node's engine on a simulated disk, without network: tests carry blocks and snapshots by hand.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod audit;
pub mod oracle;
pub mod transfer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use likewise::adapters::memory_store::MemoryDevice;
use likewise::adapters::power::Power;
use likewise::adapters::simulated_disk::{Latency, Operation, SimulatedDisk};
use likewise::adapters::system::SeededRandomness;
use likewise::crdt::version_vector::VersionVector;
use likewise::engine::checkpoint::{Checkpointer, Kept, LogHolds, Retention};
use likewise::engine::command::{Command, Write};
use likewise::engine::committer::Committer;
use likewise::engine::merge::{MergeError, Parts, StagedSource, merge_stage};
use likewise::engine::read::{Detail, PostView};
use likewise::engine::record;
use likewise::engine::recovery::{EngineSeams, Recovered, RecoveryError, recover};
use likewise::engine::remote::{Applied, RemoteError};
use likewise::engine::snapshot::{Part, Snapshot, SnapshotError, SnapshotOptions, Wanted};
use likewise::engine::write::{WriteError, Written};
use likewise::engine::{Engine, EngineOptions};
use likewise::ids::{ClusterId, CounterName, PostId, Region, Replica, RequestId, UserId};
use likewise::log::{LogOptions, LogReader, Position, Room, SparePreparer};
use likewise::replication::parts;
use likewise::seams::{Clock, Cores, WorkerHandle, Workers};
use likewise::versions::Dialect;
use likewise::wire::replication::SnapshotResponse;
use tokio::sync::watch;

/// A clock that moves by a millisecond at each look.
#[derive(Default)]
pub struct StepClock(AtomicU64);

impl Clock for StepClock {
    fn now_ms(&self) -> u64 {
        1_790_000_000_000 + self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// A clock that stands still: what happens in another order happens at the same times.
pub struct StillClock;

impl Clock for StillClock {
    fn now_ms(&self) -> u64 {
        1_790_000_000_000
    }
}

/// As what a process runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Each under an epoch of its own, as it must be.
    Fresh,
    /// All of a folder, and of its copies, under the same.
    OfTheFolder,
}

/// Whether the log may be cut at each checkpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cutting {
    Never,
    Always,
}

impl Retention for Cutting {
    fn may_cut(&self, _covered: &VersionVector, _kept: Kept) -> bool {
        *self == Cutting::Always
    }
}

/// The disk and the checkpoint store of one node, on one power supply.
pub struct Machine {
    pub region: &'static str,
    pub power: Power,
    pub disk: SimulatedDisk,
    pub device: MemoryDevice,
    pub cutting: Cutting,
    pub absorb: bool,
    pub log: LogOptions,
    pub shards: usize,
    pub dialect: Dialect,
    pub clock: fn() -> Arc<dyn Clock>,
    pub identity: Identity,
    seed: u64,
    starts: AtomicU64,
}

/// A running engine.
pub struct Node {
    pub engine: Arc<Engine>,
    pub reader: LogReader,
    pub checkpointer: Checkpointer,
    pub holds: Arc<LogHolds>,
    pub report: likewise::engine::recovery::RecoveryReport,
    pub disk: SimulatedDisk,
    pub room: Room,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

pub fn small_log() -> LogOptions {
    LogOptions {
        segment_bytes: 64 << 10,
        group_bytes_max: 24 << 10,
        context_bytes_max: 4 << 10,
        ..LogOptions::default()
    }
}

/// Operations of this kind wait while the sender says `false`.
pub fn gate(disk: &SimulatedDisk, kind: Operation, is_open: bool) -> watch::Sender<bool> {
    let (release, open) = watch::channel(is_open);
    let latency: Latency = Arc::new(move |operation| {
        let mut open = open.clone();
        Box::pin(async move {
            if operation == kind {
                // A sender that is gone holds nothing.
                let _held = open.wait_for(|open| *open).await;
            }
        })
    });
    disk.set_latency(Some(latency));
    release
}

impl Machine {
    pub fn new(region: &'static str, seed: u64) -> Self {
        let power = Power::new(seed);
        Self {
            region,
            disk: SimulatedDisk::with_power(power.clone()),
            device: MemoryDevice::new(power.clone()),
            power,
            cutting: Cutting::Never,
            absorb: false,
            log: small_log(),
            shards: 4,
            dialect: Dialect::default(),
            clock: || Arc::new(StepClock::default()),
            identity: Identity::Fresh,
            seed,
            starts: AtomicU64::new(0),
        }
    }

    /// Another machine with the same files and rows, all durable. Its processes draw the same epochs as
    /// those of this one would from here on: it is this machine on another course of events.
    pub fn copy(&self, chance: u64) -> Self {
        let disk = self.disk.copy(chance);
        let power = disk.power().clone();
        Self {
            region: self.region,
            device: self.device.copy(power.clone()),
            disk,
            power,
            cutting: self.cutting,
            absorb: self.absorb,
            log: self.log.clone(),
            shards: self.shards,
            dialect: self.dialect.clone(),
            clock: self.clock,
            identity: self.identity,
            seed: self.seed,
            starts: AtomicU64::new(self.starts.load(Ordering::Relaxed)),
        }
    }

    /// A machine that was given a copy of this one's folder: its processes draw epochs of their own.
    pub fn cloned(&self, seed: u64) -> Self {
        let mut clone = self.copy(seed);
        if self.identity == Identity::Fresh {
            clone.seed = seed;
        }
        clone
    }

    /// The power fails, unless it has already, and comes back. What was not synced may be lost.
    pub fn reboot(&self) {
        if self.power.is_on() {
            self.power.cut_now();
        }
        self.device.lose_unsynced();
        self.disk.reboot();
    }

    pub async fn start(&self) -> Node {
        self.try_start().await.expect("the node starts")
    }

    pub async fn try_start(&self) -> Result<Node, RecoveryError> {
        let (mut node, committer, preparer) = self.recover().await?;
        let committing = tokio::spawn(async move {
            let _ended_by_the_test = committer.run().await;
        });
        node.tasks = vec![committing, tokio::spawn(preparer.run())];
        Ok(node)
    }

    /// As a process does, with workers that end when the queue is closed. The handle is the log's.
    pub async fn start_with(&self, workers: &dyn Workers) -> (Node, WorkerHandle) {
        let (node, committer, preparer) = self.recover().await.expect("the node starts");
        let committing = async move { committer.run().await.expect("the log works") };
        drop(workers.spawn("spare", Box::pin(preparer.run())));
        (node, workers.spawn("log", Box::pin(committing)))
    }

    async fn recover(&self) -> Result<(Node, Committer, SparePreparer), RecoveryError> {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let chance = match self.identity {
            Identity::Fresh => self.seed * 1_000_003 + start,
            Identity::OfTheFolder => self.seed,
        };
        let files = self.disk.files();
        let store: Arc<_> = self.device.store();
        let seams = EngineSeams {
            files: files.clone(),
            store: store.clone(),
            clock: (self.clock)(),
            randomness: Arc::new(SeededRandomness::new(chance)),
            cores: Cores::all(),
        };
        let options = EngineOptions {
            cluster: ClusterId::new("test").expect("valid"),
            region: Region::new(self.region).expect("valid"),
            shards: self.shards,
            absorb_repeated_likes: self.absorb,
            request_window_ms: 600_000,
            request_window_items_max: 1_000,
            orphan_removals_max: 100,
            watchers_max: 10,
            dialect: self.dialect.clone(),
        };
        let Recovered {
            engine,
            committer,
            reader,
            trimmer,
            preparer,
            report,
        } = recover(seams, options, self.log.clone()).await?;
        let holds = Arc::new(LogHolds::default());
        let retention = Arc::new(self.cutting);
        let parts = (reader.clone(), trimmer);
        let checkpointer =
            Checkpointer::new(engine.clone(), store, parts, holds.clone(), retention);
        let room = engine.queue().room().clone();
        let node = Node {
            engine,
            reader,
            checkpointer,
            holds,
            report,
            disk: self.disk.clone(),
            room,
            tasks: Vec::new(),
        };
        Ok((node, committer, preparer))
    }
}

pub fn post(text: &str) -> PostId {
    PostId::new(text).expect("valid")
}

pub fn user(text: &str) -> UserId {
    UserId::new(text).expect("valid")
}

pub fn like(post_id: &str, user_id: &str) -> Command {
    Command::Like {
        post: post(post_id),
        user: user(user_id),
    }
}

pub fn unlike(post_id: &str, user_id: &str) -> Command {
    Command::Unlike {
        post: post(post_id),
        user: user(user_id),
        named: Vec::new(),
    }
}

pub fn unlike_dots(post_id: &str, user_id: &str, named: Vec<(Replica, u64)>) -> Command {
    Command::Unlike {
        post: post(post_id),
        user: user(user_id),
        named,
    }
}

pub fn add(post_id: &str, counter: &str, delta: i64) -> Command {
    Command::Add {
        post: post(post_id),
        counter: CounterName::new(counter).expect("valid"),
        delta,
    }
}

impl Node {
    pub async fn write(&self, command: Command) -> Written {
        self.try_write(vec![command], None)
            .await
            .expect("the write is taken")
    }

    pub async fn try_write(
        &self,
        commands: Vec<Command>,
        request: Option<&str>,
    ) -> Result<Written, WriteError> {
        let request = request.map(|text| RequestId::new(text).expect("valid"));
        self.engine.write(&Write { commands, request }).await
    }

    /// Likes, and returns the dot by name.
    pub async fn like(&self, post_id: &str, user_id: &str) -> (Replica, u64) {
        let written = self.write(like(post_id, user_id)).await;
        let dot = written.done[0].dot.expect("a like has a dot");
        (
            self.engine.replicas().all().id(dot.replica).clone(),
            dot.seq,
        )
    }

    pub fn view(&self, post_id: &str) -> PostView {
        self.engine.view_post(&post(post_id), None, Detail::Regions)
    }

    pub fn count(&self, post_id: &str) -> u64 {
        self.engine.count(&post(post_id))
    }

    pub fn likes(&self, post_id: &str, user_id: &str) -> bool {
        let view = self
            .engine
            .view_post(&post(post_id), Some(&user(user_id)), Detail::Figures);
        !view.viewer_dots.is_empty()
    }

    pub fn fingerprint(&self) -> u128 {
        self.engine.board().newest().sums.total().0
    }

    pub fn durable(&self) -> VersionVectorByName {
        let newest = self.engine.board().newest();
        let all = newest.vector.iter();
        let mut named: Vec<_> = all
            .map(|(replica, seq)| (newest.replicas.id(replica).clone(), seq))
            .collect();
        named.sort();
        VersionVectorByName(named)
    }

    /// All durable blocks from a position on.
    pub async fn blocks(&self, from: Position) -> Vec<Bytes> {
        let mut next = from;
        let mut blocks = Vec::new();
        while next < self.reader.synced() {
            let chunk = self
                .reader
                .read(next, 1 << 20)
                .await
                .expect("the log is there");
            for record in &chunk.records {
                blocks.extend(record::blocks(&record.payload).expect("well formed"));
            }
            next = chunk.next;
        }
        blocks
    }

    pub async fn apply(&self, block: &Bytes) -> Result<Option<()>, RemoteError> {
        match self.engine.apply_remote(block)? {
            Applied::New(wait) => {
                wait.await.expect("the log works");
                Ok(Some(()))
            }
            Applied::Known => Ok(Some(())),
            Applied::NotYet => Ok(None),
        }
    }

    /// Takes over everything that another node's log holds. Returns whether all of it could be applied.
    pub async fn pull(&self, other: &Node) -> bool {
        let mut all = true;
        for block in other.blocks(Position::START).await {
            all &= self.apply(&block).await.expect("an honest block").is_some();
        }
        all
    }

    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_of(Wanted::everything()).expect("settled")
    }

    pub fn snapshot_of(&self, wanted: Wanted) -> Result<Snapshot, SnapshotError> {
        self.begin_snapshot(wanted, 1 << 30)
    }

    /// One for which so many bytes of log may be kept.
    pub fn snapshot_within(&self, log_bytes_max: u64) -> Result<Snapshot, SnapshotError> {
        self.begin_snapshot(Wanted::everything(), log_bytes_max)
    }

    fn begin_snapshot(
        &self,
        wanted: Wanted,
        log_bytes_max: u64,
    ) -> Result<Snapshot, SnapshotError> {
        let options = SnapshotOptions {
            chunk_bytes: 1,
            log_bytes_max,
        };
        let (engine, reader) = (self.engine.clone(), self.reader.clone());
        Snapshot::begin(engine, reader, &self.holds, options, wanted)
    }

    /// The whole snapshot at once.
    pub async fn whole_snapshot(&self) -> Vec<SnapshotResponse> {
        self.read_on(&mut self.snapshot(), Vec::new()).await
    }

    /// The next part, as it crosses the wire.
    pub async fn next_part(&self, snapshot: &mut Snapshot) -> Option<SnapshotResponse> {
        let part = snapshot.next().await.expect("the sender is well")?;
        Some(parts::write(part, &self.engine.replicas().all()))
    }

    /// The rest of a snapshot of this node.
    pub async fn read_on(
        &self,
        snapshot: &mut Snapshot,
        mut parts: Vec<SnapshotResponse>,
    ) -> Vec<SnapshotResponse> {
        while let Some(part) = self.next_part(snapshot).await {
            parts.push(part);
        }
        parts
    }

    pub async fn merge(&mut self, parts: &[SnapshotResponse]) -> Result<(), MergeError> {
        self.merge_and_stop(parts, usize::MAX).await
    }

    /// Merges, but the stage cannot be read from part `stop` on, once the likers are reached.
    pub async fn merge_and_stop(
        &mut self,
        parts: &[SnapshotResponse],
        stop: usize,
    ) -> Result<(), MergeError> {
        let stage = Carried {
            engine: self.engine.clone(),
            parts: parts.to_vec(),
            stop,
            opened: AtomicU64::new(0),
        };
        merge_stage(&self.engine.clone(), &mut self.checkpointer, &stage).await
    }

    /// The process ends without a word; what the system took is on the disk, synced or not.
    pub async fn kill(self) {
        let disk = self.disk.clone();
        self.stop().await;
        disk.kill();
    }

    /// The process ends; the power may be off.
    pub async fn stop(self) {
        for task in self.tasks {
            task.abort();
            let _aborted = task.await;
        }
    }
}

/// A snapshot in memory. It is read four times: whole, for figures, for likers, for the tail.
struct Carried {
    engine: Arc<Engine>,
    parts: Vec<SnapshotResponse>,
    stop: usize,
    opened: AtomicU64,
}

impl StagedSource for Carried {
    type Parts = Staged;

    async fn open(&self) -> Result<Staged, MergeError> {
        let pass = self.opened.fetch_add(1, Ordering::Relaxed);
        let len = if pass < 2 {
            self.parts.len()
        } else {
            self.stop.min(self.parts.len())
        };
        if pass == 3 && self.stop < self.parts.len() {
            return Err(MergeError::Form("stopped on purpose"));
        }
        Ok(Staged(
            self.engine.clone(),
            Vec::from(&self.parts[..len]).into_iter(),
        ))
    }
}

/// Parts as they came, from memory.
pub struct Staged(Arc<Engine>, std::vec::IntoIter<SnapshotResponse>);

impl Parts for Staged {
    async fn next(&mut self) -> Result<Option<Part>, MergeError> {
        let part = self
            .1
            .next()
            .map(|part| parts::read(part, &mut self.0.replicas()));
        Ok(part.transpose()?)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionVectorByName(pub Vec<(Replica, u64)>);

/// All nodes say the same of themselves, entry by entry.
pub fn assert_equal(nodes: &[&Node], posts: &[&str]) {
    let first = nodes[0];
    for other in &nodes[1..] {
        assert_eq!(first.durable(), other.durable());
        for post_id in posts {
            let (a, b) = (first.view(post_id), other.view(post_id));
            assert_eq!((a.count, a.regions), (b.count, b.regions), "post {post_id}");
        }
        assert_eq!(first.fingerprint(), other.fingerprint());
    }
}

/// Σ(increments − decrements) = count.
pub fn assert_entries(node: &Node, post_id: &str) {
    let view = node.view(post_id);
    let sum: u64 = view
        .regions
        .iter()
        .map(|region| region.increments - region.decrements)
        .sum();
    assert_eq!(view.count, sum);
}
