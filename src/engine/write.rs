//! Local commands: from the client's request to the slot of a batch.
//!
//! For the commands of one shard, under its lock: reserve a slot with as many numbers as there may be
//! events → change likers and figures → fill the slot. A number whose command changed nothing is logged
//! as an empty event. Then, without any lock: wait for the sync.

use std::sync::Arc;

use crate::codec::DecodeError;
use crate::crdt::changes::{Changes, PostContext};
use crate::crdt::dot::{Dot, Dots, ReplicaIndex, Replicas};
use crate::crdt::event::{Action, Event};
use crate::crdt::figures::Figures;
use crate::crdt::fingerprint::UserHash;
use crate::engine::Engine;
use crate::engine::command::{Command, Write};
use crate::engine::commit::{CommitWait, Demand, OutcomeUnknown, Refused, Slot};
use crate::engine::post::Post;
use crate::engine::published::Published;
use crate::engine::requests::{Begun, Done, Outcome, RequestRecord};
use crate::engine::section::Section;
use crate::engine::shard::Shard;
use crate::ids::{RequestId, UserId};

/// Bytes that a section takes beyond its events: the block's head, predecessors, requests.
const SECTION_BYTES: usize = 512;

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
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    OutcomeUnknown(#[from] OutcomeUnknown),
}

/// A command with all that can be found out without a lock.
struct Prepared<'a> {
    command: &'a Command,
    post: &'a Arc<Post>,
    user: Option<(&'a UserId, UserHash)>,
    named: Dots,
}

/// Commands of one shard, being applied under its lock.
struct Group<'a> {
    engine: &'a Engine,
    replicas: &'a Replicas,
    slot: Option<&'a Slot>,
    /// The running replica, which changes only under the locks of all shards, and its numbers up to which
    /// all is durable: dots beyond have not left the node.
    durable: (ReplicaIndex, u64),
    next_seq: u64,
    section: Section,
    done: Vec<(usize, Done)>,
}

