//! A bound on what peers that are far behind are sent, so that catching up leaves room for everything else.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Bytes a second, over all peers together. Who takes waits its turn; nothing is saved up while nobody takes, and who
/// gives up waiting has taken nothing.
pub(super) struct Pace {
    /// None where there is no bound.
    bytes_per_second: Option<u64>,
    /// When what was taken so far is paid for. Held by whoever's turn it is, over the wait for it.
    paid_at: Mutex<Instant>,
}

impl Pace {
    /// 0 is no bound.
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: (bytes_per_second > 0).then_some(bytes_per_second),
            paid_at: Mutex::new(Instant::now()),
        }
    }

    /// Returns when so many bytes may be sent. The next one's turn comes when they are paid for.
    pub async fn take(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_second else {
            return;
        };
        let mut paid_at = self.paid_at.lock().await;
        sleep_until(*paid_at).await;
        let micros = (bytes as u64).saturating_mul(1_000_000) / rate;
        *paid_at = Instant::now() + Duration::from_micros(micros);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const SECOND: Duration = Duration::from_secs(1);

    async fn waited(pace: &Pace, bytes: usize) -> Duration {
        let begun = Instant::now();
        pace.take(bytes).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_much_waits_and_nothing_is_saved_up() {
        let pace = Pace::new(1_000);
        let about = |took: Duration, meant: Duration| took.abs_diff(meant) < SECOND / 50;
        assert!(about(waited(&pace, 500).await, Duration::ZERO));
        assert!(about(waited(&pace, 1_500).await, SECOND / 2));
        assert!(about(waited(&pace, 1).await, 3 * SECOND / 2));
        tokio::time::sleep(60 * SECOND).await;
        assert!(about(waited(&pace, 1_000).await, Duration::ZERO));
        assert!(about(waited(&pace, 1).await, SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_has_taken_nothing() {
        let pace = Pace::new(1_000);
        pace.take(1_000).await;
        for _ in 0..100 {
            assert!(pace.take(1_000_000).now_or_never().is_none());
        }
        assert!(waited(&pace, 1).await < SECOND + SECOND / 50);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_bound_nobody_waits() {
        let pace = Pace::new(0);
        assert_eq!(waited(&pace, usize::MAX).await, Duration::ZERO);
        assert_eq!(waited(&pace, 1).await, Duration::ZERO);
    }
}
