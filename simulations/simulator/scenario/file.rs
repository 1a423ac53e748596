//! The scenario file as it is written. `docs/simulation.md` documents each key.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub title: String,
    /// How long clients write and faults happen.
    pub lasts: Spanned<Span>,
    /// How long the regions may take after that until they are equal.
    #[serde(default = "settle_within")]
    pub settle_within: Span,
    pub regions: Spanned<Vec<Spanned<String>>>,
    /// From how many to how many of the regions take part, drawn from the seed. All of them by default.
    pub taking_part: Option<Spanned<[usize; 2]>>,
    /// Regions that start later than the others.
    #[serde(default)]
    pub joins: Vec<Join>,
    /// Only these are healed in the end, and must become equal while the other faults stay.
    pub core: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    pub distances: Distances,
    #[serde(default)]
    pub load: Load,
    #[serde(default)]
    pub node: Node,
    #[serde(default, rename = "fault")]
    pub faults: Vec<FaultEntry>,
    pub chaos: Option<Chaos>,
    /// From so many seeds on, a sweep fails where something that the summary counts was never reached.
    pub reach_all_from: Option<u64>,
}

fn settle_within() -> Span {
    Span(Duration::from_secs(60))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Join {
    pub region: Spanned<String>,
    pub at: Spanned<Span>,
}

/// One-way latencies: at least, at most.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Distances {
    #[serde(default = "usual_distance")]
    pub usual: Spanned<[Span; 2]>,
    #[serde(default)]
    pub between: Vec<Distance>,
}

impl Default for Distances {
    fn default() -> Self {
        Self {
            usual: usual_distance(),
            between: Vec::new(),
        }
    }
}

fn usual_distance() -> Spanned<[Span; 2]> {
    let millis = |millis| Span(Duration::from_millis(millis));
    Spanned::new(0..0, [millis(20), millis(60)])
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Distance {
    pub regions: [Spanned<String>; 2],
    pub latency: Spanned<[Span; 2]>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Load {
    pub clients: Spanned<usize>,
    pub operations_per_second: Spanned<f64>,
    pub posts: Spanned<usize>,
    pub zipf: f64,
    /// Whom all clients like as, in whatever region. Besides, each client has as many of its own.
    pub shared_users: Spanned<usize>,
    pub own_users: Spanned<usize>,
    pub shared: Spanned<f64>,
    pub travel: Spanned<f64>,
    pub request_ids: Spanned<f64>,
    pub repeated: Spanned<f64>,
    pub like: u32,
    pub unlike: u32,
    pub unlike_by_id: u32,
    pub add: u32,
    pub read: u32,
}

impl Default for Load {
    fn default() -> Self {
        let some = |value| Spanned::new(0..0, value);
        let share = |value| Spanned::new(0..0, value);
        Self {
            clients: some(8),
            operations_per_second: share(40.0),
            posts: some(12),
            zipf: 1.0,
            shared_users: some(30),
            own_users: some(10),
            shared: share(0.4),
            travel: share(0.1),
            request_ids: share(0.5),
            repeated: share(0.1),
            like: 55,
            unlike: 18,
            unlike_by_id: 7,
            add: 8,
            read: 12,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Node {
    pub checkpoint_every: Span,
    pub relay_after: Span,
    pub log_segment_kib: Spanned<u64>,
    pub log_retain_kib: Spanned<u64>,
    pub absorb_repeated_likes: bool,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            checkpoint_every: Span(Duration::from_secs(3)),
            relay_after: Span(Duration::from_secs(1)),
            log_segment_kib: Spanned::new(0..0, 32),
            log_retain_kib: Spanned::new(0..0, 64),
            absorb_repeated_likes: false,
        }
    }
}

/// A fault at a time. Which keys it takes depends on its kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FaultEntry {
    pub kind: Spanned<FaultKind>,
    pub at: Spanned<Span>,
    pub lasts: Option<Spanned<Span>>,
    pub region: Option<Spanned<String>>,
    pub from: Option<Vec<Spanned<String>>>,
    pub to: Option<Vec<Spanned<String>>>,
    pub one_way: Option<bool>,
    pub latency: Option<Spanned<[Span; 2]>>,
    pub share: Option<Spanned<f64>>,
    pub period: Option<Spanned<Span>>,
    pub by_ms: Option<i64>,
    pub per_million: Option<i64>,
    pub as_of: Option<Spanned<Span>>,
    pub by: Option<Spanned<String>>,
}

/// Faults at random times, as many as drawn from the seed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chaos {
    /// At least, at most.
    pub faults: Spanned<[usize; 2]>,
    #[serde(default = "longest")]
    pub longest: Spanned<Span>,
    /// In this share of the seeds, only a core of the regions is healed in the end.
    #[serde(default)]
    pub liveness: Option<Spanned<f64>>,
    /// How often each kind is, relative to the others. All alike where nothing is said.
    #[serde(default)]
    pub weights: std::collections::BTreeMap<FaultKind, u32>,
}

fn longest() -> Spanned<Span> {
    Spanned::new(0..0, Span(Duration::from_secs(8)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FaultKind {
    Cut,
    Isolation,
    Hold,
    Slow,
    Lossy,
    Flapping,
    Crash,
    CrashInSync,
    Restart,
    DiskFull,
    SyncFails,
    ClockJump,
    ClockDrift,
    Restored,
    Cloned,
    Wiped,
    Retired,
    Hostile,
    SlowWatchers,
    Damaged,
}

impl FaultKind {
    pub const ALL: [Self; 20] = [
        Self::Cut,
        Self::Isolation,
        Self::Hold,
        Self::Slow,
        Self::Lossy,
        Self::Flapping,
        Self::Crash,
        Self::CrashInSync,
        Self::Restart,
        Self::DiskFull,
        Self::SyncFails,
        Self::ClockJump,
        Self::ClockDrift,
        Self::Restored,
        Self::Cloned,
        Self::Wiped,
        Self::Retired,
        Self::Hostile,
        Self::SlowWatchers,
        Self::Damaged,
    ];
}

/// A length of time: a whole number and `ms`, `s` or `m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time such as \"250ms\", \"30s\" or \"2m\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                let wrong = || E::invalid_value(de::Unexpected::Str(text), &self);
                let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
                let (number, unit) = text.split_at(unit_at);
                let number: u64 = number.parse().map_err(|_| wrong())?;
                let millis = match unit {
                    "ms" => 1,
                    "s" => 1_000,
                    "m" => 60_000,
                    _ => return Err(wrong()),
                };
                let millis = number.checked_mul(millis).ok_or_else(wrong)?;
                Ok(Span(Duration::from_millis(millis)))
            }
        }
        deserializer.deserialize_str(Text)
    }
}
