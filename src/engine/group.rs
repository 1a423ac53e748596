//! Commands of one shard, applied under its lock: what each does to the likers, the figures and the
//! fingerprint, and the events that say so.

use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::crdt::changes::{Changes, PostContext};
use crate::crdt::dot::{Dot, Dots, ReplicaIndex, Replicas};
use crate::crdt::event::{Action, Event};
use crate::crdt::figures::Figures;
use crate::crdt::fingerprint::Fingerprint;
use crate::crdt::likers::{Likers, Place};
use crate::crdt::user_key::Who;
use crate::engine::Engine;
use crate::engine::command::{Command, Kind};
use crate::engine::commit::Slot;
use crate::engine::plan::Planned;
use crate::engine::post::{Post, PostNumber};
use crate::engine::requests::{Done, Outcome, RequestRecord};
use crate::engine::section::Section;
use crate::engine::shard::Shard;
use crate::ids::{RequestId, UserId};

/// A command with all that can be found out without a lock. What is asked for under one stands here itself: commands lie in
/// another order.
pub(super) struct Prepared<'a> {
    pub kind: Kind,
    /// See [`Command::bytes_max`].
    pub bytes_max: u32,
    pub command: &'a Command,
    pub post: &'a Arc<Post>,
    pub user: Option<Who<'a>>,
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
    /// By this node's clock, which is read once for all.
    time_ms: u64,
    section: Section,
    /// What became of each command, in their order here.
    done: Vec<Done>,
}

/// Commands of one post, being applied under the lock of its figures.
struct Run<'a> {
    post: &'a Arc<Post>,
    context: PostContext<'a>,
    /// The post's place in the section.
    place: u32,
    /// The own replica's increments. The figures follow at the end, or were drawn before: what lies between is
    /// never seen.
    increments: u64,
    changes: Changes,
}

