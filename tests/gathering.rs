//! Calls that are made at the same time go out together, and each is promised what it is alone.

#[path = "support/served.rs"]
mod served;
mod support;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use likewise::client::{Client, ClientError, Reason};
use likewise::wire::v1;
use likewise::wire::v1::like_service_client::LikeServiceClient;
use likewise::wire::v1::like_service_server::{LikeService, LikeServiceServer};
use likewise::wire::v1::stream_writes_response::Outcome;
use served::{Served, served};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Stands before a node, and sees batches.
#[derive(Clone)]
struct Between {
    node: LikeServiceClient<Channel>,
    /// Batches that came on streams.
    streamed: watch::Sender<Vec<v1::WriteBatch>>,
    /// Batches that came as calls.
    called: watch::Sender<Vec<v1::WriteBatch>>,
    /// Batches on streams that may be answered.
    permits: Arc<Semaphore>,
    /// Whether a batch on a stream is carried out, and the stream breaks before the answer.
    breaks: bool,
    /// A stream ends after so many answers.
    answers_max: usize,
}

fn unscripted<T>() -> Result<T, Status> {
    Err(Status::unimplemented("not in the script"))
}

#[tonic::async_trait]
impl LikeService for Between {
    async fn batch_write(
        &self,
        request: Request<v1::BatchWriteRequest>,
    ) -> Result<Response<v1::BatchWriteResponse>, Status> {
        let request = request.into_inner();
        let batch = request.batch.clone().expect("a batch");
        self.called.send_modify(|called| called.push(batch));
        self.node.clone().batch_write(request).await
    }

    type StreamWritesStream = Answers<v1::StreamWritesResponse>;

    async fn stream_writes(
        &self,
        request: Request<Streaming<v1::StreamWritesRequest>>,
    ) -> Result<Response<Self::StreamWritesStream>, Status> {
        let between = self.clone();
        let answers = request.into_inner().map(move |request| {
            let between = between.clone();
            async move { between.answer(request?).await }
        });
        let answers = answers.buffer_unordered(8).take(self.answers_max);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn like(
        &self,
        _: Request<v1::LikeRequest>,
    ) -> Result<Response<v1::LikeResponse>, Status> {
        unscripted()
    }

    async fn unlike(
        &self,
        _: Request<v1::UnlikeRequest>,
    ) -> Result<Response<v1::UnlikeResponse>, Status> {
        unscripted()
    }

    async fn list_likers(
        &self,
        _: Request<v1::ListLikersRequest>,
    ) -> Result<Response<v1::ListLikersResponse>, Status> {
        unscripted()
    }

    async fn get_post(
        &self,
        _: Request<v1::GetPostRequest>,
    ) -> Result<Response<v1::GetPostResponse>, Status> {
        unscripted()
    }

    async fn batch_get_posts(
        &self,
        _: Request<v1::BatchGetPostsRequest>,
    ) -> Result<Response<v1::BatchGetPostsResponse>, Status> {
        unscripted()
    }

    type WatchPostsStream = Answers<v1::WatchPostsResponse>;

    async fn watch_posts(
        &self,
        _: Request<v1::WatchPostsRequest>,
    ) -> Result<Response<Self::WatchPostsStream>, Status> {
        unscripted()
    }
}

impl Between {
    async fn answer(
        &self,
        request: v1::StreamWritesRequest,
    ) -> Result<v1::StreamWritesResponse, Status> {
        let batch = request.batch.clone().expect("a batch");
        self.streamed.send_modify(|streamed| streamed.push(batch));
        let permit = self.permits.acquire().await.expect("never closed");
        permit.forget();
        let batch = request.batch;
        let call = v1::BatchWriteRequest { batch };
        let answer = self.node.clone().batch_write(call).await?;
        if self.breaks {
            return Err(Status::unavailable("the line is cut"));
        }
        Ok(v1::StreamWritesResponse {
            batch_id: request.batch_id,
            outcome: answer.into_inner().result.map(Outcome::Result),
        })
    }

