//! Reads: of one post at a steady rate, and of many posts a call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use likewise::wire::v1::like_service_client::LikeServiceClient;
use likewise::wire::v1::{
    BatchGetPostsRequest, BatchGetPostsResponse, BatchWriteRequest, GetPostRequest,
};
use parking_lot::Mutex;
use prost::Message;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

use crate::figures;
use crate::measure::latencies;
use crate::measure::machine::Watch;
use crate::measure::stream::likes_of;
use crate::raw::Raw;

/// Likers of each post that is read by the hundred.
const FEED_LIKERS: u64 = 100;
const VIEWER: u64 = 7;

#[derive(clap::Args)]
pub struct Paced {
    /// The node
    #[arg(long)]
    address: String,
    #[arg(long, default_value = "hot")]
    post: String,
    /// Reads a second
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    #[arg(long, default_value_t = 4)]
    connections: usize,
    #[arg(long)]
    seconds: f64,
}

/// A read's latency counts from when it was due, whether or not earlier ones are still under way.
pub async fn paced(paced: Paced) -> anyhow::Result<Value> {
    let mut channels = Vec::new();
    for _ in 0..paced.connections {
        channels.push(figures::connect(&paced.address).await?);
    }
    let latency_us = Arc::new(Mutex::new(latencies()?));
    let begun = Instant::now();
    let mut reads = JoinSet::new();
    for number in 0..(paced.rate * paced.seconds) as usize {
        let due = begun + Duration::from_secs_f64(number as f64 / paced.rate);
        sleep_until(due.into()).await;
        let mut client = LikeServiceClient::new(channels[number % channels.len()].clone());
        let request = GetPostRequest {
            post: paced.post.clone(),
            ..GetPostRequest::default()
        };
        let latency_us = latency_us.clone();
        reads.spawn(async move {
            client.get_post(request).await?;
            latency_us.lock().record(due.elapsed().as_micros() as u64)?;
            anyhow::Ok(())
        });
        while let Some(read) = reads.try_join_next() {
            read??;
        }
    }
    while let Some(read) = reads.join_next().await {
        read??;
    }
    Ok(figures::latency(&latency_us.lock()))
}

#[derive(clap::Args)]
pub struct Batches {
    /// The node
    #[arg(long)]
    address: String,
    /// Its process
    #[arg(long)]
    pid: Option<u32>,
    /// Posts a call
    #[arg(long, default_value_t = 100)]
    posts: usize,
    /// Calls under way
    #[arg(long, default_value_t = 8)]
    in_flight: usize,
    #[arg(long)]
    seconds: f64,
}

/// The viewer likes every other post, which the answers must show.
pub async fn batches(batches: Batches) -> anyhow::Result<Value> {
    let channel = figures::connect(&batches.address).await?;
    let posts: Vec<String> = (0..batches.posts)
        .map(|post| format!("feed-{post}"))
        .collect();
    fill(channel.clone(), &posts).await?;
    let request = BatchGetPostsRequest {
        posts,
        viewer: format!("u{VIEWER}"),
        ..BatchGetPostsRequest::default()
    };
    let watch = Watch::start(batches.pid)?;
    let end = Instant::now() + Duration::from_secs_f64(batches.seconds);
    let mut callers = JoinSet::new();
    for _ in 0..batches.in_flight {
        callers.spawn(call(channel.clone(), request.clone(), end));
    }
    let mut latency_us = latencies()?;
    while let Some(caller) = callers.join_next().await {
        latency_us.add(caller??)?;
    }
    let items = latency_us.len() * batches.posts as u64;
    let rate = figures::rate(items, watch.stop()?);
    Ok(figures::joined(rate, figures::latency(&latency_us)))
}

async fn fill(channel: Channel, posts: &[String]) -> anyhow::Result<()> {
    let mut client = LikeServiceClient::new(channel);
    for (number, post) in posts.iter().enumerate() {
        let first = 1_000 * (number as u64 + 1);
        let mut users: Vec<u64> = (first..first + FEED_LIKERS - 1).collect();
        users.push(if number % 2 == 0 { VIEWER } else { first - 1 });
        let batch = Some(likes_of(post, users));
        let request = BatchWriteRequest { batch };
        client.batch_write(request).await?;
    }
    Ok(())
}

/// As h2load does, it sends bytes that were made once. An answer that is byte for byte one that was checked is as right, and is
/// not decoded: what the client does is taken from the node's cores.
async fn call(
    channel: Channel,
    request: BatchGetPostsRequest,
    end: Instant,
) -> anyhow::Result<hdrhistogram::Histogram<u64>> {
    let mut client = tonic::client::Grpc::new(channel);
    let path = PathAndQuery::from_static("/likewise.v1.LikeService/BatchGetPosts");
    let message = Bytes::from(request.encode_to_vec());
    let mut checked = Bytes::new();
    let mut latency_us = latencies()?;
    while Instant::now() < end {
        let since = Instant::now();
        client.ready().await?;
        let call = tonic::Request::new(message.clone());
        let answer = client.unary(call, path.clone(), Raw).await?.into_inner();
        latency_us.record(since.elapsed().as_micros() as u64)?;
        if answer != checked {
            check(&request, BatchGetPostsResponse::decode(answer.clone())?)?;
            checked = answer;
        }
    }
    Ok(latency_us)
}

fn check(request: &BatchGetPostsRequest, answer: BatchGetPostsResponse) -> anyhow::Result<()> {
    let liked = answer
        .likes
        .iter()
        .filter(|likes| likes.viewer_likes)
        .count();
    let exact = answer.likes.iter().all(|likes| likes.count == FEED_LIKERS);
    ensure!(
        exact
            && answer.likes.len() == request.posts.len()
            && liked == request.posts.len().div_ceil(2),
        "a wrong answer"
    );
    Ok(())
}
