//! Time and chance. Nothing below the seams reads a clock or draws a number; both come in here.

/// The wall clock. It may jump and drift; nothing may depend on it but origin times and ages shown
/// to people.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970-01-01 UTC.
    fn now_ms(&self) -> u64;
}

/// A source of random numbers, seeded in the simulator.
pub trait Randomness: Send + Sync + 'static {
    /// 128 fresh bits, such as an epoch.
    fn bits128(&self) -> u128;

    /// Evenly from `0..bound`.
    ///
    /// # Panics
    /// If `bound` is 0.
    fn below(&self, bound: u64) -> u64;
}
