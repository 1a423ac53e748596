//! Peers' blocks of events: checked, applied once and without gaps, logged as they came.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{DecodeError, block};
use crate::crdt::changes::{Changes, PostContext};
use crate::crdt::dot::{Dot, Dots, ReplicaIndex, Replicas};
use crate::crdt::event::{Action, Block, Event};
use crate::crdt::figures::Figures;
use crate::crdt::fingerprint::UserHash;
use crate::crdt::likers::Who;
use crate::crdt::merge::{self, Knowledge, Target};
use crate::crdt::pn_counter::CounterEntry;
use crate::engine::Engine;
use crate::engine::apply::LockedShards;
use crate::engine::commit::{CommitWait, Demand, Refused, Slot};
use crate::engine::post::Post;
use crate::engine::section::{RemoteBlock, Section};
use crate::ids::UserId;
use crate::planted::{Bug, is_planted};

/// What became of a peer's block.
pub enum Applied {
    /// It is in memory, and will be durable when the wait is over.
    New(CommitWait),
    /// All of it was covered already.
    Known,
    /// It cannot be applied yet: something before it is missing, or a snapshot is being merged. Nothing
    /// was changed.
    NotYet,
}

/// What became of a block that is not from a stream.
pub(super) enum Replayed {
    Applied(Box<Section>),
    Covered,
    /// Something before it is missing. Nothing was changed.
    Missing,
}

