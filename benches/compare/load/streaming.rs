//! Writes on streams of batches, and whether the count is right afterwards.

use std::time::{Duration, Instant};

use likewise::wire::v1::GetPostRequest;
use likewise::wire::v1::like_service_client::LikeServiceClient;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::{Value, json};

use crate::figures;
use crate::measure::stream::{Drive, drive};
use crate::users::{Operations, Order, Posts, Users};

#[derive(clap::Args)]
pub struct Arguments {
    /// The node
    #[arg(long)]
    address: String,
    /// The node's process
    #[arg(long)]
    pid: Option<u32>,
    /// The post, or what the names of all posts begin with
    #[arg(long, default_value = "hot")]
    post: String,
    /// How many posts
    #[arg(long, default_value_t = 1)]
    posts: u64,
    /// Zipf's exponent over the posts; 0 for all alike
    #[arg(long, default_value_t = 0.0)]
    zipf: f64,
    /// How many users there are
    #[arg(long, default_value_t = 10_000_000)]
    users: u64,
    #[arg(long, value_enum, default_value = "random")]
    order: Order,
    /// How many of the order are passed over
    #[arg(long, default_value_t = 0)]
    from: u64,
    #[arg(long, value_enum, default_value = "like")]
    operations: Operations,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Ends after so many items
    #[arg(long, default_value_t = u64::MAX)]
    items: u64,
    /// Ends after so many seconds
    #[arg(long, default_value_t = 1e6)]
    seconds: f64,
    #[arg(long, default_value_t = 1_000)]
    batch: usize,
    /// Streams, each on a connection of its own
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Batches under way on each stream
    #[arg(long, default_value_t = 16)]
    in_flight: usize,
    /// Items a second; as many as are taken if unset
    #[arg(long)]
    rate: Option<f64>,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let mut channels = Vec::new();
    for _ in 0..arguments.streams.max(1) {
        channels.push(figures::connect(&arguments.address).await?);
    }
    let channel = channels[0].clone();
    let posts = Posts::new(arguments.post.clone(), arguments.posts, arguments.zipf);
    let mut users = Users {
        order: arguments.order,
        among: arguments.users,
        at: arguments.from,
        rng: SmallRng::seed_from_u64(arguments.seed),
    };
    let end = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let mut left = arguments.items;
    let next = || {
        let size = left.min(arguments.batch as u64);
        left -= size;
        let is_over = size == 0 || Instant::now() >= end;
        (!is_over).then(|| posts.batch(&mut users, size as usize, arguments.operations))
    };
    let plan = Drive {
        pid: arguments.pid,
        in_flight: arguments.in_flight,
        pace: arguments.rate.map(|rate| rate / arguments.batch as f64),
    };
    let streamed = drive(channels, plan, next).await?;
    let count = match arguments.posts {
        1 => Some(count(channel, arguments.post.clone()).await?),
        _ => None,
    };
    let rate = figures::rate(streamed.items, streamed.took);
    let all = figures::joined(rate, figures::latency(&streamed.latency_us));
    let more = json!({
        "windows": streamed.windows,
        "count": count,
        "distinct": distinct(&arguments, streamed.items),
    });
    Ok(figures::joined(all, more))
}

async fn count(channel: tonic::transport::Channel, post: String) -> anyhow::Result<u64> {
    let request = GetPostRequest {
        post,
        ..GetPostRequest::default()
    };
    let answer = LikeServiceClient::new(channel).get_post(request).await?;
    Ok(answer.into_inner().likes.map_or(0, |likes| likes.count))
}

/// How many users liked, drawn anew; none where that does not say what the count must be.
fn distinct(arguments: &Arguments, items: u64) -> Option<u64> {
    if arguments.posts > 1 || arguments.operations != Operations::Like {
        return None;
    }
    let mut users = Users {
        order: arguments.order,
        among: arguments.users,
        at: arguments.from,
        rng: SmallRng::seed_from_u64(arguments.seed),
    };
    let mut seen = vec![0_u64; arguments.users.div_ceil(64) as usize];
    for _ in 0..items {
        let user = users.next();
        seen[(user / 64) as usize] |= 1 << (user % 64);
    }
    Some(seen.iter().map(|word| u64::from(word.count_ones())).sum())
}
