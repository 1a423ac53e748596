//! Events that are well formed and wrong.

use bytes::Bytes;
use likewise::wire::replication::{self as wire, CloseReason, frame::Body};
use likewise::wire::v1::GetStatusResponse;

use super::intruder::{Intruder, acknowledge, bytes, events, likes, replica, vector};
use super::scene::Scene;
use crate::process::node::PATIENCE;

/// The acknowledgement of all frames up to this one.
async fn acknowledged(session: &mut Intruder, frame: u64) {
    let covers = |body: &Body| match body {
        Body::Acknowledge(acknowledge) => (acknowledge.frame >= frame).then_some(()),
        _ => None,
    };
    session.wait("an acknowledgement", covers).await;
}

#[tokio::test]
async fn a_known_number_with_other_contents_is_an_alarm() {
    let mut scene = Scene::start().await;
    let address = scene.eu().peer_address;
    let (ap, maker) = (replica("ap", 9), replica("ap", 9));
    let honest = likes(&maker, 1, &["ann", "bob", "cid"]);
    let mut session = Intruder::greet(address, &ap).await;
    session.send(events(1, &honest)).await;
    acknowledged(&mut session, 1).await;
    // The same once more, and in another block, is no conflict.
    session.send(events(2, &honest)).await;
    acknowledged(&mut session, 2).await;
    drop(session);
    scene.others_go_on().await;
    let before = scene.state().await;
    let forged = [
        likes(&maker, 1, &["ann", "eve", "cid"]),
        likes(&maker, 3, &["eve"]),
        // What is new behind it is not applied either.
        likes(&maker, 2, &["bob", "eve", "dan", "fay"]),
    ];
    for (at, block) in forged.iter().enumerate() {
        // Comparisons rest in between; one that was let through unchecked changes nothing.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let session = Intruder::greet(address, &ap).await;
        session.send(events(1, block)).await;
        let words = format!("{maker} is known here with other contents");
        scene
            .refuses("a forged event", session, CloseReason::Conflict, &words)
            .await;
        assert_eq!(scene.state().await, before, "forged block {at}");
        scene.counted("conflicts", at as u64 + 1).await;
    }
    let logged = scene.eu().setup.stderr();
    let alarm = logged
        .lines()
        .find(|line| line.contains("known event with other contents"));
    let alarm = alarm.expect("logged");
    assert!(
        alarm.contains("ERROR") && alarm.contains(&maker.to_string()),
        "{alarm}"
    );
    scene.others_go_on().await;
}

#[tokio::test]
async fn numbers_out_of_order_wait_and_are_asked_for() {
    let mut scene = Scene::start().await;
    let address = scene.eu().peer_address;
    let before = scene.state().await;
    let ap = replica("ap", 9);
    let mut session = Intruder::greet(address, &ap).await;
    let _alive = session.keep_alive();
    session.send(events(1, &likes(&ap, 5, &["ann"]))).await;
    let resumed = |body: &Body| matches!(body, Body::Resume(_)).then_some(());
    session.wait("a Resume", resumed).await;
    assert_eq!(scene.state().await, before);
    scene.others_go_on().await;
    let told = |status: &GetStatusResponse| {
        let mut links = status.links.iter();
        links.any(|link| link.region == "ap" && link.problem.contains("cannot be applied yet"))
    };
    scene.eu().status_where("the problem", PATIENCE, told).await;
    // What was missing comes, in order.
    session
        .send(events(2, &likes(&ap, 1, &["u1", "u2", "u3", "u4", "ann"])))
        .await;
    acknowledged(&mut session, 2).await;
    assert_eq!(scene.eu().count("hostile").await, 5);
}

