//! What a node does not start with: it names the key of the configuration, and the file.

use std::path::Path;

use crate::certificates::{Authority, Wanted, node};
use crate::process::node::Setup;
use crate::trust::realm::Realm;

async fn is_refused(setup: &Setup, key: &str, file: &Path, words: &str) {
    let refusal = setup.refused().await;
    assert_eq!(refusal.code, Some(1), "{refusal:?}");
    let name = format!("{key} = {}", file.display());
    for word in [name.as_str(), words] {
        assert!(
            refusal.stderr.contains(word),
            "{word:?} is not in {}",
            refusal.stderr
        );
    }
    assert!(!setup.folder.exists(), "nothing was begun");
}

#[tokio::test]
async fn certificates_that_peers_would_refuse_are_refused_at_the_start() {
    let realm = Realm::new();
    let (certificate, key) = (realm.path("eu.pem"), realm.path("eu.key"));
    let of = |wanted: Wanted| realm.authority.sign(&wanted);
    let at_certificate = "peers.tls.certificate";

    let setup = realm.setup_with("eu", &of(node("us")));
    is_refused(
        &setup,
        at_certificate,
        &certificate,
        "is of region us, and not of eu",
    )
    .await;
    let setup = realm.setup_with("eu", &of(node("eu").uris(["likewise://other/eu"])));
    is_refused(&setup, at_certificate, &certificate, "is of cluster other").await;
    let setup = realm.setup_with("eu", &of(node("eu").uris([])));
    is_refused(&setup, at_certificate, &certificate, "names no region").await;
    let setup = realm.setup_with("eu", &Authority::new("another").sign(&node("eu")));
    is_refused(
        &setup,
        at_certificate,
        &certificate,
        "is not of the authority",
    )
    .await;

    let mut mixed = of(node("eu"));
    mixed.key = of(node("eu")).key;
    let setup = realm.setup_with("eu", &mixed);
    let words = "is not the key of the certificate";
    is_refused(&setup, "peers.tls.key", &key, words).await;

    let setup = realm.setup("eu");
    std::fs::write(&key, realm.authority.pem()).expect("written");
    is_refused(&setup, "peers.tls.key", &key, "holds no private key").await;
    std::fs::remove_file(&key).expect("it was there");
    is_refused(&setup, "peers.tls.key", &key, "cannot be read").await;

    let setup = realm.setup("eu");
    std::fs::write(realm.path("authority.pem"), "").expect("written");
    let authority = realm.path("authority.pem");
    is_refused(
        &setup,
        "peers.tls.authority",
        &authority,
        "holds no certificate",
    )
    .await;
}

#[tokio::test]
async fn the_certificate_of_the_clients_listener_is_checked_too() {
    let realm = Realm::new();
    let missing = realm.path("client.pem");
    let setup = realm
        .plain("eu")
        .set("CLIENT__TLS__CERTIFICATE", missing.display())
        .set("CLIENT__TLS__KEY", missing.display());
    is_refused(&setup, "client.tls.certificate", &missing, "cannot be read").await;
}
