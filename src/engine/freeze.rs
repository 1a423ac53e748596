//! A range that stands still: writes to it wait, peers' blocks that touch it come again, all else goes on.
//!
//! What is read of a frozen range in pieces belongs to one moment. The checkpointer's worker freezes one
//! at a time, and no merge comes between.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use crate::crdt::dot::Dot;
use crate::engine::Engine;
use crate::engine::post::Post;

/// No range.
const NONE: usize = usize::MAX;

/// Which range is frozen. Changes under `remote` and the locks of all shards.
pub(super) struct Freezer {
    range: AtomicUsize,
    thawed: watch::Sender<bool>,
}

impl Default for Freezer {
    fn default() -> Self {
        Self {
            range: AtomicUsize::new(NONE),
            thawed: watch::Sender::new(true),
        }
    }
}

/// The range stands still until this is dropped. Posts stay where they are.
pub(super) struct Frozen {
    engine: Arc<Engine>,
    pub range: usize,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.engine.spreading_paused.store(false, Ordering::Release);
        self.engine.freezer.range.store(NONE, Ordering::Release);
        self.engine.freezer.thawed.send_replace(true);
    }
}

impl Engine {
    /// Freezes a range. Whatever was begun in it is done when this returns, though not yet durable.
    pub(super) fn freeze(self: &Arc<Self>, range: usize) -> Frozen {
        let _one_at_a_time = self.remote.lock();
        let _shards = self.lock_all();
        self.freezer.thawed.send_replace(false);
        let before = self.freezer.range.swap(range, Ordering::AcqRel);
        assert_eq!(before, NONE, "one range is frozen at a time");
        self.spreading_paused.store(true, Ordering::Release);
        let engine = self.clone();
        Frozen { engine, range }
    }

    fn frozen(&self) -> Option<usize> {
        let range = self.freezer.range.load(Ordering::Acquire);
        (range != NONE).then_some(range)
    }

    /// Whether one of the posts may not be changed now. Asked under the lock of a shard that would change.
    pub(super) fn is_frozen<'a>(&self, posts: impl IntoIterator<Item = &'a Arc<Post>>) -> bool {
        let Some(range) = self.frozen() else {
            return false;
        };
        posts.into_iter().any(|post| post.hash.range() == range)
    }

    /// Whether one of the dots would resolve an orphan removal that may not be changed now.
    pub(super) fn is_frozen_orphan(&self, mut dots: impl Iterator<Item = Dot>) -> bool {
        let Some(range) = self.frozen() else {
            return false;
        };
        let orphans = self.orphans.lock();
        dots.any(|dot| orphans.known().range_of(dot) == Some(range))
    }

    /// Returns when no range is frozen.
    pub(super) async fn thawed(&self) {
        let mut thawed = self.freezer.thawed.subscribe();
        let waited = thawed.wait_for(|thawed| *thawed).await;
        waited.expect("the engine outlives its writes");
    }
}
