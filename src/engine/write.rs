//! Local commands: from the client's request to the slot of a batch.
//!
//! For the commands of one shard, under its lock: reserve a slot with as many numbers as there may be
//! events → change likers and figures → fill the slot. A number whose command changed nothing is logged
//! as an empty event. Then, without any lock: wait for the sync.

use std::sync::Arc;

use tokio::sync::SemaphorePermit;

use crate::crdt::dot::{Dot, Dots, ReplicaIndex};
use crate::crdt::user_key::Who;
use crate::engine::Engine;
use crate::engine::command::{Command, Write};
use crate::engine::commit::{CommitWait, OutcomeUnknown, Refused};
use crate::engine::group::{Group, Prepared, Wide};
use crate::engine::plan::{Plan, runs};
use crate::engine::post::Post;
use crate::engine::published::Published;
use crate::engine::replicas::TooManyUnseen;
use crate::engine::requests::{Begun, Done};
use crate::engine::section::SECTION_BYTES;
use crate::ids::RequestId;

/// Items of a batch that are applied before smaller writes and reads go on; the rest of the shard's is applied too.
const ITEMS_A_TURN: usize = 256;

/// What became of a write, once it is durable.
#[derive(Debug, Clone)]
pub struct Written {
    /// For each command.
    pub done: Vec<Done>,
    /// The durable frontier, which covers the write.
    pub token: Arc<str>,
}

