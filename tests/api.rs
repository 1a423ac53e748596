//! The clients' services over a real connection, on an engine with a real log.

#[path = "support/raw.rs"]
mod raw;
#[path = "support/served.rs"]
mod served;
mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use likewise::api::ApiLimits;
use likewise::engine::Serving;
use likewise::limits::REFUSED_MESSAGE_MAX;
use likewise::log::LogOptions;
use likewise::wire::v1::like_service_client::LikeServiceClient;
use likewise::wire::v1::stream_writes_response::Outcome as Answer;
use likewise::wire::v1::{
    BatchGetPostsRequest, BatchWriteRequest, Consistency, GetCountersRequest, GetStatusRequest,
    IntegerColumn, LikeRequest, LikeResponse, NodeState, Operation, Outcome, ReadOptions, Reason,
    StreamWritesRequest, StringColumn, WatchPostsRequest, WriteBatch, WriteResult, write_batch,
};
use raw::Raw;
use served::{Served, add, at_least, get, like, limits, refusal, serve, served, unlike};
use support::Machine;
use tokio_stream::StreamExt;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Response};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

const LONG: Duration = Duration::from_secs(20);

/// Limits under which a single call may wait.
fn one_waits() -> ApiLimits {
    let mut limits = limits();
    limits.waiting_max = 1;
    limits
}

/// The node has had every occasion to answer what was asked before.
async fn round_trips(node: &mut Served) {
    for _ in 0..50 {
        node.likes.get_post(get("other", "")).await.expect("read");
    }
}

fn users(names: &[&str]) -> Option<write_batch::Users> {
    Some(write_batch::Users::UserStrings(StringColumn {
        data: names.concat().into_bytes().into(),
        lengths: names.iter().map(|name| name.len() as u32).collect(),
    }))
}

fn batch(post: &str, operations: &[Operation], names: &[&str]) -> WriteBatch {
    WriteBatch {
        posts: vec![post.to_owned()],
        operations: operations
            .iter()
            .map(|operation| *operation as i32)
            .collect(),
        users: users(names),
        include_like_ids: true,
        ..WriteBatch::default()
    }
}

fn outcomes(result: &WriteResult) -> Vec<Outcome> {
    result.outcomes().collect()
}

async fn write(node: &mut Served, batch: WriteBatch) -> WriteResult {
    let request = BatchWriteRequest { batch: Some(batch) };
    let answer = node.likes.batch_write(request).await.expect("taken");
    answer.into_inner().result.expect("a result")
}

#[tokio::test]
async fn likes_are_counted_named_and_replaced() {
    let mut node = served("eu", 1).await;
    let first = node
        .likes
        .like(like("p", "ann"))
        .await
        .expect("taken")
        .into_inner();
    assert!(first.changed && first.replaced_like_ids.is_empty());
    assert_eq!(first.count, Some(1));
    let again = node
        .likes
        .like(like("p", "ann"))
        .await
        .expect("taken")
        .into_inner();
    assert!(!again.changed);
    assert_eq!(again.count, Some(1));
    assert_eq!(again.replaced_like_ids, vec![first.like_id]);

    let read = node
        .likes
        .get_post(get("p", "ann"))
        .await
        .expect("read")
        .into_inner();
    let likes = read.likes.expect("always there");
    assert_eq!((likes.count, likes.viewer_likes), (1, true));
    assert_eq!(likes.viewer_like_id, again.like_id);
    assert!(likes.updated_at.is_some());

    let request = likewise::wire::v1::UnlikeRequest {
        like_id: again.like_id.clone(),
        token: read.token,
        ..unlike("p", "ann")
    };
    let gone = node
        .likes
        .unlike(request)
        .await
        .expect("taken")
        .into_inner();
    assert!(gone.changed);
    assert_eq!(gone.removed_like_ids, vec![again.like_id]);
    assert_eq!(gone.count, Some(0));
    let none = node
        .likes
        .unlike(unlike("p", "ann"))
        .await
        .expect("taken")
        .into_inner();
    assert!(!none.changed && none.removed_like_ids.is_empty());
}

#[tokio::test]
async fn a_post_that_nobody_wrote_has_no_likes() {
    let mut node = served("eu", 2).await;
    let request = BatchGetPostsRequest {
        posts: vec!["x".into(), "y".into()],
        viewer: "ann".into(),
        options: None,
    };
    let read = node
        .likes
        .batch_get_posts(request)
        .await
        .expect("read")
        .into_inner();
    let names: Vec<&str> = read.likes.iter().map(|likes| likes.post.as_str()).collect();
    assert_eq!(names, ["x", "y"]);
    assert!(
        read.likes
            .iter()
            .all(|likes| likes.count == 0 && likes.updated_at.is_none())
    );
}

