//! Snapshots: asked for by strangers, and served by them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use likewise::limits::PEER_MESSAGE_BYTES_MAX;
use likewise::wire::frames::write_replica;
use likewise::wire::replication::replication_service_client::ReplicationServiceClient;
use likewise::wire::replication::replication_service_server::{
    ReplicationService, ReplicationServiceServer,
};
use likewise::wire::replication::snapshot_response::Body as Part;
use likewise::wire::replication::{self as wire, frame::Body};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::intruder::{connect, hello, likes, replica, vector};
use super::scene::{Scene, state};
use crate::process::eventually;
use crate::process::node::{PATIENCE, Setup};

fn asked() -> wire::SnapshotRequest {
    wire::SnapshotRequest {
        protocol_min: 1,
        protocol_max: 1,
        cluster: "test".to_owned(),
        replica: Some(write_replica(&replica("ap", 9))),
        ..wire::SnapshotRequest::default()
    }
}

#[tokio::test]
async fn strangers_are_served_no_snapshot() {
    let mut scene = Scene::start().await;
    let channel = connect(scene.eu().peer_address).await;
    let mut client = ReplicationServiceClient::new(channel);
    let other = wire::SnapshotRequest {
        cluster: "other".to_owned(),
        ..asked()
    };
    let newer = wire::SnapshotRequest {
        protocol_min: 98,
        protocol_max: 99,
        ..asked()
    };
    let itself = wire::SnapshotRequest {
        replica: Some(write_replica(&scene.own())),
        ..asked()
    };
    let nobody = wire::SnapshotRequest {
        replica: None,
        ..asked()
    };
    for request in [other, newer, itself, nobody] {
        let refused = client.snapshot(request).await.expect_err("refused");
        println!("{refused}");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    }
    scene.others_go_on().await;
}

#[tokio::test]
async fn snapshots_that_nobody_takes_are_bounded() {
    let mut scene = Scene::start().await;
    scene.write_much().await;
    let channel = connect(scene.eu().peer_address).await;
    let mut client = ReplicationServiceClient::new(channel);
    let mut open = Vec::new();
    let refused = loop {
        match client.snapshot(asked()).await {
            Ok(stream) => open.push(stream),
            Err(status) => break status,
        }
        assert!(open.len() < 10, "there is a bound");
    };
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    scene.others_go_on().await;
}

/// A peer whose log does not reach, and which answers with these parts.
struct Liar {
    parts: Vec<wire::SnapshotResponse>,
    /// Whether chunks name the asker instead of the replica that they name.
    is_about_asker: bool,
    asked: Arc<AtomicUsize>,
}

type Answers<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ReplicationService for Liar {
    type SyncStream = Answers<wire::SyncResponse>;

    async fn sync(
        &self,
        _: Request<Streaming<wire::SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let behind = wire::BehindCut {
            whole_from: Some(vector(&[(replica("ap", 9), 5)])),
        };
        let said = [
            Body::Hello(hello(&replica("ap", 9))),
            Body::BehindCut(behind),
        ];
        let said = said.map(|body| {
            let frame = Some(wire::Frame { body: Some(body) });
            Ok(wire::SyncResponse { frame })
        });
        let said = tokio_stream::iter(said);
        let stream = tokio_stream::StreamExt::chain(said, tokio_stream::pending());
        Ok(Response::new(Box::pin(stream)))
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
        request: Request<wire::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let asker = request
            .into_inner()
            .replica
            .expect("the asker says who it is");
        let mut parts = self.parts.clone();
        for part in parts.iter_mut().filter(|_| self.is_about_asker) {
            if let Some(Part::Chunks(chunks)) = &mut part.body {
                chunks
                    .chunks
                    .iter_mut()
                    .for_each(|chunk| chunk.replicas = vec![asker.clone()]);
            }
        }
        let parts: Vec<_> = parts.into_iter().map(Ok).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }
}

fn part(body: Part) -> wire::SnapshotResponse {
    wire::SnapshotResponse { body: Some(body) }
}

fn begin(covers: u64) -> wire::SnapshotResponse {
    part(Part::Begin(wire::SnapshotBegin {
        frontier: Some(vector(&[(replica("ap", 9), covers)])),
        ..wire::SnapshotBegin::default()
    }))
}

