//! Peers that say what no node would: one that dials, and one that is dialled.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use likewise::adapters::chitchat_membership::datagram::Datagram;
use likewise::ids::ClusterId;
use likewise::versions::Dialect;
use likewise::wire::frames::write_replica;
use likewise::wire::gossip::{read_datagram, write_datagram, write_hello};
use likewise::wire::replication::replication_service_client::ReplicationServiceClient;
use likewise::wire::replication::replication_service_server::{
    ReplicationService, ReplicationServiceServer,
};
use likewise::wire::replication::{
    Acknowledge, Frame, GossipMessage, GossipRequest, GossipResponse, Hello, SnapshotRequest,
    SnapshotResponse, SyncRequest, SyncResponse, VersionVector, frame::Body,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::killing::{killing, stranger};
use crate::process::node::{Node, PATIENCE};

/// Between two datagrams, so that there are no more in an interval than a peer may send.
pub const APART: Duration = Duration::from_millis(10);

/// One that dials.
pub struct Stranger {
    outgoing: mpsc::Sender<GossipRequest>,
    incoming: Streaming<GossipResponse>,
}

impl Stranger {
    pub async fn call(node: &Node, cluster: &str) -> Result<Self, Status> {
        let cluster = ClusterId::new(cluster).expect("valid");
        Self::begin(
            node,
            write_hello(&Dialect::default(), &cluster, &stranger()),
        )
        .await
    }

    pub async fn begin(node: &Node, first: GossipMessage) -> Result<Self, Status> {
        let address = format!("http://{}", node.peer_address);
        let client = ReplicationServiceClient::connect(address).await;
        let mut client = client.expect("it listens");
        let (outgoing, messages) = mpsc::channel(64);
        let call = client.gossip(ReceiverStream::new(messages)).await?;
        let incoming = call.into_inner();
        let stranger = Self { outgoing, incoming };
        stranger.say(first).await;
        Ok(stranger)
    }

    pub async fn say(&self, message: GossipMessage) {
        let message = Some(message);
        // The node may have ended the call.
        drop(self.outgoing.send(GossipRequest { message }).await);
    }

    pub async fn send(&self, datagram: impl Into<Bytes>) {
        self.say(write_datagram(datagram.into())).await;
    }

    /// Why the node ended the call.
    pub async fn refusal(mut self) -> Status {
        let ended = async {
            loop {
                match self.incoming.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("it ended without a word"),
                    Err(status) => return status,
                }
            }
        };
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        ended.expect("the node ends the call")
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One that is dialled. It keeps a session as a node without events would, and answers the first question of the
/// gossip with all killing datagrams.
#[derive(Clone)]
pub struct Acceptor {
    /// How often it has said all of them.
    said: Arc<watch::Sender<usize>>,
}

impl Acceptor {
    pub async fn start() -> (Self, SocketAddr) {
        let acceptor = Self {
            said: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let service = ReplicationServiceServer::new(acceptor.clone());
        let server = Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (acceptor, address)
    }

    pub async fn until_all_is_said(&self) {
        let mut said = self.said.subscribe();
        let said = tokio::time::timeout(PATIENCE, said.wait_for(|said| *said > 0)).await;
        said.expect("the node dials and asks").expect("it is here");
    }

    async fn keep_session(frames: mpsc::Sender<Result<SyncResponse, Status>>) {
        let hello = Body::Hello(Hello {
            protocol_min: 1,
            protocol_max: 1,
            cluster: "test".to_owned(),
            replica: Some(write_replica(&stranger())),
            frontier: Some(VersionVector::default()),
            lineage: Vec::new(),
        });
        let wrap = |body| SyncResponse {
            frame: Some(Frame { body: Some(body) }),
        };
        let mut next = hello;
        while frames.send(Ok(wrap(next))).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
            next = Body::Acknowledge(Acknowledge {
                frontier: Some(VersionVector::default()),
                ..Acknowledge::default()
            });
        }
    }

    async fn kill(
        self,
        mut incoming: Streaming<GossipRequest>,
        outgoing: mpsc::Sender<Result<GossipResponse, Status>>,
    ) {
        let say = async |message: GossipMessage| {
            let message = Some(message);
            // The node may have ended the call.
            drop(outgoing.send(Ok(GossipResponse { message })).await);
        };
        let cluster = ClusterId::new("test").expect("valid");
        say(write_hello(&Dialect::default(), &cluster, &stranger())).await;
        while let Ok(Some(request)) = incoming.message().await {
            let asks = read_datagram(request.message)
                .is_ok_and(|bytes| matches!(Datagram::read(&bytes), Ok(Datagram::Syn { .. })));
            if asks && *self.said.borrow() == 0 {
                for datagram in killing() {
                    say(write_datagram(datagram.into())).await;
                    tokio::time::sleep(APART).await;
                }
                self.said.send_modify(|said| *said += 1);
            }
        }
    }
}

#[tonic::async_trait]
impl ReplicationService for Acceptor {
    type SyncStream = Answers<SyncResponse>;

    async fn sync(
        &self,
        request: Request<Streaming<SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let mut incoming = request.into_inner();
        let (frames, outgoing) = mpsc::channel(64);
        tokio::spawn(async move { while let Ok(Some(_)) = incoming.message().await {} });
        tokio::spawn(Self::keep_session(frames));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    type SnapshotStream = Answers<SnapshotResponse>;

    async fn snapshot(
        &self,
        _: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(Status::unavailable("it has nothing"))
    }

    type GossipStream = Answers<GossipResponse>;

    async fn gossip(
        &self,
        request: Request<Streaming<GossipRequest>>,
    ) -> Result<Response<Self::GossipStream>, Status> {
        let (outgoing, answers) = mpsc::channel(64);
        tokio::spawn(self.clone().kill(request.into_inner(), outgoing));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}
