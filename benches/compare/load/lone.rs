//! One write after the other, each a unary call: what a single caller waits while others fill the node.

use std::time::Instant;

use likewise::wire::v1::LikeRequest;
use likewise::wire::v1::like_service_client::LikeServiceClient;
use serde_json::Value;

use crate::figures;
use crate::measure::latencies;

#[derive(clap::Args)]
pub struct Arguments {
    /// The node
    #[arg(long)]
    address: String,
    #[arg(long, default_value = "hot")]
    post: String,
    /// The number of the first user; each further call is of the next
    #[arg(long)]
    from: u64,
    /// Ends after so many seconds; at the end of the input if unset
    #[arg(long)]
    seconds: Option<f64>,
    /// Ends after so many calls
    #[arg(long, default_value_t = u64::MAX)]
    calls: u64,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let channel = figures::connect(&arguments.address).await?;
    let mut client = LikeServiceClient::new(channel);
    let ending = figures::ending(arguments.seconds);
    let mut latency_us = latencies()?;
    let (mut calls, mut changed) = (0, 0_u64);
    while !ending.is_cancelled() && calls < arguments.calls {
        let request = LikeRequest {
            post: arguments.post.clone(),
            user: format!("u{}", arguments.from + calls),
            ..LikeRequest::default()
        };
        let since = Instant::now();
        let answer = client.like(request).await?.into_inner();
        latency_us.record(since.elapsed().as_micros() as u64)?;
        changed += u64::from(answer.changed);
        calls += 1;
    }
    let changed = serde_json::json!({ "calls": calls, "changed": changed });
    Ok(figures::joined(figures::latency(&latency_us), changed))
}