    async fn until_streamed(&self, batches: usize) {
        let mut streamed = self.streamed.subscribe();
        let come = streamed.wait_for(|streamed| streamed.len() >= batches);
        come.await.expect("it serves");
    }
}

/// A node, who stands before it, and a client that gathers.
async fn gathering(permits: usize, breaks: bool) -> (Served, Between, Client) {
    gathering_by(permits, breaks, usize::MAX).await
}

async fn gathering_by(
    permits: usize,
    breaks: bool,
    answers_max: usize,
) -> (Served, Between, Client) {
    let node = served("eu", 1).await;
    let between = Between {
        node: node.likes.clone(),
        streamed: watch::Sender::default(),
        called: watch::Sender::default(),
        permits: Arc::new(Semaphore::new(permits)),
        breaks,
        answers_max,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let service = LikeServiceServer::new(between.clone());
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    (node, between, client(&address.to_string()))
}

fn client(endpoint: &str) -> Client {
    let client = Client::builder().endpoints([endpoint]).gather_calls();
    client.connect_lazy().expect("an endpoint")
}

async fn like_by(client: &Client, users: std::ops::Range<usize>) -> Vec<v1::LikeResponse> {
    let likes = users.map(|user| async move { client.like("p", &format!("u{user}")).await });
    let answers = join_all(likes).await.into_iter();
    answers.map(|answer| answer.expect("liked")).collect()
}

#[tokio::test]
async fn calls_at_once_leave_together_and_are_answered_one_by_one() {
    let (node, between, client) = gathering(100, false).await;
    let answers = like_by(&client, 0..200).await;
    assert!(answers.iter().all(|answer| answer.changed));
    assert!(answers.iter().all(|answer| answer.count == Some(200)));
    let ids: std::collections::BTreeSet<_> = answers.iter().map(|it| &it.like_id).collect();
    assert_eq!(ids.len(), 200, "an id of its own for each");
    assert_eq!(between.streamed.borrow().len(), 1);
    let again = like_by(&client, 0..1).await;
    assert!(!again[0].changed && again[0].count == Some(200));
    assert_eq!(client.token(), again[0].token);
    assert_eq!(node.node.engine.likers(), 200);
}

#[tokio::test]
async fn a_call_waits_while_two_batches_are_under_way_and_no_longer() {
    let (_node, between, client) = gathering(0, false).await;
    let like = |users: std::ops::Range<usize>| {
        let client = client.clone();
        tokio::spawn(async move { like_by(&client, users).await })
    };
    let first = like(0..1);
    between.until_streamed(1).await;
    let second = like(1..2);
    between.until_streamed(2).await;
    let third = like(2..12);
    // All of them have asked by now.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    between.permits.add_permits(1);
    first.await.expect("answered");
    between.permits.add_permits(100);
    assert_eq!(second.await.expect("answered").len(), 1);
    let counts = third.await.expect("answered").into_iter();
    assert!(counts.map(|answer| answer.count).eq([Some(12); 10]));
    let streamed = between.streamed.borrow();
    let calls = |batch: &v1::WriteBatch| match &batch.users {
        Some(v1::write_batch::Users::UserStrings(users)) => users.lengths.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(streamed.iter().map(calls).collect::<Vec<_>>(), [1, 1, 10]);
}

#[tokio::test]
async fn what_a_broken_stream_left_unknown_is_tried_again_and_done_once() {
    let (node, between, client) = gathering(100, true).await;
    let answers = like_by(&client, 0..20).await;
    assert!(
        answers.iter().all(|answer| answer.changed),
        "as it was told first"
    );
    assert_eq!(node.node.engine.made().1, 20, "events");
    let adds = (0..20).map(|_| client.add("p", "views", 3));
    for added in join_all(adds).await {
        assert_eq!(added.expect("added").value, Some(60));
    }
    let (streamed, called) = (between.streamed.borrow(), between.called.borrow());
    let ids = |batches: &[v1::WriteBatch]| -> Vec<String> {
        batches
            .iter()
            .map(|batch| batch.request_id.clone())
            .collect()
    };
    assert_eq!(ids(&streamed), ids(&called));
    assert_eq!(streamed.len(), 2);
}

#[tokio::test]
async fn a_stream_that_ended_while_nobody_called_is_opened_again() {
    let (node, between, client) = gathering_by(100, false, 1).await;
    for user in 0..3 {
        assert!(like_by(&client, user..user + 1).await[0].changed);
    }
    assert_eq!(node.node.engine.likers(), 3);
    // The second call found the stream gone.
    let batches = (
        between.streamed.borrow().len(),
        between.called.borrow().len(),
    );
    assert_eq!(batches, (2, 1));
}

#[tokio::test]
async fn a_bad_call_fails_alone_with_its_field() {
    let node = served("eu", 1).await;
    let client = client(&node.endpoint.uri().to_string());
    let (good, bad) = tokio::join!(client.like("p", "ann"), client.like("p", ""));
    assert!(good.expect("liked").changed);
    let bad = bad.expect_err("refused");
    assert_eq!(bad.reason(), Some(Reason::InvalidField));
    assert!(bad.to_string().contains("user_strings[1]"), "{bad}");
    let (added, beyond) = tokio::join!(
        client.add("p", "views", 7),
        client.add("p", "views", i64::MIN)
    );
    assert_eq!(added.expect("added").value, Some(7));
    assert!(matches!(beyond, Err(ClientError::Refused(_))), "{beyond:?}");
}

#[tokio::test]
async fn a_node_that_is_gone_is_told_as_without_gathering() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let client = Client::builder().endpoints([address]).gather_calls();
    let client = client.deadline(std::time::Duration::from_millis(200));
    let client = client.connect_lazy().expect("an endpoint");
    let error = client.like("p", "ann").await.expect_err("nobody answers");
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}
