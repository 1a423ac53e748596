//! Bugs on purpose, which the simulator switches on one at a time to show that its checkers find them.
//!
//! Only a build with the feature `sim` can have one; in any other, every question is answered by a constant, and
//! what it guards is not compiled in.

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $bug:ident = $name:literal, $rare:literal;)+) => {
        /// A bug that can be planted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug {
            $($(#[doc = $doc])+ $bug,)+
        }

        impl Bug {
            pub const ALL: &'static [Self] = &[$(Self::$bug,)+];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name,)+
                }
            }

            /// What goes wrong.
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$bug => concat!($($doc,)+).trim_ascii(),)+
                }
            }

            /// Whether it shows in few runs: one of the subtle rules is off.
            pub fn is_rare(self) -> bool {
                match self {
                    $(Self::$bug => $rare,)+
                }
            }
        }
    };
}

bugs! {
    /// A write is acknowledged and shown before its sync.
    AcknowledgedBeforeSync = "acknowledged-before-sync", false;
    /// A process goes on under the replica of the one before it.
    EpochReused = "epoch-reused", false;
    /// A peer's increments are added, not merged by maximum.
    SumForMaximum = "sum-for-maximum", false;
    /// Some of a peer's events are passed over.
    EventDropped = "event-dropped", false;
    /// Some of a peer's events are applied to another post of their block.
    EventMisplaced = "event-misplaced", false;
    /// The orphan removals of a snapshot are forgotten.
    RemovesForgotten = "removes-forgotten", false;
    /// The frontier is raised past an event that has not come.
    FrontierOverGap = "frontier-over-gap", false;
    /// Other replicas' events are never relayed.
    RelayOff = "relay-off", false;
    /// The fingerprint does not follow a peer's unlikes.
    FingerprintStale = "fingerprint-stale", false;
    /// A torn record at the end of the log is taken for whole.
    TornRecordAccepted = "torn-record-accepted", false;
    /// A retired region's increments are dropped.
    RetiredDropped = "retired-dropped", false;
    /// A snapshot leaves before the log is synced through what it shows.
    UnsyncedSnapshot = "unsynced-snapshot", false;
    /// Some numbers are drawn and never logged.
    NumberNeverLogged = "number-never-logged", false;
    /// A known number is applied again with other contents.
    KnownNumberAccepted = "known-number-accepted", false;
    /// Events that a snapshot covers are applied from streams while it is merged.
    HeldEventsApplied = "held-events-applied", true;
    /// The checkpoint of a merge is made before the frontier is raised, and none after it.
    RaisedAfterCheckpoint = "raised-after-checkpoint", true;
    /// After a start, a range's last change is none.
    ChangedSinceStart = "changed-since-start", true;
    /// A range's last change leaves out what a snapshot brought.
    ChangedWithoutMerge = "changed-without-merge", true;
}

#[cfg(feature = "sim")]
mod switch {
    use super::Bug;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// None, or a bug's place and one.
    static PLANTED: AtomicUsize = AtomicUsize::new(0);

    /// Plants the bug in this process, for good.
    pub fn plant(bug: Bug) {
        PLANTED.store(bug as usize + 1, Ordering::Relaxed);
    }

    pub fn is_planted(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as usize + 1
    }
}

#[cfg(feature = "sim")]
pub use switch::{is_planted, plant};

/// Never, in this build.
#[cfg(not(feature = "sim"))]
pub const fn is_planted(_: Bug) -> bool {
    false
}
