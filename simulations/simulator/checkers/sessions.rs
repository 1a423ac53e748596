//! Who brings a token sees at least what the token speaks of, in whatever region.

use super::{Findings, Verdict};
use crate::simulator::history::{Action, History, Outcome};

/// Reads of what the client alone had written.
pub fn sessions(history: &History) -> Verdict {
    let mut findings = Findings::default();
    for operation in &history.operations {
        // Who unliked where the like was lost was told that there was none.
        let pair = (operation.post.clone(), operation.user.clone());
        if history.is_damaged(operation) || history.lost_from_memory.contains(&pair) {
            continue;
        }
        if let Action::Read {
            expected: Some(expected),
        } = operation.action
            && let Outcome::Shown { likes, .. } = operation.outcome
        {
            findings.check(likes == expected, || {
                format!(
                    "client {} at {:?} on machine {}: {} likes {}: shown {likes}, but its token says {expected}",
                    operation.client, operation.at, operation.machine, operation.user, operation.post
                )
            });
        }
    }
    findings.verdict("tokens never go backwards")
}
