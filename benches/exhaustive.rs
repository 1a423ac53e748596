//! All orders in which a few things can happen to two regions and to a chain of three, up to a depth.
//!
//! `cargo bench --bench exhaustive [-- DEPTH [DEPTH OF THE CHAIN]]`. The real session machine and the real engine: see `tests/model`. In
//! each state no dot may have been made by two processes, and from each all must become equal once nothing more goes
//! wrong. Prints how many states there were, and how deep; the exit code is 1 where a rule was broken, or where the
//! naive rule of identity, one name for all processes of a folder, was not found out.

#[path = "../tests/model/mod.rs"]
mod model;
#[path = "../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::Instant;

use model::{Bounds, ONE_MAKER, TWO};

/// A run allocates all the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const THREADS: usize = 2;
/// Actions in one run where nothing is said. In a chain of three more can happen at each step.
const DEPTH: usize = 7;
const DEPTH_OF_THE_CHAIN: usize = 6;

fn main() -> ExitCode {
    let mut given = std::env::args().filter_map(|argument| argument.parse().ok());
    let two = Bounds {
        passes: 2,
        depth: given.next().unwrap_or(DEPTH),
        ..TWO
    };
    let three = Bounds {
        regions: 3,
        depth: given.next().unwrap_or(DEPTH_OF_THE_CHAIN),
        ..two
    };
    let naive = TWO.naive();
    let mut is_good = true;
    for (name, bounds) in [("two regions", two), ("a chain of three", three)] {
        is_good &= check(name, &bounds).is_none_or(|found| {
            println!("BAD   {found}");
            false
        });
    }
    match check("one name for all processes of a folder", &naive) {
        Some(found) => println!("      found out, as it must be: {found}"),
        None => {
            println!("BAD   the naive rule of identity was not found out");
            is_good = false;
        }
    }
    match is_good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Looks at all states, and returns what broke a rule.
fn check(name: &str, bounds: &Bounds) -> Option<String> {
    let began = Instant::now();
    let checked = bounds.check(THREADS);
    println!(
        "{name}: {} distinct states, {} steps between them, up to {} actions deep, in {:.0} s",
        checked.states,
        checked.transitions,
        bounds.depth,
        began.elapsed().as_secs_f64()
    );
    let mut found = checked.found;
    found
        .remove(ONE_MAKER)
        .or_else(|| found.into_values().next())
}
