//! Writes to several nodes at once, timed until every node shows them to whoever watches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use likewise::wire::v1::WatchPostsRequest;
use likewise::wire::v1::like_service_client::LikeServiceClient;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::figures;
use crate::measure::latencies;
use crate::measure::stream::{Drive, drive, likes_of};

/// Posts that one watch follows at most.
const WATCHED_MAX: usize = 1_000;
/// Batches under way on a stream.
const IN_FLIGHT: usize = 64;
/// How long the last batches may take until they are seen.
const GRACE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub struct Arguments {
    /// The nodes
    #[arg(long, value_delimiter = ',')]
    nodes: Vec<String>,
    /// Likes a second, over all nodes
    #[arg(long, default_value_t = 60_000.0)]
    rate: f64,
    #[arg(long, default_value_t = 100)]
    batch: usize,
    #[arg(long)]
    seconds: f64,
}

/// A batch to a post of its own, which every node's watcher waits for.
#[derive(Default)]
struct Sample {
    sent: Option<Instant>,
    /// When each node showed all of it.
    seen: Vec<Instant>,
}

type Samples = Arc<Mutex<HashMap<String, Sample>>>;

pub async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let batches = arguments.rate * arguments.seconds / arguments.batch as f64;
    // One batch in so many is watched, evenly over the time.
    let one_in = (batches / WATCHED_MAX as f64).ceil().max(1.0) as u64;
    let samples: Samples = Arc::default();
    let names: Vec<String> = (0..WATCHED_MAX)
        .map(|number| format!("seen-{number}"))
        .collect();
    let stop = CancellationToken::new();
    let mut channels = Vec::new();
    let mut watchers = JoinSet::new();
    for node in &arguments.nodes {
        let channel = figures::connect(node).await?;
        let watching = Watching {
            channel: channel.clone(),
            names: names.clone(),
            samples: samples.clone(),
        };
        channels.push(channel);
        let stop = stop.clone();
        let size = arguments.batch as u64;
        watchers.spawn(async move {
            tokio::select! {
                outcome = watching.run(size) => outcome,
                () = stop.cancelled() => Ok(()),
            }
        });
    }
    let mut writers = JoinSet::new();
    for (place, channel) in channels.into_iter().enumerate() {
        let writer = Writer {
            place: place as u64,
            places: arguments.nodes.len() as u64,
            one_in,
            batch: arguments.batch as u64,
            sent: 0,
            end: Instant::now() + Duration::from_secs_f64(arguments.seconds),
            samples: samples.clone(),
        };
        let pace = arguments.rate / arguments.nodes.len() as f64 / arguments.batch as f64;
        writers.spawn(writer.run(channel, pace));
    }
    let mut items = 0;
    while let Some(writer) = writers.join_next().await {
        items += writer??;
    }
    let unseen = until_seen(&samples, arguments.nodes.len()).await;
    stop.cancel();
    while let Some(watcher) = watchers.join_next().await {
        watcher??;
    }
    let mut latency_us = latencies()?;
    for sample in samples.lock().values() {
        if let (Some(sent), Some(last)) = (sample.sent, sample.seen.iter().max())
            && sample.seen.len() == arguments.nodes.len()
        {
            latency_us.record((*last - sent).as_micros() as u64)?;
        }
    }
    let rate = items as f64 / arguments.seconds;
    let more = json!({ "rate": rate, "unseen": unseen });
    Ok(figures::joined(figures::latency(&latency_us), more))
}

/// How many samples some node has not shown in time.
async fn until_seen(samples: &Samples, nodes: usize) -> usize {
    let until = Instant::now() + GRACE;
    loop {
        let unseen = |sample: &&Sample| sample.sent.is_some() && sample.seen.len() < nodes;
        let left = samples.lock().values().filter(unseen).count();
        if left == 0 || Instant::now() >= until {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

struct Watching {
    channel: Channel,
    names: Vec<String>,
    samples: Samples,
}

impl Watching {
    async fn run(self, whole: u64) -> anyhow::Result<()> {
        let request = WatchPostsRequest {
            posts: self.names,
            ..WatchPostsRequest::default()
        };
        let mut client = LikeServiceClient::new(self.channel);
        let mut news = client.watch_posts(request).await?.into_inner();
        while let Some(message) = news.message().await? {
            let now = Instant::now();
            let mut samples = self.samples.lock();
            for likes in message
                .likes
                .into_iter()
                .filter(|likes| likes.count == whole)
            {
                samples.entry(likes.post).or_default().seen.push(now);
            }
        }
        anyhow::bail!("a watch ended")
    }
}

struct Writer {
    place: u64,
    places: u64,
    one_in: u64,
    batch: u64,
    sent: u64,
    end: Instant,
    samples: Samples,
}

impl Writer {
    async fn run(mut self, channel: Channel, pace: f64) -> anyhow::Result<u64> {
        let plan = Drive {
            pid: None,
            in_flight: IN_FLIGHT,
            pace: Some(pace),
        };
        let streamed = drive(vec![channel], plan, || {
            (Instant::now() < self.end).then(|| {
                let first = (self.sent * self.places + self.place) * self.batch;
                let users = (first..first + self.batch).collect();
                let post = self.post();
                self.sent += 1;
                likes_of(&post, users)
            })
        })
        .await?;
        Ok(streamed.items)
    }

    /// One batch in so many goes to a post that is watched and never written again.
    fn post(&mut self) -> String {
        let sample = self.sent / self.one_in * self.places + self.place;
        if !self.sent.is_multiple_of(self.one_in) || sample >= WATCHED_MAX as u64 {
            return "hot".to_owned();
        }
        let post = format!("seen-{sample}");
        self.samples.lock().entry(post.clone()).or_default().sent = Some(Instant::now());
        post
    }
}
