//! Bugs on purpose: each must be found by some checker, with some seed.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use likewise::planted::Bug;
use parking_lot::Mutex;

use crate::sweep::Child;

/// A bug must be found within so many seeds; one of the subtle kind within more.
const SEEDS_MAX: u64 = 100;
const RARE_SEEDS_MAX: u64 = 2_000;

/// The first seed that shows a bug, and by what.
struct Found {
    seed: u64,
    by: String,
}

/// Runs them all, and prints a table. False where one was not found, or where the build without any shows something
/// with the same seed.
pub fn run(file: &Path, only: &str, jobs: usize) -> anyhow::Result<bool> {
    println!(
        "{:<28}{:>6}  {:<32}what goes wrong",
        "bug", "seed", "found by"
    );
    let mut is_good = true;
    for bug in Bug::ALL.iter().filter(|bug| bug.name().contains(only)) {
        let most = match bug.is_rare() {
            true => RARE_SEEDS_MAX,
            false => SEEDS_MAX,
        };
        let found = first_found(&Child::new(file, Some(bug.name()))?, most, jobs);
        let description = bug.description();
        match found {
            Some(found) => {
                println!(
                    "{:<28}{:>6}  {:<32}{description}",
                    bug.name(),
                    found.seed,
                    found.by
                );
                let clean = Child::new(file, None)?.run(found.seed)?;
                if !clean.is_good() {
                    println!(
                        "  seed {} shows something without the bug as well",
                        found.seed
                    );
                    is_good = false;
                }
            }
            None => {
                println!(
                    "{:<28}{:>6}  {:<32}{description}",
                    bug.name(),
                    "-",
                    format!("NOT FOUND in {most}")
                );
                is_good = false;
            }
        }
    }
    Ok(is_good)
}

fn first_found(child: &Child, most: u64, jobs: usize) -> Option<Found> {
    let next = AtomicU64::new(1);
    let found: Mutex<Option<Found>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > most || found.lock().is_some() {
                        return;
                    }
                    let by = match child.run(seed) {
                        Ok(report) => report.found_by().map(str::to_owned),
                        Err(_) => Some("the process ended".to_owned()),
                    };
                    if let Some(by) = by {
                        let mut found = found.lock();
                        if found.as_ref().is_none_or(|first| seed < first.seed) {
                            *found = Some(Found { seed, by });
                        }
                    }
                }
            });
        }
    });
    found.into_inner()
}