#[tokio::test]
async fn counters_add_up_by_region() {
    let mut node = served("eu", 3).await;
    node.counters
        .add(add("p", "views", 5))
        .await
        .expect("taken");
    let added = node
        .counters
        .add(add("p", "views", -2))
        .await
        .expect("taken")
        .into_inner();
    assert_eq!(added.value, Some(3));
    let request = GetCountersRequest {
        post: "p".into(),
        counters: vec!["views".into(), "shares".into()],
        options: Some(ReadOptions {
            include_regions: true,
            ..ReadOptions::default()
        }),
    };
    let read = node
        .counters
        .get_counters(request)
        .await
        .expect("read")
        .into_inner();
    assert_eq!((read.counters[0].value, read.counters[1].value), (3, 0));
    let region = &read.counters[0].regions[0];
    assert_eq!(
        (region.region.as_str(), region.increments, region.decrements),
        ("eu", 5, 2)
    );
    let bound = 1 << 59;
    let refused = refusal(node.counters.add(add("p", "views", bound)).await);
    assert_eq!(refused, (Code::OutOfRange, "REASON_COUNTER_BOUND".into()));
}

#[tokio::test]
async fn bad_input_is_refused_with_its_field_and_changes_nothing() {
    let mut node = served("eu", 4).await;
    let status = node.likes.like(like("", "ann")).await.expect_err("refused");
    let details = status.get_error_details();
    let violations = &details.bad_request().expect("a field").field_violations;
    assert_eq!(violations[0].field, "post");
    assert_eq!(details.error_info().expect("ours").domain, "likewise");

    let invalid = |reason: Reason| (Code::InvalidArgument, reason.as_str_name().to_owned());
    let refused = refusal(node.likes.like(like("p", "a\tb")).await);
    assert_eq!(refused, invalid(Reason::InvalidField));
    let request = likewise::wire::v1::UnlikeRequest {
        like_id: "garbage".into(),
        ..unlike("p", "ann")
    };
    assert_eq!(
        refusal(node.likes.unlike(request).await),
        invalid(Reason::InvalidLikeId)
    );
    let mut request = get("p", "");
    request.options = at_least("garbage", LONG);
    assert_eq!(
        refusal(node.likes.get_post(request).await),
        invalid(Reason::InvalidToken)
    );
    assert_eq!(
        refusal(node.counters.add(add("p", "views", 0)).await),
        invalid(Reason::InvalidField)
    );
    let mut bad = batch("p", &[Operation::Like], &["ann"]);
    bad.post_indexes = vec![1];
    let request = BatchWriteRequest { batch: Some(bad) };
    assert_eq!(
        refusal(node.likes.batch_write(request).await),
        invalid(Reason::InvalidField)
    );
    let request = WatchPostsRequest::default();
    assert_eq!(
        refusal(node.likes.watch_posts(request).await),
        invalid(Reason::InvalidField)
    );
    assert_eq!(node.node.count("p"), 0);
    assert_eq!(node.node.engine.queue().own().1, 0, "no event was made");
}

#[tokio::test]
async fn a_retry_gets_the_earlier_answer_and_other_contents_are_refused() {
    let mut node = served("eu", 5).await;
    let with_id = |mut request: likewise::wire::v1::LikeRequest| {
        request.request_id = "r1".into();
        request
    };
    let first = node
        .likes
        .like(with_id(like("p", "ann")))
        .await
        .expect("taken")
        .into_inner();
    let retry = node
        .likes
        .like(with_id(like("p", "ann")))
        .await
        .expect("taken")
        .into_inner();
    assert_eq!((retry.changed, &retry.like_id), (true, &first.like_id));
    let refused = refusal(node.likes.like(with_id(like("p", "bob"))).await);
    assert_eq!(
        refused,
        (Code::AlreadyExists, "REASON_REQUEST_ID_REUSED".into())
    );
}

#[tokio::test]
async fn a_retry_after_a_broken_call_finds_the_first_try_under_way() {
    let mut node = served("eu", 6).await;
    node.counters
        .add(add("p", "views", 1))
        .await
        .expect("taken");
    let release = node.hold_syncs();
    let mut request = add("p", "views", 10);
    request.request_id = "r1".into();
    let mut counters = node.counters.clone();
    let first = request.clone();
    let broken = tokio::spawn(async move { counters.add(first).await });
    while node.node.engine.queue().own().1 < 2 {
        tokio::task::yield_now().await;
    }
    broken.abort();
    assert!(broken.await.expect_err("aborted").is_cancelled());
    round_trips(&mut node).await;
    let mut counters = node.counters.clone();
    let retry = tokio::spawn(async move { counters.add(request).await });
    round_trips(&mut node).await;
    assert!(!retry.is_finished());
    release.send(true).expect("the disk listens");
    let added = retry.await.expect("no panic").expect("taken").into_inner();
    assert_eq!(added.value, Some(11), "added once");
}

/// Nodes of two regions; the second has liked and its token is not covered by the first.
async fn two_regions(seed: u64) -> (Served, Served, String) {
    let eu = served("eu", seed).await;
    let mut us = served("us", seed + 1).await;
    let token = us
        .likes
        .like(like("p", "ann"))
        .await
        .expect("taken")
        .into_inner()
        .token;
    (eu, us, token)
}

