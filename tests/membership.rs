//! Nodes that find one another, as real processes: by one seed, by a list, in spite of hostile gossip.

#[path = "membership/killing.rs"]
mod killing;
#[path = "support/process/mod.rs"]
mod process;
#[path = "membership/strangers.rs"]
mod strangers;

use killing::{below, killing, stranger};
use likewise::ids::ClusterId;
use likewise::limits::GOSSIP_DATAGRAM_BYTES_MAX;
use likewise::versions::Dialect;
use likewise::wire::gossip::{write_datagram, write_hello};
use likewise::wire::v1::GetStatusResponse;
use process::Wire;
use process::node::{Node, PATIENCE, Setup};
use process::world::converge;
use strangers::{APART, Acceptor, Stranger};
use tempfile::TempDir;
use tonic::Code;

/// Longer than all that is waited for in between, and short enough to wait for it.
const FORGET_AFTER_MS: u64 = 4_000;

fn setup(folder: &TempDir, region: &str) -> Setup {
    Setup::new(region, folder.path().join(region))
        .set("PEERS__GOSSIP_INTERVAL_MS", 100)
        .set("PEERS__DEAD_AFTER_MS", 1_000)
        .set("PEERS__FORGET_AFTER_MS", FORGET_AFTER_MS)
}

/// The regions to which a node has a session, in order.
fn connected(status: &GetStatusResponse) -> Vec<&str> {
    let links = status.links.iter();
    let links = links.filter(|link| link.connected);
    links.map(|link| link.region.as_str()).collect()
}

async fn until_connected(node: &Node, regions: &[&str]) -> GetStatusResponse {
    let what = format!("sessions with {regions:?}");
    node.status_where(&what, PATIENCE, |status| connected(status) == regions)
        .await
}

fn count(status: &GetStatusResponse, name: &str) -> u64 {
    let mut counts = status.counts.iter();
    counts
        .find(|count| count.name == name)
        .expect("there")
        .value
}

#[tokio::test]
async fn nodes_that_know_one_seed_meet_everybody_leave_and_come_back_elsewhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let ap = setup(&folder, "ap").start().await;
    let seeded = |region: &str| setup(&folder, region).seed(ap.peer_address);
    let eu = seeded("eu").start().await;
    let sa = seeded("sa").start().await;
    let us = seeded("us").start().await;
    until_connected(&ap, &["eu", "sa", "us"]).await;
    until_connected(&eu, &["ap", "sa", "us"]).await;
    until_connected(&sa, &["ap", "eu", "us"]).await;
    // They may dial it before the membership has told it where they are.
    let bound = [&ap, &eu, &sa].map(|node| node.peer_address.to_string());
    us.status_where("sessions at their addresses", PATIENCE, |status| {
        let addresses = status.links.iter().map(|link| &link.address);
        connected(status) == ["ap", "eu", "sa"] && addresses.eq(&bound)
    })
    .await;
    for (number, node) in [&ap, &eu, &sa, &us].into_iter().enumerate() {
        let user = format!("u{number}");
        node.client.like("p", &user).await.expect("taken");
    }
    converge(&[&ap, &eu, &sa, &us]).await;
    assert_eq!(sa.count("p").await, 4);

    let before = us.peer_address;
    us.kill().await;
    for node in [&ap, &eu, &sa] {
        let forgotten =
            |status: &GetStatusResponse| status.links.len() == 2 && connected(status).len() == 2;
        node.status_where("us is forgotten", PATIENCE, forgotten)
            .await;
    }
    let us = seeded("us").start().await;
    assert_ne!(us.peer_address, before);
    until_connected(&us, &["ap", "eu", "sa"]).await;
    for node in [&ap, &eu, &sa] {
        let is_found = |status: &GetStatusResponse| {
            let mut links = status.links.iter();
            links.any(|link| link.connected && link.address == us.peer_address.to_string())
        };
        node.status_where("us where it is now", PATIENCE, is_found)
            .await;
    }
    us.client.like("p", "late").await.expect("taken");
    converge(&[&ap, &eu, &sa, &us]).await;
    assert_eq!(eu.count("p").await, 5);
    for node in [&ap, &eu, &sa, &us] {
        let status = node.status().await;
        assert_eq!(count(&status, "gossip_refused"), 0, "{}", node.setup.region);
        assert_eq!(count(&status, "gossip_restarts"), 0);
    }
}

