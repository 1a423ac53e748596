//! What third replicas have acknowledged, on its way to the peer.

use std::collections::BTreeMap;

use crate::crdt::dot::ReplicaIndex;
use crate::ids::Replica;
use crate::limits::HEARD_MAX;
use crate::replication::session::effect::Hearsay;

/// News that the peer has not been told. Bounded by the table that it comes from: of a region only what came
/// last stays.
#[derive(Default)]
pub(super) struct Passing {
    waiting: BTreeMap<Replica, Hearsay>,
    /// Whether news came since the last acknowledgement.
    is_due: bool,
}

impl Passing {
    pub fn push(&mut self, news: Vec<Hearsay>) {
        for one in &news {
            self.waiting
                .retain(|replica, _| replica.region != one.replica.region);
        }
        self.is_due |= !news.is_empty();
        let news = news.into_iter().map(|one| (one.replica.clone(), one));
        self.waiting.extend(news);
    }

    pub fn is_due(&self) -> bool {
        self.is_due
    }

    /// What can be told now: the lineage of its heads is known here, and so the peer can be told it. The rest
    /// waits for an acknowledgement after more has become durable.
    pub fn take(&mut self, is_known: impl Fn(ReplicaIndex) -> bool) -> Vec<Hearsay> {
        self.is_due = false;
        let can_be_told = |one: &Hearsay| {
            let mut heads = one.said.short.iter().flat_map(|short| short.iter());
            heads.all(|(head, _)| is_known(*head))
        };
        let told = self.waiting.values().filter(|one| can_be_told(one));
        let told: Vec<Hearsay> = told.take(HEARD_MAX).cloned().collect();
        for one in &told {
            self.waiting.remove(&one.replica);
        }
        told
    }
}
