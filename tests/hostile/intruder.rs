//! A peer that sends whatever bytes it is told to.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use likewise::codec::block;
use likewise::crdt::dot::{Dots, Replicas};
use likewise::crdt::event::{Action, Block, Event};
use likewise::ids::{Epoch, PostId, Region, Replica, UserId};
use likewise::wire::frames::write_replica;
use likewise::wire::replication::{self as wire, CloseReason, frame::Body};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::process::node::PATIENCE;
use crate::raw::Raw;

/// One side of a session with a node.
pub struct Intruder {
    outgoing: mpsc::Sender<Bytes>,
    incoming: Streaming<Bytes>,
}

pub fn replica(region: &str, epoch: u128) -> Replica {
    Replica {
        region: Region::new(region).expect("valid"),
        epoch: Epoch(epoch),
    }
}

pub fn vector(entries: &[(Replica, u64)]) -> wire::VersionVector {
    likewise::wire::frames::write_entries(entries)
}

pub fn hello(replica: &Replica) -> wire::Hello {
    wire::Hello {
        protocol_min: 1,
        protocol_max: 1,
        cluster: "test".to_owned(),
        replica: Some(write_replica(replica)),
        frontier: Some(wire::VersionVector::default()),
        lineage: Vec::new(),
    }
}

pub fn bytes(body: Body) -> Bytes {
    let frame = Some(wire::Frame { body: Some(body) });
    wire::SyncRequest { frame }.encode_to_vec().into()
}

pub fn events(frame: u64, block: &Bytes) -> Bytes {
    let block = block.clone();
    bytes(Body::Events(wire::Events { frame, block }))
}

pub fn acknowledge(frame: u64, entries: &[(Replica, u64)]) -> Bytes {
    bytes(Body::Acknowledge(wire::Acknowledge {
        frame,
        frontier: Some(vector(entries)),
        ..wire::Acknowledge::default()
    }))
}

/// Likes of one post by these users, numbered from `first_seq`.
pub fn likes(maker: &Replica, first_seq: u64, users: &[&str]) -> Bytes {
    let mut replicas = Replicas::default();
    let likes = users
        .iter()
        .zip(first_seq..)
        .map(|(user, increments)| Event {
            time_ms: 1_790_000_000_000,
            action: Action::Like {
                post: 0,
                user: UserId::new(user).expect("valid"),
                increments,
                replaced: Dots::new(),
            },
        });
    let block = Block {
        replica: replicas.intern(maker),
        first_seq,
        predecessors: (first_seq == 1).then(Vec::new),
        posts: vec![PostId::new("hostile").expect("valid")],
        counters: vec![],
        events: likes.collect(),
    };
    block::encode(&block, &replicas).into()
}

pub async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("the node listens")
}

impl Intruder {
    /// Opens a session and says nothing.
    pub async fn silent(address: SocketAddr) -> Self {
        Self::open(address, None).await.expect("the node answers")
    }

    /// Opens a session whose frames are compressed.
    pub async fn compressing(address: SocketAddr) -> Result<Self, Status> {
        Self::open(address, Some(CompressionEncoding::Gzip)).await
    }

    async fn open(
        address: SocketAddr,
        compression: Option<CompressionEncoding>,
    ) -> Result<Self, Status> {
        let (outgoing, frames) = mpsc::channel(64);
        let mut client = tonic::client::Grpc::new(connect(address).await)
            .max_decoding_message_size(64 << 20)
            .max_encoding_message_size(64 << 20);
        if let Some(encoding) = compression {
            client = client.send_compressed(encoding);
            let hello = bytes(Body::Hello(hello(&replica("zz", 1))));
            outgoing.send(hello).await.expect("room");
        }
        client.ready().await.expect("the connection is up");
        let path = PathAndQuery::from_static("/likewise.replication.v1.ReplicationService/Sync");
        let request = Request::new(ReceiverStream::new(frames));
        let response = client.streaming(request, path, Raw).await?;
        Ok(Self {
            outgoing,
            incoming: response.into_inner(),
        })
    }

    /// Opens a session as this replica, with an empty frontier.
    pub async fn greet(address: SocketAddr, as_replica: &Replica) -> Self {
        Self::greet_with(address, hello(as_replica)).await
    }

    pub async fn greet_with(address: SocketAddr, hello: wire::Hello) -> Self {
        let mut session = Self::silent(address).await;
        session.send(bytes(Body::Hello(hello))).await;
        session
            .wait("Hello", |body| matches!(body, Body::Hello(_)).then_some(()))
            .await;
        session
    }

    pub async fn send(&self, bytes: Bytes) {
        // The node may have closed; then what it said tells.
        if self.outgoing.send(bytes).await.is_err() {
            println!("the stream is closed already");
        }
    }

    /// The next frame; none when the node has ended the stream.
    pub async fn next(&mut self) -> Option<Body> {
        let next = tokio::time::timeout(PATIENCE, self.incoming.message()).await;
        let decoded = next.expect("the node speaks or ends").and_then(|bytes| {
            let response = bytes.map(wire::SyncResponse::decode).transpose();
            response.map_err(|error| Status::internal(error.to_string()))
        });
        match decoded {
            Ok(response) => response.and_then(|response| response.frame?.body),
            Err(status) => {
                println!("the stream ended with {status}");
                None
            }
        }
    }

    /// Reads until a frame is as wanted.
    pub async fn wait<T>(&mut self, what: &str, wanted: impl Fn(&Body) -> Option<T>) -> T {
        loop {
            match self.next().await {
                Some(Body::Close(close)) if what != "Close" => {
                    panic!("waiting for {what}, the node closed: {close:?}")
                }
                Some(body) => {
                    if let Some(found) = wanted(&body) {
                        return found;
                    }
                }
                None => panic!("waiting for {what}, the node ended the stream"),
            }
        }
    }

    /// Why the node closed.
    pub async fn closed(&mut self) -> (CloseReason, String) {
        let closing = |body: &Body| match body {
            Body::Close(close) => Some((close.reason(), close.message.clone())),
            _ => None,
        };
        self.wait("Close", closing).await
    }

    /// Goes on as a peer that lives and has dealt with nothing, until it is dropped.
    pub fn keep_alive(&self) -> tokio::task::JoinHandle<()> {
        let outgoing = self.outgoing.clone();
        tokio::spawn(async move {
            while outgoing.send(acknowledge(0, &[])).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
    }
}
