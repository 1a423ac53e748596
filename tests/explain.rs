//! ExplainPost: the entries, the live dots of a user, and the fingerprint computed from all of them.

#[path = "support/served.rs"]
mod served;
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use likewise::client::{Client, Read};
use likewise::crdt::fingerprint::PostHash;
use likewise::engine::Serving;
use likewise::engine::explain::Depth;
use likewise::wire::v1::{
    Consistency, ExplainPostRequest, ExplainPostResponse, ReadOptions, UnlikeRequest,
};
use served::{Served, at_least, refusal, served, unlike};
use support::{Machine, add, like, post, unlike_dots};
use tonic::Code;
use tonic_types::StatusExt;

const POST: &str = "p";

fn about(user: &str) -> ExplainPostRequest {
    ExplainPostRequest {
        post: POST.to_owned(),
        user: user.to_owned(),
        options: None,
    }
}

fn fast(user: &str) -> ExplainPostRequest {
    ExplainPostRequest {
        options: Some(ReadOptions {
            consistency: Consistency::Fast as i32,
            ..ReadOptions::default()
        }),
        ..about(user)
    }
}

async fn explain(node: &Served, request: ExplainPostRequest) -> ExplainPostResponse {
    let mut cluster = node.cluster.clone();
    let answer = cluster.explain_post(request).await.expect("explained");
    answer.into_inner()
}

/// What the kept sums say of the post's range, where the post is the only one there.
fn kept_sum(node: &Served) -> String {
    let range = PostHash::of(&post(POST)).range();
    let newest = node.node.engine.board().newest();
    newest.sums.range(range).to_string()
}

#[tokio::test]
async fn a_post_is_explained_alike_in_two_regions() {
    let (eu, us) = (served("eu", 1).await, served("us", 2).await);
    for command in [like(POST, "ann"), like(POST, "bob"), add(POST, "views", 5)] {
        eu.node.write(command).await;
    }
    // Ann likes on both sides of a cut.
    us.node.write(like(POST, "ann")).await;
    us.node.write(add(POST, "views", -2)).await;
    us.node.write(add(POST, "shares", 1)).await;
    assert!(us.node.pull(&eu.node).await && eu.node.pull(&us.node).await);

    let explained = explain(&eu, about("ann")).await;
    assert_eq!((explained.count, explained.likes.len()), (2, 2));
    let [of_eu, of_us] = [&explained.likes[0], &explained.likes[1]];
    assert_eq!((of_eu.region.as_str(), of_us.region.as_str()), ("eu", "us"));
    assert_eq!((of_eu.increments, of_eu.decrements), (2, 0));
    assert_eq!((of_us.increments, of_us.decrements), (1, 1));
    assert_eq!(of_eu.epoch, eu.node.engine.own().epoch.to_string());
    let mut counters = Vec::new();
    for counter in &explained.counters {
        for entry in &counter.entries {
            let figures = (entry.increments, entry.decrements);
            counters.push((counter.counter.as_str(), entry.region.as_str(), figures));
        }
    }
    let expected = [
        ("shares", "us", (1, 0)),
        ("views", "eu", (5, 0)),
        ("views", "us", (0, 2)),
    ];
    assert_eq!(counters, expected);
    assert_eq!(explained.fingerprint, kept_sum(&eu));
    assert_eq!(explained.range, PostHash::of(&post(POST)).range() as u32);
    assert!(explained.updated_at.is_some() && !explained.token.is_empty());

    let dots = explained.dots.iter();
    let dots = dots.map(|dot| (dot.region.as_str(), dot.seq, dot.credited));
    let dots: Vec<_> = dots.collect();
    assert_eq!(dots, [("eu", 1, true), ("us", 1, false)]);
    let mut elsewhere = explain(&us, about("ann")).await;
    elsewhere.token.clone_from(&explained.token);
    assert_eq!(elsewhere, explained);

    let request = UnlikeRequest {
        like_id: explained.dots[1].like_id.clone(),
        ..unlike(POST, "ann")
    };
    eu.likes
        .clone()
        .unlike(request)
        .await
        .expect("the like id is valid");
    let after = explain(&eu, about("ann")).await;
    assert!(after.dots.is_empty());
    assert_eq!((after.count, &after.fingerprint), (1, &kept_sum(&eu)));
    assert_ne!(after.fingerprint, explained.fingerprint);
}

#[tokio::test]
async fn orphan_removals_are_counted_and_part_of_the_fingerprint() {
    let eu = served("eu", 3).await;
    let us = Machine::new("us", 4).start().await;
    let dot = us.like(POST, "ann").await;
    eu.node.write(unlike_dots(POST, "ann", vec![dot])).await;
    let explained = explain(&eu, about("")).await;
    assert_eq!((explained.count, explained.orphan_removals), (0, 1));
    assert_eq!(explained.fingerprint, kept_sum(&eu));
    assert_ne!(explained.fingerprint, "0".repeat(32));
    assert!(eu.node.pull(&us).await);
    let explained = explain(&eu, about("")).await;
    assert_eq!(explained.orphan_removals, 0);
    assert_eq!(explained.fingerprint, kept_sum(&eu));
}

