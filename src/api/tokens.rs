//! Tokens: what a caller's token demands, and the one that goes back.

use std::collections::BTreeMap;

use crate::api::Api;
use crate::api::error::ApiError;
use crate::codec::text::{NamedSeq, encode_token};
use crate::engine::published::Published;
use crate::ids::{ClusterId, Replica};
use crate::limits::TOKEN_ENTRIES_MAX;

impl Api {
    /// Refuses a token that no honest answer can have given, and one with which the answer's token would
    /// become too long to be read again.
    pub(super) fn check_seen(
        &self,
        field: &'static str,
        seen: &[NamedSeq],
    ) -> Result<(), ApiError> {
        if seen.is_empty() {
            return Ok(());
        }
        if self.engine.is_from_the_future(seen) {
            return Err(ApiError::FromTheFuture { field });
        }
        let newest = self.engine.board().newest();
        let found = joined(&newest, seen).len();
        // One entry is kept free for the first event of this node's replica.
        if !newest.covers(seen) && found >= TOKEN_ENTRIES_MAX {
            return Err(ApiError::TokenTooLong { field, found });
        }
        Ok(())
    }

    /// A token that covers what is durable here and what the caller has seen.
    pub(super) fn token(&self, published: &Published, seen: &[NamedSeq]) -> String {
        token(self.engine.cluster(), published, seen)
    }

    /// As [`Self::token`], of this moment.
    pub(super) fn token_now(&self, seen: &[NamedSeq]) -> String {
        self.token(&self.engine.board().newest(), seen)
    }
}

fn token(cluster: &ClusterId, published: &Published, seen: &[NamedSeq]) -> String {
    if published.covers(seen) {
        return published.token(cluster).to_string();
    }
    encode_token(cluster, joined(published, seen).into_iter())
}

/// The durable frontier's short form, and what of the caller's entries it does not cover.
fn joined<'a>(published: &'a Published, seen: &'a [NamedSeq]) -> BTreeMap<&'a Replica, u64> {
    let mut entries: BTreeMap<&Replica, u64> = published.named().collect();
    let missing = seen
        .iter()
        .filter(|(replica, seq)| published.seq(replica) < *seq);
    for (replica, seq) in missing {
        let entry = entries.entry(replica).or_default();
        *entry = (*entry).max(*seq);
    }
    entries
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::codec::text::decode_token;
    use crate::crdt::dot::Replicas;
    use crate::crdt::fingerprint::RangeSums;
    use crate::crdt::version_vector::VersionVector;
    use crate::engine::commit::Ticket;
    use crate::ids::{Epoch, Region};
    use crate::log::Position;

    fn replica(region: &str) -> Replica {
        Replica {
            region: Region::new(region).expect("valid"),
            epoch: Epoch(7),
        }
    }

    /// eu up to 5.
    fn published() -> Published {
        let mut replicas = Replicas::default();
        let eu = replicas.intern(&replica("eu"));
        let vector: VersionVector = [(eu, 5)].into_iter().collect();
        Published::new(
            (Ticket(1), Position::START),
            (vector, vec![(eu, 5)]),
            RangeSums::default(),
            (Arc::new(replicas), eu),
        )
    }

    fn check(seen: &[(&str, u64)], wanted: &[(&str, u64)]) {
        let named = |entries: &[(&str, u64)]| -> Vec<NamedSeq> {
            let entries = entries.iter();
            entries.map(|(name, seq)| (replica(name), *seq)).collect()
        };
        let cluster = ClusterId::new("c").expect("valid");
        let text = token(&cluster, &published(), &named(seen));
        assert_eq!(decode_token(&cluster, &text), Ok(named(wanted)));
    }

    #[test]
    fn an_answers_token_covers_the_requests() {
        check(&[], &[("eu", 5)]);
        check(&[("eu", 4)], &[("eu", 5)]);
        check(&[("eu", 9), ("us", 2)], &[("eu", 9), ("us", 2)]);
        check(&[("us", 2), ("us", 3)], &[("eu", 5), ("us", 3)]);
    }
}
