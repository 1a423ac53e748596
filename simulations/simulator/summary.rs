//! What came of a run, for people and for the sweep that adds up many.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::checkers::Verdict;
use super::story::clock;

/// What came of one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunReport {
    pub title: String,
    pub seed: u64,
    pub regions: Vec<String>,
    pub verdicts: Vec<Verdict>,
    pub hash: String,
    pub simulated: Duration,
    pub operations: u64,
    pub acknowledged: u64,
    pub unknown: u64,
    pub refused: u64,
    pub likers: u64,
    /// From the last heal until all were equal.
    pub converged_after: Option<Duration>,
    /// By kind.
    pub faults: BTreeMap<String, u64>,
    /// What was reached, and how often.
    pub reached: BTreeMap<String, u64>,
    pub story: Vec<(Duration, String)>,
    /// Names of the machines, by number: the regions' first, then copies.
    pub machines: Vec<String>,
    /// Each fault: from when until when, and what.
    pub spans: Vec<(Duration, Duration, String)>,
    /// How many likers each machine had, over time.
    pub samples: Vec<(Duration, usize, u64)>,
    /// How many events of the second machine's region the first one lacked, over time.
    pub lags: Vec<(Duration, usize, usize, u64)>,
}

impl RunReport {
    pub fn is_good(&self) -> bool {
        self.found_by().is_none()
    }

    /// The checker that found something, if one did.
    pub fn found_by(&self) -> Option<&str> {
        let bad = self.verdicts.iter().find(|verdict| !verdict.is_good());
        bad.map(|verdict| verdict.checker.as_str())
    }

    pub fn told(&self) -> String {
        let mut text = format!("{} · seed {}\n\n", self.title, self.seed);
        for (at, line) in &self.story {
            let _ = writeln!(text, "{}  {line}", clock(*at));
        }
        let _ = writeln!(
            text,
            "\n{} operations: {} acknowledged, {} refused, {} unknown; {} likers in the end",
            self.operations, self.acknowledged, self.refused, self.unknown, self.likers
        );
        if let Some(after) = self.converged_after {
            let _ = writeln!(
                text,
                "all equal {:.2} s after the last heal",
                after.as_secs_f64()
            );
        }
        let reached = self.reached.iter().filter(|(_, count)| **count > 0);
        let reached: Vec<String> = reached
            .map(|(what, count)| format!("{what} {count}"))
            .collect();
        if !reached.is_empty() {
            let _ = writeln!(text, "reached: {}", reached.join(", "));
        }
        text.push('\n');
        for verdict in &self.verdicts {
            let word = if verdict.is_good() { "good" } else { "BAD " };
            let _ = writeln!(
                text,
                "{word}  {} ({} checks)",
                verdict.checker, verdict.checks
            );
            for problem in &verdict.problems {
                let _ = writeln!(text, "      {problem}");
            }
        }
        let _ = writeln!(text, "\ntrace hash: {}", self.hash);
        text
    }
}
