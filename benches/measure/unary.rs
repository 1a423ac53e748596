//! Unary calls from many tasks over a few connections, each task one after the other.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tonic::transport::Channel;

use super::latencies;
use super::machine::{Took, Watch};

/// Who calls, and whom.
pub struct Callers {
    /// The process whose CPU time is told.
    pub pid: Option<u32>,
    pub channels: Vec<Channel>,
    /// Calls under way on each connection.
    pub calls: usize,
}

impl Callers {
    /// Calls from all tasks until the time is over; `call` is told which task calls, and how often it has before.
    pub async fn run<F>(
        &self,
        span: Duration,
        call: impl Fn(Channel, u64, u64) -> F + Clone + Send + 'static,
    ) -> anyhow::Result<(Histogram<u64>, Took)>
    where
        F: Future<Output = Result<(), tonic::Status>> + Send,
    {
        let watch = Watch::start(self.pid)?;
        let end = Instant::now() + span;
        let mut tasks = Vec::new();
        for caller in 0..(self.channels.len() * self.calls) as u64 {
            let channel = self.channels[caller as usize % self.channels.len()].clone();
            let call = call.clone();
            tasks.push(tokio::spawn(async move {
                let mut latency_us = latencies()?;
                while Instant::now() < end {
                    let since = Instant::now();
                    call(channel.clone(), caller, latency_us.len()).await?;
                    latency_us.record(since.elapsed().as_micros() as u64)?;
                }
                anyhow::Ok(latency_us)
            }));
        }
        let mut latency_us = latencies()?;
        for task in tasks {
            latency_us.add(task.await??)?;
        }
        Ok((latency_us, watch.stop()?))
    }
}
