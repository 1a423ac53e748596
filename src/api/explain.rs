//! ExplainPost: how the figures of a post come about.
//!
//! All that it says is durable: it waits for the sync after it has read. FAST waits for nothing, and so goes
//! without the fingerprint and without dots that are not durable yet.

use std::sync::Arc;

use crate::api::Api;
use crate::api::answers::{Namer, timestamp};
use crate::api::error::ApiError;
use crate::crdt::dot::{Dot, ReplicaIndex, Replicas};
use crate::crdt::figures::Figures;
use crate::crdt::fingerprint::PostHash;
use crate::engine::Settlement;
use crate::engine::explain::{Depth, Explanation};
use crate::ids::{PostId, UserId};
use crate::limits::EXPLANATIONS_MAX;
use crate::wire::requests::{self, Freshness};
use crate::wire::v1::{
    CounterExplanation, ExplainPostRequest, ExplainPostResponse, LiveDot, ReplicaEntry,
};

impl Api {
    pub(super) async fn explain_post(
        self: &Arc<Self>,
        request: ExplainPostRequest,
    ) -> Result<ExplainPostResponse, ApiError> {
        let query = requests::explain_post(self.engine.cluster(), request)?;
        self.prepare_read(&query.plan).await?;
        let _work = self.load.enter(1)?;
        let place = self.explaining.try_acquire();
        let _place = place.map_err(|_| ApiError::Overloaded {
            what: "explanations at once",
            max: EXPLANATIONS_MAX,
        })?;
        let (post, user) = (&query.post, query.user.as_ref());
        let explanation = match query.plan.freshness {
            Freshness::Fast => self.engine.explain(post, user, Depth::Entries).await,
            Freshness::Exact | Freshness::AtLeast(_) => {
                let read = self.engine.explain(post, user, Depth::Fingerprint).await;
                // Of what no sync will ever make durable here, nothing is said.
                let synced = self.engine.barrier().await;
                synced.map_err(|_| ApiError::LogPoisoned)?;
                read
            }
        };
        let mut answer = self.explained(post, user, &explanation);
        answer.token = self.token_now(&query.plan.seen);
        Ok(answer)
    }

    fn explained(
        &self,
        post: &PostId,
        user: Option<&UserId>,
        explanation: &Explanation,
    ) -> ExplainPostResponse {
        let replicas = self.engine.replicas().all();
        let figures = &explanation.figures;
        let fingerprint = explanation.fingerprint;
        ExplainPostResponse {
            post: post.to_string(),
            count: figures.likers(),
            likes: match self.engine.settlement() {
                Settlement::Settled => likes(figures, &replicas),
                Settlement::Merging => Vec::new(),
            },
            counters: counters(figures, &replicas),
            dots: user.map_or_else(Vec::new, |user| {
                self.live_dots((post, user), &explanation.dots, &replicas)
            }),
            orphan_removals: explanation.orphan_removals as u64,
            range: PostHash::of(post).range() as u32,
            fingerprint: fingerprint.map_or_else(String::new, |sum| sum.to_string()),
            updated_at: timestamp(figures.updated_at_ms()),
            token: String::new(),
        }
    }

    fn live_dots(
        &self,
        target: (&PostId, &UserId),
        dots: &[Dot],
        replicas: &Replicas,
    ) -> Vec<LiveDot> {
        let namer = Namer::new(self.engine.cluster(), replicas);
        let credited = dots.first();
        let named = self.engine.durable_of(dots).into_iter().map(|dot| {
            let replica = replicas.id(dot.replica);
            LiveDot {
                region: replica.region.to_string(),
                epoch: replica.epoch.to_string(),
                seq: dot.seq,
                like_id: namer.together(target, &[dot]),
                credited: credited == Some(&dot),
            }
        });
        named.collect()
    }
}

fn likes(figures: &Figures, replicas: &Replicas) -> Vec<ReplicaEntry> {
    let entries = figures.likes().iter().filter_map(|entry| {
        let decrements = entry.decrements()?;
        Some((entry.replica, entry.increments, decrements))
    });
    named(entries, replicas)
}

fn counters(figures: &Figures, replicas: &Replicas) -> Vec<CounterExplanation> {
    let explained = figures.counters().iter().map(|(name, counter)| {
        let entries = counter.entries().iter();
        let entries = entries.map(|entry| (entry.replica, entry.increments, entry.decrements));
        CounterExplanation {
            counter: name.to_string(),
            entries: named(entries, replicas),
        }
    });
    explained.collect()
}

/// In the order of region and epoch, which is the same on every node.
fn named(
    entries: impl Iterator<Item = (ReplicaIndex, u64, u64)>,
    replicas: &Replicas,
) -> Vec<ReplicaEntry> {
    let mut entries: Vec<_> = entries.collect();
    entries.sort_unstable_by(|a, b| replicas.id(a.0).cmp(replicas.id(b.0)));
    let named = entries
        .into_iter()
        .map(|(replica, increments, decrements)| {
            let replica = replicas.id(replica);
            ReplicaEntry {
                region: replica.region.to_string(),
                epoch: replica.epoch.to_string(),
                increments,
                decrements,
            }
        });
    named.collect()
}