/// Why a peer's block was refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Events of this node's running replica that it never made: two processes share an identity.
    #[error("events of this node's running replica up to {claimed}; it made {made}")]
    Alarm { claimed: u64, made: u64 },
    /// There is no room; try again later.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Engine {
    /// Applies a block from a peer, or as much of it as is new.
    pub fn apply_remote(&self, bytes: &Bytes) -> Result<Applied, RemoteError> {
        let decoded = self.decode_block(bytes)?;
        self.check_own(&decoded)?;
        let _one_at_a_time = self.remote.lock();
        let have = self.frontier.read().get(decoded.replica);
        if is_planted(Bug::KnownNumberAccepted) && decoded.last_seq() <= have {
            let have = decoded.first_seq - 1;
            let none = || Ok(None::<Slot>);
            drop(self.apply_block(&decoded, have, Section::default(), none));
        }
        if decoded.replica == self.own_covered().0 || decoded.last_seq() <= have {
            return Ok(Applied::Known);
        }
        let is_held = self.is_held(decoded.replica);
        let covered = self.covers_predecessors(&decoded) && self.are_predecessors_sure(&decoded);
        if is_held || decoded.first_seq > have + 1 || !covered {
            return Ok(Applied::NotYet);
        }
        let section = Section {
            remote: Some(RemoteBlock {
                head: block::BlockHead {
                    replica: decoded.replica,
                    first_seq: decoded.first_seq,
                    events: decoded.events.len(),
                },
                predecessors: decoded.predecessors.clone(),
                bytes: bytes.clone(),
            }),
            ..Section::default()
        };
        let demand = Demand {
            events: 0,
            bytes: bytes.len() + 64,
        };
        let reserve = || self.queue.reserve(demand).map(Some);
        let (slot, section) = self.apply_block(&decoded, have, section, reserve)?;
        let slot = slot.expect("reserved");
        let retires = !section.retired.is_empty();
        let wait = slot.fill(section);
        if retires {
            self.renew_if_retired();
        }
        Ok(Applied::New(wait))
    }

    /// Applies a block of this folder's own log, or of a snapshot's tail, also while its replica is held.
    pub(super) fn replay(&self, decoded: &Block) -> Replayed {
        let _one_at_a_time = self.remote.lock();
        let have = self.frontier.read().get(decoded.replica);
        let is_own = decoded.replica == self.own_covered().0;
        if is_own || decoded.last_seq() <= have {
            return Replayed::Covered;
        }
        if decoded.first_seq > have + 1 || !self.covers_predecessors(decoded) {
            return Replayed::Missing;
        }
        let none = || Ok(None::<Slot>);
        let applied = self.apply_block(decoded, have, Section::default(), none);
        let (_, section) = applied.expect("replay reserves nothing");
        Replayed::Applied(Box::new(section))
    }

    /// Dots of the running replica beyond what it made are refused, wherever they stand.
    fn check_own(&self, decoded: &Block) -> Result<(), RemoteError> {
        let (own, made) = self.own_covered();
        let named = decoded.events.iter().flat_map(|event| match &event.action {
            Action::Like { replaced, .. } => replaced.as_slice(),
            Action::Unlike { removed, .. } => removed.as_slice(),
            Action::Empty | Action::Add { .. } | Action::Retire { .. } => &[],
        });
        let named = named.filter(|dot| dot.replica == own).map(|dot| dot.seq);
        let events = (decoded.replica == own).then(|| decoded.last_seq());
        let predecessors = decoded.predecessors.iter().flatten();
        let predecessors = predecessors
            .filter(|(replica, _)| *replica == own)
            .map(|(_, seq)| *seq);
        match named.chain(events).chain(predecessors).max() {
            Some(claimed) if claimed > made => Err(RemoteError::Alarm { claimed, made }),
            _ => Ok(()),
        }
    }

    /// Whether a snapshot is being merged that raises this replica.
    fn is_held(&self, replica: ReplicaIndex) -> bool {
        let held = self.held.read();
        held.as_ref().is_some_and(|held| held.get(replica) > 0)
    }

    /// Whether no predecessor is covered by a merge alone that is not durable yet: after a crash it would
    /// be missing before the block.
    fn are_predecessors_sure(&self, decoded: &Block) -> bool {
        let durable = self.board.newest();
        let predecessors = decoded.predecessors.iter().flatten();
        let mut held = predecessors.filter(|(replica, _)| self.is_held(*replica));
        held.all(|(replica, seq)| durable.vector.get(*replica) >= *seq)
    }

    fn covers_predecessors(&self, decoded: &Block) -> bool {
        let frontier = self.frontier.read();
        let (own, made) = self.own_covered();
        let covered = |(replica, seq): &(_, u64)| {
            frontier.get(*replica) >= *seq || (*replica == own && *seq <= made)
        };
        decoded.predecessors.iter().flatten().all(covered)
    }

    /// Applies the events beyond `have`, under the locks of all shards that they touch, so that nobody
    /// sees half of it under one frontier.
    fn apply_block<S>(
        &self,
        decoded: &Block,
        have: u64,
        mut section: Section,
        reserve: impl FnOnce() -> Result<S, Refused>,
    ) -> Result<(S, Section), Refused> {
        let posts: Vec<Arc<Post>> = decoded
            .posts
            .iter()
            .map(|id| self.directory.get_or_create(id))
            .collect();
        let new: Vec<(Dot, &Event)> = decoded.dotted().filter(|(dot, _)| dot.seq > have).collect();
        let mut shards = self.lock_for(&new, &posts);
        if self.is_frozen(&posts) || self.is_frozen_orphan(new.iter().map(|(dot, _)| *dot)) {
            return Err(Refused::Frozen);
        }
        let reserved = reserve()?;
        let replicas = self.replicas.all();
        let mut applier = Applier {
            engine: self,
            replicas: &replicas,
            own: self.own_covered(),
            shards: &mut shards,
            section: &mut section,
        };
        for (dot, event) in &new {
            applier.apply(*dot, event, decoded, &posts);
        }
        let mut frontier = self.frontier.write();
        let (own, made) = self.own_covered();
        if made > 0 {
            // A replica of this region elsewhere may name ours among its predecessors.
            frontier.advance(own, made);
        }
        if let Some(predecessors) = &decoded.predecessors {
            frontier.begin(decoded.replica, predecessors.clone());
        }
        frontier.advance(decoded.replica, decoded.last_seq());
        if is_planted(Bug::FrontierOverGap) && decoded.last_seq().is_multiple_of(8) {
            frontier.advance(decoded.replica, decoded.last_seq() + 1);
        }
        drop(frontier);
        drop(shards);
        posts.iter().for_each(|post| self.widen_if_large(post));
        section.watched = posts.into_iter().filter(|post| post.is_watched()).collect();
        Ok((reserved, section))
    }

    /// Locks the shards of the events. A post may be spread over all shards while we wait for them.
    fn lock_for(&self, new: &[(Dot, &Event)], posts: &[Arc<Post>]) -> LockedShards<'_> {
        loop {
            let places: Vec<usize> = new
                .iter()
                .filter_map(|(_, event)| self.place(event, posts))
                .collect();
            let wanted: HashSet<usize> = places.iter().copied().collect();
            let locked = self.lock_some(|index| wanted.contains(&index));
            let same = new
                .iter()
                .filter_map(|(_, event)| self.place(event, posts))
                .eq(places);
            if same {
                return locked;
            }
        }
    }

    /// The shard that an event's likers are in.
    fn place(&self, event: &Event, posts: &[Arc<Post>]) -> Option<usize> {
        match &event.action {
            Action::Like { post, user, .. } | Action::Unlike { post, user, .. } => {
                let post = &posts[*post as usize];
                Some(post.shard_of(UserHash::of(user), self.shards.len()))
            }
            Action::Empty | Action::Add { .. } | Action::Retire { .. } => None,
        }
    }
}

/// Applies events one by one, with all their shards locked.
struct Applier<'a, 'g> {
    engine: &'a Engine,
    replicas: &'a Replicas,
    own: (ReplicaIndex, u64),
    shards: &'a mut LockedShards<'g>,
    section: &'a mut Section,
}