#[tokio::test]
async fn at_least_waits_for_the_token_and_names_the_regions_behind() {
    let (mut eu, us, token) = two_regions(10).await;
    let mut request = get("p", "ann");
    request.options = at_least(&token, Duration::from_millis(5));
    let status = eu.likes.get_post(request).await.expect_err("not covered");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().contains("behind on us"),
        "{}",
        status.message()
    );
    let details = status.get_error_details();
    assert_eq!(
        details.error_info().expect("ours").reason,
        "REASON_TOKEN_NOT_COVERED"
    );

    let mut request = get("p", "ann");
    request.options = at_least(&token, LONG);
    let mut likes = eu.likes.clone();
    let waiting = tokio::spawn(async move { likes.get_post(request).await });
    assert!(eu.node.pull(&us.node).await);
    let read = waiting
        .await
        .expect("no panic")
        .expect("covered")
        .into_inner();
    assert_eq!(read.likes.expect("always there").count, 1);
}

#[tokio::test]
async fn every_answers_token_covers_the_requests() {
    let (mut eu, us, token) = two_regions(20).await;
    let mut request = get("p", "");
    request.options = Some(ReadOptions {
        token: token.clone(),
        ..ReadOptions::default()
    });
    let read = eu
        .likes
        .get_post(request)
        .await
        .expect("exact")
        .into_inner();
    let mut request = like("p", "bob");
    request.token = read.token;
    let liked = eu.likes.like(request).await.expect("taken").into_inner();

    // Neither node covers the other's like, so neither covers a token that knows of both.
    let mut late = get("p", "");
    late.options = at_least(&liked.token, Duration::from_millis(5));
    let mut us_likes = us.likes.clone();
    assert_eq!(
        refusal(eu.likes.get_post(late.clone()).await).1,
        "REASON_TOKEN_NOT_COVERED"
    );
    assert_eq!(
        refusal(us_likes.get_post(late.clone()).await).1,
        "REASON_TOKEN_NOT_COVERED"
    );
    assert!(us.node.pull(&eu.node).await);
    let read = us_likes
        .get_post(late)
        .await
        .expect("covers both")
        .into_inner();
    assert_eq!(read.likes.expect("always there").count, 2);
}

#[tokio::test]
async fn an_unlike_waits_for_its_token_so_that_it_sees_the_like() {
    let (mut eu, us, token) = two_regions(30).await;
    let request = likewise::wire::v1::UnlikeRequest {
        token,
        ..unlike("p", "ann")
    };
    let refused = refusal(eu.likes.unlike(request.clone()).await);
    assert_eq!(refused.1, "REASON_TOKEN_NOT_COVERED");
    assert!(eu.node.pull(&us.node).await);
    let gone = eu
        .likes
        .unlike(request)
        .await
        .expect("covered")
        .into_inner();
    assert!(gone.changed);
}

#[tokio::test]
async fn an_unlike_by_like_id_works_where_the_like_has_not_arrived() {
    let mut eu = served("eu", 40).await;
    let mut us = served("us", 41).await;
    let liked = us
        .likes
        .like(like("p", "ann"))
        .await
        .expect("taken")
        .into_inner();
    let request = likewise::wire::v1::UnlikeRequest {
        like_id: liked.like_id.clone(),
        ..unlike("p", "ann")
    };
    let gone = eu.likes.unlike(request).await.expect("taken").into_inner();
    assert!(!gone.changed, "nothing was seen here");
    assert_eq!(gone.removed_like_ids, vec![liked.like_id]);
    assert!(eu.node.pull(&us.node).await);
    assert_eq!(eu.node.count("p"), 0);
}

#[tokio::test]
async fn tokens_from_the_future_are_refused() {
    let mut node = served("eu", 45).await;
    let own = node.node.engine.own();
    let cluster = node.node.engine.cluster().clone();
    let token = likewise::codec::text::encode_token(&cluster, [(&own, 9)].into_iter());
    let mut request = get("p", "");
    request.options = at_least(&token, LONG);
    let refused = refusal(node.likes.get_post(request).await);
    assert_eq!(
        refused,
        (Code::InvalidArgument, "REASON_FROM_THE_FUTURE".into())
    );
}

