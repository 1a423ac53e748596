//! `serve --rebuild`: the state is set aside and comes from the peers.

use std::fs;
use std::path::{Path, PathBuf};

use likewise::client::Read;
use likewise::wire::v1::NodeState;

use crate::process::node::{Setup, contents};
use crate::process::world::World;

const USERS: u64 = 50;

fn asides(folder: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(folder).expect("readable");
    let paths = names.map(|entry| entry.expect("readable").path());
    let mut asides: Vec<PathBuf> = paths
        .filter(|path| path.to_string_lossy().contains("/aside-"))
        .collect();
    asides.sort();
    asides
}

/// Bytes in the middle of what was written, with synced records behind them.
fn damage_log(folder: &Path) {
    let names = fs::read_dir(folder.join("log")).expect("readable");
    let mut segments: Vec<PathBuf> = names.map(|entry| entry.expect("readable").path()).collect();
    segments.sort();
    let mut content = fs::read(&segments[0]).expect("readable");
    content[1_200..1_300].fill(0x5a);
    fs::write(&segments[0], content).expect("written");
}

#[tokio::test]
async fn a_damaged_folder_is_rebuilt_from_the_peers() {
    let mut world = World::start(&["eu", "us"], |setup| setup).await;
    for region in ["eu", "us"] {
        world.node(region).ready().await;
        for number in 0..USERS / 2 {
            let client = &world.node(region).client;
            let user = format!("{region}-{number}");
            client.like("p", &user).await.expect("taken");
        }
    }
    world.converge().await;
    let setup = world.setup("eu");
    world.take("eu").kill().await;
    damage_log(&setup.folder);
    let refused = setup.refused().await;
    assert!(refused.stderr.contains("damaged"), "{}", refused.stderr);
    let before = contents(&setup.folder);

    let node = setup.clone().flag("--rebuild").start().await;
    let aside = asides(&setup.folder);
    assert_eq!(aside.len(), 1);
    let said = setup.stderr();
    assert!(said.contains(&*aside[0].to_string_lossy()), "{said}");
    assert!(
        said.contains("Writes that no peer has yet are lost"),
        "{said}"
    );
    let kept = contents(&aside[0]);
    for (path, bytes) in before {
        let path = path.strip_prefix(&setup.folder).expect("within");
        let moved = (aside[0].join(path), bytes);
        assert!(
            kept.contains(&moved),
            "{} was kept as it was",
            path.display()
        );
    }
    world.adopt("eu", node);
    world.node("eu").ready().await;
    assert_eq!(world.converge().await.likers, USERS);
    assert_eq!(world.node("eu").count("p").await, USERS);
    // What it takes from now on is its own, and the next start is a plain one.
    world
        .node("eu")
        .client
        .like("p", "after")
        .await
        .expect("taken");
    world.take("eu").kill().await;
    world.start_node("eu").await;
    assert_eq!(world.node("eu").ready().await.likers, USERS + 1);
    assert_eq!(asides(&setup.folder).len(), 1);
}

/// The node's own writes are not the state of its region.
#[tokio::test]
async fn a_rebuild_that_was_killed_before_a_peer_answered_goes_on_refusing_reads() {
    let mut world = World::start(&["eu", "us"], |setup| setup).await;
    world.node("eu").ready().await;
    world
        .node("eu")
        .client
        .like("p", "before")
        .await
        .expect("taken");
    world.converge().await;
    let setup = world.setup("eu");
    world.take("eu").kill().await;
    let us = world.take("us");

    let node = setup.clone().flag("--rebuild").start().await;
    node.client
        .like("p", "meanwhile")
        .await
        .expect("writes are taken");
    node.kill().await;
    let node = setup.start().await;
    assert_eq!(node.status().await.state(), NodeState::Rebuilding);
    let patient = node.client_with_deadline(std::time::Duration::from_millis(300));
    let refused = patient.get_post("p", None, Read::default()).await;
    assert!(
        refused.is_err(),
        "it would show less than its region promised"
    );

    world.adopt("us", us);
    world.adopt("eu", node);
    let status = world.node("eu").ready().await;
    assert_eq!(
        status.likers, 2,
        "ready means that all the peer had is here"
    );
    world.take("eu").kill().await;
    world.take("us").kill().await;
    let alone = setup.start().await;
    assert_eq!(
        alone.status().await.state(),
        NodeState::Ready,
        "it has its state"
    );
}

#[tokio::test]
async fn a_rebuild_needs_peers_and_the_folder_for_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new("eu", folder.path().join("eu"));
    let node = setup.start().await;
    node.client.like("p", "ann").await.expect("taken");
    let with_peer = setup.clone().peer("us", "127.0.0.1:1").flag("--rebuild");
    let in_use = with_peer.refused().await;
    assert!(
        in_use.stderr.contains("in use by another process"),
        "{}",
        in_use.stderr
    );
    assert_eq!(node.count("p").await, 1);
    node.stop().await;

    let before = contents(&setup.folder);
    let refused = setup.clone().flag("--rebuild").refused().await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("none are configured"),
        "{}",
        refused.stderr
    );
    let foreign = with_peer.set("CLUSTER__ID", "other").refused().await;
    assert!(
        foreign.stderr.contains("belongs to cluster"),
        "{}",
        foreign.stderr
    );
    assert_eq!(contents(&setup.folder), before, "nothing was changed");
    let node = setup.start().await;
    assert_eq!(node.count("p").await, 1);
    node.stop().await;
}