fn end(covers: u64, chunks: u64, blocks: u64) -> wire::SnapshotResponse {
    part(Part::End(wire::SnapshotEnd {
        frontier: Some(vector(&[(replica("ap", 9), covers)])),
        chunks,
        blocks,
    }))
}

/// One liker, whose dot is of the replica at this place among those that the chunk names.
fn chunks(place: u32) -> wire::SnapshotResponse {
    let liker = wire::ChunkLiker {
        user: "eve".to_owned(),
        dots: vec![wire::ChunkDot {
            replica: place,
            seq: 7,
        }],
    };
    let chunk = wire::SnapshotChunk {
        post: "hostile".to_owned(),
        replicas: vec![write_replica(&replica("ap", 9))],
        part: Some(wire::snapshot_chunk::Part::Likers(wire::ChunkLikers {
            from_hash: 0,
            to_hash: u64::MAX,
            likers: vec![liker],
        })),
    };
    part(Part::Chunks(wire::SnapshotChunks {
        chunks: vec![chunk],
        ..wire::SnapshotChunks::default()
    }))
}

/// The running replica of the node never made its event 7.
const OF_THE_ASKER: &str = "a like of the asker that it never made";

fn tail(block: Bytes) -> wire::SnapshotResponse {
    part(Part::TailBlock(block))
}

#[tokio::test]
async fn lying_snapshots_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let ap = replica("ap", 9);
    let unnamed = chunks(7);
    let named = chunks(0);
    let cases = [
        ("nothing at all", vec![]),
        ("no beginning", vec![end(9, 0, 0)]),
        ("a beginning twice", vec![begin(9), begin(9), end(9, 0, 0)]),
        ("no end", vec![begin(9)]),
        ("parts missing", vec![begin(9), end(9, 3, 0)]),
        ("blocks missing", vec![begin(9), end(9, 0, 2)]),
        (
            "an end that the tail does not reach",
            vec![begin(9), end(12, 0, 0)],
        ),
        (
            "a tail of garbage",
            vec![begin(9), tail(vec![7; 64].into()), end(9, 0, 1)],
        ),
        (
            "a tail with a gap",
            vec![begin(9), tail(likes(&ap, 12, &["eve"])), end(9, 0, 1)],
        ),
        (
            "a chunk of a replica that it does not name",
            vec![begin(9), unnamed, end(9, 1, 0)],
        ),
        (OF_THE_ASKER, vec![begin(9), named, end(9, 1, 0)]),
        (
            "a part beyond the limit",
            vec![
                begin(9),
                tail(vec![1; PEER_MESSAGE_BYTES_MAX - 64].into()),
                end(9, 0, 1),
            ],
        ),
        ("an empty part", vec![wire::SnapshotResponse { body: None }]),
    ];
    for (at, (what, parts)) in cases.into_iter().enumerate() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::new(AtomicUsize::new(0));
        let liar = Liar {
            parts,
            is_about_asker: what == OF_THE_ASKER,
            asked: asked.clone(),
        };
        let service = ReplicationServiceServer::new(liar).max_encoding_message_size(64 << 20);
        let serving = tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let setup = Setup::new("eu", folder.path().join(format!("eu{at}")));
        let node = setup.start().await;
        node.client.like("honest", "ann").await.expect("taken");
        let before = state(&node.status().await);
        node.stop().await;
        let node = setup.clone().peer("ap", address).start().await;
        // It is asked again: the first answer has been dealt with by then.
        eventually("asked twice", PATIENCE, || async {
            match asked.load(Ordering::SeqCst) {
                0 | 1 => Err("not yet".to_owned()),
                _ => Ok(()),
            }
        })
        .await;
        let status = node.status().await;
        println!("{what}: {}", failure(&setup.stderr()));
        assert_eq!(state(&status), before, "{what}");
        assert!(status.settled, "{what}");
        node.client.like("honest", "bob").await.expect("taken");
        node.stop().await;
        serving.abort();
        // Nothing of it is left that would be found at the next start.
        let node = setup.start().await;
        assert_eq!(node.count("honest").await, 2, "{what}");
        assert_eq!(node.count("hostile").await, 0, "{what}");
        node.kill().await;
    }
}

fn failure(log: &str) -> &str {
    let mut lines = log.lines();
    lines
        .find(|line| line.contains("the snapshot failed"))
        .unwrap_or("nothing was logged")
}
