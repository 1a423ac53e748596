//! Whole clusters on a simulated network, disk and clock, in one thread: a short sweep. `likewise-sim` runs many more,
//! and each to the bit.

#[expect(dead_code, reason = "drawn by the binary; here for its tests")]
#[path = "../simulations/report/plot.rs"]
mod plot;
#[path = "../simulations/simulator/mod.rs"]
mod simulator;

use std::path::{Path, PathBuf};

use simulator::run::run;
use simulator::scenario::Scenario;
use simulator::summary::RunReport;

fn scenario(name: &str) -> Scenario {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("simulations")
        .join(name);
    Scenario::read(&path).unwrap_or_else(|error| panic!("{error}"))
}

fn run_well(scenario: &Scenario, seed: u64) -> RunReport {
    let report = run(&scenario.plan(seed), None);
    assert!(report.is_good(), "{}", report.told());
    report
}

#[test]
fn regions_that_are_cut_off_and_crash_become_equal() {
    let report = run_well(&scenario("split-brain.toml"), 7);
    assert!(report.acknowledged > 100, "{}", report.told());
}

/// Sessions that end one another again and again never live until a relay is due.
#[test]
fn what_a_cut_keeps_from_two_regions_comes_through_the_third() {
    let report = run_well(&scenario("transatlantic.toml"), 7);
    assert!(report.reached["relay"] > 50, "{}", report.told());
}

/// Nobody tells the log that there is room again.
#[test]
fn a_disk_that_was_full_takes_writes_again() {
    let report = run_well(&scenario("disk-full.toml"), 7);
    assert!(report.refused > 20, "{}", report.told());
}

#[test]
fn a_short_swarm_is_well() {
    let swarm = scenario("swarm.toml");
    assert!(swarm.reach_all_from().is_some());
    for seed in 1..=2 {
        run_well(&swarm, seed);
    }
}

#[test]
fn every_scenario_that_is_shipped_makes_sense() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("simulations");
    let files = std::fs::read_dir(folder).expect("the folder");
    let paths = files.map(|file| file.expect("a file").path());
    let scenarios: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    assert!(!scenarios.is_empty());
    for path in scenarios {
        Scenario::read(&path).unwrap_or_else(|error| panic!("{error}"));
    }
}
