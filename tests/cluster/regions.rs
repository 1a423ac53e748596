//! Regions over a bridge, away, retired and back; and how often events cross the links.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use likewise::client::{Batch, Client, ClientError, Read, Reason};
use likewise::wire::v1::{GetStatusResponse, PostLikes, RegionStatus};
use tokio::process::Command;
use tokio::sync::watch;

use crate::process::eventually;
use crate::process::load::Load;
use crate::process::node::{Node, PATIENCE, Setup};
use crate::process::world::{World, converge};

/// Items of a batch, with ids so long, and with nothing in common that could be left out, that few batches fill a segment.
const BATCH_USERS: usize = 4_000;
/// Batches that are more than a segment of the log.
const SEGMENT_BATCHES: usize = 18;

fn quick_checkpoints(setup: Setup) -> Setup {
    setup
        .set("CHECKPOINT__LOG_BYTES", 12 << 20)
        .set("CHECKPOINT__INTERVAL_MS", 500)
}

async fn write_segments(client: &Client, post: &str, segments: usize) {
    for _ in 0..segments * SEGMENT_BATCHES {
        let mut batch = Batch::new();
        for number in 0..BATCH_USERS {
            batch.like(post, &format!("{number:x<200}"));
        }
        let result = client.batch_write(batch).await.expect("taken");
        assert!(result.errors.is_empty());
    }
}

/// Segments that the node has said it removed, and the checkpoints that it made.
fn cuts(node: &Node) -> (u64, usize) {
    let said = node.setup.stderr();
    let figures = said.split("segments_removed=").skip(1);
    let figures = figures.map(|rest| rest.split_whitespace().next().unwrap_or_default());
    let removed: Vec<u64> = figures
        .map(|figure| figure.parse().expect("a number"))
        .collect();
    (removed.iter().sum(), removed.len())
}

async fn log_is_cut(node: &Node, beyond: u64) {
    let what = format!("{} cuts its log", node.setup.region);
    eventually(&what, PATIENCE, || async {
        match cuts(node).0 > beyond {
            true => Ok(()),
            false => Err(format!("{:#?}", node.status().await)),
        }
    })
    .await;
}

/// Waits for a checkpoint that began after now, and says how many segments were removed until then.
async fn removed_after_a_checkpoint(node: &Node) -> u64 {
    for _ in 0..2 {
        let (_, before) = cuts(node);
        node.client.like("tick", "ann").await.expect("taken");
        let what = format!("{} makes a checkpoint", node.setup.region);
        eventually(&what, PATIENCE, || async {
            match cuts(node).1 > before {
                true => Ok(()),
                false => Err("no checkpoint".to_owned()),
            }
        })
        .await;
    }
    cuts(node).0
}

fn region<'a>(status: &'a GetStatusResponse, name: &str) -> &'a RegionStatus {
    let mut regions = status.regions.iter();
    let found = regions.find(|region| region.region == name);
    found.unwrap_or_else(|| panic!("{name} is not among {:#?}", status.regions))
}

async fn command(nodes: &[&Node], arguments: &[&str]) -> (Option<i32>, String) {
    let addresses = nodes.iter().map(|node| node.client_address.to_string());
    let output = Command::new(env!("CARGO_BIN_EXE_likewise"))
        .args(arguments)
        .env("LIKEWISE_NODE", addresses.collect::<Vec<_>>().join(","))
        .output()
        .await
        .expect("the command runs");
    let said = String::from_utf8_lossy(&output.stdout);
    (output.status.code(), said.into_owned())
}

async fn refusal(node: &Node, region: &str) -> (Reason, String) {
    match node.client.retire_region(region).await {
        Err(ClientError::Refused(refusal)) => {
            let field = refusal.fields.first();
            (refusal.reason, field.expect("a field").field.clone())
        }
        other => panic!("{other:?}"),
    }
}

/// The origin time up to which a node has a region's events.
fn complete(likes: &PostLikes, region: &str) -> Option<(i64, i32)> {
    let mut regions = likes.regions.iter();
    let region = regions.find(|entry| entry.region == region);
    let until = region.and_then(|entry| entry.complete_until)?;
    Some((until.seconds, until.nanos))
}

async fn likes_by_region(node: &Node, post: &str) -> PostLikes {
    let read = Read {
        include_regions: true,
        ..Read::default()
    };
    let likes = node.client.get_post(post, None, read).await;
    likes.expect("read")
}

