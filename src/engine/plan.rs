//! What the commands of one shard will do, found out before numbers are drawn.
//!
//! A replica's increments on a post ascend with its numbers. On a post that is spread over all shards several draw both
//! at once. So that none of them has to hold the post's figures until its commands are applied, the likes that will be
//! made are counted first: then numbers and increments are drawn together, in one short moment.

use std::sync::Arc;

use crate::crdt::dot::{Dots, ReplicaIndex};
use crate::crdt::likers::{Likers, Place, Searches};
use crate::engine::Engine;
use crate::engine::command::Kind;
use crate::engine::commit::{Demand, Refused, Slot};
use crate::engine::group::{Drawn, Prepared, Wide, lock_wide};
use crate::engine::post::Post;
use crate::engine::shard::Shard;

/// See the module.
pub(super) struct Plan<'a> {
    /// As many numbers as the commands can use. Exact for a single one, so that a lone command without an
    /// effect draws none.
    pub events: u64,
    /// How many likes will be made of each post that is spread, ascending by their numbers. None where what comes first
    /// decides what later commands do, or their results are figures.
    likes: Option<Vec<(&'a Arc<Post>, u64)>>,
    /// What is known of each command.
    pub items: Vec<Planned>,
}

/// What is known of a command before it is applied.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Planned {
    /// Where its user is found.
    pub place: Place,
    /// Whether it is known to do something.
    pub makes: bool,
}

impl<'a> Plan<'a> {
    /// Of commands under the shard's lock, which is held until they are applied.
    pub fn of(
        engine: &Engine,
        shard: &Shard,
        here: &[usize],
        prepared: &'a [Prepared<'_>],
        durable: (ReplicaIndex, u64),
    ) -> Self {
        let adds = |at: &usize| prepared[*at].user.is_none() && prepared[*at].post.is_wide();
        if has_repeats(here, prepared) || here.iter().any(adds) {
            return Self {
                events: here.len() as u64,
                likes: None,
                items: vec![Planned::default(); here.len()],
            };
        }
        for run in runs(here, prepared) {
            shard.prefetch(prepared[run[0]].post);
        }
        let mut items = vec![Planned::default(); here.len()];
        let mut searches = Searches::with_capacity(here.len());
        let mut from = 0;
        for run in runs(here, prepared) {
            let likers = shard.likers(prepared[run[0]].post);
            for (at, item) in run.iter().zip(&mut items[from..]) {
                if let (Some(likers), Some(who)) = (likers, prepared[*at].user) {
                    item.place = searches.begin(likers, who);
                }
            }
            from += run.len();
        }
        searches.go_on();
        let mut events = 0;
        let mut likes: Vec<(&Arc<Post>, u64)> = Vec::new();
        let mut from = 0;
        for run in runs(here, prepared) {
            let post = prepared[run[0]].post;
            let likers = shard.likers(post);
            let mut made = 0;
            for (at, planned) in run.iter().zip(&mut items[from..]) {
                let item = &prepared[*at];
                planned.makes = engine.needs_number((likers, &mut planned.place), item, durable);
                events += u64::from(planned.makes);
                made += u64::from(planned.makes && item.kind == Kind::Like);
            }
            from += run.len();
            if made > 0 && post.is_wide() {
                likes.push((post, made));
            }
        }
        likes.sort_unstable_by_key(|(post, _)| post.number);
        likes.dedup_by(|later, first| {
            let is_same = first.0.number == later.0.number;
            first.1 += u64::from(is_same) * later.1;
            is_same
        });
        Self {
            events,
            likes: Some(likes),
            items,
        }
    }
}

/// Those of one post that follow on one another.
pub(super) fn runs<'a>(
    here: &'a [usize],
    prepared: &'a [Prepared<'_>],
) -> impl Iterator<Item = &'a [usize]> {
    here.chunk_by(|a, b| Arc::ptr_eq(prepared[*a].post, prepared[*b].post))
}

/// Whether two of them are about one user and post, or seem to be.
fn has_repeats(here: &[usize], prepared: &[Prepared<'_>]) -> bool {
    if here.len() < 2 {
        return false;
    }
    let targets = here.iter().filter_map(|at| {
        let who = prepared[*at].user?;
        let post = u64::from(prepared[*at].post.number);
        Some(who.order() ^ post.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    });
    // Half empty, each in the first free place from that of its lowest bits on: the highest tell the shard.
    let places = (2 * here.len()).next_power_of_two();
    let mut seen = vec![0; places];
    for target in targets {
        let mut probes = (0..PROBES_MAX).map(|probe| (target as usize + probe) & (places - 1));
        match probes.find(|place| seen[*place] == 0 || seen[*place] == target) {
            // A zero is taken for a place that is free, and is never found twice.
            Some(free) if seen[free] == 0 && target != 0 => seen[free] = target,
            _ => return true,
        }
    }
    false
}

/// Where so many places are taken, somebody has chosen users whose hashes crowd: they are treated as if they were repeats.
const PROBES_MAX: usize = 64;

impl Engine {
    /// Whether the command can have an effect.
    fn needs_number(
        &self,
        (likers, place): (Option<&Likers>, &mut Place),
        item: &Prepared<'_>,
        durable: (ReplicaIndex, u64),
    ) -> bool {
        let mut dots = |who| likers.map_or_else(Dots::new, |likers| likers.dots_at(place, who));
        match (item.kind, item.user) {
            (Kind::Like, Some(who)) => !self.absorbs(&dots(who), durable),
            (Kind::Unlike, Some(who)) => !item.named.is_empty() || !dots(who).is_empty(),
            _ => true,
        }
    }

    /// Draws what the plan needs. If it is refused, nothing has changed.
    pub(super) fn reserve<'a>(
        &self,
        plan: &Plan<'a>,
        bytes: usize,
        (here, prepared): (&[usize], &'a [Prepared<'_>]),
    ) -> Result<(Slot, Wide<'a>), Refused> {
        let events = plan.events;
        let Some(likes) = &plan.likes else {
            let held = lock_wide(here, prepared);
            let slot = self.queue.reserve(Demand { events, bytes })?;
            return Ok((slot, Wide::Held(held)));
        };
        let mut locked: Vec<_> = likes.iter().map(|(post, _)| post.figures()).collect();
        let slot = self.queue.reserve(Demand { events, bytes })?;
        let replicas = self.replicas.all();
        let drawn = likes
            .iter()
            .zip(&mut locked)
            .map(|((post, made), figures)| {
                let before = figures.increments(slot.replica);
                let context = self.context(post, &replicas);
                let print = figures.raise_increments(context, slot.replica, before + made);
                post.note_change();
                Drawn {
                    post: post.number,
                    increments: before,
                    print,
                }
            });
        let drawn = drawn.collect();
        Ok((slot, Wide::Drawn(drawn)))
    }
}
