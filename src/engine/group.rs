//! Commands of one shard, applied under its lock: what each does to the likers, the figures and the
//! fingerprint, and the events that say so.

use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::crdt::changes::{Changes, PostContext};
use crate::crdt::dot::{Dot, Dots, ReplicaIndex, Replicas};
use crate::crdt::event::{Action, Event};
use crate::crdt::figures::Figures;
use crate::crdt::fingerprint::UserHash;
use crate::engine::Engine;
use crate::engine::command::Command;
use crate::engine::commit::Slot;
use crate::engine::post::{Post, PostNumber};
use crate::engine::requests::{Done, Outcome, RequestRecord};
use crate::engine::section::Section;
use crate::engine::shard::Shard;
use crate::ids::{RequestId, UserId};

/// A command with all that can be found out without a lock.
pub(super) struct Prepared<'a> {
    pub command: &'a Command,
    pub post: &'a Arc<Post>,
    pub user: Option<(&'a UserId, UserHash)>,
    pub named: Dots,
}

/// Commands of one shard, being applied under its lock.
pub(super) struct Group<'a> {
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

impl<'a> Group<'a> {
    pub(super) fn new(
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
    pub(super) fn apply_run(
        &mut self,
        (shard, locked): (&mut Shard, &mut LockedFigures<'_>),
        run: &[usize],
        prepared: &[Prepared<'_>],
    ) {
        let items = run;
        let post = prepared[items[0]].post;
        let mut run = Run {
            post,
            place: self.section.posts.len() as u32,
            increments: None,
            changes: Changes::default(),
        };
        let time_ms = self.engine.now_ms();
        let known = locked.iter_mut().find(|(number, _)| *number == post.number);
        let mut own_lock: Option<MutexGuard<'_, Figures>> = None;
        let figures: &mut Figures = match known {
            Some((_, figures)) => figures,
            None => &mut *own_lock.insert(post.figures()),
        };
        let before = self.section.local.len();
        for at in items {
            let item = &prepared[*at];
            let (action, done) = match (item.command, item.user) {
                (Command::Like { .. }, Some((user, hash))) => {
                    self.like(shard, figures, &mut run, (user, hash))
                }
                (Command::Unlike { .. }, Some((user, hash))) => {
                    self.unlike(shard, &mut run, (user, hash), &item.named)
                }
                _ => self.add(figures, &mut run, item.command),
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
        self.engine.directory.keep(post);
        self.section.posts.push(post.clone());
        let mut changes = run.changes;
        if let Some(increments) = run.increments {
            let context = self.context(post);
            changes.fingerprint += figures.raise_increments(context, self.durable.0, increments);
        }
        figures.touch(time_ms);
        self.engine.count_likers(changes.likers());
        post.credit(figures, &changes);
        drop(own_lock);
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
        &mut self,
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
            if dot.replica == self.durable.0 || frontier.covers(*dot) {
                continue;
            }
            let further = orphans.known().claimed_elsewhere(*dot, &run.post.id, user);
            let ranges = further.into_iter().flatten();
            self.section
                .further
                .extend(ranges.map(|range| (range, *dot)));
            if orphans.known_mut().insert(*dot, &run.post.id, user) {
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
    pub(super) fn finish(
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

/// Figures that are locked before numbers are drawn.
pub(super) type LockedFigures<'a> = Vec<(PostNumber, MutexGuard<'a, Figures>)>;

/// Locks the figures of posts that are spread, in the order of their numbers. Two shards would otherwise
/// draw a replica's increments in another order than its numbers, and the published sum between the
/// two would belong to no frontier.
pub(super) fn lock_wide<'a>(here: &[usize], prepared: &'a [Prepared<'_>]) -> LockedFigures<'a> {
    let posts = here.iter().map(|at| prepared[*at].post);
    let mut wide: Vec<&Arc<Post>> = posts.filter(|post| post.is_wide()).collect();
    wide.sort_unstable_by_key(|post| post.number);
    wide.dedup_by_key(|post| post.number);
    let locked = wide.into_iter().map(|post| (post.number, post.figures()));
    locked.collect()
}
