//! Figures as JSON, connections, and when a measurement ends.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, stdin};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::measure::machine::Took;

/// Latencies that were recorded in microseconds.
pub fn latency(us: &Histogram<u64>) -> Value {
    json!({
        "samples": us.len(),
        "p50_ms": us.value_at_quantile(0.5) as f64 / 1e3,
        "p99_ms": us.value_at_quantile(0.99) as f64 / 1e3,
        "max_ms": us.max() as f64 / 1e3,
    })
}

/// Rate and CPU time of so many items.
pub fn rate(items: u64, took: Took) -> Value {
    let seconds = took.wall.as_secs_f64();
    let each = |used: f64| used * 1e6 / items as f64;
    json!({
        "items": items,
        "seconds": seconds,
        "rate": items as f64 / seconds,
        "node_cpu_us": took.server.map(each),
        "client_cpu_us": each(took.client),
        "others_cpus": took.others / seconds,
    })
}

/// One object with the keys of both.
pub fn joined(mut one: Value, other: Value) -> Value {
    if let (Some(one), Value::Object(other)) = (one.as_object_mut(), other) {
        one.extend(other);
    }
    one
}

pub async fn connect(address: &str) -> anyhow::Result<Channel> {
    let endpoint = Channel::from_shared(format!("http://{address}"))?;
    Ok(endpoint.tcp_nodelay(true).connect().await?)
}

/// Cancelled after the time, or when the standard input ends, where no time is given.
pub fn ending(seconds: Option<f64>) -> CancellationToken {
    let token = CancellationToken::new();
    let ends = token.clone();
    tokio::spawn(async move {
        match seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs_f64(seconds)).await,
            None => while let Ok(1..) = stdin().read(&mut [0; 64]).await {},
        }
        ends.cancel();
    });
    token
}
