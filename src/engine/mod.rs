//! The engine: posts in shards, local commands and peers' events, group commit, reads, watchers,
//! checkpoints and recovery.
//!
//! Data's path: a command or a peer's block → shards in memory (under their locks) → a slot of the open
//! batch → the log → published → acknowledged, watched, sent. Nothing that leaves the node shows what
//! is not published. The engine knows no network, no tonic, and no concrete disk.
//!
//! Order of locks: `remote` → shards in ascending order → posts' figures in the order of
//! their numbers → `orphans` → `held` →
//! `frontier` → the queue's → the requests' → `regions`. None is held across an await.

pub mod apply;
mod aside;
pub mod audit;
pub mod checkpoint;
pub mod command;
pub mod commit;
pub mod committer;
pub mod completeness;
#[cfg(any(test, feature = "sim"))]
mod damage;
pub mod explain;
mod freeze;
mod group;
mod incoming;
pub mod likers;
pub mod lineage;
mod loading;
pub mod mending;
pub mod merge;
pub mod orphans;
mod packs;
mod plan;
pub mod post;
pub mod published;
pub mod read;
pub mod rebuild;
pub mod record;
pub mod recovery;
pub mod regions;
pub mod remote;
pub mod replacement;
mod replay;
pub mod replicas;
pub mod requests;
pub mod rows;
pub mod scrub;
pub mod section;
pub mod shard;
pub mod snapshot;
pub mod stage;
mod stored;
#[cfg(test)]
mod tests;
pub mod watch;
pub mod write;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::{Semaphore, watch as latest};

use crate::codec::reader::Reader;
use crate::codec::text::encode_token;
use crate::codec::vector::entries;
use crate::codec::{DecodeError, block};
use crate::crdt::dot::{Dot, ReplicaIndex};
use crate::crdt::event::Block;
use crate::crdt::fingerprint::{Fingerprint, FingerprintKey, PostHash, RangeSums};
use crate::crdt::frontier::Frontier;
use crate::crdt::orphan_removals::OrphanRemovals;
use crate::crdt::ranges::RangeSet;
use crate::crdt::user_key::UserHash;
use crate::crdt::version_vector::VersionVector;
use crate::engine::audit::Ledger;
use crate::engine::commit::{CommitQueue, CommitWait};
use crate::engine::completeness::Completeness;
use crate::engine::freeze::Freezer;
use crate::engine::orphans::Orphans;
use crate::engine::packs::Packs;
use crate::engine::post::{Directory, Post};
use crate::engine::published::{Board, Published};
use crate::engine::regions::Regions;
use crate::engine::replicas::ReplicaTable;
use crate::engine::requests::{Remembered, Requests, Window};
use crate::engine::shard::Shard;
use crate::engine::watch::Watchers;
use crate::ids::{ClusterId, Epoch, PostId, Region, Replica, RequestId, UserId};
use crate::limits::REPLICAS_MAX;
use crate::seams::{Clock, Cores, Randomness};
use crate::versions::Dialect;

/// What the engine is told at its start.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    pub cluster: ClusterId,
    pub region: Region,
    /// A power of two.
    pub shards: usize,
    /// Whether a like of a user who likes the post already makes nothing. See `config`.
    pub absorb_repeated_likes: bool,
    pub request_window_ms: u64,
    pub request_window_items_max: usize,
    pub orphan_removals_max: usize,
    pub watchers_max: usize,
    pub dialect: Dialect,
}

/// Whether reads are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// The folder was empty and no peer has answered yet: reads would show less than was once promised.
    Rebuilding,
    Ready,
}

/// Whether the node holds anything beyond its frontier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Settlement {
    Settled = 0,
    /// A snapshot is being merged, or was when the process ended.
    Merging = 1,
}

pub struct Engine {
    options: EngineOptions,
    key: FingerprintKey,
    clock: Arc<dyn Clock>,
    randomness: Arc<dyn Randomness>,
    replicas: ReplicaTable,
    directory: Directory,
    shards: Box<[Mutex<Shard>]>,
    /// Whether posts stay where they are: a checkpoint is reading likers. Changes under the locks of
    /// all shards.
    spreading_paused: AtomicBool,
    /// Posts whose figures changed since a checkpoint took them, each once.
    changed_figures: Mutex<Vec<Arc<Post>>>,
    packs: Packs,
    /// Guards the application of peers' blocks and snapshots: one at a time, so that each replica's
    /// numbers are applied without gaps.
    remote: Mutex<()>,
    orphans: Mutex<Orphans>,
    /// What is applied in memory, less this process's own newest numbers, which the queue knows.
    frontier: RwLock<Frontier>,
    /// While a snapshot is merged: the frontier it will raise to. Events of the replicas that it raises
    /// are not applied.
    held: RwLock<Option<VersionVector>>,
    /// By replica, from where the log is whole: a snapshot raises the frontier past events that were never logged.
    floor: RwLock<VersionVector>,
    /// Innermost: nothing is locked under it.
    regions: Mutex<Regions>,
    /// Innermost too.
    completeness: Mutex<Completeness>,
    freezer: Freezer,
    /// Ranges that are disputed, and not known to be right here.
    doubts: Mutex<RangeSet>,
    queue: CommitQueue,
    board: Board,
    /// Guards what may be compared with other nodes. The committer brings it up, audits read it.
    ledger: Mutex<Ledger>,
    requests: Requests,
    /// Of large writes.
    turns: Semaphore,
    watchers: Watchers,
    serving: latest::Sender<Serving>,
    settlement: AtomicU8,
    /// Merges that were begun: what was read of one state before and after one belongs to no frontier.
    merges: AtomicU64,
    likers: AtomicU64,
    checkpointed_at_ms: AtomicU64,
}

