//! Peers' blocks of events: checked, applied once and without gaps, logged as they came.

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{DecodeError, block};
use crate::crdt::dot::ReplicaIndex;
use crate::crdt::event::Block;
use crate::engine::Engine;
use crate::engine::apply::LockedShards;
use crate::engine::commit::{CommitWait, Demand, Refused, Slot};
use crate::engine::incoming::{Applier, Incoming};
use crate::engine::post::Post;
use crate::engine::section::{RemoteBlock, Section};
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

/// What is known of a block before it is applied.
pub(super) enum Known {
    /// Its events up to this number.
    UpTo(u64),
    Whole,
    /// Something before it is missing.
    NotBefore,
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
        let have = match self.known(decoded) {
            Known::UpTo(have) => have,
            Known::Whole => return Replayed::Covered,
            Known::NotBefore => return Replayed::Missing,
        };
        let none = || Ok(None::<Slot>);
        let applied = self.apply_block(decoded, have, Section::default(), none);
        let (_, section) = applied.expect("replay reserves nothing");
        Replayed::Applied(Box::new(section))
    }

    /// How much of a block of this folder's own log, or of a snapshot's tail, is known.
    pub(super) fn known(&self, decoded: &Block) -> Known {
        let have = self.frontier.read().get(decoded.replica);
        let is_own = decoded.replica == self.own_covered().0;
        if is_own || decoded.last_seq() <= have {
            return Known::Whole;
        }
        match decoded.first_seq > have + 1 || !self.covers_predecessors(decoded) {
            true => Known::NotBefore,
            false => Known::UpTo(have),
        }
    }

    /// Dots of the running replica beyond what it made are refused, wherever they stand.
    fn check_own(&self, decoded: &Block) -> Result<(), RemoteError> {
        let (own, made) = self.own_covered();
        let events = decoded.events.iter();
        let named = events.filter_map(|event| event.action.named()).flatten();
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
        let new = decoded.dotted().filter(|(dot, _)| dot.seq > have);
        let new: Vec<Incoming<'_>> = new
            .map(|(dot, event)| Incoming::of(dot, event, &posts))
            .collect();
        let mut shards = self.lock_for(&new);
        if self.is_frozen(&posts) || self.is_frozen_orphan(new.iter().map(|it| it.dot)) {
            return Err(Refused::Frozen);
        }
        let reserved = reserve()?;
        let replicas = self.replicas.all();
        let mut applier = Applier {
            engine: self,
            replicas: &replicas,
            own: self.own_covered(),
            counters: &decoded.counters,
            shards: &mut shards,
            section: &mut section,
        };
        applier.apply(&new);
        self.cover(decoded);
        drop(shards);
        posts.iter().for_each(|post| self.widen_if_large(post));
        section.watched = posts.into_iter().filter(|post| post.is_watched()).collect();
        Ok((reserved, section))
    }

    /// The block's events are applied: the frontier says so.
    pub(super) fn cover(&self, decoded: &Block) {
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
    }

    /// Locks the shards of the events. A post may be spread over all shards while we wait for them.
    fn lock_for(&self, new: &[Incoming<'_>]) -> LockedShards<'_> {
        let shards = self.shards.len();
        loop {
            let mut wanted = vec![false; shards];
            let places = || new.iter().filter_map(|it| it.shard(shards));
            places().for_each(|shard| wanted[shard] = true);
            let locked = self.lock_some(|index| wanted[index]);
            if places().all(|shard| wanted[shard]) {
                return locked;
            }
        }
    }
}