#[tokio::test]
async fn events_of_the_running_replica_raise_an_alarm() {
    let mut scene = Scene::start().await;
    let address = scene.eu().peer_address;
    let before = scene.state().await;
    let own = scene.own();
    let session = Intruder::greet(address, &replica("ap", 9)).await;
    session.send(events(1, &likes(&own, 1_000, &["eve"]))).await;
    let words = "up to 1000";
    scene
        .refuses("its own event", session, CloseReason::Alarm, words)
        .await;
    scene.counted("alarms", 1).await;
    assert_eq!(scene.state().await, before);
    let status = scene.eu().status().await;
    assert_ne!(
        status.epoch,
        own.epoch.to_string(),
        "it goes on under a fresh one"
    );
    scene.others_go_on().await;
    // The same by a claim.
    let now = likewise::ids::Replica {
        epoch: likewise::ids::Epoch(
            u128::from_str_radix(&scene.eu().status().await.epoch, 16).expect("hexadecimal"),
        ),
        ..own
    };
    let session = Intruder::greet(address, &replica("ap", 9)).await;
    session.send(acknowledge(0, &[(now, u64::MAX)])).await;
    scene
        .refuses("a claim", session, CloseReason::Alarm, "it made")
        .await;
    scene.counted("alarms", 2).await;
    scene.others_go_on().await;
}

/// A block whose event is of a kind that nobody has made yet.
fn of_the_future(maker: &likewise::ids::Replica, first_seq: u64) -> Bytes {
    let block = likes(maker, first_seq, &["ann"]);
    // Kinds stand as a stretch of one, which is 2, and so is a like, 1 in zigzag. Times follow.
    let place = block.windows(4).position(|bytes| bytes == [0, 2, 2, 2]);
    let mut block = block.to_vec();
    block[place.expect("the kinds follow the empty list of counters") + 2] = 2 * 9;
    block.into()
}

#[tokio::test]
async fn unknown_kinds_of_events_are_passed_over_and_told() {
    let mut scene = Scene::start().await;
    let address = scene.eu().peer_address;
    let (ap, sa) = (replica("ap", 9), replica("sa", 4));
    let mut session = Intruder::greet(address, &ap).await;
    let _alive = session.keep_alive();
    session.send(events(1, &likes(&ap, 1, &["ann"]))).await;
    acknowledged(&mut session, 1).await;
    scene.others_go_on().await;
    let before = scene.state().await;
    session.send(events(2, &of_the_future(&ap, 2))).await;
    let withheld = |body: &Body| match body {
        Body::Withhold(withhold) => withhold.replicas.clone(),
        _ => None,
    };
    let withheld = session.wait("a Withhold", withheld).await;
    assert_eq!(withheld, vector(&[(ap.clone(), 2)]));
    session.send(events(3, &likes(&ap, 3, &["bob"]))).await;
    acknowledged(&mut session, 3).await;
    assert_eq!(
        scene.state().await,
        before,
        "what follows is passed over too"
    );
    let told = |status: &GetStatusResponse| {
        let mut links = status.links.iter();
        links.any(|link| link.connected && link.problem.contains("kind 9 came from ap"))
    };
    scene.eu().status_where("the problem", PATIENCE, told).await;
    scene.counted("blocks_withheld", 1).await;
    // Other replicas' events go on, in this session and in others.
    session.send(events(4, &likes(&sa, 1, &["dan"]))).await;
    acknowledged(&mut session, 4).await;
    assert_eq!(scene.eu().count("hostile").await, 2);
    scene.others_go_on().await;
}

/// What is withheld of a node's own running replica is a claim as any other.
#[tokio::test]
async fn a_withhold_of_numbers_that_never_were_is_an_alarm() {
    let mut scene = Scene::start().await;
    let address = scene.eu().peer_address;
    let session = Intruder::greet(address, &replica("ap", 9)).await;
    let claim = vector(&[(scene.own(), 1_000_000)]);
    let withhold = wire::Withhold {
        replicas: Some(claim),
    };
    session.send(bytes(Body::Withhold(withhold))).await;
    scene
        .refuses("a withhold", session, CloseReason::Alarm, "it made")
        .await;
    scene.others_go_on().await;
}