#[tokio::test]
async fn like_ids_and_watchers_wait_for_the_sync_and_plain_reads_do_not() {
    let mut node = served("eu", 50).await;
    node.likes.like(like("p", "first")).await.expect("taken");
    let mut watch = watch(&mut node, &["p"]).await;
    assert_eq!(next(&mut watch).await, vec![("p".to_owned(), 1)]);

    let release = node.hold_syncs();
    let mut likes = node.likes.clone();
    let liking = tokio::spawn(async move { likes.like(like("p", "ann")).await });
    while node.node.count("p") < 2 {
        tokio::task::yield_now().await;
    }
    let plain = node
        .likes
        .get_post(get("p", ""))
        .await
        .expect("at once")
        .into_inner();
    assert_eq!(plain.likes.expect("always there").count, 2);
    let mut fast = get("p", "ann");
    fast.options = Some(ReadOptions {
        consistency: Consistency::Fast as i32,
        ..ReadOptions::default()
    });
    let fast = node
        .likes
        .get_post(fast)
        .await
        .expect("at once")
        .into_inner();
    let fast = fast.likes.expect("always there");
    assert!(fast.viewer_likes && fast.viewer_like_id.is_empty());

    let mut likes = node.likes.clone();
    let naming = tokio::spawn(async move { likes.get_post(get("p", "ann")).await });
    round_trips(&mut node).await;
    assert!(!naming.is_finished() && !liking.is_finished());
    release.send(true).expect("the disk listens");
    let liked = liking.await.expect("no panic").expect("taken").into_inner();
    let named = naming.await.expect("no panic").expect("read").into_inner();
    assert_eq!(
        named.likes.expect("always there").viewer_like_id,
        liked.like_id
    );
    assert_eq!(next(&mut watch).await, vec![("p".to_owned(), 2)]);
}

#[tokio::test]
async fn a_rebuilding_node_takes_writes_and_refuses_reads() {
    let mut node = serve(Machine::new("eu", 60).start().await, one_waits(), 100).await;
    node.node.engine.set_serving(Serving::Rebuilding);
    let liked = node
        .likes
        .like(like("p", "ann"))
        .await
        .expect("taken")
        .into_inner();
    assert_eq!(liked.count, None);
    let added = node
        .counters
        .add(add("p", "views", 1))
        .await
        .expect("taken")
        .into_inner();
    assert_eq!(added.value, None);
    let refused = refusal(node.likes.get_post(get("p", "")).await);
    assert_eq!(refused, (Code::Unavailable, "REASON_REBUILDING".into()));
    assert_eq!(node.status().await.state(), NodeState::Rebuilding);

    let by_id = likewise::wire::v1::UnlikeRequest {
        like_id: liked.like_id,
        ..unlike("p", "ann")
    };
    let gone = node
        .likes
        .unlike(by_id)
        .await
        .expect("does not wait")
        .into_inner();
    assert_eq!(gone.count, None);
    // One call may wait here: of two, the one that is answered is the one that may not.
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let mut likes = node.likes.clone();
        crowd.spawn(async move { likes.unlike(unlike("p", "bob")).await });
    }
    let second = crowd.join_next().await.expect("one").expect("no panic");
    assert_eq!(refusal(second).1, "REASON_OVERLOADED");
    node.node.engine.set_serving(Serving::Ready);
    let first = crowd.join_next().await.expect("one").expect("no panic");
    assert_eq!(first.expect("ready").into_inner().count, Some(0));
}

#[tokio::test]
async fn a_bad_item_of_a_batch_fails_alone() {
    let mut node = served("eu", 70).await;
    let operations = [
        Operation::Like,
        Operation::Like,
        Operation::Like,
        Operation::Unlike,
    ];
    let result = write(
        &mut node,
        batch("p", &operations, &["ann", "", "ann", "bob"]),
    )
    .await;
    let wanted = [
        Outcome::Liked,
        Outcome::Refused,
        Outcome::LikedAgain,
        Outcome::NotLiked,
    ];
    assert_eq!(outcomes(&result), wanted);
    assert_eq!(result.errors.len(), 1);
    assert_eq!(
        (result.errors[0].index, result.errors[0].reason()),
        (1, Reason::InvalidField)
    );
    assert_eq!(result.like_ids.len(), 4);
    assert_eq!(
        result.like_ids[0].like_id, result.like_ids[2].like_id,
        "absorbed before the sync"
    );
    assert!(result.like_ids[1].like_id.is_empty() && !result.token.is_empty());
    assert_eq!(node.node.count("p"), 1);
}

#[tokio::test]
async fn an_add_beyond_the_bound_fails_alone() {
    let mut node = served("eu", 71).await;
    let result = write(
        &mut node,
        WriteBatch {
            posts: vec!["p".into()],
            operations: vec![Operation::Add as i32],
            counters: vec!["views".into()],
            deltas: vec![1 << 59, 1, -1],
            ..WriteBatch::default()
        },
    )
    .await;
    assert_eq!(
        outcomes(&result),
        [Outcome::Added, Outcome::Refused, Outcome::Added]
    );
    assert_eq!(result.errors[0].reason(), Reason::CounterBound);
}

