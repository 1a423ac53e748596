//! The disk, the memory beside it, and what waits in them.

use serde::{Deserialize, Serialize};

/// `[log]`: the commit log, in which every acknowledged write stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Bytes of one segment file, allocated ahead. Larger means fewer files and a pause more rarely;
    /// smaller frees space in finer steps. A multiple of 4096, at least 12 MiB (the largest block of a peer
    /// and a header), at most half of `retain_bytes`.
    pub segment_bytes: u64,
    /// Bytes of log kept for peers that are behind. Larger lets a peer stay away longer and still be
    /// given the log; smaller makes it ask for a snapshot sooner. At least `checkpoint.log_bytes`.
    pub retain_bytes: u64,
    /// How long log is kept for known regions that have not acknowledged it. Longer lets a region stay away
    /// longer and still be given the log; shorter frees the disk sooner. What no peer has made durable stays
    /// in any case. Looked at with each checkpoint.
    pub retain_ms: u64,
    /// Bytes of the newest log kept in memory, from which peers that are up to date are served. Larger
    /// spares disk reads when a link stutters; smaller saves memory. At least one commit (4 MiB).
    pub recent_bytes: u64,
    /// What happens after a sync of the log failed.
    pub on_sync_failure: OnSyncFailure,
}

/// What happens after a sync of the log failed. Waiting writes get OUTCOME_UNKNOWN in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnSyncFailure {
    /// Further writes are refused; reads and what is durable are still served.
    Refuse,
    /// The process ends, so that whoever supervises it starts it again.
    Exit,
}

/// `[checkpoint]`: the condensed state from which a start replays the rest of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// A checkpoint begins this long after the last, where there was a write. Longer writes less and
    /// starts slower; shorter the other way round.
    pub interval_ms: u64,
    /// A checkpoint begins after this much log, however short the time. Between `log.segment_bytes` and
    /// `log.retain_bytes`.
    pub log_bytes: u64,
    /// Memory for pages of the checkpoint store. Larger spares reads of cold posts.
    pub sled_cache_bytes: u64,
}

/// `[engine]`: the state in memory and what waits for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// Parts of the state that work at the same time: a power of two, 1 to 256. About twice the cores is
    /// good; more spreads hot posts better and costs memory. It may be changed at any start.
    pub shards: usize,
    /// What a like does of a user who likes the post already.
    pub repeated_likes: RepeatedLikes,
    /// How long a request id is known, so that a retry gets the earlier answer. Longer than clients retry.
    pub request_window_ms: u64,
    /// Of how many items (a single write, or one of a batch) the request ids are known; the oldest go
    /// first. About a hundred bytes each.
    pub request_window_items_max: usize,
    /// Removals of likes that have not arrived here, made by this node's own clients; a further one is
    /// refused with ORPHAN_REMOVALS_FULL. More lets clients unlike more elsewhere-made likes during a cut;
    /// all of them travel at the beginning of a snapshot.
    pub orphan_removals_max: usize,
    /// Watches at once; a further one is refused with OVERLOADED. Each holds one state a post at most.
    pub watchers_max: usize,
}

/// What a like does of a user who likes the post already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RepeatedLikes {
    /// It is an event like any other: it survives an unlike elsewhere that has not seen it.
    Record,
    /// It does nothing, which saves traffic. What is lost: an unlike in another region that was made before
    /// this like, and arrives after it, takes the user away although they liked again.
    Absorb,
}
