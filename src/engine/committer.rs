//! The log's worker: takes batches, makes each durable with one sync, then publishes it.
//!
//! Order, and its reason: append and sync → remember requests → publish the frontier and fingerprint →
//! answer those who wait → mark watched posts. Whoever is answered finds its own write published.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::block;
use crate::codec::vector::put_frontier;
use crate::crdt::dot::{ReplicaIndex, Replicas};
use crate::crdt::event::{Action, Block, Event};
use crate::crdt::fingerprint::RangeSums;
use crate::crdt::frontier::{Frontier, ShortForm};
use crate::engine::commit::{Batch, OutcomeUnknown, Refused, Ticket};
use crate::engine::post::{Post, PostNumber};
use crate::engine::published::Published;
use crate::engine::record::{COMMIT_RECORD, CommitRecord, encode};
use crate::engine::section::{LocalAction, LocalEvent, Section};
use crate::engine::Engine;
use crate::ids::CounterName;
use crate::limits::BLOCK_EVENTS_MAX;
use crate::log::{AppendError, LogWriter, Position, RecordKind};

/// What is durable, as the committer keeps it up.
pub struct Committer {
    engine: Arc<Engine>,
    log: LogWriter,
    frontier: Frontier,
    sums: RangeSums,
    /// The running replica and the next of its numbers to be logged.
    own: (ReplicaIndex, u64),
    position: Position,
}

impl Committer {
    /// Goes on from what recovery found, which is synced.
    pub fn new(engine: Arc<Engine>, log: LogWriter, frontier: Frontier, sums: RangeSums) -> Self {
        let (own, _) = engine.queue.own();
        let position = log.end();
        engine.queue.set_room(log.room().bytes());
        let committer = Self {
            engine,
            log,
            frontier,
            sums,
            own: (own, 1),
            position,
        };
        let first = committer.published(Ticket(0));
        committer.engine.board.publish(first.clone());
        committer.engine.queue.complete_first(first);
        committer
    }

    /// Runs until the queue is closed and empty, or the log fails. Returns whether it failed.
    pub async fn run(mut self) -> Result<(), AppendError> {
        let room = self.log.room();
        while let Some((batch, last, admitted)) = self.engine.queue.take().await {
            let sections = batch.sections().await;
            let outcome = self.commit(&batch, last, sections).await;
            self.engine.queue.set_room(room.bytes());
            self.engine.queue.settle(admitted);
            if let Err(error) = outcome {
                tracing::error!(%error, "the log failed; no writes are taken until a restart");
                self.engine.queue.close(Refused::Poisoned);
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
        let mut record = CommitRecord::default();
        let mut local = Vec::new();
        let mut predecessors = None;
        for section in &sections {
            record.blocks.extend(section.remote.iter().map(|remote| remote.bytes.clone()));
            record.requests.extend(section.requests.iter().cloned());
            local.extend(section.local.iter());
            predecessors = predecessors.or_else(|| section.predecessors.clone());
        }
        self.follow_rotation();
        let own_blocks = self.own_blocks(&local, predecessors, &replicas);
        record.blocks.extend(own_blocks);
        if !record.blocks.is_empty() || !record.requests.is_empty() {
            let payload = encode(&record, &replicas);
            let records = vec![(RecordKind(COMMIT_RECORD), vec![payload])];
            let frontier = &self.frontier;
            let context = || {
                let mut out = Vec::new();
                put_frontier(&mut out, &replicas, frontier);
                Bytes::from(out)
            };
            self.position = self.log.append(records, context).await?.end;
        }
        self.publish(batch, last, &sections, local.len() as u64, replicas);
        Ok(())
    }

    /// The running replica may have been replaced. All slots of one batch have the same: a rotation
    /// happens under all shards' locks, and waits for the open batch.
    fn follow_rotation(&mut self) {
        let (own, _) = self.engine.queue.own();
        if own != self.own.0 {
            self.own = (own, 1);
        }
    }

    /// This node's own events as blocks.
    fn own_blocks(
        &mut self,
        local: &[&LocalEvent],
        mut predecessors: Option<ShortForm>,
        replicas: &Replicas,
    ) -> Vec<Bytes> {
        let mut first_seq = self.own.1;
        let chunks = local.chunks(BLOCK_EVENTS_MAX);
        chunks
            .map(|events| {
                let numbered = (self.own.0, first_seq);
                let block = block_of(events, numbered, predecessors.take());
                first_seq += events.len() as u64;
                Bytes::from(block::encode(&block, replicas))
            })
            .collect()
    }

    fn publish(
        &mut self,
        batch: &Batch,
        last: Ticket,
        sections: &[Section],
        local: u64,
        replicas: Arc<Replicas>,
    ) {
        for section in sections {
            if let Some(remote) = &section.remote {
                self.advance(remote.head.replica, remote.predecessors.as_ref(), remote.head.last_seq());
            }
            if let Some(raise) = &section.raise {
                self.frontier.raise(&raise.vector, &raise.lineage);
            }
            for (range, change) in &section.prints {
                self.sums.add(*range, *change);
            }
        }
        let predecessors = sections.iter().find_map(|section| section.predecessors.clone());
        let (own, next) = self.own;
        if local > 0 {
            self.advance(own, predecessors.as_ref(), next + local - 1);
            self.own.1 += local;
        }
        drop(replicas);
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
        let replicas = (self.engine.replicas.all(), self.own.0);
        let log = (ticket, self.position);
        Arc::new(Published::new(log, frontier, self.sums.clone(), replicas))
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
        predecessors: predecessors.filter(|_| first_seq == 1),
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