impl<'a> Group<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        replicas: &'a Replicas,
        slot: Option<&'a Slot>,
        durable: (ReplicaIndex, u64),
        (events, commands): (u64, usize),
    ) -> Self {
        let next_seq = slot.map_or(0, |slot| slot.first_seq);
        Self {
            engine,
            replicas,
            slot,
            durable,
            next_seq,
            time_ms: engine.now_ms(),
            section: Section {
                local: Vec::with_capacity(events as usize),
                ..Section::default()
            },
            done: Vec::with_capacity(commands),
        }
    }

    /// Applies commands of one post, under the lock of its figures unless what they make was drawn.
    pub(super) fn apply_run(
        &mut self,
        (shard, wide): (&mut Shard, &mut Wide<'_>),
        (items, planned): (&[usize], &[Planned]),
        prepared: &[Prepared<'_>],
    ) {
        let post = prepared[items[0]].post;
        let time_ms = self.time_ms;
        let mut likers = RunLikers::Unchanged(Some(shard));
        let mut own_lock: Option<MutexGuard<'_, Figures>> = None;
        let mut of_run = match wide.of(post) {
            Some(of_run) => of_run,
            None => OfRun::Held(&mut *own_lock.insert(post.figures())),
        };
        let mut run = Run {
            post,
            context: self.engine.context(post, self.replicas),
            place: self.section.posts.len() as u32,
            increments: of_run.increments(self.durable.0),
            changes: Changes::default(),
        };
        let before = self.section.local.len();
        for (at, planned) in items.iter().zip(planned) {
            let item = &prepared[*at];
            let done = match (item.kind, item.user) {
                (Kind::Like, Some(who)) => self.like(&mut likers, &mut run, who, *planned),
                (Kind::Unlike, Some(who)) => {
                    self.unlike(&mut likers, &mut run, who, (&item.named, planned.place))
                }
                _ => self.add(of_run.held(), &mut run, item.command),
            };
            self.done.push(done);
        }
        if self.section.local.len() == before {
            return;
        }
        self.engine.directory.keep(post);
        self.section.posts.push(post.clone());
        let Run {
            context,
            mut changes,
            ..
        } = run;
        let figures = match of_run {
            OfRun::Held(figures) => {
                // A replica that has made no like has no entry.
                let (own, made) = (self.durable.0, run.increments);
                if made > figures.increments(own) {
                    changes.fingerprint += figures.raise_increments(context, own, made);
                }
                figures
            }
            OfRun::Drawn(drawn) => {
                drawn.increments = run.increments;
                changes.fingerprint += std::mem::take(&mut drawn.print);
                &mut *own_lock.insert(post.figures())
            }
        };
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

    /// The event takes the next number.
    fn make(&mut self, action: Action) {
        let time_ms = self.time_ms;
        self.section.local.push(Event { time_ms, action });
        self.next_seq += 1;
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
        likers: &mut RunLikers<'_>,
        run: &mut Run<'_>,
        who: Who<'_>,
        mut planned: Planned,
    ) -> Done {
        if !planned.makes {
            let live = likers.dots_at(run.post, &mut planned.place, who);
            if self.engine.absorbs(&live, self.durable) {
                return Done {
                    outcome: Outcome::LikedAgain,
                    dot: self.replicas.smallest(&live),
                    removed: Dots::new(),
                };
            }
        }
        let dot = self.next_dot();
        let likers = likers.for_change(run.post);
        let (context, changes) = (run.context, &mut run.changes);
        let replaced = likers.set_at(planned.place, context, who, &[dot], changes);
        self.remember_orphans(run, who, &replaced);
        run.increments += 1;
        let outcome = match replaced.is_empty() {
            true => Outcome::Liked,
            false => Outcome::LikedAgain,
        };
        self.make(Action::Like {
            post: run.place,
            user: who.user.clone(),
            increments: run.increments,
            replaced: Dots::from_slice(&replaced),
        });
        Done {
            outcome,
            dot: Some(dot),
            removed: replaced,
        }
    }

    fn unlike(
        &mut self,
        likers: &mut RunLikers<'_>,
        run: &mut Run<'_>,
        who: Who<'_>,
        (named, mut place): (&[Dot], Place),
    ) -> Done {
        let post = run.post;
        let refused = |outcome| Done {
            outcome,
            dot: None,
            removed: Dots::new(),
        };
        let live = likers.dots_at(post, &mut place, who);
        let Some(unseen) = self.unseen(post, who.user, &live, named) else {
            return refused(Outcome::OrphanRemovalsFull);
        };
        if live.is_empty() && unseen.is_empty() {
            return refused(Outcome::NotLiked);
        }
        let mut removed = live.clone();
        removed.extend(unseen);
        if !live.is_empty() {
            let likers = likers.for_change(post);
            likers.set_at(place, run.context, who, &[], &mut run.changes);
        }
        self.remember_orphans(run, who, &removed);
        let outcome = match live.is_empty() {
            true => Outcome::NotLiked,
            false => Outcome::Unliked,
        };
        self.make(Action::Unlike {
            post: run.place,
            user: who.user.clone(),
            removed: removed.clone(),
        });
        Done {
            outcome,
            dot: None,
            removed,
        }
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
    fn remember_orphans(&mut self, run: &mut Run<'_>, who: Who<'_>, removed: &[Dot]) {
        if removed.iter().all(|dot| dot.replica == self.durable.0) {
            return;
        }
        let mut orphans = self.engine.orphans.lock();
        let frontier = self.engine.frontier.read();
        for dot in removed {
            if dot.replica == self.durable.0 || frontier.covers(*dot) {
                continue;
            }
            let further = orphans
                .known()
                .claimed_elsewhere(*dot, &run.post.id, who.user);
            let ranges = further.into_iter().flatten();
            self.section
                .further
                .extend(ranges.map(|range| (range, *dot)));
            if orphans.known_mut().insert(*dot, &run.post.id, who.user) {
                run.changes.fingerprint += run.context.orphan_removal(who.hash(), *dot);
            }
        }
    }

    fn add(&mut self, figures: &mut Figures, run: &mut Run<'_>, command: &Command) -> Done {
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
            return done;
        };
        run.changes.fingerprint += figures.merge_counter(run.context, counter, entry);
        let place = self.section.counters.len() as u32;
        self.section.counters.push(counter.clone());
        self.make(Action::Add {
            post: run.place,
            counter: place,
            increments: entry.increments,
            decrements: entry.decrements,
        });
        done
    }

    /// Fills up the numbers that were drawn and not used, tells what became of the commands among all of the write, and adds what
    /// is remembered of the request.
    pub(super) fn finish(
        mut self,
        events: u64,
        request: Option<(&RequestId, u64)>,
        (here, all): (&[usize], &mut [Option<Done>]),
    ) -> Section {
        let time_ms = self.time_ms;
        while (self.section.local.len() as u64) < events {
            let action = Action::Empty;
            self.section.local.push(Event { time_ms, action });
        }
        if let Some((id, digest)) = request {
            let places = here.iter().map(|at| *at as u32);
            self.section.requests.push(RequestRecord {
                id: id.clone(),
                digest,
                at_ms: time_ms,
                items: all.len() as u32,
                done: places.zip(self.done.iter().cloned()).collect(),
            });
        }
        // By itself: waits for the memory of one overlap with those for others.
        for (at, done) in here.iter().zip(self.done) {
            all[*at] = Some(done);
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
        self.section
    }
}

/// The likers of a run's post. They are looked for once, and only where one of them changes.
enum RunLikers<'a> {
    Unchanged(Option<&'a mut Shard>),
    Changed(&'a mut Likers),
}

impl<'a> RunLikers<'a> {
    fn dots_at(&self, post: &Post, place: &mut Place, who: Who<'_>) -> Dots {
        let likers = match self {
            Self::Unchanged(shard) => shard.as_ref().and_then(|shard| shard.likers(post)),
            Self::Changed(likers) => Some(&**likers),
        };
        likers.map_or_else(Dots::new, |likers| likers.dots_at(place, who))
    }

    fn for_change(&mut self, post: &Arc<Post>) -> &mut Likers {
        if let Self::Unchanged(shard) = self {
            let shard = shard.take().expect("taken once, and changed then");
            *self = Self::Changed(shard.likers_mut(post));
        }
        match self {
            Self::Changed(likers) => likers,
            Self::Unchanged(_) => unreachable!("changed above"),
        }
    }
}

/// Figures that are locked before numbers are drawn.
type LockedFigures<'a> = Vec<(PostNumber, MutexGuard<'a, Figures>)>;

/// Increments that were drawn with the numbers of the likes which make them.
pub(super) struct Drawn {
    pub post: PostNumber,
    /// Before those of the likes that are still to be applied.
    pub increments: u64,
    /// The change of the fingerprint by all of them.
    pub print: Fingerprint,
}

/// How a replica's increments on posts that are spread come to ascend with its numbers. Two shards would otherwise
/// draw them in another order, and the published sum between the two would belong to no frontier.
pub(super) enum Wide<'a> {
    Drawn(Vec<Drawn>),
    /// The figures are locked until all commands are applied.
    Held(LockedFigures<'a>),
}

/// The figures of one run.
enum OfRun<'a> {
    Drawn(&'a mut Drawn),
    Held(&'a mut Figures),
}

impl Wide<'_> {
    /// None for a post that is not spread, or of which nothing is made.
    fn of(&mut self, post: &Post) -> Option<OfRun<'_>> {
        match self {
            Self::Drawn(drawn) => {
                let mut drawn = drawn.iter_mut();
                drawn.find(|it| it.post == post.number).map(OfRun::Drawn)
            }
            Self::Held(held) => {
                let found = held.iter_mut().find(|(number, _)| *number == post.number);
                found.map(|(_, figures)| OfRun::Held(figures))
            }
        }
    }
}

impl OfRun<'_> {
    fn increments(&self, own: ReplicaIndex) -> u64 {
        match self {
            Self::Drawn(drawn) => drawn.increments,
            Self::Held(figures) => figures.increments(own),
        }
    }

    fn held(&mut self) -> &mut Figures {
        match self {
            Self::Held(figures) => figures,
            Self::Drawn(_) => unreachable!("an add has the figures locked"),
        }
    }
}

/// Locks the figures of posts that are spread, in the order of their numbers.
pub(super) fn lock_wide<'a>(here: &[usize], prepared: &'a [Prepared<'_>]) -> LockedFigures<'a> {
    let posts = here.iter().map(|at| prepared[*at].post);
    let mut wide: Vec<&Arc<Post>> = posts.filter(|post| post.is_wide()).collect();
    wide.sort_unstable_by_key(|post| post.number);
    wide.dedup_by_key(|post| post.number);
    let locked = wide.into_iter().map(|post| (post.number, post.figures()));
    locked.collect()
}
