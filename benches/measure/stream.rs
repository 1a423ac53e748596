//! Batches of writes on one stream: so many under way, each timed until its answer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use hdrhistogram::Histogram;
use likewise::wire::v1::like_service_client::LikeServiceClient;
use likewise::wire::v1::{
    IntegerColumn, Operation, Outcome, StreamWritesRequest, WriteBatch, stream_writes_response,
    write_batch,
};
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

/// How a stream is driven.
#[derive(Debug, Clone, Copy)]
pub struct Drive {
    /// The process whose CPU time is told.
    pub pid: Option<u32>,
    /// Batches under way.
    pub in_flight: usize,
    /// Batches a second; none for as many as are taken. A batch's latency counts from when it was due.
    pub pace: Option<f64>,
}

/// What a stream of batches took.
pub struct Streamed {
    pub items: u64,
    pub latency_us: Histogram<u64>,
    pub took: Took,
    /// Items that were answered in each [`WINDOW`].
    pub windows: Vec<u64>,
}

/// Sends all batches and waits for all answers. An item that was refused makes the figures worthless: an error.
pub async fn drive(
    channel: Channel,
    drive: Drive,
    mut next: impl FnMut() -> Option<WriteBatch>,
) -> anyhow::Result<Streamed> {
    let (requests, rx) = mpsc::channel(drive.in_flight);
    let mut client = LikeServiceClient::new(channel);
    let watch = Watch::start(drive.pid)?;
    let answers = client.stream_writes(ReceiverStream::new(rx)).await?;
    let mut answers = answers.into_inner();
    let begun = Instant::now();
    let mut latency_us = latencies()?;
    let mut windows = Vec::new();
    let mut under_way: HashMap<u64, Instant> = HashMap::new();
    let (mut batches, mut items) = (0, 0);
    let mut is_over = false;
    loop {
        while !is_over && under_way.len() < drive.in_flight {
            let due = drive
                .pace
                .map(|pace| begun + Duration::from_secs_f64(batches as f64 / pace));
            if due.is_some_and(|due| due > Instant::now()) {
                break;
            }
            let Some(batch) = next() else {
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
        let due = drive
            .pace
            .map(|pace| begun + Duration::from_secs_f64(batches as f64 / pace));
        let is_waiting = due.is_some() && !is_over && under_way.len() < drive.in_flight;
        if under_way.is_empty() && !is_waiting {
            break;
        }
        let answer = tokio::select! {
            biased;
            answer = answers.message(), if !under_way.is_empty() => answer?,
            () = sleep_until(due.unwrap_or(begun).into()), if is_waiting => continue,
        };
        let Some(answer) = answer else {
            bail!("the stream ended");
        };
        let Some(since) = under_way.remove(&answer.batch_id) else {
            bail!("an answer to no batch");
        };
        latency_us.record(since.elapsed().as_micros() as u64)?;
        let done = done(answer.outcome)?;
        items += done;
        let window = (begun.elapsed().as_millis() / WINDOW.as_millis()) as usize;
        windows.resize(windows.len().max(window + 1), 0);
        windows[window] += done;
    }
    let took = watch.stop()?;
    Ok(Streamed {
        items,
        latency_us,
        took,
        windows,
    })
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