/// Whoever writes nothing still says that nothing was written.
#[tokio::test]
async fn a_region_at_rest_is_complete_up_to_now() {
    let world = World::start(&["ap", "eu"], |setup| setup).await;
    world.converge().await;
    let (ap, eu) = (world.node("ap"), world.node("eu"));
    let liked = eu.client.like("p", "ann").await.expect("taken");
    let here = ["ap".to_owned()];
    let waited = eu.client.wait_for(&liked.token, &here, Some(PATIENCE));
    assert_eq!(waited.await.expect("waited").reached, ["ap"]);
    let begun = likes_by_region(ap, "p").await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let later = now.expect("after 1970") + Duration::from_secs(2);
    let later = Some((later.as_secs() as i64, 0));
    eventually("eu is complete up to later", PATIENCE, || async {
        let likes = likes_by_region(ap, "p").await;
        assert_eq!(likes.updated_at, begun.updated_at);
        match complete(&likes, "eu") >= later {
            true => Ok(()),
            false => Err(format!("{likes:#?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_region_is_waited_for_over_a_bridge() {
    let mut world = World::start(&["ap", "eu", "us"], |setup| setup).await;
    world.converge().await;
    world.cut("ap", "us");
    let (ap, us) = (world.node("ap"), world.node("us"));
    let is_alone = |status: &GetStatusResponse| {
        let mut links = status.links.iter();
        links.any(|link| link.region == "us" && !link.connected)
    };
    ap.status_where("the link to us is down", PATIENCE, is_alone)
        .await;
    let liked = ap.client.like("p", "ann").await.expect("taken");
    let waited = ap.client.wait_for(&liked.token, &[], Some(PATIENCE)).await;
    let waited = waited.expect("waited");
    assert_eq!(waited.reached, ["ap", "eu", "us"]);
    assert_eq!(waited.missing, [] as [&str; 0]);
    assert_eq!(us.count("p").await, 1, "what is reached is there");
    let (code, said) = command(&[ap], &["wait", &liked.token, "--regions=us,eu"]).await;
    assert_eq!(code, Some(0), "{said}");

    // The other way round, with the origin time up to which `us` is complete at `ap`.
    let liked = us.client.like("p", "bob").await.expect("taken");
    let only_ap = ["ap".to_owned()];
    let waited = us.client.wait_for(&liked.token, &only_ap, Some(PATIENCE));
    assert_eq!(waited.await.expect("waited").reached, ["ap"]);
    // Clocks at rest are passed on ten seconds apart, over two links.
    eventually("us is complete at ap", 2 * PATIENCE, || async {
        let likes = likes_by_region(ap, "p").await;
        let updated = likes.updated_at.map(|time| (time.seconds, time.nanos));
        let reached = complete(&likes, "us") >= updated;
        match reached && likes.count == 2 {
            true => Ok(()),
            false => Err(format!("{likes:#?}")),
        }
    })
    .await;

    world.take("us").kill().await;
    let (ap, eu) = (world.node("ap"), world.node("eu"));
    let liked = ap.client.like("p", "cid").await.expect("taken");
    let begun = Instant::now();
    let looked = ap
        .client
        .wait_for(&liked.token, &[], Some(Duration::ZERO))
        .await;
    assert_eq!(
        looked.expect("looked").missing.last().map(String::as_str),
        Some("us")
    );
    let regions = ["eu", "mars", "us"].map(str::to_owned);
    let waited = ap
        .client
        .wait_for(&liked.token, &regions, Some(Duration::from_secs(2)));
    let waited = waited.await.expect("waited");
    assert_eq!(
        (waited.reached, waited.missing),
        (
            vec!["eu".to_owned()],
            vec!["mars".to_owned(), "us".to_owned()]
        )
    );
    assert!(
        begun.elapsed() >= Duration::from_secs(2),
        "it waits as long as it may"
    );
    let arguments = ["wait", &liked.token, "--wait=0s", "--output=json"];
    let (code, said) = command(&[ap], &arguments).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("\"missing\":[\"us\"]"), "{said}");
    converge(&[ap, eu]).await;
}

/// One life of a region: known and away, retired, and back.
#[tokio::test]
async fn the_log_is_kept_for_known_regions_until_they_are_retired() {
    let mut world = World::start(&["ap", "eu", "us"], quick_checkpoints).await;
    for name in ["ap", "eu", "us"] {
        let node = world.node(name);
        node.client.like("shared", name).await.expect("taken");
    }
    world.converge().await;
    world.cut("ap", "us");
    let is_alone = |status: &GetStatusResponse| {
        let mut links = status.links.iter();
        links.any(|link| link.region == "us" && !link.connected)
    };
    let ap = world.node("ap");
    ap.status_where("the link to us is down", PATIENCE, is_alone)
        .await;
    write_segments(&ap.client, "big", 2).await;
    log_is_cut(ap, 0).await;

    let eu = world.node("eu");
    assert_eq!(
        refusal(eu, "us").await,
        (Reason::RegionConnected, "region".to_owned())
    );
    assert_eq!(
        refusal(eu, "eu").await,
        (Reason::InvalidField, "region".to_owned())
    );
    assert_eq!(
        refusal(eu, "mars").await,
        (Reason::RegionUnavailable, "region".to_owned())
    );

    // Something that nobody else has seen when `us` ends.
    world.cut("eu", "us");
    let us = world.node("us");
    us.client.like("unseen", "ann").await.expect("taken");
    us.client.unlike("shared", "ap").await.expect("taken");
    world.take("us").kill().await;
    let (ap, eu) = (world.node("ap"), world.node("eu"));
    let before = removed_after_a_checkpoint(ap).await;
    write_segments(&ap.client, "big", 2).await;
    let held = removed_after_a_checkpoint(ap).await;
    assert!(held <= before + 1, "kept for us: {before}, then {held}");
    let status = ap.status().await;
    assert!(region(&status, "us").known && region(&status, "us").events_behind > 0);

    let (code, said) = command(&[ap], &["retire", "us"]).await;
    assert_eq!(code, Some(0), "{said}");
    // Beyond what `us` had acknowledged.
    log_is_cut(ap, 2).await;
    log_is_cut(eu, 2).await;
    converge(&[ap, eu]).await;
    for node in [ap, eu] {
        let is_retired = |status: &GetStatusResponse| region(status, "us").retired;
        node.status_where("us is retired", PATIENCE, is_retired)
            .await;
        assert_eq!(node.count("shared").await, 3, "its likes stay");
    }
    let (code, said) = command(&[ap, eu], &["status"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("retired"), "{said}");
    let liked = ap.client.like("p", "ann").await.expect("taken");
    let waited = ap.client.wait_for(&liked.token, &[], Some(PATIENCE)).await;
    assert_eq!(waited.expect("waited").reached, ["ap", "eu"]);

    // Also after a start from what the checkpoint holds.
    world.take("eu").stop().await;
    world.start_node("eu").await;
    assert!(region(&world.node("eu").status().await, "us").retired);

    world.heal();
    world.start_node("us").await;
    world.converge().await;
    for name in ["ap", "eu", "us"] {
        let node = world.node(name);
        assert_eq!(
            node.count("unseen").await,
            1,
            "{name}: what only us had seen"
        );
        assert_eq!(node.count("shared").await, 2, "{name}");
        assert_eq!(node.count("big").await as usize, BATCH_USERS, "{name}");
        let is_known = |status: &GetStatusResponse| {
            region(status, "us").known && !region(status, "us").retired
        };
        node.status_where("us is known again", PATIENCE, is_known)
            .await;
    }
    let said = world.node("us").setup.stderr();
    assert!(said.contains("the snapshot is in"), "the logs reached back");
}

#[tokio::test]
async fn the_log_is_cut_at_its_age_but_not_before_a_peer_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = crate::process::Wire::lay().await;
    let aging = |name: &str| {
        let setup = Setup::new(name, folder.path().join(name));
        let setup = quick_checkpoints(setup).set("LOG__RETAIN_MS", 1_000);
        setup.peer("us", nowhere.address())
    };
    let eu = aging("eu").start().await;
    write_segments(&eu.client, "big", 2).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(removed_after_a_checkpoint(&eu).await, 0, "nobody has it");
    let ap = aging("ap").peer("eu", eu.peer_address).start().await;
    converge(&[&eu, &ap]).await;
    log_is_cut(&eu, 0).await;
    let status = eu.status().await;
    assert!(
        region(&status, "us").known,
        "it was never there, and holds the log no longer"
    );
}

/// At most 1.2 copies of each event come to a node that wants it, in a full mesh of three under load.
#[tokio::test]
async fn a_full_mesh_under_load_carries_each_event_about_once() {
    let world = World::start(&["ap", "eu", "us"], |setup| setup).await;
    let nodes = ["ap", "eu", "us"].map(|name| world.node(name));
    for node in nodes {
        let connected = |status: &GetStatusResponse| {
            status.links.len() == 2 && status.links.iter().all(|link| link.connected)
        };
        node.status_where("both links are up", PATIENCE, connected)
            .await;
    }
    let before = crossed(&nodes).await;
    let clients = nodes.map(|node| watch::Sender::new(Some(node.client.session())));
    let mut loads = Vec::new();
    for (client, name) in clients.iter().zip(["ap", "eu", "us"]) {
        loads.push(Load::start("load", name, client.subscribe()));
    }
    for load in &loads {
        load.more(700).await;
    }
    for load in loads {
        load.stop().await;
    }
    world.converge().await;
    // The counts of links are brought up to date a few times a second, and those of a session that gave way to
    // another between the same nodes are gone.
    let (events, copies) = eventually("all copies are counted", PATIENCE, || async {
        let (events, copies) = crossed(&nodes).await;
        let (events, copies) = (events - before.0, copies - before.1);
        match 100 * copies >= 95 * 2 * events {
            true => Ok((events, copies)),
            false => Err(format!("{copies} copies of {events} events")),
        }
    })
    .await;
    assert!(events >= 2_100, "{events} events");
    let each = copies as f64 / (2 * events) as f64;
    println!("{copies} copies of {events} events to two others each: {each:.3}");
    assert!(each <= 1.2, "{copies} copies of {events} events");
}

/// The events of the cluster, and how many crossed the links.
async fn crossed(nodes: &[&Node]) -> (u64, u64) {
    let mut received = 0;
    let mut events = 0;
    for node in nodes {
        let status = node.status().await;
        let own = status
            .heads
            .iter()
            .filter(|head| head.epoch == status.epoch);
        events += own.map(|head| head.seq).sum::<u64>();
        received += status
            .links
            .iter()
            .map(|link| link.received_events)
            .sum::<u64>();
    }
    (events, received)
}
