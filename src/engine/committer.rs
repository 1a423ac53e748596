//! The log's worker: takes batches, makes each durable with one sync, then publishes it.
//!
//! Order, and its reason: append and sync → remember requests → publish the frontier and fingerprint →
//! answer those who wait → mark watched posts. Whoever is answered finds its own write published.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::block;
use crate::codec::vector::put_entries;
use crate::crdt::dot::{Dot, ReplicaIndex, Replicas};
use crate::crdt::event::{Action, Block, Event};
use crate::crdt::fingerprint::RangeSums;
use crate::crdt::frontier::{Frontier, ShortForm};
use crate::engine::Engine;
use crate::engine::commit::{Batch, OutcomeUnknown, Refused, Ticket};
use crate::engine::post::{Post, PostNumber};
use crate::engine::published::Published;
use crate::engine::record::{COMMIT_RECORD, CommitRecord, encode};
use crate::engine::section::{LocalAction, LocalEvent, Section};
use crate::ids::CounterName;
use crate::limits::BLOCK_EVENTS_MAX;
use crate::log::{AppendError, LogWriter, Position, RecordKind};

/// What is durable, as the committer keeps it up.
pub struct Committer {
    engine: Arc<Engine>,
    log: LogWriter,
    frontier: Frontier,
    sums: RangeSums,
    position: Position,
}

impl Committer {
    /// Goes on from what recovery found, which is synced.
    pub fn new(engine: Arc<Engine>, log: LogWriter, frontier: Frontier, sums: RangeSums) -> Self {
        let position = log.end();
        engine.queue.set_room(log.room());
        let committer = Self {
            engine,
            log,
            frontier,
            sums,
            position,
        };
        let first = committer.published(Ticket(0));
        committer.engine.board.publish(first.clone());
        committer.engine.queue.complete_first(first);
        committer
    }

    /// Runs until the queue is closed and empty, or the log fails. Returns whether it failed.
    pub async fn run(mut self) -> Result<(), AppendError> {
        while let Some((batch, last, admitted)) = self.engine.queue.take().await {
            let sections = batch.sections().await;
            let outcome = self.commit(&batch, last, sections).await;
            self.engine.queue.settle(admitted);
            if let Err(error) = outcome {
                tracing::error!(%error, "the log failed; no writes are taken until a restart");
                self.engine.queue.close(Refused::Poisoned);
                self.engine.requests.fail();
                batch.complete(Err(OutcomeUnknown));
                self.fail_the_rest().await;
                return Err(error);
            }
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
        sections: Vec<Section>,
    ) -> Result<(), AppendError> {
        let replicas = self.engine.replicas.all();
        let runs = own_runs(&sections);
        let record = record_of(&sections, &runs, &replicas);
        if !record.blocks.is_empty() || !record.requests.is_empty() {
            let payload = encode(&record, &replicas);
            let records = vec![(RecordKind(COMMIT_RECORD), vec![payload])];
            let frontier = &self.frontier;
            let context = || {
                let mut out = Vec::new();
                put_entries(&mut out, &replicas, &frontier.short());
                Bytes::from(out)
            };
            self.position = self.log.append(records, context).await?.end;
        }
        self.publish(batch, last, &sections, &runs);
        Ok(())
    }

    fn publish(&mut self, batch: &Batch, last: Ticket, sections: &[Section], runs: &[OwnRun<'_>]) {
        for section in sections {
            if let Some(remote) = &section.remote {
                let last_seq = remote.head.last_seq();
                self.advance(remote.head.replica, remote.predecessors.as_ref(), last_seq);
            }
            if let Some(raise) = &section.raise {
                self.frontier.raise(&raise.vector, &raise.lineage);
            }
            for (range, change) in &section.prints {
                self.sums.add(*range, *change);
            }
        }
        for run in runs {
            self.advance(run.first.replica, run.predecessors, run.last_seq());
        }
        let published = self.published(last);
        let token = || published.token(&self.engine.options.cluster);
        for record in sections.iter().flat_map(|section| &section.requests) {
            self.engine.requests.remember(record, token);
        }
        self.engine.board.publish(published.clone());
        batch.complete(Ok(published));
        let watched = sections.iter().flat_map(|section| &section.watched);
        self.engine.watchers.mark(watched.map(|post| post.number));
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
        Arc::new(Published::new(log, frontier, self.sums.clone(), replicas))
    }
}

/// Events of one of this node's replicas, numbered on from `first`.
struct OwnRun<'a> {
    first: Dot,
    predecessors: Option<&'a ShortForm>,
    events: Vec<&'a LocalEvent>,
}

impl OwnRun<'_> {
    fn last_seq(&self) -> u64 {
        self.first.seq + self.events.len() as u64 - 1
    }