#[tokio::test]
async fn a_list_works_without_gossip() {
    let folder = tempfile::tempdir().expect("a folder");
    let listed = |region: &str| setup(&folder, region).set("PEERS__MEMBERSHIP", "static");
    let eu = listed("eu").start().await;
    let us = listed("us").peer("eu", eu.peer_address).start().await;
    us.client.like("p", "ann").await.expect("taken");
    converge(&[&eu, &us]).await;
    let refused = Stranger::call(&eu, "test").await.map(drop);
    assert_eq!(refused.expect_err("refused").code(), Code::Unimplemented);
    // Nor does a node that gossips trouble one that does not.
    let ap = setup(&folder, "ap")
        .peer("eu", eu.peer_address)
        .start()
        .await;
    until_connected(&ap, &["eu"]).await;
    until_connected(&eu, &["ap", "us"]).await;
}

#[tokio::test]
async fn a_seed_that_is_the_node_itself_is_harmless() {
    let folder = tempfile::tempdir().expect("a folder");
    let (to_itself, to_eu) = (Wire::lay().await, Wire::lay().await);
    let us = setup(&folder, "us")
        .seed(to_itself.address())
        .seed(to_eu.address());
    let us = us.start().await;
    to_itself.lead_to(Some(us.peer_address));
    let says_so = |status: &GetStatusResponse| {
        let mut warnings = status.warnings.iter();
        warnings.any(|warning| warning.contains("it is this very node"))
    };
    us.status_where("what its seeds lead to", PATIENCE, says_so)
        .await;
    let eu = setup(&folder, "eu").start().await;
    to_eu.lead_to(Some(eu.peer_address));
    let status = until_connected(&us, &["eu"]).await;
    assert!(!says_so(&status), "of no interest any more");
    us.ready().await;
}

#[tokio::test]
async fn hostile_gossip_ends_nothing_and_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let eu = setup(&folder, "eu").start().await;
    let us = setup(&folder, "us").seed(eu.peer_address).start().await;
    until_connected(&us, &["eu"]).await;

    let stranger = Stranger::call(&eu, "test")
        .await
        .expect("one of the cluster");
    let hostile = killing();
    for datagram in &hostile {
        stranger.send(datagram.clone()).await;
        tokio::time::sleep(APART).await;
    }
    gossip_goes_on(&folder, &eu, &us, hostile.len() as u64).await;
}

/// After so many datagrams, which are counted, who comes hears of everybody, and is heard of.
async fn gossip_goes_on(folder: &TempDir, eu: &Node, us: &Node, hostile: u64) {
    let counted = |status: &GetStatusResponse| count(status, "gossip_refused") >= hostile - 1;
    eu.status_where("all of it is refused", PATIENCE, counted)
        .await;
    let ap = setup(folder, "ap").seed(eu.peer_address).start().await;
    until_connected(&ap, &["eu", "us"]).await;
    until_connected(us, &["ap", "eu"]).await;
    for node in [&ap, eu, us] {
        let status = node.status().await;
        assert_eq!(
            count(&status, "gossip_restarts"),
            0,
            "{}",
            node.setup.region
        );
        assert_eq!(count(&status, "frames_refused"), 0);
        let stderr = node.setup.stderr();
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    eu.client.like("p", "ann").await.expect("taken");
    converge(&[&ap, eu, us]).await;
}

#[tokio::test]
async fn hostile_gossip_of_a_peer_that_is_dialled_ends_nothing_and_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (acceptor, address) = Acceptor::start().await;
    let eu = setup(&folder, "eu").seed(address).start().await;
    let us = setup(&folder, "us").seed(eu.peer_address).start().await;
    until_connected(&eu, &["us", "zz"]).await;
    acceptor.until_all_is_said().await;
    gossip_goes_on(&folder, &eu, &us, killing().len() as u64).await;
    until_connected(&eu, &["us", "zz"]).await;
}

#[tokio::test]
async fn who_does_not_say_who_they_are_is_not_heard() {
    let folder = tempfile::tempdir().expect("a folder");
    let eu = setup(&folder, "eu").start().await;
    let other = Stranger::call(&eu, "another-cluster").await.expect("taken");
    assert_eq!(other.refusal().await.code(), Code::InvalidArgument);
    let first = write_datagram(below().write().into());
    let nameless = Stranger::begin(&eu, first).await.expect("taken");
    assert_eq!(nameless.refusal().await.code(), Code::InvalidArgument);
    let twice = Stranger::call(&eu, "test").await.expect("taken");
    let cluster = ClusterId::new("test").expect("valid");
    twice
        .say(write_hello(&Dialect::default(), &cluster, &stranger()))
        .await;
    assert_eq!(twice.refusal().await.code(), Code::InvalidArgument);
    let long = Stranger::call(&eu, "test").await.expect("taken");
    long.send(vec![0; GOSSIP_DATAGRAM_BYTES_MAX + 1]).await;
    assert_eq!(long.refusal().await.code(), Code::InvalidArgument);
    assert_eq!(count(&eu.status().await, "gossip_refused"), 4);
}
