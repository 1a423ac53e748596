//! A bound on what peers that are far behind are sent, so that catching up leaves room for everything else.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// Bytes a second, over all peers together. Who takes waits its turn; nothing is saved up while nobody takes.
pub(super) struct Pace {
    /// None where there is no bound.
    bytes_per_second: Option<u64>,
    /// When what was taken so far is paid for. Held for a look only.
    free_at: Mutex<Instant>,
}

impl Pace {
    /// 0 is no bound.
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: (bytes_per_second > 0).then_some(bytes_per_second),
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Returns when so many bytes may be sent.
    pub async fn take(&self, bytes: usize) {
        let at = self.reserve(Instant::now(), bytes);
        sleep_until(at).await;
    }

    /// When they may be sent. The next one's turn comes when they are paid for.
    fn reserve(&self, now: Instant, bytes: usize) -> Instant {
        let Some(rate) = self.bytes_per_second else {
            return now;
        };
        let mut free_at = self.free_at.lock();
        let at = now.max(*free_at);
        let micros = (bytes as u64).saturating_mul(1_000_000) / rate;
        *free_at = at + Duration::from_micros(micros);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_much_waits_and_nothing_is_saved_up() {
        let pace = Pace::new(1_000);
        let begun = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(pace.reserve(begun, 500), begun);
        assert_eq!(pace.reserve(begun, 1_500), begun + second / 2);
        assert_eq!(pace.reserve(begun, 1), begun + 2 * second);
        let later = begun + 60 * second;
        assert_eq!(pace.reserve(later, 1_000), later);
        assert_eq!(pace.reserve(later, 1), later + second);
    }

    #[test]
    fn without_a_bound_nobody_waits() {
        let begun = Instant::now();
        let pace = Pace::new(0);
        assert_eq!(pace.reserve(begun, usize::MAX), begun);
        assert_eq!(pace.reserve(begun, 1), begun);
    }
}