#[tokio::test]
async fn batches_of_a_stream_are_applied_in_order_and_refused_alone() {
    const BATCHES: u64 = 400;
    let mut node = served("eu", 80).await;
    let requests = (0..BATCHES).map(|batch_id| {
        let operation = match batch_id % 4 {
            0 => Operation::Like,
            2 => Operation::Unlike,
            _ => Operation::Unspecified,
        };
        let batch = Some(batch("p", &[operation], &["ann"]));
        StreamWritesRequest { batch_id, batch }
    });
    let answers = node.likes.stream_writes(tokio_stream::iter(requests)).await;
    let mut answers = answers.expect("open").into_inner();
    let mut seen = vec![false; BATCHES as usize];
    while let Some(answer) = answers.next().await {
        let answer = answer.expect("the stream lives");
        seen[answer.batch_id as usize] = true;
        match (answer.batch_id % 4, answer.outcome.expect("always there")) {
            (0, Answer::Result(result)) => assert_eq!(outcomes(&result), [Outcome::Liked]),
            (2, Answer::Result(result)) => assert_eq!(outcomes(&result), [Outcome::Unliked]),
            (1 | 3, Answer::Error(error)) => {
                assert_eq!(error.code, Code::InvalidArgument as i32);
                assert_eq!(error.reason(), Reason::InvalidField);
            }
            (_, other) => panic!("batch {}: {other:?}", answer.batch_id),
        }
    }
    assert!(seen.iter().all(|seen| *seen), "every batch is answered");
    assert_eq!(node.node.count("p"), 0);
}

#[tokio::test]
async fn a_stream_does_not_wait_for_one_sync_before_the_next_batch() {
    let mut node = served("eu", 81).await;
    node.likes.like(like("p", "first")).await.expect("taken");
    let release = node.hold_syncs();
    let names: Vec<String> = (0..64).map(|number| format!("u{number}")).collect();
    let requests = names.into_iter().zip(0u64..).map(|(name, batch_id)| {
        let batch = Some(batch("p", &[Operation::Like], &[&name]));
        StreamWritesRequest { batch_id, batch }
    });
    let requests: Vec<_> = requests.collect();
    let mut likes = node.likes.clone();
    let streaming = tokio::spawn(async move {
        let answers = likes.stream_writes(tokio_stream::iter(requests)).await;
        answers
            .expect("open")
            .into_inner()
            .collect::<Vec<_>>()
            .await
    });
    while node.node.count("p") < 65 {
        tokio::task::yield_now().await;
    }
    assert!(
        !streaming.is_finished(),
        "nothing is answered before its sync"
    );
    release.send(true).expect("the disk listens");
    assert_eq!(streaming.await.expect("no panic").len(), 64);
}

/// Three large batches: the first is being synced, the second fills the open commit, the third waits
/// for room. The small one behind it would find room at once.
#[tokio::test]
async fn a_batch_that_waits_for_room_is_not_overtaken() {
    const USERS: u64 = 10_000;
    let mut machine = Machine::new("eu", 82);
    machine.log = LogOptions::default();
    let mut node = serve(machine.start().await, limits(), 100).await;
    let release = node.hold_syncs();
    let plan = [
        (Operation::Like, Outcome::Liked, USERS),
        (Operation::Unlike, Outcome::Unliked, USERS),
        (Operation::Like, Outcome::Liked, USERS),
        (Operation::Unlike, Outcome::Unliked, 1),
    ];
    let requests = plan
        .iter()
        .zip(0u64..)
        .map(|((operation, _, users), batch_id)| {
            let column = IntegerColumn {
                prefix: "u".repeat(200),
                values: (0..*users).collect(),
            };
            let batch = Some(WriteBatch {
                posts: vec!["p".into()],
                operations: vec![*operation as i32],
                users: Some(write_batch::Users::UserIntegers(column)),
                ..WriteBatch::default()
            });
            StreamWritesRequest { batch_id, batch }
        });
    let requests: Vec<_> = requests.collect();
    let mut likes = node.likes.clone();
    let streaming = tokio::spawn(async move {
        let answers = likes.stream_writes(tokio_stream::iter(requests)).await;
        answers
            .expect("open")
            .into_inner()
            .collect::<Vec<_>>()
            .await
    });
    while node.node.engine.queue().own().1 < 2 * USERS {
        tokio::task::yield_now().await;
    }
    round_trips(&mut node).await;
    release.send(true).expect("the disk listens");
    for answer in streaming.await.expect("no panic") {
        let answer = answer.expect("the stream lives");
        let Some(Answer::Result(result)) = &answer.outcome else {
            panic!("{:?}", answer.outcome);
        };
        let (_, wanted, _) = plan[answer.batch_id as usize];
        assert!(result.outcomes().all(|outcome| outcome == wanted));
    }
    assert_eq!(node.node.count("p"), USERS - 1);
}

type Watching = tonic::Streaming<likewise::wire::v1::WatchPostsResponse>;

async fn watch(node: &mut Served, posts: &[&str]) -> Watching {
    let request = WatchPostsRequest {
        posts: posts.iter().map(|post| (*post).to_owned()).collect(),
        token: String::new(),
    };
    let answer = node.likes.watch_posts(request).await;
    answer.expect("watched").into_inner()
}

async fn next(watch: &mut Watching) -> Vec<(String, u64)> {
    let message = watch.next().await.expect("open").expect("a message");
    let likes = message.likes.into_iter();
    likes.map(|likes| (likes.post, likes.count)).collect()
}

