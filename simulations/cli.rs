//! Arguments, and what they ask for.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use likewise::planted::{self, Bug};
use rand_0_10::SeedableRng;
use rand_0_10::rngs::StdRng;

use crate::report::Folder;
use crate::simulator::run::run;
use crate::simulator::scenario::Scenario;
use crate::sweep::{Child, Sweep};
use crate::{mutants, totals};

/// Runs a cluster of Likewise on a simulated network, disk and clock.
///
/// One seed gives one run, to the bit. Exits with 0 where every checker found every run good, 1 where one did not,
/// and 2 where nothing was run.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    /// The scenario: a TOML file, such as simulations/split-brain.toml.
    file: PathBuf,
    /// The seed of one run; its story is printed.
    #[arg(long, default_value_t = 1, conflicts_with = "seeds")]
    seed: u64,
    /// Runs so many seeds, on all cores, and prints a summary.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// The first of them.
    #[arg(long, value_name = "SEED", default_value_t = 1, requires = "seeds")]
    first: u64,
    /// Runs every N-th of them twice, and fails where the two differ.
    #[arg(long, value_name = "N", requires = "seeds", value_parser = clap::value_parser!(u64).range(1..))]
    twice_every: Option<u64>,
    /// How many run at a time. As many as there are cores by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    jobs: Option<u16>,
    /// Writes DIR/index.html: plots, verdicts and the story, on one page that needs no network.
    #[arg(long, value_name = "DIR", conflicts_with = "mutants")]
    report: Option<PathBuf>,
    /// Plants bugs, one at a time, and runs seeds until a checker finds it.
    #[arg(long, conflicts_with_all = ["seeds", "seed"])]
    mutants: bool,
    /// Of those, only the bugs whose names contain this.
    #[arg(long, value_name = "PART", requires = "mutants")]
    only: Option<String>,
    /// Writes everything that happens, a line each, to find where two runs part.
    #[arg(long, value_name = "FILE", conflicts_with = "seeds")]
    trace: Option<PathBuf>,
    /// Plants this bug.
    #[arg(long, value_name = "NAME", hide = true)]
    plant: Option<String>,
    /// Runs in this very process, and prints the report as JSON.
    #[arg(long, hide = true)]
    child: bool,
}

impl Arguments {
    pub fn carry_out(self) -> anyhow::Result<ExitCode> {
        let scenario = Scenario::read(&self.file)?;
        if self.child {
            return self.run_here(&scenario);
        }
        let jobs = match self.jobs {
            Some(jobs) => usize::from(jobs),
            None => std::thread::available_parallelism()?.get(),
        };
        let child = Child::new(&self.file, self.plant.as_deref())?;
        let folder = self.report.as_deref().map(Folder::prepare).transpose()?;
        if self.mutants {
            let only = self.only.as_deref().unwrap_or_default();
            return Ok(code(mutants::run(&self.file, only, jobs)?));
        }
        let Some(seeds) = self.seeds else {
            let report = child.traced(self.trace.as_deref()).run(self.seed)?;
            print!("{}", report.told());
            if !report.is_good() {
                println!("again: {}", again(&self.file, self.seed));
            }
            if let Some(folder) = folder {
                folder.of_run(&self.file, &report)?;
            }
            return Ok(code(report.is_good()));
        };
        let sweep = Sweep {
            child,
            seeds: self.first..self.first.saturating_add(seeds),
            jobs,
            twice_every: self.twice_every,
        };
        let swept = sweep.run()?;
        if let Some(folder) = folder {
            folder.of_sweep(&self.file, &swept)?;
        }
        let is_good = totals::print(&swept, &self.file, scenario.reach_all_from());
        Ok(code(is_good))
    }

    /// A child: its chance and its clock are the seed's.
    fn run_here(&self, scenario: &Scenario) -> anyhow::Result<ExitCode> {
        if let Some(name) = &self.plant {
            let bug = Bug::ALL.iter().find(|bug| bug.name() == name);
            let Some(bug) = bug else {
                bail!("there is no bug of the name {name:?}");
            };
            planted::plant(*bug);
        }
        let lines = self
            .trace
            .as_ref()
            .map(|path| File::create(path).with_context(|| format!("writing {}", path.display())));
        let lines = lines.transpose()?;
        mad_turmoil::rand::set_rng(StdRng::seed_from_u64(self.seed));
        let _clock = mad_turmoil::time::SimClocksGuard::init();
        let plan = scenario.plan(self.seed);
        // A thread of its own: hash tables of this one have drawn their keys already.
        let running = std::thread::spawn(move || run(&plan, lines)).join();
        let Ok(report) = running else {
            bail!("the run panicked");
        };
        println!("{}", serde_json::to_string(&report)?);
        Ok(ExitCode::SUCCESS)
    }
}

fn code(is_good: bool) -> ExitCode {
    match is_good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The command that runs a seed again.
pub fn again(file: &std::path::Path, seed: u64) -> String {
    format!(
        "cargo run --release --features sim --bin likewise-sim -- {} --seed {seed}",
        file.display()
    )
}
