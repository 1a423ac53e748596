//! The log's worker: takes batches, makes each durable with one sync, then publishes it.
//!
//! Order, and its reason: append and sync → remember requests → publish the frontier and fingerprint →
//! answer those who wait → mark watched posts. Whoever is answered finds its own write published.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::codec::block;
use crate::codec::reader::put_varint;
use crate::codec::vector::put_entries;
use crate::crdt::dot::{Dot, ReplicaIndex, Replicas};
use crate::crdt::event::{Action, Block, Event};
use crate::crdt::fingerprint::RangeSums;
use crate::crdt::frontier::{Frontier, ShortForm};
use crate::crdt::prefetch::prefetch;
use crate::engine::Engine;
use crate::engine::audit::{Ledger, touched};
use crate::engine::commit::{Batch, OutcomeUnknown, Refused, Ticket};
use crate::engine::post::PostNumber;
use crate::engine::published::Published;
use crate::engine::record::{COMMIT_RECORD, CommitRecord, encode};
use crate::engine::section::Section;
use crate::ids::CounterName;
use crate::limits::BLOCK_EVENTS_MAX;
use crate::log::{AppendError, LogWriter, Position, RecordKind};
use crate::planted::{Bug, is_planted};

/// What is durable, as the committer keeps it up.
pub struct Committer {
    engine: Arc<Engine>,
    log: LogWriter,
    frontier: Frontier,
    sums: RangeSums,
    /// Replicas that have been retired. Changes seldom.
    retired: Arc<HashSet<ReplicaIndex>>,
    /// How often a snapshot has raised the frontier.
    raises: u64,
    position: Position,
}

impl Committer {
    /// Goes on from what recovery found, which is synced.
    pub fn new(engine: Arc<Engine>, log: LogWriter, frontier: Frontier, sums: RangeSums) -> Self {
        let position = log.end();
        engine.queue.set_room(log.room());
        let retired = Arc::new(engine.regions().retired().clone());
        let committer = Self {
            retired,
            raises: 0,
            engine,
            log,
            frontier,
            sums,
            position,
        };
        let first = committer.published(Ticket(0));
        *committer.engine.ledger.lock() = Ledger::new(first.clone());
        committer.engine.board.publish(first.clone());
        committer.engine.queue.complete_first(first);
        committer
    }

    /// Runs until the queue is closed and empty, or the log fails. Returns whether it failed.
    pub async fn run(mut self) -> Result<(), AppendError> {
        while let Some((batch, last, admitted)) = self.engine.queue.take().await {
            let sections = batch.sections().await;
            let outcome = self.commit(&batch, last, sections).await;
            self.engine.queue.release(admitted);
            if let Err(error) = outcome {
                tracing::error!(%error, "the log failed; no writes are taken until a restart");
                self.engine.queue.close(Refused::Poisoned);
                self.engine.requests.fail();
                batch.complete(Err(OutcomeUnknown));
                self.fail_the_rest().await;
                return Err(error);
            }
            // Whoever writes goes first: under load the next batch fills up, and a lone write waits for nobody.
            std::thread::yield_now();
            self.engine.queue.gather().await;
        }
        Ok(())
    }

    /// Batches that were opened before the queue was closed are answered too.
    async fn fail_the_rest(&self) {
        while let Some((batch, _, _)) = self.engine.queue.take().await {
            batch.sections().await;
            batch.complete(Err(OutcomeUnknown));
        }
    }

    async fn commit(
        &mut self,
        batch: &Batch,
        last: Ticket,
        mut sections: Vec<Section>,
    ) -> Result<(), AppendError> {
        let replicas = self.engine.replicas.all();
        let touched: Vec<(usize, Dot)> = sections.iter().flat_map(touched).collect();
        let (record, runs) = record_of(&mut sections, &replicas);
        let is_early = is_planted(Bug::AcknowledgedBeforeSync);
        if is_early {
            self.publish(batch, last, (&sections, &touched), &runs);
        }
        if !record.blocks.is_empty() || !record.requests.is_empty() {
            let payload = encode(&record, &replicas);
            let records = vec![(RecordKind(COMMIT_RECORD), vec![payload])];
            let frontier = &self.frontier;
            let engine = &self.engine;
            let context = || {
                let mut out = Vec::new();
                put_varint(&mut out, engine.now_ms());
                put_entries(&mut out, &replicas, &frontier.short());
                Bytes::from(out)
            };
            self.position = self.log.append(records, context).await?.end;
        }
        if !is_early {
            self.publish(batch, last, (&sections, &touched), &runs);
        }
        Ok(())
    }

