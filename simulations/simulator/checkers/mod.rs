//! What must be true of every run, apart from what a scenario does to it.

mod availability;
mod dots;
mod figures;
mod fingerprints;
mod oracle;
mod sessions;
#[cfg(test)]
mod tests;
mod vectors;

pub use availability::availability;
pub use dots::dots;
pub use figures::Figures;
pub use fingerprints::Fingerprints;
pub use oracle::{State, acknowledged, counters};
pub use sessions::sessions;
pub use vectors::Vectors;

use serde::{Deserialize, Serialize};

/// What a checker says of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub checker: String,
    /// What was wrong, the first few of it; empty where all is well.
    pub problems: Vec<String>,
    /// How often it was asked.
    pub checks: u64,
}

impl Verdict {
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Problems beyond so many are not kept.
const PROBLEMS_MAX: usize = 5;

/// Collects what a checker finds.
#[derive(Debug, Default, Clone)]
pub struct Findings {
    problems: Vec<String>,
    checks: u64,
}

impl Findings {
    pub fn check(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        self.checks += 1;
        if !holds && self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem());
        }
    }

    pub fn verdict(self, checker: &str) -> Verdict {
        Verdict {
            checker: checker.to_owned(),
            problems: self.problems,
            checks: self.checks,
        }
    }
}