/// The first field of a log segment's context.
const CONTEXT_TIME: &str = "time of a segment";

/// Everything of one instant that says which absent dots are dead and which are still to come.
pub struct Instant {
    pub frontier: Frontier,
    pub orphans: OrphanRemovals,
    /// Those of them that this node's clients asked for.
    pub client_orphans: HashSet<Dot>,
    pub requests: Vec<(RequestId, Remembered)>,
    pub regions: Regions,
    /// Published when it was taken: replay from its position repeats nothing that matters and misses nothing.
    pub published: Arc<Published>,
}

impl Engine {
    /// An engine with no state. `recovery` fills it before anyone else sees it.
    fn empty(
        options: EngineOptions,
        clock: Arc<dyn Clock>,
        randomness: Arc<dyn Randomness>,
        cores: Cores,
    ) -> Self {
        let replicas = ReplicaTable::default();
        let own = replicas.intern_own(&fresh_replica(&options.region, randomness.as_ref()));
        let window = Window {
            items_max: options.request_window_items_max,
            age_max_ms: options.request_window_ms,
        };
        let nothing = Published::nothing(replicas.all(), own);
        let shards = (0..options.shards).map(|index| Mutex::new(Shard::new(index, options.shards)));
        Self {
            key: FingerprintKey::of(&options.cluster),
            shards: shards.collect(),
            directory: Directory::default(),
            spreading_paused: AtomicBool::new(false),
            changed_figures: Mutex::default(),
            packs: Packs::default(),
            remote: Mutex::default(),
            orphans: Mutex::default(),
            frontier: RwLock::default(),
            held: RwLock::default(),
            floor: RwLock::default(),
            regions: Mutex::default(),
            completeness: Mutex::default(),
            freezer: Freezer::default(),
            doubts: Mutex::default(),
            queue: CommitQueue::new(own),
            ledger: Mutex::new(Ledger::new(Arc::new(Published::nothing(
                replicas.all(),
                own,
            )))),
            board: Board::new(nothing),
            requests: Requests::new(window),
            turns: Semaphore::new(cores.count()),
            watchers: Watchers::new(options.watchers_max),
            serving: latest::Sender::new(Serving::Ready),
            settlement: AtomicU8::new(Settlement::Settled as u8),
            merges: AtomicU64::new(0),
            likers: AtomicU64::new(0),
            checkpointed_at_ms: AtomicU64::new(0),
            replicas,
            options,
            clock,
            randomness,
        }
    }

    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    pub fn cluster(&self) -> &ClusterId {
        &self.options.cluster
    }

    pub fn replicas(&self) -> &ReplicaTable {
        &self.replicas
    }

    /// The running replica.
    pub fn own(&self) -> Replica {
        let (own, _) = self.queue.own();
        self.replicas.all().id(own).clone()
    }

    pub fn board(&self) -> &Board {
        &self.board
    }

    pub fn queue(&self) -> &CommitQueue {
        &self.queue
    }

    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Waits until all that is in memory now is durable. What was read before the call may then leave.
    pub fn barrier(&self) -> CommitWait {
        self.queue.barrier()
    }

    pub fn serving(&self) -> Serving {
        *self.serving.borrow()
    }

    /// Tells when [`Engine::serving`] changes.
    pub fn serving_changes(&self) -> latest::Receiver<Serving> {
        self.serving.subscribe()
    }

    pub fn set_serving(&self, serving: Serving) {
        self.serving.send_replace(serving);
    }

    pub fn settlement(&self) -> Settlement {
        match self.settlement.load(Ordering::Acquire) {
            0 => Settlement::Settled,
            _ => Settlement::Merging,
        }
    }

    fn set_settlement(&self, settlement: Settlement) {
        self.settlement.store(settlement as u8, Ordering::Release);
    }

    pub fn posts(&self) -> usize {
        self.directory.len()
    }

    /// Posts that take up memory: those that were written, and those that are watched or asked for at this moment.
    pub fn posts_held(&self) -> usize {
        self.directory.entries()
    }

    /// Likers over all posts.
    pub fn likers(&self) -> u64 {
        self.likers.load(Ordering::Acquire)
    }

    pub fn orphan_removals(&self) -> usize {
        self.orphans.lock().known().len()
    }

