//! Who dials without being allowed to is refused, counted and told, and changes nothing.

use std::time::Duration;

use likewise::wire::replication::replication_service_client::ReplicationServiceClient;
use likewise::wire::replication::{self as wire, SnapshotRequest, SyncRequest, frame::Body};
use likewise::wire::v1::GetStatusResponse;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::certificates::{Authority, Certified, EXPIRED, NOT_YET_VALID, Wanted, node};
use crate::process::count;
use crate::process::node::{Node, PATIENCE};
use crate::process::world::{World, converge};
use crate::tls;
use crate::trust::realm::{Realm, linked, problem};

/// Two nodes that hold a like each; `us` dials `eu`, and nobody tells `eu` to dial back.
async fn two(realm: &Realm) -> (Node, Node) {
    let setup = |region| realm.setup(region).set("PEERS__MEMBERSHIP", "static");
    let eu = setup("eu").start().await;
    let us = setup("us").peer("eu", eu.peer_address).start().await;
    eu.client.like("p", "ann").await.expect("taken");
    us.client.like("p", "bob").await.expect("taken");
    converge(&[&eu, &us]).await;
    (eu, us)
}

fn what_holds(status: &GetStatusResponse) -> impl PartialEq + std::fmt::Debug + use<> {
    let links = status.links.iter();
    let links: Vec<_> = links
        .map(|link| (link.region.clone(), link.epoch.clone(), link.connected))
        .collect();
    (
        status.fingerprint.clone(),
        status.likers,
        status.replicas,
        links,
    )
}

/// Waits until so many peers were refused, and checks that nothing else happened.
async fn is_refused(eu: &Node, before: &GetStatusResponse, refused: u64, words: &str) {
    let counted = |status: &GetStatusResponse| count(status, "peers_refused") >= refused;
    let status = eu
        .status_where("a peer is refused", PATIENCE, counted)
        .await;
    assert_eq!(count(&status, "peers_refused"), refused, "{words}");
    assert_eq!(what_holds(&status), what_holds(before), "{words}");
    let said = eu.setup.stderr();
    assert!(said.contains(words), "{words:?} is not in {said}");
    assert!(!said.contains("session over"), "{said}");
}

#[tokio::test]
async fn three_nodes_with_certificates_converge() {
    let realm = Realm::new();
    let settings = |region: &str| realm.setup(region);
    let setups = ["ap", "eu", "us"].map(|region| (region, settings(region)));
    let world = World::start(&["ap", "eu", "us"], move |setup| {
        let (_, sound) = setups
            .iter()
            .find(|(region, _)| *region == setup.region)
            .expect("one of the three");
        setup.settings_of(sound)
    })
    .await;
    for region in ["ap", "eu", "us"] {
        let node = world.node(region);
        node.client.like("p", region).await.expect("taken");
    }
    let status = world.converge().await;
    assert_eq!((status.likers, count(&status, "peers_refused")), (3, 0));
}

#[tokio::test]
async fn a_dialler_without_a_sound_certificate_is_refused_and_changes_nothing() {
    let realm = Realm::new();
    let (eu, _us) = two(&realm).await;
    let before = linked(&eu, "us").await;
    let sound = node("us");
    let of = |wanted: Wanted| realm.authority.sign(&wanted);
    let (other, namesake) = (Authority::new("another"), Authority::new("likewise test"));
    let cases: [(Option<Certified>, &str, &str); 10] = [
        (
            Some(namesake.sign(&sound)),
            "DecryptError",
            "is not of the authority that is configured here",
        ),
        (
            Some(of(sound.clone().uris(["likewise://other/us"]))),
            "CertificateUnknown",
            "is of cluster other, and this node of test",
        ),
        (
            Some(other.sign(&sound)),
            "UnknownCA",
            "is not of the authority that is configured here",
        ),
        (
            Some(of(sound.clone().valid(EXPIRED))),
            "CertificateExpired",
            "has expired",
        ),
        (
            Some(of(sound.clone().valid(NOT_YET_VALID))),
            "CertificateExpired",
            "is not valid yet",
        ),
        (
            Some(of(sound.clone().uris([]))),
            "CertificateUnknown",
            "names no region",
        ),
        (
            Some(of(sound
                .clone()
                .uris(["likewise://test/us", "likewise://test/ap"]))),
            "CertificateUnknown",
            "names more than one region",
        ),
        (
            Some(of(sound.clone().uris(["likewise://test/us/1"]))),
            "CertificateUnknown",
            "which is not likewise://CLUSTER/REGION",
        ),
        (
            Some(of(sound.clone().uris(["likewise://test/US"]))),
            "CertificateUnknown",
            "which is not likewise://CLUSTER/REGION",
        ),
        (None, "CertificateRequired", "the peer shows no certificate"),
    ];
    for (at, (shown, alert, words)) in (1..).zip(&cases) {
        let refusal = tls::refusal(eu.peer_address, shown.as_ref()).await;
        assert!(refusal.contains(alert), "{words}: {refusal}");
        is_refused(&eu, &before, at, words).await;
    }
}

