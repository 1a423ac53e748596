//! Peers' events, as they are applied: those of one post that follow each other together.

use std::sync::Arc;

use crate::crdt::changes::{Changes, PostContext};
use crate::crdt::dot::{Dot, Dots, ReplicaIndex, Replicas};
use crate::crdt::event::{Action, Event};
use crate::crdt::likers::Searches;
use crate::crdt::merge::{self, Knowledge, Target};
use crate::crdt::pn_counter::CounterEntry;
use crate::crdt::user_key::Who;
use crate::engine::Engine;
use crate::engine::apply::LockedShards;
use crate::engine::orphans::Orphans;
use crate::engine::post::Post;
use crate::engine::section::Section;
use crate::ids::CounterName;
use crate::planted::{Bug, is_planted};

/// Events whose users are looked for together. Their slots fit into the fastest memory, and a post's figures are locked for
/// so many at most.
const TOGETHER: usize = 256;

/// A new event, with what can be found out of it before any lock is taken.
pub(super) struct Incoming<'a> {
    pub dot: Dot,
    event: &'a Event,
    post: Option<&'a Arc<Post>>,
    /// Of an event that is about likers.
    who: Option<Who<'a>>,
}

impl<'a> Incoming<'a> {
    pub fn of(dot: Dot, event: &'a Event, posts: &'a [Arc<Post>]) -> Self {
        let mut post = event.action.post().map(|place| &posts[place as usize]);
        if is_planted(Bug::EventMisplaced) && matches!(event.action, Action::Add { .. }) {
            post = Some(&posts[(dot.seq % posts.len() as u64) as usize]);
        }
        let who = event.action.user().map(Who::of);
        Self {
            dot,
            event,
            post,
            who,
        }
    }

    /// The shard of so many that the event's likers are in now.
    pub fn shard(&self, shards: usize) -> Option<usize> {
        Some(self.post?.shard_of(self.who?.order(), shards))
    }

    fn is_of_post_of(&self, other: &Self) -> bool {
        let numbers = [self.post, other.post].map(|post| post.map(|post| post.number));
        numbers[0] == numbers[1]
    }

    fn is_dropped(&self) -> bool {
        is_planted(Bug::EventDropped) && self.dot.seq % 16 == 7
    }
}

/// Applies events in their order, with all their shards locked.
pub(super) struct Applier<'a, 'g> {
    pub engine: &'a Engine,
    pub replicas: &'a Replicas,
    pub own: (ReplicaIndex, u64),
    pub counters: &'a [CounterName],
    pub shards: &'a mut LockedShards<'g>,
    pub section: &'a mut Section,
}

