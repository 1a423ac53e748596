//! What the engine says → clients' messages. Like ids are made here, of durable dots only.

use std::collections::BTreeMap;

use prost_types::Timestamp;

use crate::api::Api;
use crate::codec::text::encode_like_id;
use crate::crdt::dot::{Dot, Replicas};
use crate::engine::read::{CounterView, PostView, RegionFigures};
use crate::engine::{Serving, Settlement};
use crate::ids::{ClusterId, PostId, Region, UserId};
use crate::wire::requests::ReadPlan;
use crate::wire::v1::{CounterValue, PostLikes, RegionEntry};

/// Whose like an id names.
pub(super) type Target<'a> = (&'a PostId, &'a UserId);

/// Makes like ids.
pub(super) struct Namer<'a> {
    cluster: &'a ClusterId,
    replicas: &'a Replicas,
}

impl<'a> Namer<'a> {
    pub(super) fn new(cluster: &'a ClusterId, replicas: &'a Replicas) -> Self {
        Self { cluster, replicas }
    }

    /// One id for all the dots; empty where there are none.
    pub(super) fn together(&self, target: Target<'_>, dots: &[Dot]) -> String {
        if dots.is_empty() {
            return String::new();
        }
        let named = dots
            .iter()
            .map(|dot| (self.replicas.id(dot.replica), dot.seq));
        encode_like_id(self.cluster, target, named)
    }

    /// An id for each dot: equal ids name the same like, wherever they were given.
    pub(super) fn each(&self, target: Target<'_>, dots: &[Dot]) -> Vec<String> {
        dots.iter()
            .map(|dot| self.together(target, &[*dot]))
            .collect()
    }
}

impl Api {
    /// The likers of a post, for the answer to a write; unset while the node does not know them.
    pub(super) fn count(&self, post: &PostId) -> Option<u64> {
        match self.engine.serving() {
            Serving::Ready => Some(self.engine.count(post)),
            Serving::Rebuilding => None,
        }
    }
}

/// A post's likes. `durable` are those of the viewer's dots that may leave the node.
pub(super) fn post_likes(
    namer: &Namer<'_>,
    (post, viewer): (&PostId, Option<&UserId>),
    view: PostView,
    durable: &[Dot],
    complete: &Complete,
) -> PostLikes {
    let name = |user| namer.together((post, user), durable);
    PostLikes {
        post: post.to_string(),
        count: view.count,
        viewer_likes: !view.viewer_dots.is_empty(),
        viewer_like_id: viewer.map(name).unwrap_or_default(),
        updated_at: timestamp(view.updated_at_ms),
        regions: complete.entries(view.regions),
    }
}

pub(super) fn counter_value(view: CounterView, complete: &Complete) -> CounterValue {
    CounterValue {
        counter: view.counter.to_string(),
        value: view.value.value,
        clamped: view.value.clamped,
        regions: complete.entries(view.regions),
    }
}

/// Up to when each region's events were here before a read: what was read shows at least those. Empty where
/// nobody asked for regions.
#[derive(Debug, Default)]
pub(super) struct Complete(BTreeMap<Region, u64>);

impl Complete {
    /// The entries of all regions in the order of their names, also of those that have none yet: 0 of a region
    /// that is complete until now means more than 0 of one that was never heard.
    fn entries(&self, figures: Vec<RegionFigures>) -> Vec<RegionEntry> {
        let entry = |region: &Region| RegionEntry {
            region: region.to_string(),
            complete_until: self.0.get(region).copied().and_then(timestamp),
            ..RegionEntry::default()
        };
        let all = self.0.keys().map(|region| (region.clone(), entry(region)));
        let mut all: BTreeMap<Region, RegionEntry> = all.collect();
        for figures in figures {
            let region = figures.region;
            let entry = all.entry(region).or_insert_with_key(entry);
            entry.increments = figures.increments;
            entry.decrements = figures.decrements;
        }
        all.into_values().collect()
    }
}

impl Api {
    /// Read before what it is said of. While the node is not settled no entries are shown.
    pub(super) fn complete(&self, plan: &ReadPlan) -> Complete {
        let is_shown = plan.include_regions && self.engine.settlement() == Settlement::Settled;
        match is_shown {
            true => Complete(self.regions.complete()),
            false => Complete::default(),
        }
    }
}

/// The last second that a timestamp may name: the end of the year 9999.
const SECONDS_MAX: u64 = 253_402_300_799;

/// Unset for 0, which stands for never. A clock far ahead is shown as the latest time there is.
pub(super) fn timestamp(ms: u64) -> Option<Timestamp> {
    (ms > 0).then(|| Timestamp {
        seconds: (ms / 1_000).min(SECONDS_MAX) as i64,
        nanos: (ms % 1_000) as i32 * 1_000_000,
    })
}
