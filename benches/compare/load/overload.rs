//! More batches than a node can take, at a steady rate that does not wait for answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use likewise::wire::v1::like_service_client::LikeServiceClient;
use likewise::wire::v1::{BatchWriteRequest, WriteBatch};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::figures;
use crate::measure::latencies;
use crate::measure::stream::likes_of;
use crate::users::scattered;

const USERS: u64 = 10_000_000;

#[derive(clap::Args)]
pub struct Arguments {
    /// The node
    #[arg(long)]
    address: String,
    /// The post
    #[arg(long, default_value = "hot")]
    post: String,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    #[arg(long, default_value_t = 100)]
    batch: u64,
    /// Batches a second, whatever is answered; if unset, `in_flight` callers that wait for their answers
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value_t = 256)]
    in_flight: u64,
    /// Calls that are not answered yet, beyond which the generator itself holds calls back, and counts them
    #[arg(long, default_value_t = 20_000)]
    unanswered_max: u64,
    #[arg(long)]
    seconds: f64,
}

/// What became of the calls.
struct Outcomes {
    taken: AtomicU64,
    refused: AtomicU64,
    refused_without_advice: AtomicU64,
    failed: AtomicU64,
    unanswered: AtomicU64,
    latency_us: Mutex<Histogram<u64>>,
    an_error: Mutex<Option<Status>>,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let mut channels = Vec::new();
    for _ in 0..arguments.connections {
        channels.push(figures::connect(&arguments.address).await?);
    }
    let outcomes = Arc::new(Outcomes {
        taken: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        refused_without_advice: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        unanswered: AtomicU64::new(0),
        latency_us: Mutex::new(latencies()?),
        an_error: Mutex::new(None),
    });
    let begun = Instant::now();
    let load = Load {
        arguments: &arguments,
        channels: &channels,
        outcomes: &outcomes,
    };
    let (sent, held_back, unanswered_most) = match arguments.rate {
        Some(rate) => load.steady(begun, rate).await,
        None => load.closed(begun).await?,
    };
    // What is answered after the time does not count.
    let taken = outcomes.taken.load(Ordering::Relaxed);
    let seconds = begun.elapsed().as_secs_f64();
    let error = outcomes.an_error.lock().as_ref().map(ToString::to_string);
    let more = json!({
        "seconds": seconds,
        "offered": sent as f64 / seconds,
        "goodput": taken as f64 / seconds,
        "refused": outcomes.refused.load(Ordering::Relaxed),
        "refused_without_advice": outcomes.refused_without_advice.load(Ordering::Relaxed),
        "failed": outcomes.failed.load(Ordering::Relaxed),
        "held_back": held_back,
        "unanswered_most": unanswered_most,
        "error": error,
    });
    let latency = figures::latency(&outcomes.latency_us.lock());
    Ok(figures::joined(latency, more))
}

struct Load<'a> {
    arguments: &'a Arguments,
    channels: &'a [Channel],
    outcomes: &'a Arc<Outcomes>,
}

impl Load<'_> {
    fn end(&self, begun: Instant) -> Instant {
        begun + Duration::from_secs_f64(self.arguments.seconds)
    }

    fn call(&self, number: u64) -> impl Future<Output = ()> + use<> {
        let channel = self.channels[number as usize % self.channels.len()].clone();
        let batch = batch(&self.arguments.post, number, self.arguments.batch);
        call(channel, batch, self.outcomes.clone())
    }

    /// Returns how many were sent, how many were held back, and how many were unanswered at most.
    async fn steady(&self, begun: Instant, rate: f64) -> (u64, u64, u64) {
        let end = self.end(begun);
        let (mut sent, mut held_back, mut most) = (0, 0, 0);
        let mut due = begun;
        while due < end {
            // Timers are coarser than the rate: all that is due goes out at each waking.
            sleep_until((due + Duration::from_millis(1)).into()).await;
            while due < Instant::now().min(end) {
                let unanswered = self.outcomes.unanswered.load(Ordering::Relaxed);
                most = most.max(unanswered);
                match unanswered < self.arguments.unanswered_max {
                    true => drop(tokio::spawn(self.call(sent))),
                    false => held_back += 1,
                }
                sent += 1;
                due = begun + Duration::from_secs_f64(sent as f64 / rate);
            }
        }
        (sent - held_back, held_back, most)
    }

    async fn closed(&self, begun: Instant) -> anyhow::Result<(u64, u64, u64)> {
        let end = self.end(begun);
        let number = Arc::new(AtomicU64::new(0));
        let mut callers = JoinSet::new();
        for _ in 0..self.arguments.in_flight {
            let number = number.clone();
            let (channels, outcomes) = (self.channels.to_vec(), self.outcomes.clone());
            let (post, size) = (self.arguments.post.clone(), self.arguments.batch);
            callers.spawn(async move {
                while Instant::now() < end {
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    let channel = channels[number as usize % channels.len()].clone();
                    call(channel, batch(&post, number, size), outcomes.clone()).await;
                }
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller?;
        }
        Ok((number.load(Ordering::Relaxed), 0, self.arguments.in_flight))
    }
}

fn batch(post: &str, number: u64, size: u64) -> WriteBatch {
    let places = number * size..(number + 1) * size;
    likes_of(post, places.map(|place| scattered(place, USERS)).collect())
}

fn call(channel: Channel, batch: WriteBatch, outcomes: Arc<Outcomes>) -> impl Future<Output = ()> {
    outcomes.unanswered.fetch_add(1, Ordering::Relaxed);
    let since = Instant::now();
    async move {
        let batch = Some(batch);
        let mut client = LikeServiceClient::new(channel);
        let answer = client.batch_write(BatchWriteRequest { batch }).await;
        outcomes.unanswered.fetch_sub(1, Ordering::Relaxed);
        outcomes.answered(since, answer.map(|_| ()));
    }
}

impl Outcomes {
    fn answered(&self, since: Instant, answer: Result<(), Status>) {
        let more = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
        match answer {
            Ok(()) => {
                more(&self.taken);
                let taken = since.elapsed().as_micros() as u64;
                let recorded = self.latency_us.lock().record(taken);
                recorded.expect("it grows with what it is given");
            }
            Err(status) if status.code() == Code::ResourceExhausted => {
                more(&self.refused);
                if status.get_details_retry_info().is_none() {
                    more(&self.refused_without_advice);
                }
            }
            Err(status) => {
                more(&self.failed);
                self.an_error.lock().get_or_insert(status);
            }
        }
    }
}
