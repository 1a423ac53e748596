//! Batches of writes on streams: so many under way, each timed until its answer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use likewise::wire::v1::like_service_client::LikeServiceClient;
use likewise::wire::v1::{
    IntegerColumn, Operation, Outcome, StreamWritesRequest, WriteBatch, stream_writes_response,
    write_batch,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::latencies;
use super::machine::{Took, Watch};

/// How often the rate is noted.
pub const WINDOW: Duration = Duration::from_millis(100);

/// Likes of one post by numbered users.
pub fn likes_of(post: &str, users: Vec<u64>) -> WriteBatch {
    WriteBatch {
        posts: vec![post.to_owned()],
        operations: vec![Operation::Like as i32],
        users: Some(numbered(users)),
        ..WriteBatch::default()
    }
}

/// Users named `u<number>`.
pub fn numbered(values: Vec<u64>) -> write_batch::Users {
    let prefix = "u".to_owned();
    write_batch::Users::UserIntegers(IntegerColumn { prefix, values })
}

/// How streams are driven.
#[derive(Debug, Clone, Copy)]
pub struct Drive {
    /// The process whose CPU time is told.
    pub pid: Option<u32>,
    /// Batches under way on each stream.
    pub in_flight: usize,
    /// Batches a second over all streams; none for as many as are taken. A batch's latency counts from when it was due.
    pub pace: Option<f64>,
}

/// What streams of batches took.
pub struct Streamed {
    pub items: u64,
    pub latency_us: Histogram<u64>,
    pub took: Took,
    /// Items that were answered in each [`WINDOW`].
    pub windows: Vec<u64>,
}

/// Sends all batches, on one stream of each channel, and waits for all answers. An item that was refused makes the figures
/// worthless: an error.
pub async fn drive(
    channels: Vec<Channel>,
    drive: Drive,
    next: impl FnMut() -> Option<WriteBatch>,
) -> anyhow::Result<Streamed> {
    let watch = Watch::start(drive.pid)?;
    let begun = Instant::now();
    let next = Mutex::new(next);
    let pace = drive.pace.map(|pace| pace / channels.len() as f64);
    let streams = channels.into_iter().map(|channel| {
        let (in_flight, next) = (drive.in_flight, &next);
        let stream = Stream {
            begun,
            in_flight,
            pace,
            next,
        };
        stream.drive(channel)
    });
    let answered = try_join_all(streams).await?;
    let took = watch.stop()?;
    let mut all = Answered::new()?;
    for stream in &answered {
        all.add(stream)?;
    }
    Ok(Streamed {
        items: all.items,
        latency_us: all.latency_us,
        took,
        windows: all.windows,
    })
}

struct Answered {
    items: u64,
    latency_us: Histogram<u64>,
    windows: Vec<u64>,
}

impl Answered {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            items: 0,
            latency_us: latencies()?,
            windows: Vec::new(),
        })
    }

    fn note(&mut self, items: u64, at: Duration) {
        let window = (at.as_millis() / WINDOW.as_millis()) as usize;
        self.windows.resize(self.windows.len().max(window + 1), 0);
        self.windows[window] += items;
        self.items += items;
    }

    fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.items += other.items;
        self.latency_us.add(&other.latency_us)?;
        let windows = self.windows.len().max(other.windows.len());
        self.windows.resize(windows, 0);
        let both = self.windows.iter_mut().zip(&other.windows);
        both.for_each(|(all, more)| *all += more);
        Ok(())
    }
}

/// One of the streams that share the batches.
struct Stream<'a, N> {
    begun: Instant,
    in_flight: usize,
    pace: Option<f64>,
    next: &'a Mutex<N>,
}

impl<N: FnMut() -> Option<WriteBatch>> Stream<'_, N> {
    fn due(&self, batches: u64) -> Option<Instant> {
        let pace = self.pace?;
        Some(self.begun + Duration::from_secs_f64(batches as f64 / pace))
    }

    async fn drive(self, channel: Channel) -> anyhow::Result<Answered> {
        let (requests, rx) = mpsc::channel(self.in_flight);
        let mut client = LikeServiceClient::new(channel);
        let answers = client.stream_writes(ReceiverStream::new(rx)).await?;
        let mut answers = answers.into_inner();
        let mut answered = Answered::new()?;
        let mut under_way: HashMap<u64, Instant> = HashMap::new();
        let mut batches = 0;
        let mut is_over = false;
        loop {
            while !is_over && under_way.len() < self.in_flight {
                let due = self.due(batches);
                if due.is_some_and(|due| due > Instant::now()) {
                    break;
                }
                let batch = (self.next.lock())();
                let Some(batch) = batch else {
                    is_over = true;
                    break;
                };
                batches += 1;
                under_way.insert(batches, due.unwrap_or_else(Instant::now));
                let (batch_id, batch) = (batches, Some(batch));
                requests
                    .send(StreamWritesRequest { batch_id, batch })
                    .await?;
            }
            let due = self.due(batches);
            let is_waiting = due.is_some() && !is_over && under_way.len() < self.in_flight;
            if under_way.is_empty() && !is_waiting {
                break;
            }
            let answer = tokio::select! {
                biased;
                answer = answers.message(), if !under_way.is_empty() => answer?,
                () = sleep_until(due.unwrap_or(self.begun).into()), if is_waiting => continue,
            };
            let Some(answer) = answer else {
                bail!("the stream ended");
            };
            let Some(since) = under_way.remove(&answer.batch_id) else {
                bail!("an answer to no batch");
            };
            let latency_us = since.elapsed().as_micros() as u64;
            answered.latency_us.record(latency_us)?;
            answered.note(done(answer.outcome)?, self.begun.elapsed());
        }
        Ok(answered)
    }
}

/// How many items were done.
fn done(outcome: Option<stream_writes_response::Outcome>) -> anyhow::Result<u64> {
    let Some(stream_writes_response::Outcome::Result(result)) = outcome else {
        bail!("a batch was refused: {outcome:?}");
    };
    let refused = [Outcome::Refused as i32, Outcome::Unspecified as i32];
    ensure!(
        !result
            .outcomes
            .iter()
            .any(|outcome| refused.contains(outcome)),
        "an item was refused"
    );
    Ok(result.outcomes.len() as u64)
}
