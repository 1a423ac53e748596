//! Silent links and names of hosts.

use std::time::{Duration, Instant};

use likewise::wire::v1::GetStatusResponse;

use crate::process::Wire;
use crate::process::node::{PATIENCE, Setup};
use crate::process::world::{World, converge};

/// Within this a silent link must be noticed.
const SILENCE_MAX: Duration = Duration::from_secs(5);

fn link_is(connected: bool) -> impl Fn(&GetStatusResponse) -> bool {
    move |status| status.links.len() == 1 && status.links[0].connected == connected
}

#[tokio::test]
async fn a_silent_link_is_noticed_within_five_seconds_and_heals() {
    let world = World::start(&["eu", "us"], |setup| setup).await;
    let (eu, us) = (world.node("eu"), world.node("us"));
    eu.client.like("p", "ann").await.expect("taken");
    world.converge().await;
    for node in [eu, us] {
        node.status_where("a link", PATIENCE, link_is(true)).await;
    }
    world.cut("eu", "us");
    let begun = Instant::now();
    eu.client.like("p", "bob").await.expect("taken");
    us.client.like("p", "cat").await.expect("taken");
    for node in [eu, us] {
        let left = SILENCE_MAX.saturating_sub(begun.elapsed());
        let status = node
            .status_where("the link is down", left, link_is(false))
            .await;
        assert_ne!(status.links[0].problem, "", "it says why");
    }
    assert!(begun.elapsed() <= SILENCE_MAX, "{:?}", begun.elapsed());
    world.heal();
    for node in [eu, us] {
        node.status_where("the link is up", PATIENCE, link_is(true))
            .await;
    }
    world.converge().await;
    assert_eq!(eu.count("p").await, 3);
}

#[tokio::test]
async fn a_peer_is_found_by_the_name_of_its_host() {
    let folder = tempfile::tempdir().expect("a folder");
    let wire = Wire::lay().await;
    let us = Setup::new("us", folder.path().join("us")).start().await;
    wire.lead_to(Some(us.peer_address));
    let name = format!("localhost:{}", wire.address().port());
    let eu = Setup::new("eu", folder.path().join("eu"))
        .peer("us", &name)
        .start()
        .await;
    eu.client.like("p", "ann").await.expect("taken");
    us.client.like("p", "bob").await.expect("taken");
    converge(&[&eu, &us]).await;
    assert_eq!((eu.count("p").await, us.count("p").await), (2, 2));
    let status = eu.status_where("a link", PATIENCE, link_is(true)).await;
    assert_eq!(status.links[0].address, name);
}
