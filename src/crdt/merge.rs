//! How removals, remote likes and snapshots act on a post's likers.
//!
//! All three rest on one question: is a dot that is absent dead, or still to come? The frontier and the
//! orphan removals answer it, and must belong to one instant.

use std::collections::HashMap;

use crate::crdt::changes::{Changes, PostContext};
use crate::crdt::dot::{Dot, Dots, ReplicaIndex};
use crate::crdt::frontier::Frontier;
use crate::crdt::likers::Likers;
use crate::crdt::orphan_removals::OrphanRemovals;
use crate::crdt::user_key::Who;
use crate::crdt::version_vector::VersionVector;
use crate::ids::{PostId, UserId};

/// What a node knows about dots that are absent.
pub struct Knowledge<'a> {
    pub frontier: &'a Frontier,
    pub orphans: &'a mut OrphanRemovals,
    /// Replicas that are covered further than the frontier says yet: this process's own, up to the last
    /// number drawn, and that of the block being applied, up to the event being applied.
    pub further: [(ReplicaIndex, u64); 2],
}

impl Knowledge<'_> {
    pub fn covers(&self, dot: Dot) -> bool {
        let further =
            |(replica, seq): &(ReplicaIndex, u64)| *replica == dot.replica && *seq >= dot.seq;
        self.frontier.covers(dot) || self.further.iter().any(further)
    }
}

/// A post and a user.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub post: &'a PostId,
    pub who: Who<'a>,
}

/// What an event from elsewhere does to a user: the dots that it names go, and where it is a like, its own comes unless it
/// is known to be dead. A named dot whose event is not covered here leaves an orphan removal, also where a
/// snapshot had brought the dot already: its event is still to come, and must find it dead.
pub fn apply(
    likers: &mut Likers,
    context: PostContext<'_>,
    knowledge: &mut Knowledge<'_>,
    target: Target<'_>,
    (named, own): (&[Dot], Option<Dot>),
    changes: &mut Changes,
) {
    let Target { post, who } = target;
    let mut place = likers.place_of(who);
    let live = likers.dots_at(&mut place, who);
    let mut dots = live.clone();
    dots.retain(|dot| !named.contains(dot));
    for dot in named {
        if !knowledge.covers(*dot) && knowledge.orphans.insert(*dot, post, who.user) {
            changes.fingerprint += context.orphan_removal(who.hash(), *dot);
        }
    }
    let own = own.filter(|dot| !dots.contains(dot));
    dots.extend(own.filter(|dot| !knowledge.orphans.contains(*dot, post, who.user)));
    if dots != live {
        likers.set_at(place, context, who, &dots, changes);
    }
}

/// The other side of a snapshot: everything it covers, and what it knows to be dead beyond that.
pub struct Other<'a> {
    pub frontier: &'a VersionVector,
    pub orphans: &'a OrphanRemovals,
}

impl Other<'_> {
    fn knows_dead(&self, dot: Dot, post: &PostId, user: &UserId) -> bool {
        self.frontier.covers(dot) || self.orphans.contains(dot, post, user)
    }
}

/// Merges all likers of the range `from..=to`, which the other side holds completely: a dot that both
/// hold stays; a dot that one side holds stays unless the other's frontier or orphan removals cover it.
pub fn merge_range(
    likers: &mut Likers,
    context: PostContext<'_>,
    (ours, other): (&Knowledge<'_>, &Other<'_>),
    post: &PostId,
    (from, to): (u64, u64),
    theirs: &[(UserId, Dots)],
    changes: &mut Changes,
) {
    let mut open: HashMap<UserId, Dots> = theirs.iter().cloned().collect();
    for liker in likers.in_range(from, to) {
        open.entry(liker.user).or_default();
    }
    for (user, theirs) in open {
        let who = Who::of(&user);
        let held = likers.dots(who);
        let mut kept: Dots = held
            .iter()
            .copied()
            .filter(|dot| theirs.contains(dot) || !other.knows_dead(*dot, post, &user))
            .collect();
        for dot in theirs {
            let dead = ours.covers(dot) || ours.orphans.contains(dot, post, &user);
            if !held.contains(&dot) && !dead {
                kept.push(dot);
            }
        }
        if kept != held {
            likers.set(context, who, &kept, changes);
        }
    }
}
