//! How long answers took, without what a measuring client usually leaves out.
//!
//! A client that waits for an answer before it asks again does not ask while the node stalls, and so counts one
//! slow answer where its users would have had many (coordinated omission). Where a rate is given, time runs from
//! the moment at which a request was due, whether it could be sent then or not. Where none is, the requests that
//! were left out during an answer are added, at the pace that the run itself had.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longer times count as this.
const LONGEST: Duration = Duration::from_secs(3_600);
/// Decimal places that are kept of each time.
const FIGURES: u8 = 3;

/// Times in microseconds.
#[derive(Clone)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

/// What is told of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percentiles {
    pub samples: u64,
    pub p50: Duration,
    pub p90: Duration,
    pub p99: Duration,
    pub p999: Duration,
    pub max: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        let longest = LONGEST.as_micros() as u64;
        let histogram = Histogram::new_with_bounds(1, longest, FIGURES);
        Self {
            histogram: histogram.expect("the bounds are those of a histogram"),
        }
    }
}

impl Latencies {
    pub fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(micros);
    }

    /// With the samples added that were left out while an answer took longer than the pace.
    pub fn corrected(&self, pace: Duration) -> Self {
        let pace = u64::try_from(pace.as_micros()).unwrap_or(u64::MAX);
        Self {
            histogram: self.histogram.clone_correct(pace),
        }
    }

    pub fn samples(&self) -> u64 {
        self.histogram.len()
    }

    /// None where there are no samples.
    pub fn percentiles(&self) -> Option<Percentiles> {
        if self.histogram.is_empty() {
            return None;
        }
        let at = |quantile| Duration::from_micros(self.histogram.value_at_quantile(quantile));
        Some(Percentiles {
            samples: self.samples(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: Duration::from_micros(self.histogram.max()),
        })
    }
}

/// How far apart the requests of one place were on average; a place has one request under way at a time.
pub fn pace(elapsed: Duration, places: usize, samples: u64) -> Duration {
    match samples {
        0 => Duration::MAX,
        samples => Duration::from_secs_f64(elapsed.as_secs_f64() * places as f64 / samples as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(times: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::default();
        for time in times {
            latencies.record(Duration::from_millis(time));
        }
        latencies
    }

    /// Equal within what the histogram keeps.
    fn assert_near(time: Duration, expected_ms: u64) {
        let (time, expected) = (time.as_secs_f64() * 1e3, expected_ms as f64);
        assert!((time - expected).abs() <= expected / 500.0, "{time} ms");
    }

    #[test]
    fn percentiles_are_those_of_the_times() {
        let found = millis(1..=1_000).percentiles().expect("samples");
        assert_eq!(found.samples, 1_000);
        assert_near(found.p50, 500);
        assert_near(found.p99, 990);
        assert_near(found.p999, 999);
        assert_near(found.max, 1_000);
        assert_eq!(Latencies::default().percentiles(), None);
    }

    #[test]
    fn a_stall_counts_for_all_that_it_held_up() {
        // A thousand answers in a millisecond each, then one that took a second.
        let raw = millis(std::iter::repeat_n(1, 1_000).chain([1_000]));
        assert_near(raw.percentiles().expect("samples").p99, 1);
        let corrected = raw.corrected(Duration::from_millis(1));
        let found = corrected.percentiles().expect("samples");
        assert_eq!(found.samples, 2_000);
        assert_near(found.p50, 1);
        assert_near(found.p99, 980);
        assert_near(found.max, 1_000);
    }

    #[test]
    fn without_a_stall_nothing_is_added() {
        let even = millis(std::iter::repeat_n(10, 100));
        let pace = pace(Duration::from_secs(1), 1, even.samples());
        assert_eq!(pace, Duration::from_millis(10));
        assert_eq!(even.corrected(pace).samples(), 100);
    }

    #[test]
    fn a_time_beyond_all_bounds_is_counted() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::MAX);
        latencies.record(Duration::ZERO);
        assert_eq!(latencies.samples(), 2);
        assert_eq!(latencies.corrected(Duration::MAX).samples(), 2);
    }
}