    fn publish(
        &mut self,
        batch: &Batch,
        last: Ticket,
        (sections, touched): (&[Section], &[(usize, Dot)]),
        runs: &[OwnRun],
    ) {
        for section in sections {
            if let Some(remote) = &section.remote {
                let last_seq = remote.head.last_seq();
                self.advance(remote.head.replica, remote.predecessors.as_ref(), last_seq);
            }
            if let Some(raise) = &section.raise {
                self.frontier.raise(&raise.vector, &raise.lineage);
                self.raises += 1;
                self.retire(&raise.retired);
            }
            self.retire(&section.retired);
            for (range, change) in &section.prints {
                self.sums.add(*range, *change);
            }
        }
        for run in runs {
            self.advance(run.first.replica, run.predecessors.as_ref(), run.last_seq());
        }
        let published = self.published(last);
        let token = || published.token(&self.engine.options.cluster);
        for record in sections.iter().flat_map(|section| &section.requests) {
            self.engine.requests.remember(record, token);
        }
        {
            // With the board: whoever saw one of the two finds the other no older.
            let mut ledger = self.engine.ledger.lock();
            ledger.note(touched);
            let is_raised = sections.iter().any(|section| section.raise.is_some());
            if is_raised && !is_planted(Bug::ChangedWithoutMerge) {
                ledger.rebase(published.short.clone());
            }
            ledger.publish(published.clone());
            self.engine.board.publish(published.clone());
        }
        batch.complete(Ok(published));
        let watched = sections.iter().flat_map(|section| &section.watched);
        self.engine.watchers.mark(watched.map(|post| post.number));
    }

    fn retire(&mut self, replicas: &[ReplicaIndex]) {
        if !replicas.is_empty() {
            Arc::make_mut(&mut self.retired).extend(replicas);
        }
    }

    fn advance(&mut self, replica: ReplicaIndex, predecessors: Option<&ShortForm>, last: u64) {
        if let Some(predecessors) = predecessors {
            self.frontier.begin(replica, predecessors.clone());
        }
        self.frontier.advance(replica, last);
    }

    fn published(&self, ticket: Ticket) -> Arc<Published> {
        let frontier = (self.frontier.vector().clone(), self.frontier.short());
        let (own, _) = self.engine.queue.own();
        let replicas = (self.engine.replicas.all(), own);
        let log = (ticket, self.position);
        let published = Published::new(log, frontier, self.sums.clone(), replicas);
        let published = published.with_retired(self.retired.clone());
        Arc::new(published.with_raises(self.raises))
    }
}

/// Events of one of this node's replicas, numbered on from `first`.
struct OwnRun {
    first: Dot,
    predecessors: Option<ShortForm>,
    /// Full ones, but for the last.
    blocks: Vec<Gathering>,
}

impl OwnRun {
    fn new(first: Dot, predecessors: Option<ShortForm>, events: usize) -> Self {
        let begin = predecessors.clone().filter(|_| first.seq == 1);
        Self {
            first,
            predecessors,
            blocks: vec![Gathering::new(first, begin, events)],
        }
    }

    fn next_seq(&self) -> u64 {
        let newest = &self.newest().block;
        newest.first_seq + newest.events.len() as u64
    }

    fn last_seq(&self) -> u64 {
        self.next_seq() - 1
    }

    fn newest(&self) -> &Gathering {
        self.blocks.last().expect("begun with a block")
    }

    /// Takes over the events of a section, which follow on those that are here.
    fn take(&mut self, section: &mut Section) {
        let mut events = std::mem::take(&mut section.local).into_iter();
        while events.len() > 0 {
            if self.newest().room() == 0 {
                let seq = self.next_seq();
                let replica = self.first.replica;
                let first = Dot { seq, replica };
                self.blocks.push(Gathering::new(first, None, events.len()));
            }
            let newest = self.blocks.last_mut().expect("begun with a block");
            newest.fill(&mut events, section);
        }
    }

    fn encoded(&self, replicas: &Replicas) -> impl Iterator<Item = Bytes> {
        let blocks = self.blocks.iter();
        blocks.map(|gathering| Bytes::from(block::encode(&gathering.block, replicas)))
    }
}

