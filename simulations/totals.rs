//! The summary of a sweep.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::cli::again;
use crate::sweep::Swept;

/// Bad seeds that are told one by one.
const BAD_TOLD_MAX: usize = 10;

/// Prints it. False where something is wrong.
pub fn print(swept: &Swept, file: &Path, reach_all_from: Option<u64>) -> bool {
    let reports = &swept.reports;
    let simulated: Duration = reports.iter().map(|report| report.simulated).sum();
    let operations: u64 = reports.iter().map(|report| report.operations).sum();
    let acknowledged: u64 = reports.iter().map(|report| report.acknowledged).sum();
    let unknown: u64 = reports.iter().map(|report| report.unknown).sum();
    let took = swept.took.as_secs_f64().max(0.01);
    println!(
        "{} seeds, {:.1} simulated hours, {operations} operations ({acknowledged} acknowledged, {unknown} unknown) in {:.0} s",
        reports.len(),
        simulated.as_secs_f64() / 3_600.0,
        took
    );
    if let Some(least) = Least::of(swept) {
        println!(
            "in each at least {:.0} simulated seconds, {} operations and {} faults, in {} to {} regions",
            least.simulated.as_secs_f64(),
            least.operations,
            least.faults,
            least.regions.0,
            least.regions.1
        );
    }
    let runs = reports.len() as f64 + swept.run_twice as f64;
    let per_run = simulated.as_secs_f64() / (reports.len().max(1) as f64);
    let core_seconds = took * swept.jobs as f64;
    println!(
        "{:.0} simulated seconds and {:.0} operations for each core-second, with {} at a time",
        per_run * runs / core_seconds,
        operations as f64 / reports.len().max(1) as f64 * runs / core_seconds,
        swept.jobs
    );
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let mut reached: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for report in reports {
        for (kind, count) in &report.faults {
            *faults.entry(kind).or_default() += count;
        }
        for (what, count) in &report.reached {
            let (times, runs) = reached.entry(what).or_default();
            *times += count;
            *runs += u64::from(*count > 0);
        }
    }
    println!("\n{:<32}{:>10}", "fault", "times");
    for (kind, count) in &faults {
        println!("{kind:<32}{count:>10}");
    }
    println!("\n{:<32}{:>10}{:>10}", "reached", "times", "in runs");
    for (what, (times, runs)) in &reached {
        println!("{what:<32}{times:>10}{runs:>10}");
    }
    print_convergence(swept);
    let is_each_reached =
        print_verdicts(swept, file) & all_reached(swept, &reached, reach_all_from);
    if swept.run_twice > 0 {
        println!(
            "{} seeds were run twice; {} differed",
            swept.run_twice,
            swept.unlike.len()
        );
        for seed in &swept.unlike {
            println!("  two runs of seed {seed} differ: {}", again(file, *seed));
        }
    }
    is_each_reached && swept.unlike.is_empty()
}

/// What every run had at least.
struct Least {
    simulated: Duration,
    operations: u64,
    faults: u64,
    /// Least and most.
    regions: (usize, usize),
}

impl Least {
    fn of(swept: &Swept) -> Option<Self> {
        let reports = || swept.reports.iter();
        let regions = || reports().map(|report| report.regions.len());
        Some(Self {
            simulated: reports().map(|report| report.simulated).min()?,
            operations: reports().map(|report| report.operations).min()?,
            faults: reports().map(|report| report.faults.values().sum()).min()?,
            regions: (regions().min()?, regions().max()?),
        })
    }
}

fn all_reached(
    swept: &Swept,
    reached: &BTreeMap<&str, (u64, u64)>,
    reach_all_from: Option<u64>,
) -> bool {
    if reach_all_from.is_none_or(|from| (swept.reports.len() as u64) < from) {
        return true;
    }
    let never: Vec<&str> = reached
        .iter()
        .filter(|(_, (times, _))| *times == 0)
        .map(|(what, _)| *what)
        .collect();
    if never.is_empty() {
        return true;
    }
    println!("BAD   never reached: {}", never.join(", "));
    false
}

fn print_convergence(swept: &Swept) {
    let mut times: Vec<Duration> = swept
        .reports
        .iter()
        .filter_map(|report| report.converged_after)
        .collect();
    times.sort_unstable();
    if times.is_empty() {
        return;
    }
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64();
    println!(
        "\nequal after the last heal: p50 {:.2} s, p90 {:.2} s, p99 {:.2} s, at most {:.2} s",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}

fn print_verdicts(swept: &Swept, file: &Path) -> bool {
    let mut checkers: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for verdict in swept.reports.iter().flat_map(|report| &report.verdicts) {
        let (checks, bad) = checkers.entry(&verdict.checker).or_default();
        *checks += verdict.checks;
        *bad += u64::from(!verdict.is_good());
    }
    println!("\n{:<32}{:>14}{:>10}", "checker", "checks", "bad runs");
    for (checker, (checks, bad)) in &checkers {
        println!("{checker:<32}{checks:>14}{bad:>10}");
    }
    println!();
    let bad: Vec<_> = swept
        .reports
        .iter()
        .filter(|report| !report.is_good())
        .collect();
    for report in bad.iter().take(BAD_TOLD_MAX) {
        println!(
            "BAD   seed {}: {}",
            report.seed,
            report.found_by().unwrap_or_default()
        );
        for problem in report
            .verdicts
            .iter()
            .flat_map(|verdict| &verdict.problems)
            .take(3)
        {
            println!("        {problem}");
        }
        println!("      again: {}", again(file, report.seed));
    }
    for (seed, error) in swept.broken.iter().take(BAD_TOLD_MAX) {
        println!("BAD   {error}\n      again: {}", again(file, *seed));
    }
    let bad_runs = bad.len() + swept.broken.len();
    match bad_runs {
        0 => println!("all {} runs are good", swept.reports.len()),
        _ => println!("{bad_runs} runs are bad"),
    }
    bad_runs == 0
}