/// Why a write got no answer.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Nothing happened, or nothing beyond what the request's earlier tries made durable.
    #[error(transparent)]
    Refused(Refused),
    #[error("the request id was used before with other contents")]
    RequestIdReused,
    /// A like id names numbers of this node's running replica that it never made. Nothing happened.
    #[error("the like id names a like that this node has not made")]
    FromTheFuture,
    /// Like ids have named more replicas that this node never heard of than it remembers. Nothing happened.
    #[error(transparent)]
    TooManyUnseen(#[from] TooManyUnseen),
    #[error(transparent)]
    OutcomeUnknown(#[from] OutcomeUnknown),
}

impl Engine {
    /// Applies the commands and waits until they are durable.
    ///
    /// Cancelling the wait leaves the outcome to be found out by a retry with the same request id.
    pub async fn write(&self, write: &Write) -> Result<Written, WriteError> {
        self.write_noting(write, || ()).await
    }

    /// As [`Self::write`], and says when all commands are applied in memory: a write that begins after
    /// that is applied after this one, though neither is durable yet. What is refused never says so.
    pub async fn write_noting(
        &self,
        write: &Write,
        applied: impl FnOnce(),
    ) -> Result<Written, WriteError> {
        let Some(id) = &write.request else {
            let items = vec![None; write.commands.len()];
            return self.run(write, items, None, applied).await;
        };
        let digest = write.digest();
        loop {
            match self
                .requests
                .begin(id, digest, write.commands.len(), self.now_ms())
            {
                Begun::Reused => return Err(WriteError::RequestIdReused),
                Begun::Answer(done, token) => return Ok(Written { done, token }),
                Begun::Wait(running) => running.ended().await,
                Begun::Run(items) => {
                    let _release = Release { engine: self, id };
                    return self.run(write, items, Some((id, digest)), applied).await;
                }
            }
        }
    }

    async fn run(
        &self,
        write: &Write,
        mut done: Vec<Option<Done>>,
        request: Option<(&RequestId, u64)>,
        applied: impl FnOnce(),
    ) -> Result<Written, WriteError> {
        let mut turn = self.turn(write.commands.len()).await;
        let runs = write.commands.chunk_by(|a, b| a.post() == b.post());
        let runs: Vec<&[Command]> = runs.collect();
        let posts = Held::of(self, &runs);
        let mut prepared = Vec::with_capacity(write.commands.len());
        for (run, post) in runs.iter().zip(&posts.posts) {
            self.prepare(run, post, &mut prepared)?;
        }
        let mut open = Vec::with_capacity(done.len());
        open.extend((0..done.len()).filter(|at| done[*at].is_none()));
        let mut waits = Vec::new();
        while !open.is_empty() {
            let refused = self
                .apply_open(&prepared, &mut open, request, &mut done, &mut waits)
                .await;
            // Others go on while this one waits.
            drop(turn.take());
            match refused {
                None => {}
                Some(Refused::BatchFull) => self.queue.wait_for_space().await,
                Some(Refused::RoomComing { bytes }) => self.queue.wait_for_room(bytes).await,
                Some(Refused::Frozen) => self.thawed().await,
                Some(refused) if waits.is_empty() => return Err(WriteError::Refused(refused)),
                // Part of the batch is on its way: what became of the whole cannot be said. It is waited
                // for, so that a retry finds what is durable and does not make it again.
                Some(_) => {
                    for wait in waits {
                        wait.await?;
                    }
                    return Err(OutcomeUnknown.into());
                }
            }
            turn = self.turn(open.len()).await;
        }
        applied();
        let mut newest: Option<Arc<Published>> = None;
        for wait in waits {
            let published = wait.await?;
            if newest
                .as_ref()
                .is_none_or(|known| known.ticket < published.ticket)
            {
                newest = Some(published);
            }
        }
        let newest = newest.unwrap_or_else(|| self.board.newest());
        let applied = |done: Option<Done>| done.expect("no command is open");
        Ok(Written {
            done: done.into_iter().map(applied).collect(),
            token: newest.token(self.cluster()),
        })
    }

    /// Waits until a large write may be applied: as many at a time as there are cores. All of them side by side would be in no
    /// core's cache, and each would take as long as all.
    async fn turn(&self, commands: usize) -> Option<SemaphorePermit<'_>> {
        if commands <= ITEMS_A_TURN {
            return None;
        }
        let turn = self.turns.acquire().await;
        Some(turn.expect("the semaphore is never closed"))
    }

    /// Prepares commands of one post.
    fn prepare<'a>(
        &self,
        commands: &'a [Command],
        post: &'a Arc<Post>,
        prepared: &mut Vec<Prepared<'a>>,
    ) -> Result<(), WriteError> {
        let (own, last) = self.queue.own();
        for command in commands {
            let mut named = Dots::new();
            let user = match command {
                Command::Add { .. } => None,
                Command::Like { user, .. } => Some(Who::of(user)),
                Command::Unlike {
                    user, named: ids, ..
                } => {
                    for (replica, seq) in ids {
                        let replica = self.replicas.intern_for_client(replica)?;
                        if replica == own && *seq > last {
                            return Err(WriteError::FromTheFuture);
                        }
                        named.push(Dot { seq: *seq, replica });
                    }
                    Some(Who::of(user))
                }
            };
            prepared.push(Prepared {
                kind: command.kind(),
                bytes_max: command.bytes_max() as u32,
                command,
                post,
                user,
                named,
            });
        }
        Ok(())
    }

    /// Applies what is open, shard by shard. Stops at the first refusal; what was applied is no longer open. Others have
    /// their turn after [`ITEMS_A_TURN`]: a lone call would wait long behind large batches.
    async fn apply_open(
        &self,
        prepared: &[Prepared<'_>],
        open: &mut Vec<usize>,
        request: Option<(&RequestId, u64)>,
        done: &mut [Option<Done>],
        waits: &mut Vec<CommitWait>,
    ) -> Option<Refused> {
        let by_shard = self.by_shard(open.drain(..), prepared);
        let mut refused = None;
        let mut applied = 0;
        for (shard, items) in by_shard.into_iter().enumerate() {
            if items.is_empty() {
                continue;
            }
            if refused.is_some() {
                open.extend(items);
                continue;
            }
            match self.apply_group(shard, &items, prepared, request, done) {
                Ok((wait, moved)) => {
                    applied += items.len() - moved.len();
                    waits.push(wait);
                    open.extend(moved);
                    if applied >= ITEMS_A_TURN {
                        applied = 0;
                        tokio::task::yield_now().await;
                    }
                }
                Err(why) => {
                    refused = Some(why);
                    open.extend(items);
                }
            }
        }
        open.sort_unstable();
        refused
    }

    /// The commands of each shard.
    fn by_shard(
        &self,
        open: impl ExactSizeIterator<Item = usize>,
        prepared: &[Prepared<'_>],
    ) -> Vec<Vec<usize>> {
        let mut counts = vec![0; self.shards.len()];
        let mut placed = Vec::with_capacity(open.len());
        for at in open {
            let shard = self.shard_of(&prepared[at]);
            counts[shard] += 1;
            placed.push((shard, at));
        }
        let mut by_shard: Vec<Vec<usize>> = counts.into_iter().map(Vec::with_capacity).collect();
        for (shard, at) in placed {
            by_shard[shard].push(at);
        }
        by_shard
    }

    fn shard_of(&self, prepared: &Prepared<'_>) -> usize {
        match prepared.user {
            Some(who) => prepared.post.shard_of(who.order(), self.shards.len()),
            None => prepared.post.home(self.shards.len()),
        }
    }

    /// Applies commands of one shard. Returns also those that have moved to another shard meanwhile.
    fn apply_group(
        &self,
        index: usize,
        items: &[usize],
        prepared: &[Prepared<'_>],
        request: Option<(&RequestId, u64)>,
        done: &mut [Option<Done>],
    ) -> Result<(CommitWait, Vec<usize>), Refused> {
        let mut shard = self.shards[index].lock();
        let is_here = |at: &usize| self.shard_of(&prepared[*at]) == index;
        let items = items.iter().copied();
        let (here, moved): (Vec<usize>, Vec<usize>) = match items.clone().all(|at| is_here(&at)) {
            true => (items.collect(), Vec::new()),
            false => items.partition(is_here),
        };
        if self.is_frozen(runs(&here, prepared).map(|run| prepared[run[0]].post)) {
            return Err(Refused::Frozen);
        }
        // Read once: were more durable at the second look, a like that needs no number would need one.
        let durable = self.durable_own();
        let plan = Plan::of(self, &shard, &here, prepared, durable);
        let events = plan.events;
        let (slot, mut wide) = match (events, request) {
            (0, None) => (None, Wide::Drawn(Vec::new())),
            _ => {
                let items = here.iter().map(|at| prepared[*at].bytes_max as usize);
                let bytes = items.sum::<usize>() + SECTION_BYTES;
                let (slot, wide) = self.reserve(&plan, bytes, (&here, prepared))?;
                (Some(slot), wide)
            }
        };
        if let Some((id, _)) = request {
            self.requests.note_pending(id);
        }
        let replicas = self.replicas.all();
        let size = (plan.events, here.len());
        let mut group = Group::new(self, &replicas, slot.as_ref(), durable, size);
        let mut from = 0;
        for run in runs(&here, prepared) {
            let planned = &plan.items[from..][..run.len()];
            group.apply_run((&mut shard, &mut wide), (run, planned), prepared);
            from += run.len();
        }
        drop(wide);
        let section = group.finish(events, request, (&here, done));
        let wait = match slot {
            Some(slot) => slot.fill(section),
            None => self.queue.barrier(),
        };
        drop(shard);
        for run in runs(&here, prepared) {
            self.widen_if_large(prepared[run[0]].post);
        }
        Ok((wait, moved))
    }

    /// Whether a like makes nothing because of the user's live dots: a dot of this process that still
    /// waits for its sync has left the node in no form, so nobody can have seen it and unliked it.
    pub(super) fn absorbs(&self, live: &[Dot], (own, synced_seq): (ReplicaIndex, u64)) -> bool {
        let unsynced = |dot: &Dot| dot.replica == own && dot.seq > synced_seq;
        match live {
            [] => false,
            [only] if unsynced(only) => true,
            _ => self.options.absorb_repeated_likes,
        }
    }

    /// The running replica and the number up to which its events are durable.
    fn durable_own(&self) -> (ReplicaIndex, u64) {
        let (own, _) = self.queue.own();
        (own, self.board.newest().vector.get(own))
    }
}

/// Posts of a write. Those of which nothing is written in the end are forgotten.
struct Held<'a> {
    engine: &'a Engine,
    posts: Vec<Arc<Post>>,
}

impl<'a> Held<'a> {
    /// One post for each run of commands.
    fn of(engine: &'a Engine, runs: &[&[Command]]) -> Self {
        let ids = runs.iter().map(|run| run[0].post());
        let posts = engine.directory.hold_all(ids);
        Self { engine, posts }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let posts = self.posts.drain(..);
        posts.for_each(|post| self.engine.directory.release(post));
    }
}

/// Ends a call with a request id, also when its future is dropped.
struct Release<'a> {
    engine: &'a Engine,
    id: &'a RequestId,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.engine.requests.release(self.id);
    }
}
