//! How removals, remote likes and snapshots act on a post's likers.
//!
//! All three rest on one question: is a dot that is absent dead, or still to come? The frontier and the
//! orphan removals answer it, and must belong to one instant.

use std::collections::HashMap;

use crate::crdt::changes::{Changes, PostContext};
use crate::crdt::dot::{Dot, Dots, ReplicaIndex};
use crate::crdt::frontier::Frontier;
use crate::crdt::likers::{Likers, Who};
use crate::crdt::orphan_removals::OrphanRemovals;
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

/// Removes dots that an event names. A dot whose event is not covered here leaves an orphan removal,
/// also where a snapshot had brought the dot already: its event is still to come, and must find it dead.
///
/// Returns the dots that were live.
pub fn remove(
    likers: &mut Likers,
    context: PostContext<'_>,
    knowledge: &mut Knowledge<'_>,
    target: Target<'_>,
    named: &[Dot],
    changes: &mut Changes,
) -> Dots {
    let live = likers.dots(target.who);
    let hit: Dots = live
        .iter()
        .copied()
        .filter(|dot| named.contains(dot))
        .collect();
    if !hit.is_empty() {
        let kept = live.into_iter().filter(|dot| !named.contains(dot));
        let kept: Dots = kept.collect();
        likers.set(context, target.who, &kept, changes);
    }
    for dot in named {
        if !knowledge.covers(*dot) && knowledge.orphans.insert(*dot, target.post, target.who.user) {
            changes.fingerprint += context.orphan_removal(target.who.hash, *dot);
        }
    }
    hit
}

/// Adds the dot of a like from elsewhere, unless it is known to be dead.
pub fn add(
    likers: &mut Likers,
    context: PostContext<'_>,
    knowledge: &Knowledge<'_>,
    target: Target<'_>,
    dot: Dot,
    changes: &mut Changes,
) {
    let mut dots = likers.dots(target.who);
    if dots.contains(&dot)
        || knowledge
            .orphans
            .contains(dot, target.post, target.who.user)
    {
        return;
    }
    dots.push(dot);
    likers.set(context, target.who, &dots, changes);
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
