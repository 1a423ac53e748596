//! What a node has published never goes back, over crashes too.

use std::collections::{BTreeMap, HashMap};

use likewise::ids::Replica;

use super::{Findings, Verdict};

#[derive(Default)]
pub struct Vectors {
    newest: HashMap<usize, BTreeMap<Replica, u64>>,
    findings: Findings,
}

impl Vectors {
    pub fn see(&mut self, machine: usize, vector: BTreeMap<Replica, u64>) {
        let before = self.newest.entry(machine).or_default();
        for (replica, seq) in before.iter() {
            let now = vector.get(replica).copied().unwrap_or_default();
            self.findings.check(now >= *seq, || {
                format!("machine {machine} had {seq} events of {replica}, and has {now}")
            });
        }
        *before = vector;
    }

    /// What a machine had published last.
    pub fn newest(&self, machine: usize) -> Option<&BTreeMap<Replica, u64>> {
        self.newest.get(&machine)
    }

    /// Whether the first machine knows all that the second one had published.
    pub fn covers(&self, knower: usize, other: usize) -> bool {
        let Some(known) = self.newest(knower) else {
            return false;
        };
        let mut entries = self.newest(other).into_iter().flatten();
        entries.all(|(replica, seq)| known.get(replica).is_some_and(|known| known >= seq))
    }

    /// The machine's folder is another one now.
    pub fn begin_anew(&mut self, machine: usize) {
        self.newest.remove(&machine);
    }

    pub fn verdict(self) -> Verdict {
        self.findings.verdict("vectors only grow")
    }
}
