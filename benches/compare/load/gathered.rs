//! One like a call, from many tasks of one client that gathers them.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use likewise::client::Client;
use parking_lot::Mutex;
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
    // One for all: those of each task would be in no cache when its answer comes.
    let latency_us = Arc::new(Mutex::new(latencies()?));
    let mut tasks = JoinSet::new();
    for number in 0..arguments.tasks {
        let users = Users {
            order: Order::Random,
            among: arguments.users,
            at: 0,
            rng: SmallRng::seed_from_u64(number),
        };
        tasks.spawn(like(client.clone(), users, end, latency_us.clone()));
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    let latency_us = latency_us.lock();
    let rate = figures::rate(latency_us.len(), watch.stop()?);
    Ok(figures::joined(rate, figures::latency(&latency_us)))
}

async fn like(
    client: Client,
    mut users: Users,
    end: Instant,
    latency_us: Arc<Mutex<Histogram<u64>>>,
) -> anyhow::Result<()> {
    let mut user = String::new();
    loop {
        user.clear();
        write!(user, "u{}", users.next())?;
        let since = Instant::now();
        if since >= end {
            return Ok(());
        }
        client.like("gathered", &user).await?;
        let took = since.elapsed().as_micros() as u64;
        latency_us.lock().record(took)?;
    }
}
