//! Nodes that have applied the same events hold the same.

use std::collections::{BTreeMap, HashMap};

use likewise::ids::Replica;

use super::{Findings, Verdict};

#[derive(Default)]
pub struct Fingerprints {
    /// By vector: the sum, and who had it first.
    seen: HashMap<BTreeMap<Replica, u64>, (String, usize)>,
    findings: Findings,
}

impl Fingerprints {
    /// What a settled node has published.
    pub fn see(&mut self, machine: usize, vector: &BTreeMap<Replica, u64>, sum: String) {
        if let Some((first, other)) = self.seen.get(vector) {
            self.findings.check(*first == sum, || {
                format!(
                    "machines {other} and {machine} have the same events, and {first} and {sum}"
                )
            });
            return;
        }
        self.seen.insert(vector.clone(), (sum, machine));
    }

    pub fn verdict(self) -> Verdict {
        self.findings.verdict("equal events, equal state")
    }
}
