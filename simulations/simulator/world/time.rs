//! Simulated time, and the wall clocks of nodes, which may jump and drift.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use likewise::seams::Clock;
use parking_lot::Mutex;

/// Where the wall clocks begin: 2026-01-01 UTC.
pub(super) const BEGINNING_MS: u64 = 1_767_225_600_000;

/// What time it is in the simulation. Clones share it.
#[derive(Clone, Default)]
pub struct SimTime {
    /// Microseconds at the end of the last step, for whoever asks from outside of a host.
    last: Arc<AtomicU64>,
}

impl SimTime {
    /// Since the simulation began. Within a host to the millisecond, outside to the step.
    pub fn now(&self) -> Duration {
        let last = || Duration::from_micros(self.last.load(Ordering::Relaxed));
        turmoil::sim_elapsed().unwrap_or_else(last)
    }

    pub fn now_micros(&self) -> u64 {
        self.now().as_micros() as u64
    }

    pub(super) fn set(&self, now: Duration) {
        let micros = now.as_micros() as u64;
        self.last.store(micros, Ordering::Relaxed);
    }
}

/// The wall clock of one machine. It goes on over restarts of the node.
pub struct MachineClock {
    time: SimTime,
    /// Added to what the clock shows.
    jumped_ms: AtomicI64,
    /// Guards what the clock gains, and since when.
    drift: Mutex<Drift>,
}

#[derive(Clone, Copy, Default)]
struct Drift {
    per_million: i64,
    since_ms: i64,
}

impl MachineClock {
    pub fn new(time: SimTime) -> Self {
        Self {
            time,
            jumped_ms: AtomicI64::new(0),
            drift: Mutex::default(),
        }
    }

    /// Forward, or backward where negative.
    pub fn jump(&self, by_ms: i64) {
        self.jumped_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// From now on it gains so many microseconds a second, or loses them where negative.
    pub fn drift(&self, per_million: i64) {
        let now = self.elapsed_ms();
        let mut drift = self.drift.lock();
        let gained = drift.gained(now);
        self.jumped_ms.fetch_add(gained, Ordering::Relaxed);
        *drift = Drift {
            per_million,
            since_ms: now,
        };
    }

    fn elapsed_ms(&self) -> i64 {
        self.time.now().as_millis() as i64
    }
}

impl Drift {
    fn gained(self, now_ms: i64) -> i64 {
        (now_ms - self.since_ms) * self.per_million / 1_000_000
    }
}

impl Clock for MachineClock {
    fn now_ms(&self) -> u64 {
        let now = self.elapsed_ms();
        let off = self.jumped_ms.load(Ordering::Relaxed) + self.drift.lock().gained(now);
        BEGINNING_MS.saturating_add_signed(now + off)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_jumps_and_drifts_and_keeps_what_it_gained() {
        let time = SimTime::default();
        let clock = MachineClock::new(time.clone());
        assert_eq!(clock.now_ms(), BEGINNING_MS);
        clock.drift(100_000);
        time.set(Duration::from_secs(10));
        assert_eq!(clock.now_ms(), BEGINNING_MS + 11_000);
        clock.drift(0);
        clock.jump(-5_000);
        time.set(Duration::from_secs(20));
        assert_eq!(clock.now_ms(), BEGINNING_MS + 16_000);
    }
}
