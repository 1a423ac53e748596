//! The peers' listener: accepts connections within bounds and serves `ReplicationService`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use prost::Message;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use crate::codec::DecodeError;
use crate::limits::{
    OUTGOING_FRAMES_MAX, PEER_CONNECTIONS_MAX, PEER_MESSAGE_BYTES_MAX, PEER_STREAMS_MAX,
};
use crate::replication::catch_up::{SNAPSHOT_SILENCE, SnapshotRefused, SnapshotStream};
use crate::replication::driver::{self, Call};
use crate::replication::links::Direction;
use crate::replication::pace::Pace;
use crate::replication::{Exchange, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, parts};
use crate::seams::preface::Admitted;
use crate::seams::{Connection, Listener};
use crate::wire::frames::{check_protocol, read_replica};
use crate::wire::replication::replication_service_server::{
    ReplicationService, ReplicationServiceServer,
};
use crate::wire::replication::{
    GossipRequest, GossipResponse, SnapshotRequest, SnapshotResponse, SyncRequest, SyncResponse,
};

/// The pause after a connection could not be accepted, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the node stops.
pub(super) async fn run(exchange: Arc<Exchange>, listener: Box<dyn Listener>) {
    let stop = exchange.stop.clone();
    let service = ReplicationServiceServer::new(PeerService { exchange })
        .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_adaptive_window(Some(true))
        .max_concurrent_streams(PEER_STREAMS_MAX)
        .add_service(service)
        .serve_with_incoming_shutdown(accepted(listener), stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the peers' listener failed");
    }
}

/// Accepted connections; while as many as allowed are open, none is accepted.
fn accepted(
    listener: Box<dyn Listener>,
) -> impl Stream<Item = io::Result<Admitted<Box<dyn Connection>>>> {
    let permits = Arc::new(Semaphore::new(PEER_CONNECTIONS_MAX));
    futures_util::stream::unfold((listener, permits), |(listener, permits)| async move {
        let permit = permits.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let connection = loop {
            match listener.accept().await {
                Ok(connection) => break connection,
                Err(error) => {
                    tracing::warn!(%error, "a peer's connection was not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        };
        let accepted = Admitted::new(connection, permit);
        Some((Ok(accepted), (listener, permits)))
    })
}

impl Connected for Admitted<Box<dyn Connection>> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

struct PeerService {
    exchange: Arc<Exchange>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ReplicationService for PeerService {
    type SyncStream = Answers<SyncResponse>;

    async fn sync(
        &self,
        request: Request<Streaming<SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        if self.exchange.stop.is_cancelled() {
            return Err(Status::unavailable("the node stops"));
        }
        let (outgoing, frames) = mpsc::channel(OUTGOING_FRAMES_MAX);
        let incoming = request.into_inner();
        let incoming = incoming.map(|frame| frame.map(|request| request.frame));
        let call = Call {
            direction: Direction::Accepted,
            expected_region: None,
        };
        let wrap = |frame| SyncResponse { frame: Some(frame) };
        let session = driver::run(self.exchange.clone(), call, incoming, (outgoing, wrap));
        self.exchange.tasks.spawn(session);
        Ok(Response::new(Box::pin(ReceiverStream::new(frames).map(Ok))))
    }

    type GossipStream = Answers<GossipResponse>;

    async fn gossip(
        &self,
        _: Request<Streaming<GossipRequest>>,
    ) -> Result<Response<Self::GossipStream>, Status> {
        Err(Status::unimplemented("gossip"))
    }

    type SnapshotStream = Answers<SnapshotResponse>;

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let request = request.into_inner();
        let refused = |error: crate::replication::frame::BadFrame| {
            Status::failed_precondition(error.to_string())
        };
        check_protocol(request.protocol_min, request.protocol_max).map_err(refused)?;
        let cluster = self.exchange.engine.cluster();
        if request.cluster != cluster.as_str() {
            let message = format!("this node is of cluster {cluster}");
            return Err(Status::failed_precondition(message));
        }
        let asker = read_replica(request.replica.clone()).map_err(refused)?;
        if asker == self.exchange.engine.own() {
            return Err(Status::failed_precondition(
                "the asker is this very replica",
            ));
        }
        let invalid = |error: DecodeError| Status::invalid_argument(error.to_string());
        let mut table = self.exchange.engine.replicas();
        let wanted = parts::read_wanted(&request, &mut table).map_err(invalid)?;
        let opened = self.exchange.snapshots.server.open(&asker, wanted);
        let parts = opened.map_err(not_begun)?;
        let (outgoing, answers) = mpsc::channel(1);
        let exchange = self.exchange.clone();
        self.exchange.tasks.spawn(async move {
            let sending = send_parts(parts, &exchange.pace, outgoing);
            exchange.stop.run_until_cancelled(sending).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

/// One code says that asking this node again is of no use.
fn not_begun(refused: SnapshotRefused) -> Status {
    match refused {
        SnapshotRefused::Gone => Status::out_of_range(refused.to_string()),
        SnapshotRefused::Unsettled
        | SnapshotRefused::Doubted
        | SnapshotRefused::Busy
        | SnapshotRefused::NotCovered => Status::unavailable(refused.to_string()),
    }
}

/// Sends the parts as they are taken. An asker that takes none for too long is given up, so that it
/// does not hold the log's end.
async fn send_parts(
    mut parts: SnapshotStream,
    pace: &Pace,
    outgoing: mpsc::Sender<Result<SnapshotResponse, Status>>,
) {
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| Status::aborted(error.to_string()));
        let is_last = part.is_err();
        if let Ok(part) = &part {
            pace.take(part.encoded_len()).await;
        }
        match timeout(SNAPSHOT_SILENCE, outgoing.send(part)).await {
            Ok(Ok(())) if !is_last => {}
            Ok(Ok(())) => return,
            Ok(Err(_)) => return tracing::debug!("a peer gave its snapshot up"),
            Err(_) => {
                return tracing::warn!("a peer takes nothing of its snapshot; it is given up");
            }
        }
    }
}
