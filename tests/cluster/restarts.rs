//! Starts, stops and kills.

use std::time::Duration;

use likewise::client::Client;
use likewise::wire::v1::cluster_service_client::ClusterServiceClient;
use likewise::wire::v1::{GetStatusRequest, LikeRequest, LikeResponse};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Request;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::process::load::{Load, Outcomes};
use crate::process::node::{Node, PATIENCE, Setup};
use crate::process::world::World;

const STARTS: usize = 60;
const TOKEN_CHARS_MAX: usize = 512;
const KILLS: usize = 10;

#[tokio::test]
async fn many_starts_leave_one_head_and_a_short_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new("eu", folder.path().join("eu"));
    for number in 0..STARTS {
        let node = setup.start().await;
        let liked = node
            .client
            .like("p", &format!("u{number}"))
            .await
            .expect("taken");
        assert_eq!(liked.count, Some(number as u64 + 1));
        assert!(liked.token.len() <= TOKEN_CHARS_MAX, "{}", liked.token);
        match number % 3 {
            0 => node.stop().await,
            _ => node.kill().await,
        }
    }
    let status = setup.start().await.status().await;
    assert_eq!(status.heads.len(), 1);
    assert_eq!(status.replicas, STARTS as u64);
    assert_eq!(status.warnings, Vec::<String>::new());
    assert!(status.token.len() <= TOKEN_CHARS_MAX);
}

#[tokio::test]
async fn sigterm_withdraws_finishes_and_leaves_nothing_to_replay() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new("eu", folder.path().join("eu"));
    let node = setup.start().await;
    let mut health = HealthClient::new(channel(&node).await);
    let watched = health.watch(HealthCheckRequest::default()).await;
    let mut watched = watched.expect("served").into_inner();
    let first = watched.message().await.expect("told").expect("a status");
    assert_eq!(first.status(), ServingStatus::Serving);

    let (_here, client) = watch::channel(Some(node.client_with_deadline(Duration::from_secs(2))));
    let load = Load::start("p", "u", client);
    load.more(200).await;
    node.terminate().await;
    let withdrawn = tokio::time::timeout(PATIENCE, watched.message()).await;
    let withdrawn = withdrawn
        .expect("told in time")
        .expect("told")
        .expect("a status");
    assert_eq!(withdrawn.status(), ServingStatus::NotServing);
    drop((watched, health));
    let status = node.ended().await;
    assert_eq!(status.code(), Some(0), "{}", setup.stderr());
    let outcomes = load.stop().await;

    let said_before = setup.stderr().len();
    let node = setup.start().await;
    let said = setup.stderr()[said_before..].to_owned();
    assert!(said.contains("records_replayed=0"), "{said}");
    let count = node.count("p").await as usize;
    let (liked, unknown) = (outcomes.liked.len(), outcomes.unknown.len());
    assert!(
        (liked..=liked + unknown).contains(&count),
        "{liked} {unknown} {count}"
    );
    for user in &outcomes.liked {
        assert!(node.likes("p", user).await.1, "{user} was lost");
    }
}

#[tokio::test]
async fn a_second_signal_quits() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new("eu", folder.path().join("eu"));
    let node = setup.start().await;
    node.client.like("p", "ann").await.expect("taken");
    let _unfinished = unfinished_call(&node).await;

    node.terminate().await;
    let stopping = "stopping; a second signal quits at once";
    crate::process::eventually("the first signal is taken", PATIENCE, || async {
        match setup.stderr().contains(stopping) {
            true => Ok(()),
            false => Err(setup.stderr()),
        }
    })
    .await;
    node.terminate().await;
    let status = node.ended().await;
    assert_eq!(status.code(), Some(130), "{}", setup.stderr());
    assert_eq!(setup.start().await.count("p").await, 1);
}

/// A call that the node has begun and that its client never finishes: it keeps the node draining.
async fn unfinished_call(node: &Node) -> JoinSet<()> {
    let channel = channel(node).await;
    let mut status = ClusterServiceClient::new(channel.clone());
    let mut calls = JoinSet::new();
    calls.spawn(async move {
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.expect("connected");
        let request = Request::new(tokio_stream::pending::<LikeRequest>());
        let path = PathAndQuery::from_static("/likewise.v1.LikeService/Like");
        let codec = tonic_prost::ProstCodec::<LikeRequest, LikeResponse>::default();
        let _ended_by_the_node = client.client_streaming(request, path, codec).await;
    });
    tokio::task::yield_now().await;
    // On the same connection after it, so the node knows of the first when this is answered.
    let answered = status.get_status(GetStatusRequest {}).await;
    answered.expect("served");
    calls
}

async fn channel(node: &Node) -> Channel {
    let address = format!("http://{}", node.client_address);
    let endpoint = Endpoint::from_shared(address).expect("an address");
    endpoint.connect().await.expect("connects")
}

#[tokio::test]
async fn kills_under_load_lose_nothing_acknowledged() {
    let mut world = World::start(&["eu", "us", "ap"], |setup| {
        setup.set("CHECKPOINT__INTERVAL_MS", 300)
    })
    .await;
    let client =
        |world: &World, region| -> Option<Client> { Some(world.node(region).client.session()) };
    let at_us = watch::Sender::new(client(&world, "us"));
    let at_eu = watch::Sender::new(client(&world, "eu"));
    let eu = Load::start("p", "eu", at_eu.subscribe());
    let us = Load::start("p", "us", at_us.subscribe());
    for kill in 0..KILLS {
        eu.more(60 + 17 * kill).await;
        let node = world.take("eu");
        node.kill().await;
        at_eu.send_replace(None);
        us.more(30).await;
        world.start_node("eu").await;
        at_eu.send_replace(client(&world, "eu"));
    }
    eu.more(50).await;
    let outcomes = [eu.stop().await, us.stop().await];
    let status = world.converge().await;
    assert_eq!(
        status.heads.len(),
        2,
        "eu went on as one line: {:?}",
        status.heads
    );

    let liked: usize = outcomes.iter().map(|outcomes| outcomes.liked.len()).sum();
    let unknown: usize = outcomes.iter().map(|outcomes| outcomes.unknown.len()).sum();
    is_all_there(&world, &outcomes).await;
    for region in ["eu", "us", "ap"] {
        world.take(region).kill().await;
    }
    for region in ["ap", "us", "eu"] {
        world.start_node(region).await;
    }
    let again = world.converge().await;
    assert_eq!(
        again.fingerprint, status.fingerprint,
        "after all were killed at once"
    );
    let count = is_all_there(&world, &outcomes).await;
    println!("acknowledged={liked} unknown={unknown} likers={count} kills={KILLS}");
}

async fn is_all_there(world: &World, outcomes: &[Outcomes]) -> usize {
    let liked: usize = outcomes.iter().map(|outcomes| outcomes.liked.len()).sum();
    let unknown: usize = outcomes.iter().map(|outcomes| outcomes.unknown.len()).sum();
    let ap = world.node("ap");
    let count = ap.count("p").await as usize;
    assert!(
        (liked..=liked + unknown).contains(&count),
        "{liked} {unknown} {count}"
    );
    for user in outcomes.iter().flat_map(|outcomes| &outcomes.liked) {
        assert!(ap.likes("p", user).await.1, "{user} was lost");
    }
    count
}
