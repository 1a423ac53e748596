//! What third replicas have acknowledged, on its way to the peer.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::crdt::dot::ReplicaIndex;
use crate::ids::Replica;
use crate::limits::HEARD_MAX;
use crate::replication::frame::{Described, Heard};
use crate::replication::session::effect::{Effect, Hearsay, Said};
use crate::replication::session::{Fault, Session};

/// News that the peer has not been told. Bounded by the table that it comes from: of a region only what came
/// last stays.
#[derive(Debug, Default)]
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

impl Session {
    /// What a third replica has acknowledged. A form with an unknown head says nothing.
    pub(super) fn hear(&self, heard: Heard, effects: &mut Vec<Effect>) -> Result<(), Fault> {
        let short = self.indexed(&heard.frontier, effects)?;
        self.intern(&heard.replica)?;
        let peer = self.peer.as_ref().expect("open");
        if heard.replica == self.own.0 {
            return Ok(());
        }
        if let Some(full) = peer.expand(&short, self.knowledge.as_ref()) {
            effects.push(Effect::Heard(Hearsay {
                replica: heard.replica,
                said: Said {
                    vector: Arc::new(full),
                    short: Some(Arc::new(short)),
                    at_ms: heard.at_ms,
                },
                hops: heard.hops,
            }));
        }
        Ok(())
    }

    /// News of third replicas, with what the peer must be told to read it.
    pub(super) fn pass_on(&mut self, lineage: &mut Described) -> Vec<Heard> {
        let knowledge = self.knowledge.clone();
        let news = self
            .passing
            .take(|head| knowledge.predecessors(head).is_some());
        let mut heard = Vec::with_capacity(news.len());
        for Hearsay {
            replica,
            said,
            hops,
        } in news
        {
            let short = said.short.as_deref().map_or(&[][..], Vec::as_slice);
            lineage.extend(self.describe(short));
            heard.push(Heard {
                replica,
                frontier: self.named(short),
                hops,
                at_ms: said.at_ms,
            });
        }
        heard
    }
}
