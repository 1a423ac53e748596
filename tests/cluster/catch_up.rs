//! A region that was away for longer than the log reaches back is given a snapshot.

use likewise::client::{Batch, Client};
use likewise::wire::v1::GetStatusResponse;
use tokio::sync::watch;

use crate::process::counted::Counted;
use crate::process::load::Load;
use crate::process::node::{Node, PATIENCE, Setup};
use crate::process::world::World;
use crate::process::{count, eventually};

/// Items of a batch, with ids so long that few batches fill the log.
const BATCH_USERS: usize = 4_000;
const LOG_KEPT: u64 = 24 << 20;

fn small_logs(setup: Setup) -> Setup {
    setup
        .set("LOG__RETAIN_BYTES", LOG_KEPT)
        .set("CHECKPOINT__LOG_BYTES", 12 << 20)
        .set("CHECKPOINT__INTERVAL_MS", 500)
}

fn user(number: usize) -> String {
    format!("{number:0>200}")
}

async fn like_all(client: &Client, post: &str) {
    let mut batch = Batch::new();
    for number in 0..BATCH_USERS {
        batch.like(post, &user(number));
    }
    let result = client.batch_write(batch).await.expect("taken");
    assert!(result.errors.is_empty());
}

/// Likes everything again until the log no longer reaches back to where it was.
async fn write_beyond_the_cut(us: &Node, ap: &Node) {
    let mut written = 0;
    while !(us.has_cut_its_log() && ap.has_cut_its_log()) {
        like_all(&us.client, "away").await;
        like_all(&ap.client, "away").await;
        written += 2 * BATCH_USERS * 200;
        assert!(written < 400 << 20, "the log is never cut");
    }
}

#[tokio::test]
async fn a_region_beyond_the_cut_gets_a_snapshot_under_writes_on_both_sides() {
    let mut world = World::start(&["eu", "us", "ap"], small_logs).await;
    for number in 0..200 {
        let client = &world.node(["eu", "us", "ap"][number % 3]).client;
        client.like("shared", &user(number)).await.expect("taken");
    }
    world.converge().await;
    world.take("eu").stop().await;
    write_beyond_the_cut(world.node("us"), world.node("ap")).await;
    for number in 0..60 {
        world
            .node("us")
            .client
            .unlike("shared", &user(number))
            .await
            .expect("taken");
    }
    for number in 0..30 {
        world
            .node("ap")
            .client
            .like("shared", &user(number))
            .await
            .expect("taken");
    }

    world.cut("eu", "us");
    world.cut("eu", "ap");
    world.start_node("eu").await;
    let (eu, us, ap) = (world.node("eu"), world.node("us"), world.node("ap"));
    // On the side that was away: likes that the others took back meanwhile, and the other way round.
    for number in 0..10 {
        eu.client
            .like("shared", &user(number))
            .await
            .expect("taken");
        eu.client
            .unlike("shared", &user(100 + number))
            .await
            .expect("taken");
        eu.client
            .unlike("shared", &user(number + 10))
            .await
            .expect("taken");
        eu.client
            .like("shared", &user(number + 10))
            .await
            .expect("taken");
    }
    let clients = [eu, us, ap].map(|node| watch::Sender::new(Some(node.client.session())));
    let mut loads = Vec::new();
    for (client, region) in clients.iter().zip(["eu", "us", "ap"]) {
        loads.push(Load::start("load", region, client.subscribe()));
    }
    let churn: Vec<_> = [eu, us, ap]
        .into_iter()
        .map(|node| tokio::spawn(churn(node.client.session())))
        .collect();
    world.heal();
    let taken = eventually("a snapshot is taken", PATIENCE, || async {
        match eu.setup.stderr().contains("the snapshot is in") {
            true => Ok(()),
            false => Err(eu.setup.stderr()),
        }
    });
    taken.await;
    for load in &loads {
        load.more(20).await;
    }
    churn.iter().for_each(tokio::task::JoinHandle::abort);
    let mut likers = 0..=0;
    for load in loads {
        let outcomes = load.stop().await;
        likers = likers.start() + outcomes.liked.len()
            ..=likers.end() + outcomes.liked.len() + outcomes.unknown.len();
    }
    world.converge().await;
    for node in [eu, us, ap] {
        let count = node.count("load").await as usize;
        assert!(likers.contains(&count), "{likers:?} {count}");
        assert_eq!(node.count("away").await as usize, BATCH_USERS);
        // Of 200: 60 unliked and 30 of those liked again; eu likes 20 more or less and unlikes 10.
        assert_eq!(node.count("shared").await, 200 - 30 - 10);
        assert!(node.likes("shared", &user(5)).await.1 && !node.likes("shared", &user(45)).await.1);
        assert!(!node.likes("shared", &user(105)).await.1);
    }
}

/// A transfer that breaks when nine tenths are over sends the rest, and little of it twice.
#[tokio::test]
async fn a_snapshot_broken_late_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = |region: &str| {
        small_logs(Setup::new(region, folder.path().join(region)))
            .set("REPLICATION__CATCH_UP_BYTES_PER_SECOND", 2 << 20)
            .set("REPLICATION__SNAPSHOT_CHUNK_BYTES", 64 << 10)
    };
    let eu = setup("eu").start().await;
    let witness = setup("us").peer("eu", eu.peer_address).start().await;
    let mut turn = 0;
    while !eu.has_cut_its_log() {
        // The log grows, the state does not: transfers are short.
        like_all(&eu.client, &format!("post-{}", turn % 4)).await;
        turn += 1;
        assert!(turn < 200, "the log is never cut");
    }
    witness.kill().await;
    let mut arrived = Vec::new();
    for (region, is_broken) in [("ap", false), ("sa", true)] {
        let wire = Counted::lay().await;
        wire.lead_to(eu.peer_address);
        if is_broken {
            wire.break_at(arrived[0] / 10 * 9);
        }
        let node = setup(region).peer("eu", wire.address).start().await;
        let wanted = eu.status().await.fingerprint;
        let here = |status: &GetStatusResponse| {
            let is_in = status.settled && status.fingerprint == wanted;
            is_in && count(status, "snapshots_merged") == 1
        };
        let status = node
            .status_where("the state is here", 3 * PATIENCE, here)
            .await;
        assert_eq!(wire.has_broken(), is_broken);
        assert_eq!(count(&status, "snapshots_resumed"), u64::from(is_broken));
        assert_eq!(count(&status, "snapshots_broken"), u64::from(is_broken));
        arrived.push(wire.arrived());
        node.kill().await;
    }
    let again = arrived[1].saturating_sub(arrived[0]);
    assert!(again < arrived[0] / 5, "{arrived:?}: {again} bytes again");
}

/// The same few users like and unlike, over and over, in each region.
async fn churn(client: Client) {
    for number in (0..50).cycle() {
        let user = format!("churner-{number}");
        for outcome in [
            client.like("churn", &user).await.map(drop),
            client.unlike("churn", &user).await.map(drop),
            client.like("churn", &user).await.map(drop),
        ] {
            outcome.expect("taken");
        }
    }
}
