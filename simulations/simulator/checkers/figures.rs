//! Count = likers = the sum of the entries, at every look.

use super::{Findings, Verdict};

#[derive(Default)]
pub struct Figures {
    findings: Findings,
}

impl Figures {
    pub fn see(&mut self, machine: usize, post: &str, count: u64, likers: u64, entries: i128) {
        let holds = count == likers && i128::from(count) == entries;
        self.findings.check(holds, || {
            format!(
                "machine {machine}: {post} has count {count}, {likers} likers, entries {entries}"
            )
        });
    }

    pub fn verdict(self) -> Verdict {
        self.findings.verdict("count = likers = entries")
    }
}
