//! Who is found at an address without being allowed there is refused, and the link says why.

use crate::certificates::{Authority, EXPIRED, NOT_YET_VALID, node};
use crate::process::count;
use crate::process::node::PATIENCE;
use crate::process::world::converge;
use crate::tls::Impostor;
use crate::trust::realm::{Realm, linked, problem};

#[tokio::test]
async fn whoever_answers_without_a_sound_certificate_is_refused_and_the_link_says_why() {
    let realm = Realm::new();
    let of = |wanted: crate::certificates::Wanted| realm.authority.sign(&wanted);
    let cases = [
        ("a1", of(node("other")), "is of region other, and not of a1"),
        (
            "a2",
            of(node("a2").uris(["likewise://other/a2"])),
            "is of cluster other, and this node of test",
        ),
        (
            "a3",
            Authority::new("likewise test").sign(&node("a3")),
            "is not of the authority that is configured here",
        ),
        ("a4", of(node("a4").valid(EXPIRED)), "has expired"),
        (
            "a5",
            of(node("a5").valid(NOT_YET_VALID)),
            "is not valid yet",
        ),
        ("a6", of(node("a6").uris([])), "names no region"),
    ];
    let us = realm.setup("us").start().await;
    let mut setup = realm.setup("eu").peer("us", us.peer_address);
    let mut impostors = Vec::new();
    for (region, shown, _) in &cases {
        let impostor = Impostor::showing(shown).await;
        setup = setup.peer(region, impostor.address);
        impostors.push(impostor);
    }
    let eu = setup.start().await;
    eu.client.like("p", "ann").await.expect("taken");
    for (region, _, words) in cases {
        problem(&eu, region, words).await;
    }
    linked(&eu, "us").await;
    let status = converge(&[&eu, &us]).await;
    assert_eq!((status.likers, status.replicas), (1, 1));
}

#[tokio::test]
async fn tls_and_none_do_not_meet_and_both_say_so() {
    let realm = Realm::new();
    let plain = realm.plain("us").start().await;
    let eu = realm
        .setup("eu")
        .peer("us", plain.peer_address)
        .start()
        .await;
    problem(&eu, "us", "does not speak TLS").await;
    let refused = |status: &_| count(status, "peers_refused") >= 1;
    plain
        .status_where("TLS is refused", PATIENCE, refused)
        .await;
    let said = plain.setup.stderr();
    assert!(said.contains("the other side speaks TLS"), "{said}");

    let ap = realm.plain("ap").peer("eu", eu.peer_address).start().await;
    problem(&ap, "eu", "the peer demands TLS").await;
    eu.status_where("none is refused", PATIENCE, refused).await;
    let said = eu.setup.stderr();
    assert!(said.contains("does not speak TLS"), "{said}");
}

#[tokio::test]
async fn who_is_refused_by_the_other_side_says_so() {
    let realm = Realm::new();
    let eu = realm.setup("eu").start().await;
    let expired = realm.authority.sign(&node("us").valid(EXPIRED));
    let us = realm.setup_with("us", &expired).peer("eu", eu.peer_address);
    let us = us.start().await;
    let words = "the peer refuses this node's certificate: it has expired or is not valid yet";
    problem(&us, "eu", words).await;
    let said = us.setup.stderr();
    assert!(said.contains("no peer will speak to this node"), "{said}");
}

#[tokio::test]
async fn nobody_elsewhere_is_dialled_in_the_clear() {
    let realm = Realm::new();
    // An address of a network that is set aside for documents: nothing is ever sent there.
    let eu = realm.plain("eu").peer("us", "192.0.2.1:7401").start().await;
    problem(&eu, "us", "the address is not on this machine").await;
}