#[tokio::test]
async fn a_dialler_without_tls_is_refused_and_changes_nothing() {
    let realm = Realm::new();
    let (eu, _us) = two(&realm).await;
    let before = linked(&eu, "us").await;
    let mut plain = TcpStream::connect(eu.peer_address).await.expect("a port");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    plain.write_all(preface).await.expect("room");
    let mut said = Vec::new();
    plain.read_to_end(&mut said).await.expect("an end in order");
    assert_eq!(said.first(), Some(&21), "a TLS alert, and not {said:?}");
    is_refused(&eu, &before, 1, "does not speak TLS").await;
}

/// Certificates checked, as a peer's node does, and then whatever is asked for.
async fn channel(eu: &Node, shown: &Certified) -> Channel {
    let stream = tls::dial(eu.peer_address, Some(shown)).await.expect("TLS");
    let mut once = Some(hyper_util::rt::TokioIo::new(stream));
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let stream = once.take().ok_or(std::io::ErrorKind::NotConnected);
        std::future::ready(stream.map_err(std::io::Error::from))
    });
    let endpoint = Endpoint::from_static("http://peer");
    let connected = endpoint.connect_with_connector(connector).await;
    connected.expect("HTTP/2")
}

fn hello(region: &str) -> SyncRequest {
    let hello = wire::Hello {
        protocol_min: likewise::versions::PROTOCOL_MIN,
        protocol_max: likewise::versions::PROTOCOL_MAX,
        cluster: "test".to_owned(),
        replica: Some(replica(region)),
        frontier: Some(wire::VersionVector::default()),
        ..wire::Hello::default()
    };
    SyncRequest {
        frame: Some(wire::Frame {
            body: Some(Body::Hello(hello)),
        }),
    }
}

fn replica(region: &str) -> wire::Replica {
    wire::Replica {
        region: region.to_owned(),
        epoch: vec![7; 16].into(),
    }
}

#[tokio::test]
async fn a_peer_cannot_say_that_it_is_of_another_region_than_its_certificate() {
    let realm = Realm::new();
    let (eu, _us) = two(&realm).await;
    let before = linked(&eu, "us").await;
    let channel = channel(&eu, &realm.authority.sign(&node("us"))).await;
    let mut peer = ReplicationServiceClient::new(channel);
    let words = "the peer says that it is of region ap, and its certificate is of us";

    let frames = tokio_stream::iter([hello("ap")]);
    let frames = tokio_stream::StreamExt::chain(frames, tokio_stream::pending());
    let answers = peer.sync(frames).await.expect("the call is taken");
    let mut answers = answers.into_inner();
    let closed = loop {
        let answer = answers.message().await.expect("a frame").expect("a frame");
        if let Some(Body::Close(close)) = answer.frame.and_then(|frame| frame.body) {
            break close;
        }
    };
    assert_eq!(closed.message, words);
    assert_eq!(closed.reason(), wire::CloseReason::NotAllowed);
    is_refused(&eu, &before, 1, words).await;

    let request = SnapshotRequest {
        protocol_min: likewise::versions::PROTOCOL_MIN,
        protocol_max: likewise::versions::PROTOCOL_MAX,
        cluster: "test".to_owned(),
        replica: Some(replica("ap")),
        ..SnapshotRequest::default()
    };
    let refused = peer.snapshot(request).await.expect_err("refused");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::PermissionDenied, words)
    );
    is_refused(&eu, &before, 2, words).await;
}

#[tokio::test]
async fn stalled_handshakes_hold_up_no_other() {
    let realm = Realm::new();
    let eu = realm.setup("eu").start().await;
    let mut stalled = Vec::new();
    for _ in 0..200 {
        let stream = TcpStream::connect(eu.peer_address).await;
        stalled.push(stream.expect("a place in the queue"));
    }
    let us = realm.setup("us").peer("eu", eu.peer_address).start().await;
    eu.client.like("p", "ann").await.expect("taken");
    let begun = std::time::Instant::now();
    converge(&[&eu, &us]).await;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(us.count("p").await, 1);
    let counted = |status: &GetStatusResponse| count(status, "peers_refused") == 200;
    eu.status_where("all are given up", PATIENCE, counted).await;
    let said = eu.setup.stderr();
    assert!(said.contains("the handshake was not over"), "{said}");
    linked(&eu, "us").await;
}

#[tokio::test]
async fn only_listed_regions_take_part() {
    let realm = Realm::new();
    let eu = realm
        .setup("eu")
        .set("CLUSTER__REGIONS", "[\"eu\", \"us\"]");
    let eu = eu.start().await;
    let us = realm.setup("us").peer("eu", eu.peer_address).start().await;
    eu.client.like("p", "ann").await.expect("taken");
    converge(&[&eu, &us]).await;
    let ap = realm.setup("ap").peer("eu", eu.peer_address).start().await;
    ap.client.like("p", "cid").await.expect("taken");
    problem(&ap, "eu", "region ap is not among cluster.regions").await;
    let status = linked(&eu, "us").await;
    assert!(count(&status, "peers_refused") >= 1);
    assert_eq!((status.likers, status.replicas), (1, 1));
    assert!(status.links.iter().all(|link| link.region != "ap"));
    let said = eu.setup.stderr();
    assert!(
        said.contains("region ap is not among cluster.regions"),
        "{said}"
    );
}
