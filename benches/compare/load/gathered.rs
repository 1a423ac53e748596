//! One like a call, from many tasks of one client that gathers them.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use likewise::client::Client;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::figures;
use crate::measure::latencies;
use crate::measure::machine::Watch;
use crate::users::{Order, Users};

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    address: String,
    /// The node's process
    #[arg(long)]
    pid: Option<u32>,
    #[arg(long, default_value_t = 256)]
    tasks: u64,
    #[arg(long, default_value_t = 10_000_000)]
    users: u64,
    #[arg(long)]
    seconds: f64,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let client = Client::builder().endpoints([arguments.address]);
    let client = client.gather_calls().connect().await?;
    let watch = Watch::start(arguments.pid)?;
    let end = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let mut tasks = JoinSet::new();
    for number in 0..arguments.tasks {
        let users = Users {
            order: Order::Random,
            among: arguments.users,
            at: 0,
            rng: SmallRng::seed_from_u64(number),
        };
        tasks.spawn(like(client.clone(), users, end));
    }
    let mut latency_us = latencies()?;
    while let Some(task) = tasks.join_next().await {
        latency_us.add(task??)?;
    }
    let rate = figures::rate(latency_us.len(), watch.stop()?);
    Ok(figures::joined(rate, figures::latency(&latency_us)))
}

async fn like(client: Client, mut users: Users, end: Instant) -> anyhow::Result<Histogram<u64>> {
    let mut latency_us = latencies()?;
    while Instant::now() < end {
        let user = format!("u{}", users.next());
        let since = Instant::now();
        client.like("gathered", &user).await?;
        latency_us.record(since.elapsed().as_micros() as u64)?;
    }
    Ok(latency_us)
}
