//! How often what an operator should know of happened since the process was started.

use std::sync::atomic::{AtomicU64, Ordering};

/// A figure that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub fn one_more(&self) {
        self.add(1);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// All counts. Shared by whoever counts and whoever shows them.
        #[derive(Debug, Default)]
        pub struct Counts {
            $($(#[$doc])* pub $name: Count,)*
        }

        impl Counts {
            /// Names and figures, in the order of the names.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                let mut all = vec![$((stringify!($name), self.$name.get()),)*];
                all.sort_unstable();
                all
            }
        }
    };
}

counts! {
    /// Frames of peers that broke a rule; each ended its session.
    frames_refused,
    /// Peers that spoke of events of the running replica that it never made.
    alarms,
    /// Peers that sent known events with other contents.
    conflicts,
    /// Blocks that named known events and were not compared with them, for another comparison was under way.
    overlaps_unchecked,
    /// Blocks that named events that were known already, as after a break.
    blocks_overlapping,
    /// Blocks with events of a kind that this node does not know.
    blocks_withheld,
    /// Peers whose certificate or region was refused.
    peers_refused,
    /// Snapshots that were merged.
    snapshots_merged,
    /// Snapshots that broke off, on either side.
    snapshots_broken,
    /// Stages of broken snapshots that were of no use any more.
    stages_dropped,
    /// Snapshots that went on where an earlier one had broken off.
    snapshots_resumed,
    /// Ranges in which a peer's state differed though it had applied the same events.
    ranges_diverged,
    /// Ranges that were put right.
    ranges_mended,
    /// Ranges that the scrub recomputed.
    ranges_scrubbed,
    /// Times that the membership protocol's task ended and was started again.
    gossip_restarts,
    /// Messages of the membership protocol that were refused.
    gossip_refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_by_name_in_order() {
        let counts = Counts::default();
        counts.alarms.one_more();
        counts.ranges_mended.add(2);
        let all = counts.all();
        assert!(all.is_sorted());
        assert!(all.contains(&("alarms", 1)) && all.contains(&("ranges_mended", 2)));
    }
}