    pub fn checkpointed_at_ms(&self) -> u64 {
        self.checkpointed_at_ms.load(Ordering::Acquire)
    }

    /// Goes on under a fresh replica: somebody knows numbers of the running one that it never made.
    pub fn rotate_epoch(&self) -> Replica {
        let _shards = self.lock_all();
        let fresh = fresh_replica(&self.options.region, self.randomness.as_ref());
        let own = self.replicas.intern_own(&fresh);
        let (ended, last) = self.queue.own();
        if last > 0 {
            self.frontier.write().advance(ended, last);
            let now_ms = self.now_ms();
            self.completeness.lock().end((ended, last), now_ms);
        }
        self.queue.rotate(own);
        fresh
    }

    /// Everything that says "dead or to come", at one instant: no shard is between two states.
    pub fn instant(&self) -> Instant {
        let _shards = self.lock_all();
        let published = self.board.newest();
        let (orphans, client_orphans) = {
            let orphans = self.orphans.lock();
            (orphans.known().clone(), orphans.client_made().clone())
        };
        let mut frontier = self.frontier.read().clone();
        let (own, last) = self.queue.own();
        if last > 0 {
            frontier.advance(own, last);
        }
        Instant {
            frontier,
            orphans,
            client_orphans,
            requests: self.requests.snapshot(),
            // After the frontier: a peer's retirement is applied before the frontier covers it.
            regions: self.regions(),
            published,
        }
    }

    /// Reads a block of events, as far as this node knows their kinds.
    pub(crate) fn decode_block(&self, bytes: &[u8]) -> Result<Block, DecodeError> {
        block::decode_up_to(bytes, self.options.dialect.kind_max, &mut &self.replicas)
    }

    /// Says which ranges are disputed and not known to be right here: nobody is given them.
    pub fn set_doubts(&self, doubts: RangeSet) {
        *self.doubts.lock() = doubts;
    }

    /// One of these ranges that is in doubt.
    pub fn doubted(&self, ranges: &RangeSet) -> Option<usize> {
        let doubts = *self.doubts.lock();
        doubts.iter().find(|range| ranges.contains(*range))
    }

    fn lock_all(&self) -> Vec<MutexGuard<'_, Shard>> {
        self.shards.iter().map(Mutex::lock).collect()
    }

    /// By replica, the number after which the log is whole, apart from what was cut.
    pub fn log_floor(&self) -> VersionVector {
        self.floor.read().clone()
    }

    fn raise_log_floor(&self, floor: &VersionVector) {
        self.floor.write().join(floor);
    }

    fn note_checkpointed(&self, at_ms: u64) {
        self.checkpointed_at_ms.store(at_ms, Ordering::Release);
    }

    /// The frontier at the beginning of a log segment, where it is kept in the short form; none if it
    /// cannot be read.
    pub fn read_context(&self, context: &[u8]) -> Option<VersionVector> {
        let mut reader = Reader::new(context);
        reader.varint(CONTEXT_TIME).ok()?;
        let short = entries(&mut reader, REPLICAS_MAX, &mut &self.replicas).ok()?;
        self.frontier.read().lineage().expand(&short)
    }

    /// When a log segment was begun, in milliseconds since 1970; none if that cannot be read.
    pub fn read_context_time(&self, context: &[u8]) -> Option<u64> {
        Reader::new(context).varint(CONTEXT_TIME).ok()
    }

    /// Everything goes into the next checkpoint.
    fn mark_all_changed(&self) {
        for post in self.directory.sorted() {
            self.note_changed_figures(&post);
            for shard in &self.shards {
                shard.lock().mark_changed(&post);
            }
        }
    }

    fn restore_orphan(&self, dot: Dot, post: &PostId, user: &UserId, sums: &mut RangeSums) {
        if self.orphans.lock().known_mut().insert(dot, post, user) {
            let hash = PostHash::of(post);
            let replicas = self.replicas.all();
            let replica = replicas.hash(dot.replica);
            let print =
                Fingerprint::orphan_removal(self.key, hash, UserHash::of(user), replica, dot.seq);
            sums.add(hash.range(), print);
        }
    }

    /// The token of what is applied in memory. Called in replay only, where all of it is durable.
    fn token_of_frontier(&self) -> Arc<str> {
        let all = self.replicas.all();
        let short = self.frontier.read().short();
        let named = short.iter().map(|(replica, seq)| (all.id(*replica), *seq));
        encode_token(&self.options.cluster, named).into()
    }

    fn note_changed_figures(&self, post: &Arc<Post>) {
        if post.mark_changed() {
            self.changed_figures.lock().push(post.clone());
        }
    }

    /// This process's replica and its last number: covered here, whatever the frontier says yet.
    fn own_covered(&self) -> (ReplicaIndex, u64) {
        self.queue.own()
    }
}

fn fresh_replica(region: &Region, randomness: &dyn Randomness) -> Replica {
    Replica {
        region: region.clone(),
        epoch: Epoch(randomness.bits128()),
    }
}
