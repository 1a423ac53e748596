//! How long the oldest event has waited that the peer has not acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::crdt::version_vector::VersionVector;
use crate::engine::published::Published;
use crate::limits::LAG_MARKS_MAX;

/// The least time between two marks: how fine an age is told.
const MARK_PAUSE_MS: u64 = 50;

/// Frontiers that the peer did not cover, with when they became durable, oldest first.
#[derive(Debug, Default)]
pub(super) struct Lag {
    marks: VecDeque<(u64, Arc<Published>)>,
}

impl Lag {
    /// Something became durable.
    pub fn follow(&mut self, published: &Arc<Published>, acked: &VersionVector, now_ms: u64) {
        let pause = self.marks.back().map(|(at, _)| now_ms.saturating_sub(*at));
        let is_full = self.marks.len() >= LAG_MARKS_MAX;
        if is_full || pause.is_some_and(|pause| pause < MARK_PAUSE_MS) {
            return;
        }
        if !acked.covers_all(&published.vector) {
            self.marks.push_back((now_ms, published.clone()));
        }
    }

    /// Drops the marks that the peer covers meanwhile.
    pub fn drop_covered(&mut self, published: &Arc<Published>, acked: &VersionVector, now_ms: u64) {
        let before = self.marks.len();
        while let Some((_, mark)) = self.marks.front()
            && acked.covers_all(&mark.vector)
        {
            self.marks.pop_front();
        }
        if before > 0 && self.marks.is_empty() {
            self.follow(published, acked, now_ms);
        }
    }

    pub fn age_ms(&self, now_ms: u64) -> u64 {
        let oldest = self.marks.front();
        oldest.map_or(0, |(at, _)| now_ms.saturating_sub(*at))
    }
}
