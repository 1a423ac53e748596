//! Two nodes on copies of one folder, and a node whose folder is gone.

use std::time::Duration;

use likewise::client::{ClientError, Read, Reason};
use likewise::wire::v1::{GetStatusResponse, NodeState};

use crate::process::Wire;
use crate::process::node::{PATIENCE, Setup, copy_folder};
use crate::process::world::{World, converge};

#[tokio::test]
async fn clones_of_a_folder_lose_nothing_and_are_told_everywhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let (to_us, to_eu) = (Wire::lay().await, Wire::lay().await);
    let eu = Setup::new("eu", path("eu")).peer("us", to_us.address());
    let copy = Setup::new("eu", path("copy")).peer("us", to_us.address());
    let us = Setup::new("us", path("us")).peer("eu", to_eu.address());

    let alone = eu.start().await;
    for number in 0..20 {
        alone
            .client
            .like("p", &format!("before-{number}"))
            .await
            .expect("taken");
    }
    alone.stop().await;
    copy_folder(&eu.folder, &copy.folder);

    let us = us.start().await;
    to_us.lead_to(Some(us.peer_address));
    let eu = eu.start().await;
    to_eu.lead_to(Some(eu.peer_address));
    let copy = copy.start().await;
    assert_ne!(eu.epoch, copy.epoch);
    for number in 0..20 {
        eu.client
            .like("p", &format!("first-{number}"))
            .await
            .expect("taken");
        copy.client
            .like("p", &format!("second-{number}"))
            .await
            .expect("taken");
        us.client
            .like("p", &format!("us-{number}"))
            .await
            .expect("taken");
    }
    copy.client.unlike("p", "before-0").await.expect("taken");
    eu.client.add("p", "views", 3).await.expect("taken");
    copy.client.add("p", "views", 4).await.expect("taken");

    let nodes = [&eu, &copy, &us];
    let converged = converge(&nodes).await;
    assert_eq!(
        converged
            .heads
            .iter()
            .filter(|head| head.region == "eu")
            .count(),
        2
    );
    let is_told = |status: &GetStatusResponse| {
        let told = |text: &str| status.warnings.iter().any(|warning| warning.contains(text));
        told("region eu has 2 replicas") && told("region eu has 2 running replicas")
    };
    us.status_where("both warnings", PATIENCE, is_told).await;
    for node in nodes {
        let told = |status: &GetStatusResponse| {
            status
                .warnings
                .iter()
                .any(|warning| warning.contains("region eu has 2 replicas"))
        };
        node.status_where("the warning", PATIENCE, told).await;
        assert_eq!(node.count("p").await, 79);
        for user in ["first-19", "second-19", "us-19", "before-19"] {
            assert!(node.likes("p", user).await.1, "{user}");
        }
        assert!(!node.likes("p", "before-0").await.1);
        let counters = node.client.get_counters("p", &[], Read::default()).await;
        assert_eq!(counters.expect("read")[0].value, 7);
    }
}

#[tokio::test]
async fn a_restored_backup_gets_back_what_came_after_it() {
    let mut world = World::start(&["eu", "us"], |setup| setup).await;
    let backup = world.path("backup");
    for number in 0..20 {
        world
            .node("eu")
            .client
            .like("p", &format!("before-{number}"))
            .await
            .expect("taken");
    }
    world.take("eu").stop().await;
    copy_folder(&world.path("eu"), &backup);
    world.start_node("eu").await;
    for number in 0..20 {
        world
            .node("eu")
            .client
            .like("p", &format!("after-{number}"))
            .await
            .expect("taken");
    }
    world
        .node("eu")
        .client
        .unlike("p", "before-0")
        .await
        .expect("taken");
    world.converge().await;

    world.take("eu").kill().await;
    std::fs::remove_dir_all(world.path("eu")).expect("removed");
    copy_folder(&backup, &world.path("eu"));
    world.cut("eu", "us");
    world.start_node("eu").await;
    for number in 0..10 {
        world
            .node("eu")
            .client
            .like("p", &format!("new-{number}"))
            .await
            .expect("taken");
    }
    world.heal();
    world.converge().await;
    for region in ["eu", "us"] {
        let node = world.node(region);
        assert_eq!(node.count("p").await, 49, "{region}");
        assert!(node.likes("p", "after-19").await.1 && node.likes("p", "new-9").await.1);
        assert!(!node.likes("p", "before-0").await.1);
    }
}

#[tokio::test]
async fn a_deleted_folder_is_rebuilt_from_the_peers() {
    let mut world = World::start(&["eu", "us", "ap"], |setup| setup).await;
    for number in 0..30 {
        let user = format!("u{number}");
        world
            .node("eu")
            .client
            .like("p", &user)
            .await
            .expect("taken");
        world
            .node("us")
            .client
            .like("q", &user)
            .await
            .expect("taken");
    }
    world
        .node("eu")
        .client
        .unlike("p", "u0")
        .await
        .expect("taken");
    world.converge().await;

    world.take("eu").kill().await;
    std::fs::remove_dir_all(world.path("eu")).expect("removed");
    world.cut("eu", "us");
    world.cut("eu", "ap");
    world.start_node("eu").await;
    let eu = world.node("eu");
    assert_eq!(eu.status().await.state(), NodeState::Rebuilding);
    let hasty = eu.client_with_deadline(Duration::from_millis(300));
    let read = hasty.get_post("p", None, Read::default()).await;
    match read.expect_err("nothing is known yet") {
        ClientError::Refused(refusal) => {
            assert_eq!(refusal.reason, Reason::Rebuilding);
            assert_eq!(refusal.code, tonic::Code::Unavailable);
        }
        other => panic!("{other}"),
    }
    for number in 0..10 {
        let like = eu
            .client
            .like("p", &format!("new-{number}"))
            .await
            .expect("taken");
        assert_eq!(like.count, None, "a count of what is not known");
    }

    world.heal();
    eu.ready().await;
    world.converge().await;
    for region in ["eu", "us", "ap"] {
        let node = world.node(region);
        assert_eq!(node.count("p").await, 39, "{region}");
        assert_eq!(node.count("q").await, 30, "{region}");
        assert!(node.likes("p", "new-9").await.1 && node.likes("p", "u29").await.1);
        assert!(!node.likes("p", "u0").await.1);
    }
}