#[tokio::test]
async fn a_watch_begins_with_all_and_goes_on_with_what_changed() {
    let mut node = served("eu", 90).await;
    node.likes.like(like("p", "ann")).await.expect("taken");
    let mut watch = watch(&mut node, &["q", "p"]).await;
    let all = vec![("q".to_owned(), 0), ("p".to_owned(), 1)];
    assert_eq!(next(&mut watch).await, all);
    for name in ["a", "b", "c"] {
        node.likes.like(like("q", name)).await.expect("taken");
    }
    let mut newest = 0;
    while newest < 3 {
        for (post, count) in next(&mut watch).await {
            assert_eq!(post, "q");
            assert!(count >= newest, "a watch never goes back");
            newest = count;
        }
    }
}

#[tokio::test]
async fn a_full_node_says_so_and_does_not_hang() {
    let machine = Machine::new("eu", 100);
    let mut none = limits();
    none.in_flight_max = 0;
    none.waiting_max = 0;
    let mut node = serve(machine.start().await, none, 100).await;
    let status = node.likes.like(like("p", "ann")).await.expect_err("full");
    assert_eq!(status.code(), Code::ResourceExhausted);
    let details = status.get_error_details();
    assert_eq!(
        details.error_info().expect("ours").reason,
        "REASON_OVERLOADED"
    );
    assert!(details.retry_info().is_some());
    // What it has no place for it does not read.
    let unread = refusal(node.likes.like(like("", "ann")).await);
    assert_eq!(unread.1, "REASON_OVERLOADED");
    let status = node.cluster.get_status(GetStatusRequest {}).await;
    status.expect("how the node is can be asked all the same");

    let request = StreamWritesRequest {
        batch_id: 7,
        batch: Some(batch("p", &[Operation::Like], &["ann"])),
    };
    let answers = node
        .likes
        .stream_writes(tokio_stream::iter([request.clone(), request]))
        .await;
    let answers: Vec<_> = answers.expect("open").into_inner().collect().await;
    assert_eq!(answers.len(), 2, "the stream lives");
    for answer in answers {
        let Some(Answer::Error(error)) = answer.expect("an answer").outcome else {
            panic!("the batch was taken");
        };
        assert_eq!(error.reason(), Reason::Overloaded);
    }

    let mut us = served("us", 101).await;
    let token = us
        .likes
        .like(like("p", "ann"))
        .await
        .expect("taken")
        .into_inner()
        .token;
    let mut request = get("p", "");
    request.options = at_least(&token, LONG);
    let refused = refusal(node.likes.get_post(request).await);
    assert_eq!(
        refused,
        (Code::ResourceExhausted, "REASON_OVERLOADED".into())
    );
    let held: Vec<_> = (0..10)
        .map(|_| node.node.engine.watch(&[support::post("p")]))
        .collect();
    assert!(held.iter().all(Result::is_ok));
    let request = WatchPostsRequest {
        posts: vec!["p".into()],
        token: String::new(),
    };
    assert_eq!(
        refusal(node.likes.watch_posts(request).await).1,
        "REASON_OVERLOADED"
    );
}

#[tokio::test]
async fn a_node_full_of_items_takes_no_calls() {
    let mut none = limits();
    none.items_in_flight_max = 0;
    let mut node = serve(Machine::new("eu", 104).start().await, none, 100).await;
    let why = "the node is busy: items at once are limited to 0";
    let status = node.likes.like(like("p", "ann")).await.expect_err("full");
    assert_eq!(status.message(), why);
    assert!(status.get_details_retry_info().is_some(), "{status:?}");
    let request = StreamWritesRequest {
        batch_id: 7,
        batch: Some(batch("p", &[Operation::Like], &["ann"])),
    };
    let answers = node
        .likes
        .stream_writes(tokio_stream::iter([request]))
        .await;
    let answers: Vec<_> = answers.expect("open").into_inner().collect().await;
    let [Ok(answer)] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    let Some(Answer::Error(error)) = &answer.outcome else {
        panic!("the batch was taken");
    };
    assert_eq!(
        (error.reason(), error.message.as_str()),
        (Reason::Overloaded, why)
    );
}

/// What comes of a message after its call was answered is an error, and too many of those end the connection.
#[tokio::test]
async fn a_full_node_lets_a_message_go_by_before_it_refuses_but_not_for_ever() {
    let mut none = limits();
    none.in_flight_max = 0;
    let node = serve(Machine::new("eu", 102).start().await, none, 100).await;
    let channel = node.endpoint.connect().await.expect("it listens");
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("connected");
    let message_that_never_comes = tokio_stream::pending::<LikeRequest>();
    let codec = tonic_prost::ProstCodec::<LikeRequest, LikeResponse>::default();
    let path = PathAndQuery::from_static("/likewise.v1.LikeService/Like");
    let begun = Instant::now();
    let call = Request::new(message_that_never_comes);
    let answer = client.client_streaming(call, path, codec).await;
    let status = answer.map(Response::into_inner).expect_err("full");
    assert!(status.get_details_retry_info().is_some(), "{status:?}");
    assert!(begun.elapsed() >= REFUSED_MESSAGE_MAX);
}

