//! When there is news of third regions for a session, and what.

use std::future::pending;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::ids::Region;
use crate::replication::ack_table::AckTable;
use crate::replication::session::Hearsay;

/// How often it is looked for news: what comes meanwhile is told together.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// How much of the table was handed to a session.
pub(super) struct News {
    changes: watch::Receiver<u64>,
    /// The table's revision.
    since: u64,
    /// Not before.
    due: Instant,
}

impl News {
    pub fn new(acks: &AckTable) -> Self {
        let mut changes = acks.changes();
        // What is there already is news too.
        changes.mark_changed();
        Self {
            changes,
            since: 0,
            due: Instant::now(),
        }
    }

    /// Returns when there may be news, and it is time. May be dropped and called again.
    pub async fn come(&mut self) {
        sleep_until(self.due).await;
        if self.changes.changed().await.is_err() {
            pending::<()>().await;
        }
    }

    /// What the peer has not been told.
    pub fn take(&mut self, acks: &AckTable, peer: &Region) -> Vec<Hearsay> {
        self.due = Instant::now() + LOOK_PAUSE;
        let (revision, news) = acks.news(peer, self.since);
        self.since = revision;
        news
    }
}