/// The node's own events, one run for each of its replicas.
fn own_runs(sections: &mut [Section]) -> Vec<OwnRun> {
    let mut runs: Vec<OwnRun> = Vec::new();
    let events = sections.iter().map(|section| section.local.len()).sum();
    for section in sections.iter_mut() {
        if section.local.is_empty() {
            continue;
        }
        let first = section.first.expect("local events have numbers");
        match runs.last_mut() {
            Some(run)
                if run.first.replica == first.replica
                    && !(is_planted(Bug::NumberNeverLogged) && run.next_seq() != first.seq) =>
            {
                assert_eq!(
                    run.next_seq(),
                    first.seq,
                    "numbers stand in the log without gaps"
                );
                run.take(section);
            }
            _ => {
                let mut run = OwnRun::new(first, section.predecessors.take(), events);
                run.take(section);
                runs.push(run);
            }
        }
    }
    runs
}

/// Peers' blocks first, then this node's events in as few blocks as they fit: neither builds on the
/// other, for nobody saw what is not durable. Only where the node went on under a fresh replica can a
/// peer's block follow an event of the batch; then everything stands in the order of the slots.
fn record_of(sections: &mut [Section], replicas: &Replicas) -> (CommitRecord, Vec<OwnRun>) {
    let firsts = sections.iter().filter_map(|section| section.first);
    let ours: BTreeSet<ReplicaIndex> = firsts.map(|first| first.replica).collect();
    let mut remotes = sections
        .iter()
        .filter_map(|section| section.remote.as_ref());
    let rotated = ours.len() > 1 || remotes.any(|remote| ours.contains(&remote.head.replica));
    let (mut record, mut runs) = (CommitRecord::default(), Vec::new());
    let at_once = if rotated { 1 } else { sections.len().max(1) };
    for part in sections.chunks_mut(at_once) {
        for section in part.iter() {
            let remote = section.remote.iter();
            record
                .blocks
                .extend(remote.map(|remote| remote.bytes.clone()));
            record.requests.extend(section.requests.iter().cloned());
        }
        let own = own_runs(part);
        record
            .blocks
            .extend(own.iter().flat_map(|run| run.encoded(replicas)));
        runs.extend(own);
    }
    (record, runs)
}

/// A block that is being gathered, and where its dictionaries have what.
struct Gathering {
    block: Block,
    posts: HashMap<PostNumber, u32, FixedState>,
    counters: HashMap<CounterName, u32>,
}

impl Gathering {
    /// With room for so many events, if a block holds them.
    fn new(first: Dot, predecessors: Option<ShortForm>, events: usize) -> Self {
        let block = Block {
            replica: first.replica,
            first_seq: first.seq,
            predecessors,
            posts: Vec::new(),
            counters: Vec::new(),
            events: Vec::with_capacity(events.min(BLOCK_EVENTS_MAX)),
        };
        Self {
            block,
            posts: HashMap::default(),
            counters: HashMap::new(),
        }
    }

    fn room(&self) -> usize {
        BLOCK_EVENTS_MAX - self.block.events.len()
    }

    /// Takes events while there is room; places in the section's lists become those in the block's.
    fn fill(&mut self, events: &mut std::vec::IntoIter<Event>, section: &Section) {
        let count = events.len().min(self.room());
        self.block.events.reserve(count);
        section.posts.iter().for_each(|post| prefetch(&**post));
        // Events of one post stand together: most have the place of the one before.
        let mut before = None;
        for mut event in events.take(count) {
            match &mut event.action {
                Action::Empty | Action::Retire { .. } => {}
                Action::Like { post, .. } | Action::Unlike { post, .. } => {
                    *post = self.post_place(*post, &mut before, section);
                }
                Action::Add { post, counter, .. } => {
                    *post = self.post_place(*post, &mut before, section);
                    *counter = self.counter_place(&section.counters[*counter as usize]);
                }
            }
            self.block.events.push(event);
        }
    }

    fn post_place(&mut self, at: u32, before: &mut Option<(u32, u32)>, section: &Section) -> u32 {
        if let Some((known, place)) = *before
            && known == at
        {
            return place;
        }
        let post = &section.posts[at as usize];
        let next = self.block.posts.len() as u32;
        let place = *self.posts.entry(post.number).or_insert(next);
        if place == next {
            self.block.posts.push(post.id.clone());
        }
        *before = Some((at, place));
        place
    }

    fn counter_place(&mut self, name: &CounterName) -> u32 {
        if let Some(place) = self.counters.get(name) {
            return *place;
        }
        let place = self.block.counters.len() as u32;
        self.counters.insert(name.clone(), place);
        self.block.counters.push(name.clone());
        place
    }
}
