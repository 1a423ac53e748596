//! `likewise-sim`: runs scenarios of a whole cluster, each from a seed, to the bit.

mod cli;
mod mutants;
mod report;
mod simulator;
mod sweep;
mod totals;

use std::process::ExitCode;

use clap::Parser;

/// A run allocates all the time, in one thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::Arguments::parse().carry_out() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("likewise-sim: {error:#}");
            ExitCode::from(2)
        }
    }
}
