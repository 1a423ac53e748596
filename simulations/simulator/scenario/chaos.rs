//! Faults at random.

use std::time::Duration;

use rand::Rng;
use rand::distr::weighted::WeightedIndex;
use rand::prelude::Distribution;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::file::FaultKind;
use super::plan::{Fault, PlannedFault, Site};

/// How often a fault is drawn anew that would take hold of a machine that another one has.
const TRIES_MAX: usize = 30;
/// Before it, everybody is left to start.
const QUIET: Duration = Duration::from_millis(1_500);
/// A restored folder is older than its restoring by at least this.
const BACKUP_AGE: Duration = Duration::from_millis(500);

pub(super) struct Mix {
    pub kinds: Vec<(FaultKind, u32)>,
    pub longest: Duration,
    pub lasts: Duration,
    pub regions: usize,
}

/// Adds so many faults that do not get into one another's way.
pub(super) fn draw(mix: &Mix, count: usize, faults: &mut Vec<PlannedFault>, chance: &mut StdRng) {
    let is_possible = |kind: FaultKind| mix.regions > 1 || !needs_two(kind);
    let kinds: Vec<_> = mix
        .kinds
        .iter()
        .filter(|(kind, weight)| *weight > 0 && is_possible(*kind))
        .collect();
    let Ok(weights) = WeightedIndex::new(kinds.iter().map(|(_, weight)| *weight)) else {
        return;
    };
    for _ in 0..count {
        for _ in 0..TRIES_MAX {
            let (kind, _) = kinds[weights.sample(chance)];
            let drawn = one(*kind, mix, chance);
            if fits(&drawn, faults) {
                faults.push(drawn);
                break;
            }
        }
    }
}

fn needs_two(kind: FaultKind) -> bool {
    matches!(
        kind,
        FaultKind::Cut
            | FaultKind::Isolation
            | FaultKind::Hold
            | FaultKind::Slow
            | FaultKind::Lossy
            | FaultKind::Flapping
            | FaultKind::Retired
    )
}

/// Regions that nobody reaches any more, until the end of everything.
pub(super) fn lasting_isolation(
    out: &[Site],
    core: &[Site],
    at: Duration,
    until: Duration,
) -> PlannedFault {
    PlannedFault {
        at,
        until,
        fault: Fault::Cut {
            from: out.to_vec(),
            to: core.to_vec(),
            is_one_way: false,
        },
    }
}

fn fits(drawn: &PlannedFault, faults: &[PlannedFault]) -> bool {
    // What is damaged in one place must be whole in others, or nobody could tell what was right.
    let destroys = |fault: &Fault| {
        matches!(
            fault,
            Fault::Restored { .. } | Fault::Wiped { .. } | Fault::Cloned { .. }
        )
    };
    let damages = |fault: &Fault| matches!(fault, Fault::Damaged { .. });
    let is_apart = |other: &PlannedFault| {
        !(damages(&drawn.fault) && (destroys(&other.fault) || damages(&other.fault))
            || destroys(&drawn.fault) && damages(&other.fault))
    };
    if !faults.iter().all(is_apart) {
        return false;
    }
    let Some(machine) = drawn.fault.machine() else {
        return true;
    };
    // A machine needs a moment to come back before the next one.
    let pause = Duration::from_millis(500);
    let begins = match drawn.fault {
        Fault::Restored { as_of, .. } => as_of,
        _ => drawn.at,
    };
    faults.iter().all(|other| {
        let apart = other.until + pause < begins || drawn.until + pause < other.at;
        let is_again = matches!(
            (&drawn.fault, &other.fault),
            (Fault::Cloned { .. }, Fault::Cloned { .. })
        );
        (other.fault.machine() != Some(machine) || apart) && !is_again
    })
}

fn one(kind: FaultKind, mix: &Mix, chance: &mut StdRng) -> PlannedFault {
    let millis = |span: Duration| span.as_millis() as u64;
    let length = Duration::from_millis(chance.random_range(100..=millis(mix.longest)));
    let latest = millis(mix.lasts.saturating_sub(length)).max(millis(QUIET) + 1);
    let at = Duration::from_millis(chance.random_range(millis(QUIET)..latest));
    let site = chance.random_range(0..mix.regions);
    let mut others: Vec<Site> = (0..mix.regions).filter(|other| *other != site).collect();
    others.shuffle(chance);
    let between = || (site, others[0]);
    let fault = match kind {
        FaultKind::Cut => {
            // Anything from one link to a split in halves.
            let from_more = chance.random_range(0..others.len());
            let mut from = others.split_off(others.len() - from_more);
            from.push(site);
            let to = chance.random_range(1..=others.len());
            others.truncate(to);
            Fault::Cut {
                from,
                to: others,
                is_one_way: chance.random_bool(0.3),
            }
        }
        FaultKind::Isolation => Fault::Cut {
            from: vec![site],
            to: others,
            is_one_way: false,
        },
        FaultKind::Hold => Fault::Hold { between: between() },
        FaultKind::Slow => {
            let most = chance.random_range(100..1_500);
            Fault::Slow {
                between: between(),
                latency: (Duration::from_millis(most / 2), Duration::from_millis(most)),
            }
        }
        FaultKind::Lossy => Fault::Lossy {
            between: between(),
            share: chance.random_range(0.01..0.3),
        },
        FaultKind::Flapping => Fault::Flapping {
            between: between(),
            period: Duration::from_millis(chance.random_range(50..2_000)),
        },
        FaultKind::Crash => Fault::Crash { site },
        FaultKind::CrashInSync => Fault::CrashInSync { site },
        FaultKind::Restart => Fault::Restart { site },
        FaultKind::DiskFull => Fault::DiskFull { site },
        FaultKind::SyncFails => Fault::SyncFails { site },
        FaultKind::ClockJump => Fault::ClockJump {
            site,
            by_ms: chance.random_range(-600_000..600_000),
        },
        FaultKind::ClockDrift => Fault::ClockDrift {
            site,
            per_million: chance.random_range(-200_000..200_000),
        },
        FaultKind::Restored => {
            let newest = at.saturating_sub(BACKUP_AGE);
            let oldest = newest.saturating_sub(mix.longest).max(QUIET / 2);
            Fault::Restored {
                site,
                as_of: Duration::from_millis(
                    chance.random_range(millis(oldest)..=millis(newest).max(millis(oldest))),
                ),
            }
        }
        FaultKind::Cloned => Fault::Cloned { site },
        FaultKind::Wiped => Fault::Wiped { site },
        FaultKind::Retired => Fault::Retired {
            site,
            by: others[0],
        },
        FaultKind::Hostile => Fault::Hostile { site },
        FaultKind::SlowWatchers => Fault::SlowWatchers { site },
        FaultKind::Damaged => Fault::Damaged { site },
    };
    PlannedFault {
        at,
        until: at + length,
        fault,
    }
}
