//! A client of the simulated cluster: plain gRPC over the simulated network, so that every refusal and every
//! outcome that stays unknown is seen as it is.

use std::collections::HashMap;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use likewise::client::Failure;
use likewise::wire::v1::counter_service_client::CounterServiceClient;
use likewise::wire::v1::like_service_client::LikeServiceClient;
use likewise::wire::v1::{AddRequest, AddResponse, LikeRequest, LikeResponse};
use likewise::wire::v1::{Consistency, GetPostRequest, PostLikes, ReadOptions};
use likewise::wire::v1::{UnlikeRequest, UnlikeResponse, WatchPostsRequest, WatchPostsResponse};
use prost::Message;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status, Streaming};
use tower::service_fn;

use super::machine::CLIENT_PORT;
use super::network::{SimulatedTransport, Wire};
use super::trace::{Kind, Trace};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// In the trace, several on one machine have numbers of their own.
const ANOTHER_FROM: usize = 1_000;

/// See the module.
pub struct Caller {
    trace: Trace,
    machine: usize,
    channels: HashMap<String, Channel>,
}

impl Caller {
    pub(super) fn new(trace: Trace, machine: usize) -> Self {
        Self {
            trace,
            machine,
            channels: HashMap::new(),
        }
    }

    /// Another one on the same machine, with connections of its own.
    pub fn another(&self, number: usize) -> Self {
        Self::new(self.trace.clone(), self.machine + ANOTHER_FROM + number)
    }

    /// The service of a region's node. Connects as calls go.
    fn service(&mut self, region: &str) -> LikeServiceClient<Channel> {
        LikeServiceClient::new(self.channel(region))
    }

    fn channel(&mut self, region: &str) -> Channel {
        let (trace, machine) = (self.trace.clone(), self.machine);
        let channel = self.channels.entry(region.to_owned()).or_insert_with(|| {
            let name = region.to_owned();
            let dial = service_fn(move |_: Uri| {
                let transport = SimulatedTransport::new(trace.clone(), machine);
                let name = name.clone();
                async move { transport.dial(&name, CLIENT_PORT).await.map(TokioIo::new) }
            });
            let endpoint = Endpoint::from_static("http://simulated");
            endpoint.connect_with_connector_lazy(dial)
        });
        channel.clone()
    }

    /// Hands on what came of a call, and notes it.
    async fn ended<T: Message>(
        &mut self,
        region: &str,
        what: String,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        self.note(&format!("calls {what}"), &[]);
        let ended = tokio::time::timeout(PATIENCE, call).await;
        if ended.is_err() {
            // The connection may hang for good: what a cut swallowed nobody sends again.
            self.channels.remove(region);
        }
        let ended = match ended {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Failure::of(&status)),
            Err(_) => Err(Failure::Unknown {
                problem: "no answer came in time".to_owned(),
                retry_after: None,
            }),
        };
        match &ended {
            Ok(answer) => self.note("answered", &answer.encode_to_vec()),
            Err(failure) => self.note(&format!("{failure:?}"), &[]),
        }
        ended
    }

    fn note(&self, what: &str, bytes: &[u8]) {
        self.trace
            .note(Kind::Client, self.machine, what.as_bytes(), bytes);
    }

    pub async fn like(&mut self, region: &str, like: LikeRequest) -> Result<LikeResponse, Failure> {
        let mut service = self.service(region);
        let what = format!("like {region} {} {}", like.post, like.user);
        self.ended(region, what, async {
            service.like(Request::new(like)).await
        })
        .await
    }

    pub async fn unlike(
        &mut self,
        region: &str,
        unlike: UnlikeRequest,
    ) -> Result<UnlikeResponse, Failure> {
        let mut service = self.service(region);
        let what = format!("unlike {region} {} {}", unlike.post, unlike.user);
        self.ended(region, what, async {
            service.unlike(Request::new(unlike)).await
        })
        .await
    }

    pub async fn add(&mut self, region: &str, add: AddRequest) -> Result<AddResponse, Failure> {
        let mut service = CounterServiceClient::new(self.channel(region));
        let what = format!("add {region} {} {} {}", add.post, add.counter, add.delta);
        self.ended(region, what, async { service.add(Request::new(add)).await })
            .await
    }

    /// The likes of a post, not older than the token, and the newer token.
    pub async fn read(
        &mut self,
        region: &str,
        post: &str,
        viewer: &str,
        token: String,
    ) -> Result<(PostLikes, String), Failure> {
        let mut service = self.service(region);
        let consistency = match token.is_empty() {
            true => Consistency::Exact,
            false => Consistency::AtLeast,
        };
        let read = GetPostRequest {
            post: post.to_owned(),
            viewer: viewer.to_owned(),
            options: Some(ReadOptions {
                consistency: consistency.into(),
                token,
                ..ReadOptions::default()
            }),
        };
        let what = format!("read {region} {post} {viewer}");
        let read = self.ended(region, what, async {
            service.get_post(Request::new(read)).await
        });
        let answer = read.await?;
        Ok((answer.likes.unwrap_or_default(), answer.token))
    }

    /// Watches posts.
    pub async fn watch(
        &mut self,
        region: &str,
        posts: Vec<String>,
    ) -> Result<Streaming<WatchPostsResponse>, Status> {
        let watch = WatchPostsRequest {
            posts,
            token: String::new(),
        };
        let answer = self
            .service(region)
            .watch_posts(Request::new(watch))
            .await?;
        Ok(answer.into_inner())
    }

    /// A connection of its own, for whoever does not speak gRPC.
    pub async fn dial(&self, host: &str, port: u16) -> std::io::Result<Wire> {
        let transport = SimulatedTransport::new(self.trace.clone(), self.machine);
        transport.dial(host, port).await
    }
}
