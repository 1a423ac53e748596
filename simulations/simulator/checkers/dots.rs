//! No dot is made twice with two meanings.

use std::collections::HashMap;

use super::{Findings, Verdict};
use crate::simulator::checkers::State;
use crate::simulator::history::{History, Outcome};

/// Over all that clients were told, and all that is in the state.
pub fn dots(history: &History, state: &State) -> Verdict {
    let mut findings = Findings::default();
    let mut meanings = HashMap::new();
    let told = history
        .operations
        .iter()
        .filter_map(|operation| match &operation.outcome {
            Outcome::Liked { dots, .. } => Some((&operation.post, &operation.user, dots)),
            _ => None,
        });
    let held = state
        .likers
        .iter()
        .map(|((post, user), dots)| (post, user, dots));
    for (post, user, dots) in told.chain(held) {
        for dot in dots {
            let meaning = (post.as_str(), user.as_str());
            let first = *meanings.entry(dot.clone()).or_insert(meaning);
            findings.check(first == meaning, || {
                format!("{dot:?} is a like of {first:?} and of {meaning:?}")
            });
        }
    }
    findings.verdict("one meaning a dot")
}
