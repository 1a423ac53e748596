//! What a node must refuse: clearly, with an exit code, and without changing anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use likewise::wire::replication::replication_service_server::{
    ReplicationService, ReplicationServiceServer,
};
use likewise::wire::replication::{self as wire, frame::Body};
use likewise::wire::v1::GetStatusResponse;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use crate::process::Wire;
use crate::process::node::{Contents, PATIENCE, Setup, contents};

/// Where a segment's version stands in its birth, and what its checksum covers.
const BIRTH_VERSION_AT: usize = 8;
const BIRTH_CHECKED_BYTES: usize = 40;

/// A folder with a few likes, ended in order.
async fn written(setup: &Setup) {
    let node = setup.start().await;
    for number in 0..20 {
        node.client
            .like("p", &format!("u{number}"))
            .await
            .expect("taken");
    }
    node.kill().await;
}

async fn is_refused(setup: &Setup, words: &[&str]) {
    is_refused_and_keeps(setup, words, contents).await;
}

async fn is_refused_and_keeps(setup: &Setup, words: &[&str], kept: fn(&Path) -> Contents) {
    let before = setup.folder.exists().then(|| kept(&setup.folder));
    let refusal = setup.refused().await;
    let code = refusal.code.expect("an exit code");
    assert!(code != 0 && code != 101, "{refusal:?}");
    for word in words {
        assert!(
            refusal.stderr.contains(word),
            "{word:?} is not in {}",
            refusal.stderr
        );
    }
    if let Some(before) = before {
        let after = kept(&setup.folder);
        let changed = before
            .iter()
            .zip(&after)
            .find(|(before, after)| before != after);
        let changed = changed.map(|(before, _)| &before.0);
        assert!(
            before.len() == after.len() && changed.is_none(),
            "changed: {changed:?}"
        );
    }
}

/// sled writes to its files whenever it is opened, which it must be before it is known from where the
/// log is needed.
fn without_store(folder: &Path) -> Contents {
    let mut all = contents(folder);
    all.retain(|(path, _)| !path.starts_with(folder.join("sled")));
    all
}

fn first_segment(setup: &Setup) -> PathBuf {
    let names = fs::read_dir(setup.folder.join("log")).expect("a log");
    names
        .map(|entry| entry.expect("readable").path())
        .min()
        .expect("a segment")
}

fn patch(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("readable");
    change(&mut bytes);
    fs::write(path, bytes).expect("written");
}

#[tokio::test]
async fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new("eu", folder.path().join("eu"));
    let node = setup.start().await;
    node.client.like("p", "ann").await.expect("taken");
    let refusal = setup.refused().await;
    assert_eq!(refusal.code, Some(1));
    assert!(
        refusal.stderr.contains("in use by another process"),
        "{}",
        refusal.stderr
    );
    node.client
        .like("p", "bob")
        .await
        .expect("the first goes on");
    assert_eq!(node.count("p").await, 2);
}

#[tokio::test]
async fn a_folder_of_another_cluster_or_region_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new("eu", folder.path().join("eu"));
    written(&setup).await;
    let other = setup.clone().set("CLUSTER__ID", "other");
    is_refused(&other, &["belongs to cluster test", "cluster.id"]).await;
    let other = Setup::new("us", folder.path().join("eu"));
    is_refused(&other, &["belongs to region eu", "node.region"]).await;
    // The same with a checkpoint.
    setup.start().await.stop().await;
    let other = setup.clone().set("CLUSTER__ID", "other");
    is_refused(&other, &["belongs to cluster test", "cluster.id"]).await;
    assert_eq!(setup.start().await.count("p").await, 20);
}

#[tokio::test]
async fn a_log_of_a_newer_format_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new("eu", folder.path().join("eu"));
    written(&setup).await;
    patch(&first_segment(&setup), |bytes| {
        bytes[BIRTH_VERSION_AT..][..2].copy_from_slice(&9u16.to_le_bytes());
        let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[..BIRTH_CHECKED_BYTES]);
        bytes[BIRTH_CHECKED_BYTES..][..8].copy_from_slice(&checksum.to_le_bytes());
    });
    is_refused(&setup, &["format version 9", "upgrade"]).await;
}

#[tokio::test]
async fn flipped_bytes_in_the_middle_of_the_log_are_refused_with_their_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new("eu", folder.path().join("eu"));
    written(&setup).await;
    let segment = first_segment(&setup);
    let bytes = fs::read(&segment).expect("readable");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("written");
    let middle = 512 + (used - 512) / 2;
    for bytes in [1, 64, 1_000] {
        patch(&segment, |content| {
            content[middle..][..bytes]
                .iter_mut()
                .for_each(|byte| *byte ^= 0xff)
        });
        let name = segment
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        is_refused_and_keeps(
            &setup,
            &[&name, "is damaged at byte", "backup"],
            without_store,
        )
        .await;
        patch(&segment, |content| {
            content[middle..][..bytes]
                .iter_mut()
                .for_each(|byte| *byte ^= 0xff)
        });
    }
    assert_eq!(
        setup.start().await.count("p").await,
        20,
        "undone, it opens again"
    );
}