#[tokio::test]
async fn an_explanation_leaves_after_the_sync_of_what_it_shows() {
    let eu = served("eu", 5).await;
    eu.node.write(like(POST, "ann")).await;
    let release = eu.hold_syncs();
    let engine = eu.node.engine.clone();
    let command = like(POST, "bob");
    let writing = tokio::spawn(async move {
        let write = likewise::engine::command::Write {
            commands: vec![command],
            request: None,
        };
        engine.write(&write).await
    });
    while eu.node.count(POST) < 2 {
        tokio::task::yield_now().await;
    }
    let at_once = explain(&eu, fast("bob")).await;
    assert!(at_once.dots.is_empty(), "its like id has not left");
    assert_eq!(at_once.fingerprint, "");
    let mut cluster = eu.cluster.clone();
    let waiting = tokio::spawn(async move { cluster.explain_post(about("bob")).await });
    for _ in 0..50 {
        explain(&eu, fast("bob")).await;
    }
    assert!(!waiting.is_finished());
    release.send(true).expect("the disk listens");
    let explained = waiting
        .await
        .expect("no panic")
        .expect("explained")
        .into_inner();
    assert_eq!((explained.count, explained.dots.len()), (2, 1));
    assert_eq!(explained.fingerprint, kept_sum(&eu));
    writing.await.expect("no panic").expect("taken");
}

/// Each fingerprint belongs to the entries beside it, or is not given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fingerprint_under_writes_belongs_to_one_state() {
    const LIKERS: u64 = 2_500;
    let node = Machine::new("eu", 6).start().await;
    let engine = node.engine.clone();
    let range = PostHash::of(&post(POST)).range();
    let writer = tokio::spawn(async move {
        let mut sums = BTreeMap::new();
        for number in 0..LIKERS {
            node.write(like(POST, &format!("u{number}"))).await;
            let newest = node.engine.board().newest();
            sums.insert(number + 1, newest.sums.range(range));
        }
        (node, sums)
    });
    let mut seen = Vec::new();
    while !writer.is_finished() {
        let explained = engine.explain(&post(POST), None, Depth::Fingerprint).await;
        seen.extend(
            explained
                .fingerprint
                .map(|sum| (explained.figures.likers(), sum)),
        );
        tokio::task::yield_now().await;
    }
    let (_node, sums) = writer.await.expect("no panic");
    for (likers, sum) in seen.iter().filter(|(likers, _)| *likers > 0) {
        assert_eq!(sums[likers], *sum, "with {likers} likers");
    }
    let quiet = engine.explain(&post(POST), None, Depth::Fingerprint).await;
    assert_eq!(quiet.fingerprint, Some(sums[&LIKERS]));
}

#[tokio::test]
async fn explanations_are_refused_as_reads_are() {
    let eu = served("eu", 7).await;
    let mut cluster = eu.cluster.clone();
    let mut bad = about("a\tb");
    let status = cluster
        .explain_post(bad.clone())
        .await
        .expect_err("refused");
    let fields = status.get_details_bad_request().expect("a field");
    assert_eq!(fields.field_violations[0].field, "user");
    bad = about("");
    bad.post = "x".repeat(257);
    let status = cluster.explain_post(bad).await.expect_err("refused");
    assert!(
        status.message().contains("the limit is 256"),
        "{}",
        status.message()
    );
    let us = Machine::new("us", 8).start().await;
    let token = us.write(like(POST, "ann")).await.token;
    let mut behind = about("");
    behind.options = at_least(&token, Duration::from_millis(5));
    let refused = refusal(cluster.explain_post(behind).await);
    assert_eq!(refused.1, "REASON_TOKEN_NOT_COVERED");
    eu.node.engine.set_serving(Serving::Rebuilding);
    let refused = refusal(cluster.explain_post(about("")).await);
    assert_eq!(refused, (Code::Unavailable, "REASON_REBUILDING".into()));
}

#[tokio::test]
async fn a_post_that_nobody_wrote_is_explained_as_empty_and_not_kept() {
    let eu = served("eu", 9).await;
    let client = Client::builder().endpoints([eu.endpoint.uri().to_string()]);
    let client = client.connect_lazy().expect("an endpoint");
    let explained = client
        .explain_post("unknown", Some("ann"), Read::default())
        .await;
    let explained = explained.expect("explained");
    assert_eq!(
        (explained.count, explained.likes.len(), explained.dots.len()),
        (0, 0, 0)
    );
    assert_eq!(explained.fingerprint, "0".repeat(32));
    assert_eq!(eu.node.engine.posts_held(), 0);
}
