//! Peers whose connections are refused: all are counted, and said once in a while, for they dial again and
//! again.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::counts::Counts;

/// The same of the same host is not said again within this.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// Hosts and reasons that are remembered; when there are more, all are forgotten.
const REMEMBERED_MAX: usize = 64;

pub(super) struct Refusals {
    counts: Arc<Counts>,
    /// When what was said of whom. Held for a look.
    said: Mutex<BTreeMap<(Option<IpAddr>, String), Instant>>,
}

impl Refusals {
    pub fn new(counts: Arc<Counts>) -> Self {
        let said = Mutex::default();
        Self { counts, said }
    }

    pub fn note(&self, address: Option<SocketAddr>, error: &io::Error) {
        self.counts.peers_refused.one_more();
        let problem = error.to_string();
        if self.is_news(address.map(|address| address.ip()), &problem) {
            let address = address.map(tracing::field::display);
            tracing::warn!(address, problem, "a peer's connection is refused");
        }
    }

    fn is_news(&self, host: Option<IpAddr>, problem: &str) -> bool {
        let now = Instant::now();
        let mut said = self.said.lock();
        if said.len() >= REMEMBERED_MAX {
            said.clear();
        }
        let known = said.entry((host, problem.to_owned()));
        let last = *known.or_insert(now);
        let is_news = last == now || now.duration_since(last) >= SAID_EVERY;
        if is_news {
            said.insert((host, problem.to_owned()), now);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_are_counted_and_news_are_said() {
        let refusals = Refusals::new(Arc::default());
        let host = Some(IpAddr::from([10, 0, 0, 1]));
        assert!(refusals.is_news(host, "expired"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!refusals.is_news(host, "expired"));
        assert!(refusals.is_news(host, "of another cluster"));
        assert!(refusals.is_news(None, "expired"));
        tokio::time::advance(SAID_EVERY).await;
        assert!(refusals.is_news(host, "expired"));
        let error = io::Error::other("expired");
        (0..3).for_each(|_| refusals.note(None, &error));
        assert_eq!(refusals.counts.peers_refused.get(), 3);
        for number in 0..REMEMBERED_MAX * 2 {
            refusals.is_news(host, &number.to_string());
        }
        assert!(refusals.said.lock().len() <= REMEMBERED_MAX);
    }
}
