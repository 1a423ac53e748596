//! Every node takes writes while its own machine is well, whatever links are cut.

use std::time::Duration;

use super::{Findings, Verdict};
use crate::simulator::history::{Action, History, Outcome};

/// A machine that just became well may still refuse for so long.
const GRACE: Duration = Duration::from_millis(200);
/// A machine that is well answers sooner than this, on the slowest disk and link.
const ANSWER: Duration = Duration::from_secs(2);

pub fn availability(history: &History) -> Verdict {
    let mut findings = Findings::default();
    for operation in &history.operations {
        if matches!(operation.action, Action::Read { .. }) {
            continue;
        }
        let from = operation.at.saturating_sub(GRACE);
        if history.is_excused(operation.machine, from, operation.ended) {
            continue;
        }
        let is_taken = match &operation.outcome {
            Outcome::Liked { .. } | Outcome::Unliked { .. } | Outcome::Added => true,
            // The client brought a token of another region, which did not come in time.
            Outcome::Refused(reason) => reason == "TokenNotCovered",
            // The run may have ended before the answer could come: clients that do not know what came of a request go on
            // trying.
            Outcome::Pending => history.over < operation.at + ANSWER,
            Outcome::Shown { .. } | Outcome::NotReached | Outcome::Unknown => false,
        };
        findings.check(is_taken, || {
            format!(
                "a write of client {} to machine {} at {:?}, which was well, came to {:?}",
                operation.client, operation.machine, operation.at, operation.outcome
            )
        });
    }
    findings.verdict("writes are taken")
}