#[tokio::test]
async fn a_bad_configuration_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new("eu", folder.path().join("eu"));
    let file = folder.path().join("node.toml");
    let with = |text: &str| {
        fs::write(&file, text).expect("written");
        setup.clone().config(&file)
    };
    let name = file.display().to_string();
    is_refused(
        &with("[log]\nsegment_byts = 1\n"),
        &["log.segment_byts", &name],
    )
    .await;
    is_refused(&with("[lgo]\nx = 1\n"), &["lgo", &name]).await;
    is_refused(&with("no toml at all ["), &[&name]).await;
    is_refused(
        &with("[node]\nregion = 7\n[log]\nretain_bytes = \"much\"\n"),
        &["log.retain_bytes"],
    )
    .await;
    let gone = setup.clone().config(folder.path().join("gone.toml"));
    is_refused(&gone, &["gone.toml"]).await;
    is_refused(
        &setup.clone().config(folder.path()),
        &[&folder.path().display().to_string()],
    )
    .await;
    is_refused(
        &setup.clone().set("LOG__SEGMENT_BYTS", 1),
        &["log.segment_byts", "LIKEWISE__LOG__SEGMENT_BYTS"],
    )
    .await;
    is_refused(
        &setup.clone().set("LOG__SEGMENT_BYTES", 4096),
        &["log.segment_bytes", "12582912"],
    )
    .await;
    is_refused(
        &setup.clone().set("LOG__RETAIN_BYTES", 2 << 20),
        &["log.retain_bytes", "twice"],
    )
    .await;
    is_refused(
        &setup.clone().set("REPLICATION__SILENCE_MS", 9_000),
        &["replication.silence_ms", "5000"],
    )
    .await;
    is_refused(
        &setup.clone().peer("eu", "localhost:1"),
        &["peers.static", "other regions"],
    )
    .await;
    assert!(!setup.folder.exists(), "nothing was made");

    for unusable in [file.join("data"), PathBuf::from("/dev/null/data")] {
        let mut setup = setup.clone();
        setup.folder = unusable;
        let path = setup.folder.display().to_string();
        is_refused(&setup, &["cannot use the data folder", &path]).await;
    }
}

/// A peer that greets as it is told, and keeps what it was sent.
struct Stranger {
    hello: wire::Hello,
}

type Answers<T> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ReplicationService for Stranger {
    type SyncStream = Answers<wire::SyncResponse>;

    async fn sync(
        &self,
        _: Request<Streaming<wire::SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let body = Some(Body::Hello(self.hello.clone()));
        let frame = Some(wire::Frame { body });
        let hello = tokio_stream::once(Ok(wire::SyncResponse { frame }));
        Ok(Response::new(Box::pin(tokio_stream::StreamExt::chain(
            hello,
            tokio_stream::pending(),
        ))))
    }

    type GossipStream = Answers<wire::GossipResponse>;

    async fn gossip(
        &self,
        _: Request<Streaming<wire::GossipRequest>>,
    ) -> Result<Response<Self::GossipStream>, Status> {
        Err(Status::unavailable("no gossip here"))
    }

    type SnapshotStream = Answers<wire::SnapshotResponse>;

    async fn snapshot(
        &self,
        _: Request<wire::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(Status::unavailable("no snapshot here"))
    }
}

fn hello(cluster: &str, region: &str, protocol: u32) -> wire::Hello {
    wire::Hello {
        protocol_min: protocol,
        protocol_max: protocol,
        cluster: cluster.to_owned(),
        replica: Some(wire::Replica {
            region: region.to_owned(),
            epoch: vec![7; 16].into(),
        }),
        frontier: Some(wire::VersionVector::default()),
        lineage: Vec::new(),
    }
}

#[tokio::test]
async fn strange_peers_are_told_in_status_and_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, hello, words) in [
        (
            "cluster",
            hello("other", "us", 1),
            r#"of cluster test, the peer of "other""#,
        ),
        (
            "version",
            hello("test", "us", 99),
            "protocol versions 99 to 99",
        ),
        (
            "region",
            hello("test", "ap", 1),
            "the address of us belongs to ap",
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let service = ReplicationServiceServer::new(Stranger { hello });
        let serving = tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let alone = Setup::new("eu", folder.path().join(name));
        written(&alone).await;
        let node = alone.clone().peer("us", address).start().await;
        let told = |status: &GetStatusResponse| {
            let link = &status.links[0];
            !link.connected && link.problem.contains(words)
        };
        let status = node.status_where("the problem", PATIENCE, told).await;
        println!("{}", status.links[0].problem);
        assert_eq!(status.heads.len(), 1);
        assert_eq!(node.count("p").await, 20);
        node.stop().await;
        serving.abort();
    }
}

#[tokio::test]
async fn two_clusters_that_are_wired_together_stay_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (to_us, to_eu) = (Wire::lay().await, Wire::lay().await);
    let eu = Setup::new("eu", folder.path().join("eu"));
    written(&eu).await;
    let eu = eu.peer("us", to_us.address()).start().await;
    let us = Setup::new("us", folder.path().join("us")).set("CLUSTER__ID", "other");
    written(&us).await;
    let us = us.peer("eu", to_eu.address()).start().await;
    to_us.lead_to(Some(us.peer_address));
    to_eu.lead_to(Some(eu.peer_address));
    for (node, other) in [(&eu, "other"), (&us, "test")] {
        let told = |status: &GetStatusResponse| status.links[0].problem.contains(other);
        let status = node
            .status_where("the problem", Duration::from_secs(10), told)
            .await;
        println!("{}", status.links[0].problem);
        assert_eq!(status.heads.len(), 1);
        assert_eq!(node.count("p").await, 20);
    }
}
