//! Clock and chance of the operating system, and chance from a seed.

use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rand::rngs::{OsRng, StdRng};
use rand::{Rng, SeedableRng, TryRngCore};

use crate::seams::{Clock, Randomness};

/// The system's wall clock. A time before 1970 reads as 0.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The operating system's generator, asked each time: two runs of one memory image, or of one forked
/// process, draw different numbers. A system that has none ends the process: without it replicas
/// would not differ.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRandomness;

impl Randomness for OsRandomness {
    fn bits128(&self) -> u128 {
        OsRng.unwrap_err().random()
    }

    fn below(&self, bound: u64) -> u64 {
        OsRng.unwrap_err().random_range(0..bound)
    }
}

/// The same numbers for the same seed, in the order in which they are drawn.
#[derive(Debug)]
pub struct SeededRandomness {
    /// Guards the generator's state alone.
    generator: Mutex<StdRng>,
}

impl SeededRandomness {
    pub fn new(seed: u64) -> Self {
        Self {
            generator: Mutex::new(StdRng::seed_from_u64(seed)),
        }
    }
}

impl Randomness for SeededRandomness {
    fn bits128(&self) -> u128 {
        self.generator.lock().random()
    }

    fn below(&self, bound: u64) -> u64 {
        self.generator.lock().random_range(0..bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence() {
        let draw = |seed| {
            let source = SeededRandomness::new(seed);
            (source.bits128(), source.below(1 << 40), source.bits128())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn the_system_draws_fresh_bits() {
        assert_ne!(OsRandomness.bits128(), OsRandomness.bits128());
        assert!(OsRandomness.below(3) < 3);
        assert!(SystemClock.now_ms() > 1_500_000_000_000);
    }
}
