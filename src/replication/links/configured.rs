//! A peer that is dialled, as it is shown while there is no session with its region.

use std::time::Duration;

use tokio::time::Instant;

use crate::ids::Epoch;
use crate::replication::session::{Agreement, Standing};

/// A peer that is dialled, by configuration or hearsay. What stands here is shown while no session with its
/// region runs.
pub(super) struct Configured {
    pub address: String,
    pub epoch: Option<Epoch>,
    pub standing: Standing,
    /// Since when the oldest event waits that the peer has not acknowledged.
    waits_since: Option<Instant>,
}

impl Configured {
    pub fn new(address: String) -> Self {
        Self {
            address,
            epoch: None,
            standing: Standing::with_problem("not dialled yet"),
            waits_since: None,
        }
    }

    pub fn follow(&mut self, now: Instant, events_behind: u64) {
        self.standing.events_behind = events_behind;
        if events_behind == 0 {
            self.waits_since = None;
            self.standing.lag_ms = 0;
            return;
        }
        // The wait goes on from where the session left it.
        let waited = Duration::from_millis(self.standing.lag_ms);
        let since = self
            .waits_since
            .get_or_insert_with(|| now.checked_sub(waited).unwrap_or(now));
        let waited = now.saturating_duration_since(*since);
        self.standing.lag_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    }

    /// A session with it has ended; `standing` is what was shown of it last.
    pub fn note_ended(&mut self, epoch: Epoch, standing: Standing, problem: &str) {
        self.epoch = Some(epoch);
        self.waits_since = None;
        self.standing = Standing {
            agreement: Agreement::Unknown,
            problem: problem.to_owned(),
            ..standing
        };
    }
}