/// h2 ends connections on which too many small frames wait unread.
#[tokio::test]
async fn a_stream_of_the_smallest_batches_outlives_a_client_that_takes_no_answers() {
    const BATCHES: u64 = 6_000;
    let node = served("eu", 103).await;
    let endpoint = node.endpoint.clone().initial_stream_window_size(4 << 10);
    let channel = endpoint.connect().await.expect("it listens");
    let mut likes = LikeServiceClient::new(channel);
    let (sent, mut known) = tokio::sync::watch::channel(0);
    let batches = tokio_stream::iter(0..BATCHES).map(move |batch_id| {
        sent.send_replace(batch_id);
        let batch = Some(batch("p", &[Operation::Like], &["u"]));
        StreamWritesRequest { batch_id, batch }
    });
    let answers = likes.stream_writes(batches).await.expect("open");
    // By then the answers have long filled their window, and batches wait unread.
    let many = known.wait_for(|sent| *sent >= BATCHES / 2);
    let many = tokio::time::timeout(LONG, many).await;
    many.expect("they are taken").expect("the stream lives");
    let answers: Vec<_> = answers.into_inner().collect().await;
    assert_eq!(answers.len() as u64, BATCHES);
    assert!(answers.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_for_its_place() {
    let machine = Machine::new("eu", 110);
    let mut node = serve(machine.start().await, limits(), 1).await;
    node.likes.like(like("p", "ann")).await.expect("taken");
    let endpoint = node.endpoint.clone();
    let second = tokio::spawn(async move {
        let channel = endpoint.connect().await.expect("in the listener's queue");
        let mut likes = LikeServiceClient::new(channel);
        likes.get_post(get("p", "")).await
    });
    round_trips(&mut node).await;
    assert!(!second.is_finished());
    let Served {
        likes,
        counters,
        cluster,
        channel,
        node: _node,
        ..
    } = node;
    drop((likes, counters, cluster, channel));
    let read = second
        .await
        .expect("no panic")
        .expect("has the place")
        .into_inner();
    assert_eq!(read.likes.expect("always there").count, 1);
}

#[tokio::test]
async fn a_failed_sync_poisons_writes_and_leaves_reads() {
    let mut node = served("eu", 120).await;
    node.likes.like(like("p", "ann")).await.expect("taken");
    let power = node.node.disk.power().clone();
    power.fail_sync(power.syncs() + 1);
    let unknown = refusal(node.likes.like(like("p", "bob")).await);
    assert_eq!(unknown, (Code::Unknown, "REASON_OUTCOME_UNKNOWN".into()));
    let refused = refusal(node.likes.like(like("p", "eve")).await);
    assert_eq!(refused, (Code::Unavailable, "REASON_LOG_POISONED".into()));
    let read = node
        .likes
        .get_post(get("p", "ann"))
        .await
        .expect("served")
        .into_inner();
    assert!(!read.likes.expect("always there").viewer_like_id.is_empty());
    let read = node
        .likes
        .get_post(get("p", "bob"))
        .await
        .expect("served")
        .into_inner();
    assert!(
        read.likes.expect("always there").viewer_like_id.is_empty(),
        "not durable"
    );
    let mut watch = watch(&mut node, &["p"]).await;
    let refused = refusal(watch.next().await.expect("the end"));
    assert_eq!(
        refused.1, "REASON_LOG_POISONED",
        "a watch shows nothing that is not durable"
    );
    let status = node.status().await;
    assert_eq!(status.state(), NodeState::Poisoned);
    assert!(
        status
            .warnings
            .iter()
            .any(|warning| warning.contains("sync of the log failed"))
    );
}

#[tokio::test]
async fn the_status_tells_what_is_durable() {
    let mut node = served("eu", 130).await;
    let token = node
        .likes
        .like(like("p", "ann"))
        .await
        .expect("taken")
        .into_inner()
        .token;
    let status = node.status().await;
    assert_eq!(
        (status.cluster.as_str(), status.region.as_str()),
        ("test", "eu")
    );
    assert_eq!((status.state(), status.settled), (NodeState::Ready, true));
    assert_eq!(
        (status.posts, status.likers, status.log_bytes),
        (1, 1, 4_096)
    );
    assert_eq!(status.token, token);
    assert_eq!(status.heads.len(), 1);
    assert_eq!(status.heads[0].epoch, status.epoch);
    assert_eq!(
        status.fingerprint,
        format!("{:032x}", node.node.fingerprint())
    );
    assert_eq!(status.warnings, ["the checkpoint is late"]);
}

async fn health(node: &Served) -> ServingStatus {
    let mut health = HealthClient::new(node.channel.clone());
    let service = "likewise.v1.LikeService".to_owned();
    let answer = health.check(HealthCheckRequest { service }).await;
    answer.expect("known").into_inner().status()
}

#[tokio::test]
async fn health_follows_what_is_served() {
    let node = served("eu", 140).await;
    let wait_for = async |wanted| {
        while health(&node).await != wanted {
            tokio::task::yield_now().await;
        }
    };
    wait_for(ServingStatus::Serving).await;
    node.node.engine.set_serving(Serving::Rebuilding);
    wait_for(ServingStatus::NotServing).await;
    node.node.engine.set_serving(Serving::Ready);
    wait_for(ServingStatus::Serving).await;
}

#[tokio::test]
async fn reflection_lists_what_is_served_here() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let node = served("eu", 150).await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(node.channel.clone());
    let answers = client
        .server_reflection_info(tokio_stream::iter([request]))
        .await;
    let answer = answers
        .expect("open")
        .into_inner()
        .next()
        .await
        .expect("one")
        .expect("fine");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list");
    };
    let names: Vec<_> = list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    assert!(
        names.contains(&"likewise.v1.LikeService".to_owned()),
        "{names:?}"
    );
    let is_for_peers = |name: &String| name.starts_with("likewise.replication");
    assert!(!names.iter().any(is_for_peers), "{names:?}");
}

