//! Writers that go on through kills and cuts, and remember what was acknowledged to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use likewise::client::{Client, ClientError};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Calls at once of one load.
const WRITERS: usize = 8;

/// Likes of one post by users that are nobody else's, from several writers at once.
pub struct Load {
    post: String,
    shared: Arc<Shared>,
    writers: JoinSet<()>,
}

struct Shared {
    post: String,
    prefix: String,
    next: AtomicU64,
    outcomes: Mutex<Outcomes>,
    acknowledged: watch::Sender<usize>,
    /// Where the writers write; none while nobody is there.
    client: watch::Receiver<Option<Client>>,
}

/// Who likes the post by the answers.
#[derive(Debug, Default, Clone)]
pub struct Outcomes {
    pub liked: Vec<String>,
    pub unknown: Vec<String>,
    pub refused: usize,
}

impl Load {
    pub fn start(post: &str, prefix: &str, client: watch::Receiver<Option<Client>>) -> Self {
        let shared = Arc::new(Shared {
            post: post.to_owned(),
            prefix: prefix.to_owned(),
            next: AtomicU64::new(0),
            outcomes: Mutex::default(),
            acknowledged: watch::Sender::new(0),
            client,
        });
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            writers.spawn(shared.clone().write());
        }
        Self {
            post: post.to_owned(),
            shared,
            writers,
        }
    }

    pub fn post(&self) -> &str {
        &self.post
    }

    /// Returns when so many more have been acknowledged.
    pub async fn more(&self, count: usize) {
        let mut acknowledged = self.shared.acknowledged.subscribe();
        let wanted = *acknowledged.borrow() + count;
        let reached = acknowledged.wait_for(|acknowledged| *acknowledged >= wanted);
        let reached = tokio::time::timeout(super::node::PATIENCE, reached).await;
        reached
            .expect("writes are acknowledged")
            .expect("the sender is here");
    }

    /// Ends the writers where they stand, and tells what they know. What was under way is unknown.
    pub async fn stop(mut self) -> Outcomes {
        self.writers.shutdown().await;
        let mut outcomes = self.shared.outcomes.lock().clone();
        let drawn = self.shared.next.load(Ordering::Relaxed);
        let known: std::collections::BTreeSet<_> = outcomes
            .liked
            .iter()
            .chain(&outcomes.unknown)
            .cloned()
            .collect();
        let all = (0..drawn).map(|number| self.shared.user(number));
        outcomes
            .unknown
            .extend(all.filter(|user| !known.contains(user)));
        outcomes
    }
}

impl Shared {
    fn user(&self, number: u64) -> String {
        format!("{}-{number}", self.prefix)
    }

    async fn write(self: Arc<Self>) {
        let mut client = self.client.clone();
        loop {
            let current = client.wait_for(Option::is_some).await;
            let Ok(Some(current)) = current.map(|current| current.as_ref().map(Client::session))
            else {
                return;
            };
            let user = self.user(self.next.fetch_add(1, Ordering::Relaxed));
            let gone = client.wait_for(Option::is_none);
            let outcome = tokio::select! {
                biased;
                outcome = current.like(&self.post, &user) => Some(outcome),
                _ = gone => None,
            };
            let mut outcomes = self.outcomes.lock();
            let Some(outcome) = outcome else {
                outcomes.unknown.push(user);
                continue;
            };
            match outcome {
                Ok(_) => {
                    outcomes.liked.push(user);
                    self.acknowledged.send_replace(outcomes.liked.len());
                }
                Err(error) if error.is_outcome_unknown() => outcomes.unknown.push(user),
                Err(ClientError::Refused(_) | ClientError::Unreachable { .. }) => {
                    outcomes.refused += 1
                }
                Err(error) => panic!("a like was answered with {error}"),
            }
        }
    }
}
