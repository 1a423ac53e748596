//! A plan: a scenario with everything drawn from the seed.

use std::time::Duration;

/// A region's place in [`Plan::regions`].
pub type Site = usize;

/// Everything that happens in one run, in simulated time.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub title: String,
    pub seed: u64,
    pub regions: Vec<RegionPlan>,
    pub usual_latency: (Duration, Duration),
    /// Where it differs from the usual.
    pub links: Vec<Link>,
    pub workload: WorkloadPlan,
    /// By their beginnings.
    pub faults: Vec<PlannedFault>,
    /// Clients begin nothing after this, and no fault lasts longer, or only those outside of the core.
    pub lasts: Duration,
    /// How long after that all regions, or those of the core, may take until they are equal.
    pub settle_within: Duration,
    /// Where only some regions are healed: those. All of them otherwise.
    pub core: Vec<Site>,
    pub node: NodePlan,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RegionPlan {
    pub name: String,
    /// When its node starts.
    pub joins_at: Duration,
}

/// The way between two regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub between: (Site, Site),
    /// One way, at least and at most.
    pub latency: (Duration, Duration),
}

/// How nodes are configured, where it differs from what they do by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodePlan {
    /// Bytes of log that are kept for peers that are away.
    pub log_retain_bytes: u64,
    pub log_segment_bytes: u64,
    pub checkpoint_interval: Duration,
    pub relay_after: Duration,
    pub absorb_repeated_likes: bool,
}

/// What clients do, as `workload` draws it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkloadPlan {
    pub clients: usize,
    /// Of all clients together.
    pub operations_per_second: f64,
    pub posts: usize,
    /// 0 for posts that are liked alike; 1 for few that get most.
    pub zipf: f64,
    /// Users as whom every client likes.
    pub shared_users: usize,
    /// Users of each client alone.
    pub own_users: usize,
    /// Of operations: as a shared user.
    pub shared: f64,
    /// Of operations: in another region than the client's own, with its token.
    pub travel: f64,
    /// Of writes: with a request id, which a retry repeats.
    pub request_ids: f64,
    /// Of likes: by a user who likes the post already.
    pub repeated: f64,
    pub mix: OperationMix,
}

/// How often each operation is, relative to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationMix {
    pub like: u32,
    pub unlike: u32,
    /// Of a like that the client was told of, by its id.
    pub unlike_by_id: u32,
    pub add: u32,
    pub read: u32,
}

/// A fault, from when until when.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedFault {
    pub at: Duration,
    /// Equal to `at` for what happens at one moment.
    pub until: Duration,
    pub fault: Fault,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Nothing passes from the first regions to the second, or, unless it is one-way, in between.
    Cut {
        from: Vec<Site>,
        to: Vec<Site>,
        is_one_way: bool,
    },
    /// What is sent waits, and comes all at once.
    Hold {
        between: (Site, Site),
    },
    Slow {
        between: (Site, Site),
        latency: (Duration, Duration),
    },
    /// Of messages this share is lost, 0 to 1.
    Lossy {
        between: (Site, Site),
        share: f64,
    },
    /// The link goes and comes, each for this long.
    Flapping {
        between: (Site, Site),
        period: Duration,
    },
    /// The machine loses its power and starts again at the end. Unsynced bytes are lost.
    Crash {
        site: Site,
    },
    /// The same in the middle of a sync soon after the beginning.
    CrashInSync {
        site: Site,
    },
    /// The node stops in order and starts again.
    Restart {
        site: Site,
    },
    DiskFull {
        site: Site,
    },
    /// The next sync fails; the machine is started anew at the end.
    SyncFails {
        site: Site,
    },
    ClockJump {
        site: Site,
        by_ms: i64,
    },
    ClockDrift {
        site: Site,
        per_million: i64,
    },
    /// The machine loses its power and starts from the folder as it was then.
    Restored {
        site: Site,
        as_of: Duration,
    },
    /// A second node runs on a copy of the folder from now on.
    Cloned {
        site: Site,
    },
    /// The machine comes back with an empty folder.
    Wiped {
        site: Site,
    },
    /// The region is away for the time; another retires it after half of it.
    Retired {
        site: Site,
        by: Site,
    },
    /// Somebody sends broken, forged and replayed bytes to the node's doors.
    Hostile {
        site: Site,
    },
    /// Watchers that hardly read.
    SlowWatchers {
        site: Site,
    },
    /// A liker is lost from the node's memory, and nothing else knows.
    Damaged {
        site: Site,
    },
}

impl Fault {
    /// What the summary counts it under.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cut {
                is_one_way: true, ..
            } => "cut, one-way",
            Self::Cut { .. } => "cut",
            Self::Hold { .. } => "hold",
            Self::Slow { .. } => "slow",
            Self::Lossy { .. } => "lossy",
            Self::Flapping { .. } => "flapping",
            Self::Crash { .. } => "crash",
            Self::CrashInSync { .. } => "crash in sync",
            Self::Restart { .. } => "restart",
            Self::DiskFull { .. } => "disk full",
            Self::SyncFails { .. } => "sync fails",
            Self::ClockJump { .. } => "clock jump",
            Self::ClockDrift { .. } => "clock drift",
            Self::Restored { .. } => "restored",
            Self::Cloned { .. } => "cloned",
            Self::Wiped { .. } => "wiped",
            Self::Retired { .. } => "retired",
            Self::Hostile { .. } => "hostile",
            Self::SlowWatchers { .. } => "slow watchers",
            Self::Damaged { .. } => "damaged",
        }
    }

    /// The machine that it has for itself: no other such fault may be on it at the same time.
    pub fn machine(&self) -> Option<Site> {
        match self {
            Self::Crash { site }
            | Self::CrashInSync { site }
            | Self::Restart { site }
            | Self::DiskFull { site }
            | Self::SyncFails { site }
            | Self::Restored { site, .. }
            | Self::Cloned { site }
            | Self::Wiped { site }
            | Self::Retired { site, .. }
            | Self::Damaged { site } => Some(*site),
            Self::Cut { .. }
            | Self::Hold { .. }
            | Self::Slow { .. }
            | Self::Lossy { .. }
            | Self::Flapping { .. }
            | Self::ClockJump { .. }
            | Self::ClockDrift { .. }
            | Self::Hostile { .. }
            | Self::SlowWatchers { .. } => None,
        }
    }
}

impl Plan {
    /// The name of a region.
    pub fn name(&self, site: Site) -> &str {
        &self.regions[site].name
    }
}