impl<'a> Applier<'a, '_> {
    pub fn apply(&mut self, new: &[Incoming<'_>]) {
        for together in new.chunks(TOGETHER) {
            self.prefetch(together);
            for run in together.chunk_by(Incoming::is_of_post_of) {
                match run[0].post {
                    Some(post) => self.apply_run(post, run),
                    None => run.iter().for_each(|it| self.apply_without_post(it)),
                }
            }
        }
    }

    /// Asks for the memory of all of them, before the first is applied.
    fn prefetch(&self, together: &[Incoming<'_>]) {
        let shards = self.engine.shards.len();
        let targets = together.iter();
        let targets = targets.filter_map(|it| Some((it.shard(shards)?, it.post?, it.who?)));
        let mut searches = Searches::with_capacity(together.len());
        for (shard, post, who) in targets {
            if let Some(likers) = self.shards.peek(shard).likers(post) {
                searches.begin(likers, who);
            }
        }
        searches.go_on();
    }

    /// Likers first, then, under another lock, the figures that follow from them.
    fn apply_run(&mut self, post: &Arc<Post>, run: &[Incoming<'_>]) {
        let mut changes = Changes::default();
        self.change_likers(post, run, &mut changes);
        let context = self.context(post);
        let mut figures = post.figures();
        let mut increments = None;
        for it in run.iter().filter(|it| !it.is_dropped()) {
            figures.touch(it.event.time_ms);
            match &it.event.action {
                Action::Like {
                    increments: after, ..
                } => increments = increments.max(Some(*after)),
                Action::Add {
                    counter,
                    increments,
                    decrements,
                    ..
                } => {
                    let counter = &self.counters[*counter as usize];
                    let entry = CounterEntry {
                        replica: it.dot.replica,
                        increments: *increments,
                        decrements: *decrements,
                    };
                    changes.fingerprint += figures.merge_counter(context, counter, entry);
                }
                Action::Unlike { .. } | Action::Empty | Action::Retire { .. } => {}
            }
        }
        // They only grow, so the highest says all that the lower ones say.
        if let Some(increments) = increments {
            let replica = run[0].dot.replica;
            changes.fingerprint += figures.raise_increments(context, replica, increments);
        }
        post.credit(&mut figures, &changes);
        drop(figures);
        self.engine.count_likers(changes.likers());
        self.engine.note_changed_figures(post);
        let print = (post.hash.range(), changes.fingerprint);
        self.section.prints.push(print);
    }

    fn change_likers(&mut self, post: &Arc<Post>, run: &[Incoming<'_>], changes: &mut Changes) {
        let mut orphans = self.engine.orphans.lock();
        let frontier = self.engine.frontier.read();
        for it in run.iter().filter(|it| !it.is_dropped()) {
            let before = changes.fingerprint;
            let named = it.event.action.named().map_or(&[][..], Dots::as_slice);
            let is_like = matches!(it.event.action, Action::Like { .. });
            let own = is_like.then_some(it.dot);
            if let Some(who) = it.who {
                let mut knowledge = Knowledge {
                    frontier: &frontier,
                    orphans: orphans.known_mut(),
                    further: [self.own, (it.dot.replica, it.dot.seq)],
                };
                let target = Target {
                    post: &post.id,
                    who,
                };
                let shard = post.shard_of(who.order(), self.engine.shards.len());
                let likers = self.shards.get(shard).likers_mut(post);
                if !named.is_empty() {
                    let live = likers.dots(who);
                    note_further(self.section, post, target, (named, &live), &knowledge);
                }
                let context = self.engine.context(post, self.replicas);
                merge::apply(
                    likers,
                    context,
                    &mut knowledge,
                    target,
                    (named, own),
                    changes,
                );
            }
            if is_planted(Bug::FingerprintStale) && own.is_none() && it.who.is_some() {
                changes.fingerprint = before;
            }
            self.resolve(&mut orphans, it.dot);
        }
    }

    fn apply_without_post(&mut self, it: &Incoming<'_>) {
        if it.is_dropped() {
            return;
        }
        if let Action::Retire { replicas } = &it.event.action {
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
        self.resolve(&mut self.engine.orphans.lock(), it.dot);
    }

    fn context(&self, post: &Post) -> PostContext<'a> {
        self.engine.context(post, self.replicas)
    }

    /// The dot's event is applied: an orphan removal of it has done its work.
    fn resolve(&mut self, orphans: &mut Orphans, dot: Dot) {
        if let Some(orphan) = orphans.resolve(dot) {
            let change = self.engine.orphan_gone(dot, &orphan, self.replicas);
            self.section.prints.push(change);
        }
    }
}

/// Names the dots of which other events have decided what becomes of them here.
fn note_further(
    section: &mut Section,
    post: &Post,
    target: Target<'_>,
    (named, live): (&[Dot], &Dots),
    knowledge: &Knowledge<'_>,
) {
    let claimed = named.iter().filter_map(|dot| {
        let orphans = &knowledge.orphans;
        let claimed = orphans.claimed_elsewhere(*dot, target.post, target.who.user)?;
        Some(claimed.map(|range| (range, *dot)))
    });
    section.further.extend(claimed.flatten());
    // Where such a dot is not covered, the same removal leaves an orphan removal.
    let gone = named.iter().filter(|dot| !live.contains(dot));
    let gone = gone.filter(|dot| knowledge.covers(**dot)).copied();
    let range = post.hash.range();
    section.further.extend(gone.map(|dot| (range, dot)));
}
