//! The client of the measurements: unary calls from many tasks, and one stream of batches.

use std::time::{Duration, Instant};

use anyhow::ensure;
use likewise::wire::v1::like_service_client::LikeServiceClient;
use likewise::wire::v1::{GetPostRequest, LikeRequest};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::measure::stream::{self, Drive};
use crate::measure::unary::Callers;
use crate::node::Node;
use crate::report::Measured;

const CONNECTIONS: usize = 4;
/// Calls under way on each connection.
const CALLS: usize = 64;
/// Batches under way on the stream.
pub const IN_FLIGHT: usize = 16;
const BATCH: usize = 1_000;
const USERS: u64 = 10_000_000;

pub struct Client {
    callers: Callers,
}

/// The users of a batch, random among all.
pub fn users(rng: &mut SmallRng) -> Vec<u64> {
    (0..BATCH).map(|_| rng.random_range(0..USERS)).collect()
}

/// Who was sent, to know what the count must be.
pub struct Seen {
    bits: Vec<u64>,
    count: u64,
    batches: u64,
}

impl Seen {
    fn add(&mut self, users: &[u64]) {
        self.batches += 1;
        for user in users {
            let word = &mut self.bits[(user / 64) as usize];
            let bit = 1 << (user % 64);
            self.count += u64::from(*word & bit == 0);
            *word |= bit;
        }
    }
}

impl Client {
    pub async fn connect(node: &Node) -> anyhow::Result<Self> {
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            let endpoint = Channel::from_shared(node.address.clone())?;
            channels.push(endpoint.tcp_nodelay(true).connect().await?);
        }
        Ok(Self {
            callers: Callers {
                pid: Some(node.pid()),
                channels,
                calls: CALLS,
            },
        })
    }

    /// Calls from all tasks until the time is over, each with a user of its own choice.
    async fn unary<F>(
        &self,
        span: Duration,
        call: impl Fn(Channel, u64) -> F + Clone + Send + 'static,
    ) -> anyhow::Result<Measured>
    where
        F: Future<Output = Result<(), tonic::Status>> + Send,
    {
        let call = move |channel, caller: u64, number: u64| {
            let mut rng = SmallRng::seed_from_u64(caller << 32 | number);
            call(channel, rng.random_range(0..USERS))
        };
        let (latency, took) = self.callers.run(span, call).await?;
        Measured::new(latency.len(), latency, took)
    }

    /// The nearest to an echo that the node serves: grpc.health.v1 Check reads one value.
    pub async fn checks(&self, span: Duration) -> anyhow::Result<Measured> {
        self.unary(span, |channel, _| async move {
            let service = String::new();
            let request = HealthCheckRequest { service };
            HealthClient::new(channel).check(request).await.map(drop)
        })
        .await
    }

    pub async fn likes(&self, span: Duration) -> anyhow::Result<Measured> {
        self.unary(span, |channel, user| async move {
            let request = LikeRequest {
                post: "unary".to_owned(),
                user: format!("u{user}"),
                ..LikeRequest::default()
            };
            LikeServiceClient::new(channel)
                .like(request)
                .await
                .map(drop)
        })
        .await
    }

    pub async fn reads(&self, span: Duration) -> anyhow::Result<Measured> {
        self.unary(span, |channel, _| async move {
            let request = get("unary");
            let mut client = LikeServiceClient::new(channel);
            client.get_post(request).await.map(drop)
        })
        .await
    }

    /// Streams likes of one post by random users.
    pub async fn stream(
        &self,
        post: &str,
        seed: u64,
        span: Duration,
    ) -> anyhow::Result<(Measured, Seen)> {
        let mut seen = Seen {
            bits: vec![0; USERS.div_ceil(64) as usize],
            count: 0,
            batches: 0,
        };
        let mut rng = SmallRng::seed_from_u64(seed);
        let end = Instant::now() + span;
        let next = || {
            (Instant::now() < end).then(|| {
                let users = users(&mut rng);
                seen.add(&users);
                users
            })
        };
        let measured = self.stream_batches(post, next).await?;
        Ok((measured, seen))
    }

    /// Streams the same likes again, from the first one on.
    pub async fn stream_again(
        &self,
        post: &str,
        seed: u64,
        seen: &Seen,
        span: Duration,
    ) -> anyhow::Result<Measured> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let end = Instant::now() + span;
        let mut left = seen.batches;
        let next = || {
            (left > 0 && Instant::now() < end).then(|| {
                left -= 1;
                users(&mut rng)
            })
        };
        self.stream_batches(post, next).await
    }

    async fn stream_batches(
        &self,
        post: &str,
        mut next: impl FnMut() -> Option<Vec<u64>>,
    ) -> anyhow::Result<Measured> {
        let drive = Drive {
            pid: self.callers.pid,
            in_flight: IN_FLIGHT,
            pace: None,
        };
        let next = || Some(stream::likes_of(post, next()?));
        let streamed = stream::drive(vec![self.callers.channels[0].clone()], drive, next).await?;
        Measured::new(streamed.items, streamed.latency_us, streamed.took)
    }

    /// The count is exactly that of the users who were sent.
    pub async fn check_count(&self, post: &str, seen: &Seen) -> anyhow::Result<()> {
        let mut client = LikeServiceClient::new(self.callers.channels[0].clone());
        let answer = client.get_post(get(post)).await?.into_inner();
        let found = answer.likes.map_or(0, |likes| likes.count);
        ensure!(found == seen.count, "{found} in place of {}", seen.count);
        Ok(())
    }
}

fn get(post: &str) -> GetPostRequest {
    GetPostRequest {
        post: post.to_owned(),
        ..GetPostRequest::default()
    }
}
