//! The mathematics: sets and counters that merge the same in every order.
//!
//! Knows nothing of tasks, clocks, randomness, files, or how anything is encoded. The set follows
//! "An optimized conflict-free replicated set" (Bieniusa et al., 2012): no tombstones, for a dot that
//! the version vector covers and the set lacks is known to be dead.

pub mod changes;
pub mod dot;
pub mod event;
pub mod figures;
pub mod fingerprint;
pub mod frontier;
pub mod likers;
pub mod merge;
pub mod orphan_removals;
pub mod pn_counter;
pub mod prefetch;
pub mod ranges;
pub mod user_key;
pub mod version_vector;