    fn blocks(&self, replicas: &Replicas) -> Vec<Bytes> {
        let numbered = (self.first.seq..).step_by(BLOCK_EVENTS_MAX);
        let chunks = self.events.chunks(BLOCK_EVENTS_MAX).zip(numbered);
        chunks
            .map(|(events, first_seq)| {
                let predecessors = self.predecessors.filter(|_| first_seq == 1).cloned();
                let block = block_of(events, (self.first.replica, first_seq), predecessors);
                Bytes::from(block::encode(&block, replicas))
            })
            .collect()
    }
}

/// The node's own events of a batch: one run, or two where it went on under a fresh replica.
fn own_runs(sections: &[Section]) -> Vec<OwnRun<'_>> {
    let mut runs: Vec<OwnRun<'_>> = Vec::new();
    for section in sections.iter().filter(|section| !section.local.is_empty()) {
        let first = section.first.expect("local events have numbers");
        match runs.last_mut() {
            Some(run) if run.first.replica == first.replica => {
                assert_eq!(
                    run.last_seq() + 1,
                    first.seq,
                    "numbers stand in the log without gaps"
                );
                run.events.extend(&section.local);
            }
            _ => runs.push(OwnRun {
                first,
                predecessors: section.predecessors.as_ref(),
                events: section.local.iter().collect(),
            }),
        }
    }
    runs
}

/// Peers' blocks first, then this node's events in as few blocks as they fit: neither builds on the
/// other, for nobody saw what is not durable. Only where the node went on under a fresh replica can a
/// peer's block follow an event of the batch; then everything stands in the order of the slots.
fn record_of(sections: &[Section], runs: &[OwnRun<'_>], replicas: &Replicas) -> CommitRecord {
    let remotes = || {
        sections
            .iter()
            .filter_map(|section| section.remote.as_ref())
    };
    let is_ours = |replica| runs.iter().any(|run| run.first.replica == replica);
    let rotated = runs.len() > 1 || remotes().any(|remote| is_ours(remote.head.replica));
    let mut blocks: Vec<Bytes> = Vec::new();
    for part in sections.chunks(if rotated { 1 } else { sections.len().max(1) }) {
        let remote = part.iter().filter_map(|section| section.remote.as_ref());
        blocks.extend(remote.map(|remote| remote.bytes.clone()));
        let own = own_runs(part);
        blocks.extend(own.iter().flat_map(|run| run.blocks(replicas)));
    }
    let requests = sections.iter().flat_map(|section| &section.requests);
    CommitRecord {
        blocks,
        requests: requests.cloned().collect(),
    }
}

/// Gathers events into a block with its dictionaries.
fn block_of(
    events: &[&LocalEvent],
    (replica, first_seq): (ReplicaIndex, u64),
    predecessors: Option<ShortForm>,
) -> Block {
    let mut posts = Dictionary::default();
    let mut counters: Vec<CounterName> = Vec::new();
    let mut counter_place = |name: &CounterName| {
        let known = counters.iter().position(|other| other == name);
        let place = known.unwrap_or_else(|| {
            counters.push(name.clone());
            counters.len() - 1
        });
        place as u32
    };
    let mut out = Vec::with_capacity(events.len());
    for event in events {
        let action = match &event.action {
            LocalAction::Empty => Action::Empty,
            LocalAction::Like {
                post,
                user,
                increments,
                replaced,
            } => Action::Like {
                post: posts.place(post),
                user: user.clone(),
                increments: *increments,
                replaced: replaced.clone(),
            },
            LocalAction::Unlike {
                post,
                user,
                removed,
            } => Action::Unlike {
                post: posts.place(post),
                user: user.clone(),
                removed: removed.clone(),
            },
            LocalAction::Add {
                post,
                counter,
                increments,
                decrements,
            } => Action::Add {
                post: posts.place(post),
                counter: counter_place(counter),
                increments: *increments,
                decrements: *decrements,
            },
        };
        let time_ms = event.time_ms;
        out.push(Event { time_ms, action });
    }
    Block {
        replica,
        first_seq,
        predecessors,
        posts: posts.ids,
        counters,
        events: out,
    }
}

#[derive(Default)]
struct Dictionary {
    ids: Vec<crate::ids::PostId>,
    places: HashMap<PostNumber, u32>,
}

impl Dictionary {
    fn place(&mut self, post: &Post) -> u32 {
        let next = self.ids.len() as u32;
        let place = *self.places.entry(post.number).or_insert(next);
        if place == next {
            self.ids.push(post.id.clone());
        }
        place
    }
}
