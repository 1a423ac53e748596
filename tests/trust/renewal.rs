//! New files are taken up while the node runs, and bad ones are not.

use likewise::wire::v1::GetStatusResponse;

use crate::certificates::{Authority, EXPIRED, node, replace};
use crate::process::eventually;
use crate::process::node::PATIENCE;
use crate::process::world::converge;
use crate::tls;
use crate::trust::realm::{Realm, linked, problem};

#[tokio::test]
async fn a_renewed_certificate_is_taken_up_without_a_restart() {
    let realm = Realm::new();
    let expired = realm.authority.sign(&node("eu").valid(EXPIRED));
    let eu = realm.setup_with("eu", &expired).start().await;
    let us = realm.setup("us").peer("eu", eu.peer_address).start().await;
    eu.client.like("p", "ann").await.expect("taken");
    problem(&us, "eu", "the peer's certificate has expired").await;
    realm.renew("eu", &node("eu"));
    let status = linked(&us, "eu").await;
    assert_eq!(status.links[0].epoch, eu.epoch, "it was not restarted");
    converge(&[&eu, &us]).await;
    assert_eq!(us.count("p").await, 1);
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_the_former_in_use() {
    let realm = Realm::new();
    let eu = realm.setup("eu").start().await;
    let us = realm.authority.sign(&node("us"));
    let former = tls::shown_at(eu.peer_address, &us).await;
    let shown = || tls::shown_at(eu.peer_address, &us);

    replace(&realm.path("eu.pem"), "-----BEGIN CERTIFICATE-----\n");
    assert_eq!(shown().await, former);
    realm
        .authority
        .sign(&node("eu"))
        .write(&realm.path(""), "other");
    let other = std::fs::read_to_string(realm.path("other.pem")).expect("there");
    replace(&realm.path("eu.pem"), &other);
    assert_eq!(shown().await, former, "the key of another");
    realm.renew("eu", &node("us"));
    assert_eq!(shown().await, former, "the certificate of another");
    std::fs::remove_file(realm.path("eu.key")).expect("it was there");
    assert_eq!(shown().await, former, "no key");
    let said = eu.setup.stderr();
    for words in [
        "the changed certificates are not used; the former stay",
        "is no sound PEM file",
        "is not the key of the certificate",
        "is of region us, and not of eu",
        "cannot be read",
    ] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    let renewed = realm.renew("eu", &node("eu"));
    assert_eq!(shown().await, renewed.certificate);
}

#[tokio::test]
async fn an_authority_is_replaced_without_a_restart() {
    let realm = Realm::new();
    let eu = realm.setup("eu").start().await;
    let us = realm.setup("us").peer("eu", eu.peer_address).start().await;
    linked(&us, "eu").await;
    let newer = Authority::new("likewise test 2");
    let dialler = newer.sign(&node("ap"));
    let refusal = tls::refusal(eu.peer_address, Some(&dialler)).await;
    assert!(refusal.contains("UnknownCA"), "{refusal}");
    let both = format!("{}{}", realm.authority.pem(), newer.pem());
    replace(&realm.path("authority.pem"), &both);
    eventually("the newer authority counts", PATIENCE, || async {
        let stream = tls::dial(eu.peer_address, Some(&dialler)).await;
        let mut stream = stream.map_err(|error| error.to_string())?;
        let mut first = [0];
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut first).await;
        read.map(drop).map_err(|error| error.to_string())
    })
    .await;
    let is_linked = |status: &GetStatusResponse| status.links[0].connected;
    us.status_where("the session stays", PATIENCE, is_linked)
        .await;
}
