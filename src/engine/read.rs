//! Reads: what a client may see of a post, and waiting until a token is covered.

use std::sync::Arc;
use std::time::Duration;

use crate::crdt::dot::{Dot, Dots, ReplicaIndex};
use crate::crdt::pn_counter::Value;
use crate::crdt::user_key::Who;
use crate::engine::post::Post;
use crate::engine::published::Published;
use crate::engine::{Engine, Settlement};
use crate::ids::{CounterName, PostId, Region, Replica, UserId};

/// One region's part of a counter: the sum over its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionFigures {
    pub region: Region,
    pub increments: u64,
    pub decrements: u64,
}

/// The likes of one post at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostView {
    pub count: u64,
    /// The viewer's live dots; empty if they do not like the post or nobody asked.
    pub viewer_dots: Dots,
    /// Origin time of the newest event applied; 0 for a post that nobody wrote.
    pub updated_at_ms: u64,
    /// Empty unless asked for, and while the node is not settled.
    pub regions: Vec<RegionFigures>,
}

/// A counter of one post at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterView {
    pub counter: CounterName,
    pub value: Value,
    pub regions: Vec<RegionFigures>,
}

/// The token was not covered in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not covered within {waited_ms} ms; behind on {}", names(behind))]
pub struct NotCovered {
    pub waited_ms: u64,
    /// The regions of the entries that are missing, each once.
    pub behind: Vec<Region>,
}

fn names(regions: &[Region]) -> String {
    let names: Vec<&str> = regions.iter().map(Region::as_str).collect();
    names.join(", ")
}

/// Whether a read lists the entries of regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    Figures,
    Regions,
}

impl Engine {
    /// The likes of a post as they are in memory now. Dots that this shows may leave the node once
    /// [`Engine::barrier`], called after it, is over; see [`Engine::dots_are_durable`].
    pub fn view_post(&self, id: &PostId, viewer: Option<&UserId>, detail: Detail) -> PostView {
        match self.directory.get(id) {
            Some(post) => self.view(&post, viewer, detail),
            None => PostView {
                count: 0,
                viewer_dots: Dots::new(),
                updated_at_ms: 0,
                regions: Vec::new(),
            },
        }
    }

    fn view(&self, post: &Arc<Post>, viewer: Option<&UserId>, detail: Detail) -> PostView {
        let viewer_dots = viewer.map_or_else(Dots::new, |user| self.dots(post, user));
        let figures = post.figures();
        let likes = figures.likes().iter().filter_map(|entry| {
            let decrements = entry.decrements()?;
            Some((entry.replica, entry.increments, decrements))
        });
        PostView {
            count: figures.likers(),
            viewer_dots,
            updated_at_ms: figures.updated_at_ms(),
            regions: self.by_region(detail, likes),
        }
    }

    /// How many users like the post. No lock is held while others work on the post.
    pub fn count(&self, id: &PostId) -> u64 {
        self.directory.get(id).map_or(0, |post| post.likers())
    }

    pub(super) fn dots(&self, post: &Arc<Post>, user: &UserId) -> Dots {
        let who = Who::of(user);
        loop {
            let index = post.shard_of(who.order(), self.shards.len());
            let shard = self.shards[index].lock();
            if post.shard_of(who.order(), self.shards.len()) == index {
                return shard.dots(post, who);
            }
        }
    }

    /// Whether the log is synced through the events of these dots, so that they may leave the node.
    pub fn dots_are_durable(&self, dots: &[Dot]) -> bool {
        let newest = self.board.newest();
        dots.iter().all(|dot| newest.vector.covers(*dot))
    }

    /// Counters of a post, those named or all.
    pub fn view_counters(
        &self,
        id: &PostId,
        wanted: &[CounterName],
        detail: Detail,
    ) -> Vec<CounterView> {
        let post = self.directory.get(id);
        let figures = post.as_ref().map(|post| post.figures());
        let view = |counter: &CounterName| {
            let known = figures
                .as_ref()
                .and_then(|figures| figures.counters().get(counter));
            let known = known.cloned().unwrap_or_default();
            let entries = known.entries().iter();
            let entries = entries.map(|entry| (entry.replica, entry.increments, entry.decrements));
            CounterView {
                counter: counter.clone(),
                value: known.value(),
                regions: self.by_region(detail, entries),
            }
        };
        match (wanted, &figures) {
            ([], Some(figures)) => figures.counters().keys().map(view).collect(),
            _ => wanted.iter().map(view).collect(),
        }
    }

    /// Origin time of the newest event applied to the post; 0 for one that nobody wrote.
    pub fn updated_at_ms(&self, id: &PostId) -> u64 {
        let post = self.directory.get(id);
        post.map_or(0, |post| post.figures().updated_at_ms())
    }

    fn by_region(
        &self,
        detail: Detail,
        entries: impl Iterator<Item = (ReplicaIndex, u64, u64)>,
    ) -> Vec<RegionFigures> {
        if detail == Detail::Figures || self.settlement() != Settlement::Settled {
            return Vec::new();
        }
        let all = self.replicas.all();
        // A post has an entry for each replica that ever wrote it, of few regions.
        let mut sums: Vec<Option<(u64, u64)>> = vec![None; all.regions().len()];
        for (replica, increments, decrements) in entries {
            let sum = sums[all.region_place(replica)].get_or_insert_default();
            sum.0 = sum.0.saturating_add(increments);
            sum.1 = sum.1.saturating_add(decrements);
        }
        let named = all.regions().iter().zip(sums);
        let figures = named.filter_map(|(region, sum)| {
            sum.map(|(increments, decrements)| RegionFigures {
                region: region.clone(),
                increments,
                decrements,
            })
        });
        let mut figures: Vec<RegionFigures> = figures.collect();
        figures.sort_unstable_by(|a, b| a.region.cmp(&b.region));
        figures
    }

    /// Waits until the durable frontier covers every entry, at most `wait`.
    pub async fn wait_covered(
        &self,
        entries: &[(Replica, u64)],
        wait: Duration,
    ) -> Result<Arc<Published>, NotCovered> {
        let mut changed = self.board.subscribe();
        let covered = async {
            loop {
                changed.mark_unchanged();
                let newest = self.board.newest();
                if newest.covers(entries) {
                    return newest;
                }
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match tokio::time::timeout(wait, covered).await {
            Ok(newest) => Ok(newest),
            Err(_) => Err(self.not_covered(entries, wait)),
        }
    }

    fn not_covered(&self, entries: &[(Replica, u64)], wait: Duration) -> NotCovered {
        let newest = self.board.newest();
        let missing = entries
            .iter()
            .filter(|(replica, seq)| newest.seq(replica) < *seq);
        let mut behind: Vec<Region> = missing.map(|(replica, _)| replica.region.clone()).collect();
        behind.sort();
        behind.dedup();
        NotCovered {
            waited_ms: wait.as_millis() as u64,
            behind,
        }
    }

    /// Whether a token speaks of numbers of the running replica that it never made.
    pub fn is_from_the_future(&self, entries: &[(Replica, u64)]) -> bool {
        let (own, last) = self.queue.own();
        let own = self.replicas.all().id(own).clone();
        entries
            .iter()
            .any(|(replica, seq)| *replica == own && *seq > last)
    }
}