impl Applier<'_, '_> {
    fn apply(&mut self, dot: Dot, event: &Event, decoded: &Block, posts: &[Arc<Post>]) {
        if is_planted(Bug::EventDropped) && dot.seq % 16 == 7 {
            return;
        }
        match &event.action {
            Action::Empty => {}
            Action::Retire { replicas } => {
                self.engine.regions.lock().retire(replicas.iter().copied());
                #[cfg(feature = "sim")]
                if is_planted(Bug::RetiredDropped) {
                    let posts = self.engine.directory.sorted();
                    posts
                        .iter()
                        .for_each(|post| post.figures().drop_increments(replicas));
                }
                self.section.retired.extend(replicas);
            }
            Action::Like {
                post,
                user,
                increments,
                replaced,
            } => {
                let post = &posts[*post as usize];
                let mut changes = self.change_likers(dot, post, user, replaced, true);
                let mut figures = post.figures();
                let context = self.context(post);
                changes.fingerprint += figures.raise_increments(context, dot.replica, *increments);
                self.note(post, &mut figures, event, &changes);
            }
            Action::Unlike {
                post,
                user,
                removed,
            } => {
                let post = &posts[*post as usize];
                let changes = self.change_likers(dot, post, user, removed, false);
                self.note(post, &mut post.figures(), event, &changes);
            }
            Action::Add {
                post,
                counter,
                increments,
                decrements,
            } => {
                let post = &posts[*post as usize];
                let entry = CounterEntry {
                    replica: dot.replica,
                    increments: *increments,
                    decrements: *decrements,
                };
                let counter = &decoded.counters[*counter as usize];
                let post = match is_planted(Bug::EventMisplaced) {
                    true => &posts[(dot.seq % posts.len() as u64) as usize],
                    false => post,
                };
                let mut changes = Changes::default();
                let mut figures = post.figures();
                changes.fingerprint += figures.merge_counter(self.context(post), counter, entry);
                self.note(post, &mut figures, event, &changes);
            }
        }
        self.resolve(dot);
    }

    fn context(&self, post: &Post) -> PostContext<'_> {
        self.engine.context(post, self.replicas)
    }

    /// Removes the dots that the event names, and adds its own where it is a like.
    fn change_likers(
        &mut self,
        dot: Dot,
        post: &Arc<Post>,
        user: &UserId,
        named: &[Dot],
        is_like: bool,
    ) -> Changes {
        let target = Target {
            post: &post.id,
            who: Who::of(user),
        };
        let index = post.shard_of(target.who.hash, self.engine.shards.len());
        let context = self.engine.context(post, self.replicas);
        let likers = self.shards.get(index).likers_mut(post);
        let mut orphans = self.engine.orphans.lock();
        let frontier = self.engine.frontier.read();
        let mut knowledge = Knowledge {
            frontier: &frontier,
            orphans: orphans.known_mut(),
            further: [self.own, (dot.replica, dot.seq)],
        };
        let live = likers.dots(target.who);
        let gone = named.iter().filter(|dot| !live.contains(dot));
        let gone = gone.filter(|dot| knowledge.covers(**dot)).copied();
        let gone: Dots = gone.collect();
        let claimed = named.iter().filter_map(|dot| {
            let claimed = knowledge
                .orphans
                .claimed_elsewhere(*dot, target.post, user)?;
            Some(claimed.map(|range| (range, *dot)))
        });
        self.section.further.extend(claimed.flatten());
        let mut changes = Changes::default();
        merge::remove(likers, context, &mut knowledge, target, named, &mut changes);
        // Where such a dot is not covered, the same removal leaves an orphan removal.
        let range = post.hash.range();
        self.section
            .further
            .extend(gone.into_iter().map(|dot| (range, dot)));
        if is_like {
            merge::add(likers, context, &knowledge, target, dot, &mut changes);
        }
        changes
    }

    /// Lets the post's figures and the fingerprint follow.
    fn note(&mut self, post: &Arc<Post>, figures: &mut Figures, event: &Event, changes: &Changes) {
        figures.touch(event.time_ms);
        post.credit(figures, changes);
        self.engine.count_likers(changes.likers());
        self.engine.note_changed_figures(post);
        let is_unlike = matches!(event.action, Action::Unlike { .. });
        if !(is_planted(Bug::FingerprintStale) && is_unlike) {
            self.section
                .prints
                .push((post.hash.range(), changes.fingerprint));
        }
    }

    /// The dot's event is applied: an orphan removal of it has done its work.
    fn resolve(&mut self, dot: Dot) {
        let orphan = self.engine.orphans.lock().resolve(dot);
        if let Some(orphan) = orphan {
            let change = self.engine.orphan_gone(dot, &orphan, self.replicas);
            self.section.prints.push(change);
        }
    }
}
