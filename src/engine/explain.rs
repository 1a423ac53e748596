//! How the figures of a post come about: the entries themselves, and the fingerprint's sum over them.
//!
//! The sum is computed from every liker, bucket by bucket, and no lock is held for longer than one bucket takes. It
//! belongs to one state only if nothing changed meanwhile. The post's number of changes says so: it is raised
//! under the lock of the shard that changed, after the change, so a change that some bucket showed was counted
//! before that bucket was read, and one that no bucket showed was not counted before the last was.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::crdt::dot::{Dot, Dots};
use crate::crdt::figures::Figures;
use crate::crdt::fingerprint::Fingerprint;
use crate::crdt::user_key::UserHash;
use crate::engine::post::Post;
use crate::engine::scrub::sum_of_figures;
use crate::engine::{Engine, Settlement};
use crate::ids::{PostId, UserId};
use crate::limits::EXPLANATION_READINGS_MAX;

/// A post's entries at one moment.
#[derive(Debug, Clone, Default)]
pub struct Explanation {
    pub figures: Figures,
    /// The user's live dots, the smallest first: it is the one that they are credited to.
    pub dots: Dots,
    /// Removals of likes of this post that have not arrived.
    pub orphan_removals: usize,
    /// The sum over all these entries and the likers. None where it was not asked for, where the post changed at each
    /// reading, and while a snapshot is merged.
    pub fingerprint: Option<Fingerprint>,
}

/// Whether the fingerprint is computed, which reads every liker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    Entries,
    Fingerprint,
}

impl Engine {
    /// The entries of a post as they are in memory now. They may leave the node once [`Engine::barrier`], called
    /// after it, is over.
    pub async fn explain(&self, id: &PostId, user: Option<&UserId>, depth: Depth) -> Explanation {
        let Some(post) = self.directory.get(id) else {
            let fingerprint = (depth == Depth::Fingerprint).then(Fingerprint::default);
            return Explanation {
                fingerprint,
                ..Explanation::default()
            };
        };
        if depth == Depth::Fingerprint {
            for _ in 0..EXPLANATION_READINGS_MAX {
                if let Some(explanation) = self.explain_at_once(&post, user).await {
                    return explanation;
                }
            }
        }
        self.entries_of(&post, user)
    }

    fn entries_of(&self, post: &Arc<Post>, user: Option<&UserId>) -> Explanation {
        let replicas = self.replicas.all();
        let mut dots = user.map_or_else(Dots::new, |user| self.dots(post, user));
        dots.sort_unstable_by(|a, b| replicas.compare(*a, *b));
        Explanation {
            orphan_removals: self.orphans_of(post).0,
            figures: post.figures().clone(),
            dots,
            fingerprint: None,
        }
    }

    /// Everything of one state; none if there was none.
    async fn explain_at_once(
        &self,
        post: &Arc<Post>,
        user: Option<&UserId>,
    ) -> Option<Explanation> {
        let moment = || {
            let is_settled = self.settlement() == Settlement::Settled;
            let merges = self.merges.load(Ordering::Acquire);
            is_settled.then(|| (merges, post.changes(), self.orphans_of(post)))
        };
        let before = moment()?;
        let mut sum = self.sum_of_likers(post).await;
        let explanation = self.entries_of(post, user);
        if moment()? != before {
            return None;
        }
        let replicas = self.replicas.all();
        sum += sum_of_figures(&explanation.figures, self.context(post, &replicas));
        let (_, _, (_, orphans)) = before;
        sum += orphans;
        Some(Explanation {
            fingerprint: Some(sum),
            ..explanation
        })
    }

    async fn sum_of_likers(&self, post: &Arc<Post>) -> Fingerprint {
        let mut sum = Fingerprint::default();
        let mut next = Some(0);
        while let Some(from) = next {
            let replicas = self.replicas.all();
            let context = self.context(post, &replicas);
            let (part, to) = self.with_bucket(post, from, |likers| {
                let mut part = Fingerprint::default();
                for liker in likers {
                    for dot in &liker.dots {
                        part += context.liker(liker.hash, *dot);
                    }
                }
                part
            });
            sum += part;
            next = to.checked_add(1);
            tokio::task::consume_budget().await;
        }
        sum
    }

    /// How many orphan removals speak of the post, and the sum over them.
    fn orphans_of(&self, post: &Post) -> (usize, Fingerprint) {
        let replicas = self.replicas.all();
        let context = self.context(post, &replicas);
        let orphans = self.orphans.lock();
        let of_post = orphans.known().iter();
        let of_post = of_post.filter(|(_, orphan)| orphan.post == post.id);
        of_post.fold(
            (0, Fingerprint::default()),
            |(count, mut sum), (dot, orphan)| {
                sum += context.orphan_removal(UserHash::of(&orphan.user), dot);
                (count + 1, sum)
            },
        )
    }

    /// Those of the dots that are durable here, and may leave the node.
    pub fn durable_of(&self, dots: &[Dot]) -> Vec<Dot> {
        let newest = self.board.newest();
        let durable = dots.iter().filter(|dot| newest.vector.covers(**dot));
        durable.copied().collect()
    }
}
