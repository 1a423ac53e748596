//! What benches measure with: CPU time, latencies, batches of likes on a stream, and an engine in this process.

#![allow(dead_code, reason = "each bench uses its own part")]

pub mod engine;
pub mod machine;
pub mod stream;
pub mod unary;

use hdrhistogram::Histogram;

/// Latencies to three digits, in whatever unit they are recorded.
pub fn latencies() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new(3)?)
}