/// Commands of one post, being applied under the lock of its figures.
struct Run<'a> {
    post: &'a Arc<Post>,
    /// The post's place in the section.
    place: u32,
    /// The own replica's increments once a like was made. The figures follow at the end: what lies
    /// between is never seen.
    increments: Option<u64>,
    changes: Changes,
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
        let runs = || write.commands.chunk_by(|a, b| a.post() == b.post());
        let posts = runs().map(|run| self.directory.get_or_create(run[0].post()));
        let posts: Vec<Arc<Post>> = posts.collect();
        let mut prepared = Vec::with_capacity(write.commands.len());
        for (run, post) in runs().zip(&posts) {
            self.prepare(run, post, &mut prepared)?;
        }
        let mut open: Vec<usize> = (0..done.len()).filter(|at| done[*at].is_none()).collect();
        let mut waits = Vec::new();
        while !open.is_empty() {
            let refused = self.apply_open(&prepared, &mut open, request, &mut done, &mut waits);
            match refused {
                None => {}
                Some(Refused::BatchFull) => self.queue.wait_for_space().await,
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
        Ok(Written {
            done: done.into_iter().flatten().collect(),
            token: newest.token(self.cluster()),
        })
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
                Command::Like { user, .. } => Some((user, UserHash::of(user))),
                Command::Unlike {
                    user, named: ids, ..
                } => {
                    for (replica, seq) in ids {
                        let replica = self.replicas.intern(replica)?;
                        if replica == own && *seq > last {
                            return Err(WriteError::FromTheFuture);
                        }
                        named.push(Dot { seq: *seq, replica });
                    }
                    Some((user, UserHash::of(user)))
                }
            };
            prepared.push(Prepared {
                command,
                post,
                user,
                named,
            });
        }
        Ok(())
    }

    /// Applies what is open, shard by shard. Stops at the first refusal; what was applied is no longer open.
    fn apply_open(
        &self,
        prepared: &[Prepared<'_>],
        open: &mut Vec<usize>,
        request: Option<(&RequestId, u64)>,
        done: &mut [Option<Done>],
        waits: &mut Vec<CommitWait>,
    ) -> Option<Refused> {
        let mut by_shard: Vec<Vec<usize>> = vec![Vec::new(); self.shards.len()];
        for at in open.drain(..) {
            by_shard[self.shard_of(&prepared[at])].push(at);
        }
        let mut refused = None;
        for (shard, items) in by_shard.into_iter().enumerate() {
            if items.is_empty() {
                continue;
            }
            if refused.is_some() {
                open.extend(items);
                continue;
            }
            match self.apply_group(shard, &items, prepared, request) {
                Ok((wait, group_done, moved)) => {
                    for (at, item) in group_done {
                        done[at] = Some(item);
                    }
                    waits.push(wait);
                    open.extend(moved);
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

    fn shard_of(&self, prepared: &Prepared<'_>) -> usize {
        match prepared.user {
            Some((_, hash)) => prepared.post.shard_of(hash, self.shards.len()),
            None => prepared.post.home(self.shards.len()),
        }
    }

    /// Applies commands of one shard. Returns also those that have moved to another shard meanwhile.
    #[allow(clippy::type_complexity)]
    fn apply_group(
        &self,
        index: usize,
        items: &[usize],
        prepared: &[Prepared<'_>],
        request: Option<(&RequestId, u64)>,
    ) -> Result<(CommitWait, Vec<(usize, Done)>, Vec<usize>), Refused> {
        let mut shard = self.shards[index].lock();
        let (here, moved): (Vec<usize>, Vec<usize>) = items
            .iter()
            .partition(|at| self.shard_of(&prepared[**at]) == index);
        // Read once: were more durable at the second look, a like that needs no number would need one.
        let durable = self.durable_own();
        let events = self.events_needed(&shard, &here, prepared, durable);
        let slot = match (events, request) {
            (0, None) => None,
            _ => {
                let bytes = here
                    .iter()
                    .map(|at| prepared[*at].command.bytes_max())
                    .sum::<usize>();
                let bytes = bytes + SECTION_BYTES;
                Some(self.queue.reserve(Demand { events, bytes })?)
            }
        };
        if let Some((id, _)) = request {
            self.requests.note_pending(id);
        }
        let replicas = self.replicas.all();
        let mut group = Group::new(self, &replicas, slot.as_ref(), durable, here.len());
        for run in here.chunk_by(|a, b| Arc::ptr_eq(prepared[*a].post, prepared[*b].post)) {
            group.apply_run(&mut shard, run, prepared);
        }
        let (section, done) = group.finish(events, request, prepared.len());
        let wait = match slot {
            Some(slot) => slot.fill(section),
            None => self.queue.barrier(),
        };
        drop(shard);
        for at in here {
            self.widen_if_large(prepared[at].post);
        }
        Ok((wait, done, moved))
    }

    /// As many numbers as the commands can use. Exact for a single one, so that a lone command without
    /// an effect draws none.
    fn events_needed(
        &self,
        shard: &Shard,
        here: &[usize],
        prepared: &[Prepared<'_>],
        durable: (ReplicaIndex, u64),
    ) -> u64 {
        let [only] = here else {
            return here.len() as u64;
        };
        let only = &prepared[*only];
        let needed = match (only.command, only.user) {
            (Command::Like { .. }, Some((user, hash))) => {
                let live = shard.dots(only.post, user, hash);
                !self.absorbs(live, durable)
            }
            (Command::Unlike { .. }, Some((user, hash))) => {
                !only.named.is_empty() || !shard.dots(only.post, user, hash).is_empty()
            }
            _ => true,
        };
        u64::from(needed)
    }

    /// Whether a like makes nothing because of the user's live dots: a dot of this process that still
    /// waits for its sync has left the node in no form, so nobody can have seen it and unliked it.
    fn absorbs(&self, live: &[Dot], (own, synced_seq): (ReplicaIndex, u64)) -> bool {
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

impl<'a> Group<'a> {
    fn new(
        engine: &'a Engine,
        replicas: &'a Replicas,
        slot: Option<&'a Slot>,
        durable: (ReplicaIndex, u64),
        items: usize,
    ) -> Self {
        let next_seq = slot.map_or(0, |slot| slot.first_seq);
        Self {
            engine,
            replicas,
            slot,
            durable,
            next_seq,
            section: Section::default(),
            done: Vec::with_capacity(items),
        }
    }

    /// Applies commands of one post, under the lock of its figures.
    fn apply_run(&mut self, shard: &mut Shard, run: &[usize], prepared: &[Prepared<'_>]) {
        let items = run;
        let post = prepared[items[0]].post;
        let mut run = Run {
            post,
            place: self.section.posts.len() as u32,
            increments: None,
            changes: Changes::default(),
        };
        let time_ms = self.engine.now_ms();
        let mut figures = post.figures();
        let before = self.section.local.len();
        for at in items {
            let item = &prepared[*at];
            let (action, done) = match (item.command, item.user) {
                (Command::Like { .. }, Some((user, hash))) => {
                    self.like(shard, &figures, &mut run, (user, hash))
                }
                (Command::Unlike { .. }, Some((user, hash))) => {
                    self.unlike(shard, &mut run, (user, hash), &item.named)
                }
                _ => self.add(&mut figures, &mut run, item.command),
            };
            if let Some(action) = action {
                self.section.local.push(Event { time_ms, action });
                self.next_seq += 1;
            }
            self.done.push((*at, done));
        }
        if self.section.local.len() == before {
            return;
        }
        self.section.posts.push(post.clone());
        let mut changes = run.changes;
        if let Some(increments) = run.increments {
            let context = self.context(post);
            changes.fingerprint += figures.raise_increments(context, self.durable.0, increments);
        }
        figures.touch(time_ms);
        self.engine.count_likers(changes.likers());
        post.credit(&mut figures, &changes);
        drop(figures);
        self.engine.note_changed_figures(post);
        self.section
            .prints
            .push((post.hash.range(), changes.fingerprint));
        if post.is_watched() {
            self.section.watched.push(post.clone());
        }
    }

    fn context(&self, post: &Post) -> PostContext<'a> {
        self.engine.context(post, self.replicas)
    }

    fn next_dot(&self) -> Dot {
        let slot = self.slot.expect("a command with an effect has a slot");
        Dot {
            seq: self.next_seq,
            replica: slot.replica,
        }
    }

    fn like(
        &mut self,
        shard: &mut Shard,
        figures: &Figures,
        run: &mut Run<'_>,
        (user, hash): (&UserId, UserHash),
    ) -> (Option<Action>, Done) {
        let live = shard.dots(run.post, user, hash);
        if self.engine.absorbs(live, self.durable) {
            let done = Done {
                outcome: Outcome::LikedAgain,
                dot: self.replicas.smallest(live),
                removed: Dots::new(),
            };
            return (None, done);
        }
        let dot = self.next_dot();
        let context = self.context(run.post);
        let dots = Dots::from_buf([dot]);
        let replaced = shard
            .likers_mut(run.post)
            .set(context, user, hash, dots, &mut run.changes);
        self.remember_orphans(run, (user, hash), &replaced);
        let made = run.increments;
        let increments = made.unwrap_or_else(|| figures.increments(dot.replica)) + 1;
        run.increments = Some(increments);
        let outcome = match replaced.is_empty() {
            true => Outcome::Liked,
            false => Outcome::LikedAgain,
        };
        let action = Action::Like {
            post: run.place,
            user: user.clone(),
            increments,
            replaced: replaced.clone(),
        };
        let done = Done {
            outcome,
            dot: Some(dot),
            removed: replaced,
        };
        (Some(action), done)
    }

    fn unlike(
        &mut self,
        shard: &mut Shard,
        run: &mut Run<'_>,
        (user, hash): (&UserId, UserHash),
        named: &[Dot],
    ) -> (Option<Action>, Done) {
        let post = run.post;
        let refused = |outcome| {
            let removed = Dots::new();
            let dot = None;
            (
                None,
                Done {
                    outcome,
                    dot,
                    removed,
                },
            )
        };
        let live: Dots = shard.dots(post, user, hash).iter().copied().collect();
        let Some(unseen) = self.unseen(post, user, &live, named) else {
            return refused(Outcome::OrphanRemovalsFull);
        };
        if live.is_empty() && unseen.is_empty() {
            return refused(Outcome::NotLiked);
        }
        let mut removed = live.clone();
        removed.extend(unseen);
        if !live.is_empty() {
            let context = self.context(post);
            shard
                .likers_mut(post)
                .set(context, user, hash, Dots::new(), &mut run.changes);
        }
        self.remember_orphans(run, (user, hash), &removed);
        let outcome = match live.is_empty() {
            true => Outcome::NotLiked,
            false => Outcome::Unliked,
        };
        let action = Action::Unlike {
            post: run.place,
            user: user.clone(),
            removed: removed.clone(),
        };
        let dot = None;
        (
            Some(action),
            Done {
                outcome,
                dot,
                removed,
            },
        )
    }

    /// Named dots that are neither live here nor known to be dead. None if there is no room to remember them.
    fn unseen(&self, post: &Post, user: &UserId, live: &[Dot], named: &[Dot]) -> Option<Dots> {
        if named.is_empty() {
            return Some(Dots::new());
        }
        let mut orphans = self.engine.orphans.lock();
        let frontier = self.engine.frontier.read();
        let dead = |dot: &Dot| {
            dot.replica == self.durable.0
                || frontier.covers(*dot)
                || orphans.known().contains(*dot, &post.id, user)
        };
        let mut unseen = Dots::new();
        for dot in named {
            if !live.contains(dot) && !dead(dot) && !unseen.contains(dot) {
                unseen.push(*dot);
            }
        }
        let max = self.engine.options.orphan_removals_max;
        if !orphans.has_room(unseen.len(), max, &frontier) {
            return None;
        }
        unseen.iter().for_each(|dot| orphans.note_client_made(*dot));
        Some(unseen)
    }

    /// Removed dots whose events are not covered here will arrive, and must be found dead.
    fn remember_orphans(
        &self,
        run: &mut Run<'_>,
        (user, hash): (&UserId, UserHash),
        removed: &[Dot],
    ) {
        if removed.iter().all(|dot| dot.replica == self.durable.0) {
            return;
        }
        let mut orphans = self.engine.orphans.lock();
        let frontier = self.engine.frontier.read();
        for dot in removed {
            let covered = dot.replica == self.durable.0 || frontier.covers(*dot);
            if !covered && orphans.known_mut().insert(*dot, &run.post.id, user) {
                run.changes.fingerprint += self.context(run.post).orphan_removal(hash, *dot);
            }
        }
    }

    fn add(
        &mut self,
        figures: &mut Figures,
        run: &mut Run<'_>,
        command: &Command,
    ) -> (Option<Action>, Done) {
        let Command::Add { counter, delta, .. } = command else {
            unreachable!("likes and unlikes have a user");
        };
        let mut done = Done {
            outcome: Outcome::Added,
            dot: None,
            removed: Dots::new(),
        };
        let replica = self.next_dot().replica;
        let known = figures.counters().get(counter).cloned().unwrap_or_default();
        let Ok(entry) = known.plan_add(replica, *delta) else {
            done.outcome = Outcome::BeyondBound;
            return (None, done);
        };
        let context = self.context(run.post);
        run.changes.fingerprint += figures.merge_counter(context, counter, entry);
        let place = self.section.counters.len() as u32;
        self.section.counters.push(counter.clone());
        let action = Action::Add {
            post: run.place,
            counter: place,
            increments: entry.increments,
            decrements: entry.decrements,
        };
        (Some(action), done)
    }

    /// Fills up the numbers that were drawn and not used, and adds what is remembered of the request.
    fn finish(
        mut self,
        events: u64,
        request: Option<(&RequestId, u64)>,
        items: usize,
    ) -> (Section, Vec<(usize, Done)>) {
        let at_ms = self.engine.now_ms();
        let time_ms = self
            .section
            .local
            .last()
            .map_or(at_ms, |event| event.time_ms);
        while (self.section.local.len() as u64) < events {
            let action = Action::Empty;
            self.section.local.push(Event { time_ms, action });
        }
        if let Some((id, digest)) = request {
            let numbered = self
                .done
                .iter()
                .map(|(at, done)| (*at as u32, done.clone()));
            self.section.requests.push(RequestRecord {
                id: id.clone(),
                digest,
                at_ms,
                items: items as u32,
                done: numbered.collect(),
            });
        }
        if let Some(slot) = self.slot.filter(|_| events > 0) {
            self.section.first = Some(Dot {
                seq: slot.first_seq,
                replica: slot.replica,
            });
            if slot.first_seq == 1 {
                self.section.predecessors = Some(self.engine.begin_own(slot.replica));
            }
        }
        (self.section, self.done)
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
