//! The client library against a scripted node: what it sends again, what it remembers, where it goes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use likewise::client::{Batch, Client, ClientError, Read, Reason, RetryElsewhere};
use likewise::wire::v1;
use likewise::wire::v1::like_service_server::{LikeService, LikeServiceServer};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

/// What the script says to a like: the answer's token, or a refusal.
type Line = Result<&'static str, Status>;

#[derive(Clone, Default)]
struct Node {
    script: Arc<Mutex<VecDeque<Line>>>,
    likes: Arc<Mutex<Vec<v1::LikeRequest>>>,
    reads: Arc<Mutex<Vec<v1::ReadOptions>>>,
    watches: Arc<Mutex<Vec<String>>>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl LikeService for Node {
    async fn like(
        &self,
        request: Request<v1::LikeRequest>,
    ) -> Result<Response<v1::LikeResponse>, Status> {
        self.likes.lock().push(request.into_inner());
        let line = self.script.lock().pop_front().unwrap_or(Ok("end"));
        let token = line?.to_owned();
        Ok(Response::new(v1::LikeResponse {
            token,
            ..v1::LikeResponse::default()
        }))
    }

    async fn unlike(
        &self,
        _: Request<v1::UnlikeRequest>,
    ) -> Result<Response<v1::UnlikeResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn batch_write(
        &self,
        _: Request<v1::BatchWriteRequest>,
    ) -> Result<Response<v1::BatchWriteResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn list_likers(
        &self,
        _: Request<v1::ListLikersRequest>,
    ) -> Result<Response<v1::ListLikersResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    type StreamWritesStream = Answers<v1::StreamWritesResponse>;

    /// Answers all batches but the one with the number 1, and ends badly after the fourth.
    async fn stream_writes(
        &self,
        request: Request<Streaming<v1::StreamWritesRequest>>,
    ) -> Result<Response<Self::StreamWritesStream>, Status> {
        let answers = request.into_inner().filter_map(|request| {
            let batch_id = request.ok()?.batch_id;
            let result = v1::WriteResult {
                token: format!("after-{batch_id}"),
                ..v1::WriteResult::default()
            };
            let outcome = Some(v1::stream_writes_response::Outcome::Result(result));
            match batch_id {
                1 => None,
                3 => Some(Err(Status::unavailable("the line is cut"))),
                _ => Some(Ok(v1::StreamWritesResponse { batch_id, outcome })),
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_post(
        &self,
        request: Request<v1::GetPostRequest>,
    ) -> Result<Response<v1::GetPostResponse>, Status> {
        let options = request.into_inner().options.unwrap_or_default();
        self.reads.lock().push(options);
        Ok(Response::new(v1::GetPostResponse {
            token: "read".to_owned(),
            ..v1::GetPostResponse::default()
        }))
    }

    async fn batch_get_posts(
        &self,
        _: Request<v1::BatchGetPostsRequest>,
    ) -> Result<Response<v1::BatchGetPostsResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    type WatchPostsStream = Answers<v1::WatchPostsResponse>;

    /// Shows one state, then breaks.
    async fn watch_posts(
        &self,
        request: Request<v1::WatchPostsRequest>,
    ) -> Result<Response<Self::WatchPostsStream>, Status> {
        let token = request.into_inner().token;
        let mut watches = self.watches.lock();
        watches.push(token);
        let state = v1::WatchPostsResponse {
            token: format!("shown-{}", watches.len()),
            likes: Vec::new(),
        };
        let broken = Err(Status::unavailable("the line is cut"));
        Ok(Response::new(Box::pin(tokio_stream::iter([
            Ok(state),
            broken,
        ]))))
    }
}

impl Node {
    fn says(&self, lines: impl IntoIterator<Item = Line>) -> &Self {
        self.script.lock().extend(lines);
        self
    }

    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = LikeServiceServer::new(self.clone());
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        format!("http://{address}")
    }
}

fn refusal(reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "likewise", []);
    Status::with_error_details(Code::Unavailable, "words", details)
}

async fn client(nodes: &[&Node], elsewhere: RetryElsewhere) -> Client {
    let mut endpoints = Vec::new();
    for node in nodes {
        endpoints.push(node.serve().await);
    }
    Client::builder()
        .endpoints(endpoints)
        .retry_elsewhere(elsewhere)
        .deadline(Duration::from_secs(20))
        .connect()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_write_is_retried_with_the_same_request_id() {
    let node = Node::default();
    node.says([
        Err(Status::unavailable("the line is cut")),
        Err(refusal("OUTCOME_UNKNOWN")),
        Err(refusal("OVERLOADED")),
        Ok("t1"),
    ]);
    let client = client(&[&node], RetryElsewhere::LikesOnly).await;
    client.like("p", "u").await.unwrap();
    client.like("p", "u").await.unwrap();
    let likes = node.likes.lock();
    assert_eq!(likes.len(), 5);
    assert!(
        likes[..4]
            .iter()
            .all(|like| like.request_id == likes[0].request_id)
    );
    assert_ne!(likes[4].request_id, likes[0].request_id);
    assert_eq!(likes[4].token, "t1");
}

#[tokio::test]
async fn a_refusal_is_final_and_typed() {
    let node = Node::default();
    node.says([Err(refusal("REQUEST_ID_REUSED"))]);
    let client = client(&[&node], RetryElsewhere::LikesOnly).await;
    let error = client.like("p", "u").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::RequestIdReused));
    assert_eq!(node.likes.lock().len(), 1);
}

#[tokio::test]
async fn a_like_of_unknown_outcome_goes_elsewhere_only_where_allowed() {
    for (elsewhere, tries) in [
        (RetryElsewhere::LikesOnly, [1, 1]),
        (RetryElsewhere::Never, [2, 0]),
    ] {
        let (first, second) = (Node::default(), Node::default());
        first.says([Err(Status::unavailable("the line is cut"))]);
        let client = client(&[&first, &second], elsewhere).await;
        client.like("p", "u").await.unwrap();
        assert_eq!([first.likes.lock().len(), second.likes.lock().len()], tries);
    }
}

#[tokio::test]
async fn a_node_where_nothing_happened_is_left_for_the_next() {
    let (first, second) = (Node::default(), Node::default());
    first.says([Err(refusal("REASON_STOPPING"))]);
    let client = client(&[&first, &second], RetryElsewhere::Never).await;
    client.like("p", "u").await.unwrap();
    client.like("p", "u").await.unwrap();
    assert_eq!(first.likes.lock().len(), 1);
    assert_eq!(
        second.likes.lock().len(),
        2,
        "the node that answered is asked first"
    );
}

#[tokio::test]
async fn reads_ask_for_what_was_seen() {
    let node = Node::default();
    node.says([Ok("t1")]);
    let client = client(&[&node], RetryElsewhere::LikesOnly).await;
    client.get_post("p", None, Read::default()).await.unwrap();
    let fresh = client.session();
    fresh.set_token("elsewhere");
    fresh.get_post("p", None, Read::default()).await.unwrap();
    assert_eq!(
        (client.token().as_str(), fresh.token().as_str()),
        ("read", "read")
    );
    let reads = node.reads.lock();
    assert_eq!(reads[0].consistency(), v1::Consistency::Exact);
    assert_eq!(reads[1].consistency(), v1::Consistency::AtLeast);
    assert_eq!(reads[1].token, "elsewhere");
}

#[tokio::test]
async fn a_watch_goes_on_from_what_it_showed() {
    let node = Node::default();
    let client = client(&[&node], RetryElsewhere::LikesOnly).await;
    let mut watch = client.watch(vec!["p".to_owned()]);
    watch.next().await.unwrap();
    watch.next().await.unwrap();
    assert_eq!(*node.watches.lock(), ["", "shown-1"]);
}

#[tokio::test]
async fn a_broken_stream_gives_back_what_has_no_answer() {
    let node = Node::default();
    let client = client(&[&node], RetryElsewhere::LikesOnly).await;
    let (sender, mut receiver) = client.stream_writes(8).await.unwrap();
    let mut request_ids = Vec::new();
    for _ in 0..4 {
        let mut batch = Batch::new();
        batch.like("p", "u");
        request_ids.push(batch.request_id().to_owned());
        sender.send(batch).await.unwrap();
    }
    for expected in [0, 2] {
        let answer = receiver.next().await.unwrap().unwrap();
        assert_eq!(answer.batch_id, expected);
        assert_eq!(answer.outcome.unwrap().token, format!("after-{expected}"));
    }
    assert!(receiver.next().await.unwrap().is_err());
    let unanswered: Vec<_> = receiver.unanswered();
    let ids: Vec<_> = unanswered
        .iter()
        .map(|(id, batch)| (*id, &batch.request_id))
        .collect();
    assert_eq!(ids, [(1, &request_ids[1]), (3, &request_ids[3])]);
    assert!(
        sender.send(Batch::new()).await.is_err(),
        "a broken stream takes no more"
    );
}

#[tokio::test]
async fn a_silent_node_leaves_a_write_unknown_and_a_read_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = Client::builder()
        .endpoints([address])
        .deadline(Duration::from_millis(400))
        .attempt_timeout(Duration::from_millis(100))
        .connect_lazy()
        .unwrap();
    let write = client.like("p", "u").await.unwrap_err();
    assert!(write.is_outcome_unknown(), "{write}");
    let read = client
        .get_post("p", None, Read::default())
        .await
        .unwrap_err();
    assert!(matches!(read, ClientError::Unreachable { .. }), "{read}");
}