#[tokio::test]
async fn the_shutdown_ends_watches_streams_and_waits_and_then_the_server() {
    let (_, _us, token) = two_regions(160).await;
    let mut eu = serve(Machine::new("eu", 162).start().await, one_waits(), 100).await;
    let mut watch = watch(&mut eu, &["p"]).await;
    next(&mut watch).await;
    let (requests, incoming) = tokio::sync::mpsc::channel::<StreamWritesRequest>(1);
    let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
    let mut answers = eu
        .likes
        .stream_writes(incoming)
        .await
        .expect("open")
        .into_inner();
    let mut request = get("p", "");
    request.options = at_least(&token, LONG);
    // Of two calls where one may wait, the one that is answered shows that the other waits.
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (mut likes, request) = (eu.likes.clone(), request.clone());
        crowd.spawn(async move { likes.get_post(request).await });
    }
    let second = crowd.join_next().await.expect("one").expect("no panic");
    assert_eq!(refusal(second).1, "REASON_OVERLOADED");

    eu.shutdown.cancel();
    let stopping = (Code::Unavailable, "REASON_STOPPING".to_owned());
    assert_eq!(refusal(watch.next().await.expect("the end")), stopping);
    assert_eq!(refusal(answers.next().await.expect("the end")), stopping);
    let first = crowd.join_next().await.expect("one").expect("no panic");
    assert_eq!(refusal(first), stopping);
    drop(requests);
    eu.serving.await.expect("no panic").expect("a clean end");
}

/// Messages that gRPC itself cannot read: their refusal is like any other.
#[tokio::test]
async fn messages_that_cannot_be_read_are_refused_with_a_reason() {
    let node = served("eu", 90).await;
    let call = async |path: &'static str, bytes: Vec<u8>| {
        let mut grpc = tonic::client::Grpc::new(node.channel.clone());
        grpc.ready().await.expect("connected");
        let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
        let answer = grpc
            .unary(tonic::Request::new(Bytes::from(bytes)), path, Raw)
            .await;
        answer.expect_err("refused")
    };
    let like = "/likewise.v1.LikeService/Like";
    let too_large = vec![0; likewise::limits::CLIENT_MESSAGE_BYTES_MAX + 1];
    let cases = [
        // Field 1, two bytes that are no UTF-8.
        (
            like,
            vec![0x0a, 2, 0xc3, 0x28],
            Reason::InvalidField,
            "post",
        ),
        // Field 2, longer than the message.
        (like, vec![0x12, 9, b'a'], Reason::InvalidField, "request"),
        (like, vec![0xff], Reason::InvalidField, "request"),
        (like, too_large, Reason::TooLarge, "request"),
        (
            "/likewise.v1.LikeService/WatchPosts",
            vec![0x0a, 1, 0xff],
            Reason::InvalidField,
            "posts",
        ),
    ];
    for (path, bytes, reason, field) in cases {
        let status = call(path, bytes).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let info = status.get_details_error_info().expect("ours");
        assert_eq!(
            (info.domain.as_str(), info.reason.as_str()),
            ("likewise", reason.as_str_name())
        );
        let fields = status
            .get_details_bad_request()
            .expect("a field")
            .field_violations;
        assert_eq!(fields[0].field, field, "{status}");
    }
    assert_eq!(node.node.engine.queue().own().1, 0, "no event was made");
}

#[tokio::test]
async fn a_stream_that_cannot_be_read_on_ends_with_a_reason() {
    let node = served("eu", 91).await;
    let mut grpc = tonic::client::Grpc::new(node.channel.clone());
    grpc.ready().await.expect("connected");
    let path = "/likewise.v1.LikeService/StreamWrites";
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
    let requests = tokio_stream::iter([vec![0x08, 7], vec![0x12, 99]].map(Bytes::from));
    let answers = grpc
        .streaming(tonic::Request::new(requests), path, Raw)
        .await;
    let mut answers = answers.expect("a stream").into_inner();
    let first = answers.message().await.expect("an answer");
    assert!(first.is_some(), "what came before is answered");
    let refused = refusal(answers.message().await);
    assert_eq!(
        refused,
        (Code::InvalidArgument, "REASON_INVALID_FIELD".into())
    );
}
