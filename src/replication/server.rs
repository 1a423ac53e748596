//! The peers' listener: accepts connections within bounds and serves `ReplicationService`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::codec::DecodeError;
use crate::crdt::ranges::RangeSet;
use crate::ids::Region;
use crate::limits::{
    GOSSIP_QUEUE_MAX, OUTGOING_FRAMES_MAX, PEER_CONNECTIONS_MAX, PEER_MESSAGE_BYTES_MAX,
    PEER_STREAMS_MAX,
};
use crate::replication::catch_up::{SNAPSHOT_SILENCE, SnapshotRefused, SnapshotStream};
use crate::replication::driver::{self, Call};
use crate::replication::gossip::{self, GossipFault};
use crate::replication::links::Direction;
use crate::replication::mending::RangeMender;
use crate::replication::pace::Pace;
use crate::replication::refusals::Refusals;
use crate::replication::{Exchange, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, parts};
use crate::seams::admission::admitted;
use crate::seams::membership::Uncorresponding;
use crate::seams::{Listener, Remote};
use crate::wire::connections::remote;
use crate::wire::frames::{check_protocol, read_replica};
use crate::wire::replication::replication_service_server::{
    ReplicationService, ReplicationServiceServer,
};
use crate::wire::replication::{
    GossipRequest, GossipResponse, SnapshotRequest, SnapshotResponse, SyncRequest, SyncResponse,
};

/// Serves until the node stops.
pub(super) async fn run(exchange: Arc<Exchange>, listener: Box<dyn Listener>) {
    let stop = exchange.stop.clone();
    let refusals = Refusals::new(exchange.counts.clone());
    let refused = Box::new(move |address, error: &io::Error| refusals.note(address, error));
    let connections = admitted(listener, PEER_CONNECTIONS_MAX, refused);
    let service = ReplicationServiceServer::new(PeerService { exchange })
        .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_adaptive_window(Some(true))
        .max_concurrent_streams(PEER_STREAMS_MAX)
        .add_service(service)
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the peers' listener failed");
    }
}

struct PeerService {
    exchange: Arc<Exchange>,
}

impl PeerService {
    /// Refuses a peer that says that it is of another region than it proved, or of one that may not join.
    fn check_region(&self, remote: &Remote, claimed: &Region) -> Result<(), Status> {
        let regions = &self.exchange.options.regions;
        let Err(why) = regions.check(claimed, remote.region()) else {
            return Ok(());
        };
        self.exchange.counts.peers_refused.one_more();
        tracing::warn!(region = %claimed, %why, "a peer's call is refused");
        Err(Status::permission_denied(why.to_string()))
    }
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
        let certified_region = remote(&request).region().cloned();
        let incoming = request.into_inner();
        let incoming = incoming.map(|frame| frame.map(|request| request.frame));
        let call = Call {
            direction: Direction::Accepted,
            expected_region: None,
            certified_region,
        };
        let wrap = |frame| SyncResponse { frame: Some(frame) };
        let session = driver::run(self.exchange.clone(), call, incoming, (outgoing, wrap));
        self.exchange.tasks.spawn(session);
        Ok(Response::new(Box::pin(ReceiverStream::new(frames).map(Ok))))
    }

    type GossipStream = Answers<GossipResponse>;

    async fn gossip(
        &self,
        request: Request<Streaming<GossipRequest>>,
    ) -> Result<Response<Self::GossipStream>, Status> {
        if !self.exchange.membership.corresponds() {
            let fault = GossipFault::from(Uncorresponding::NotNeeded);
            return Err(fault.status());
        }
        let (outgoing, answers) = mpsc::channel(GOSSIP_QUEUE_MAX);
        let certified_region = remote(&request).region().cloned();
        let incoming = request.into_inner();
        let incoming = incoming.map(|message| message.map(|request| request.message));
        let exchange = self.exchange.clone();
        let exchanged = async move {
            let wrap = |message| {
                Ok(GossipResponse {
                    message: Some(message),
                })
            };
            let peer = certified_region.as_ref();
            let fault = gossip::run(&exchange, peer, incoming, (&outgoing, wrap)).await;
            gossip::note(&exchange, &fault);
            if outgoing.try_send(Err(fault.status())).is_err() {
                tracing::debug!(%fault, "a peer has left before it was told");
            }
        };
        let stop = self.exchange.stop.clone();
        let tasks = &self.exchange.tasks;
        tasks.spawn(stop.run_until_cancelled_owned(exchanged));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    type SnapshotStream = Answers<SnapshotResponse>;

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let remote = remote(&request);
        let request = request.into_inner();
        let refused = |error: crate::replication::frame::BadFrame| {
            Status::failed_precondition(error.to_string())
        };
        let theirs = request.protocol_min..=request.protocol_max;
        let dialect = &self.exchange.engine.options().dialect;
        check_protocol(dialect, theirs).map_err(refused)?;
        let cluster = self.exchange.engine.cluster();
        if request.cluster != cluster.as_str() {
            let message = format!("this node is of cluster {cluster}");
            return Err(Status::failed_precondition(message));
        }
        let asker = read_replica(request.replica.clone()).map_err(refused)?;
        self.check_region(&remote, &asker.region)?;
        if asker == self.exchange.engine.own() {
            return Err(Status::failed_precondition(
                "the asker is this very replica",
            ));
        }
        let invalid = |error: DecodeError| Status::invalid_argument(error.to_string());
        let mut table = self.exchange.engine.replicas();
        let wanted = parts::read_wanted(&request, &mut table).map_err(invalid)?;
        let first_look = (!wanted.is_repair()).then_some(wanted.ranges);
        let opened = self.exchange.snapshots.server.open(&asker, wanted);
        let parts = opened.map_err(not_begun)?;
        let (outgoing, answers) = mpsc::channel(1);
        let exchange = self.exchange.clone();
        self.exchange.tasks.spawn(async move {
            let sending = async {
                if let Some(ranges) = first_look
                    && !look(exchange.mender.as_ref(), ranges, &outgoing).await
                {
                    return;
                }
                send_parts(parts, &exchange.pace, outgoing).await;
            };
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

type Outgoing = mpsc::Sender<Result<SnapshotResponse, Status>>;

/// Looks at what is to be served. Not before the answer begins, for it may take longer than an asker waits for that.
/// False where nothing can be served, or nobody waits any more.
async fn look(mender: &dyn RangeMender, ranges: RangeSet, outgoing: &Outgoing) -> bool {
    let looked = tokio::select! {
        biased;
        () = outgoing.closed() => return false,
        looked = mender.look(ranges) => looked,
    };
    let Err(error) = looked else {
        return true;
    };
    let refused = Status::unavailable(error.to_string());
    if outgoing.send(Err(refused)).await.is_err() {
        tracing::debug!("a peer gave its snapshot up");
    }
    false
}

/// Sends the parts as they are taken. An asker that takes none for too long is given up, so that it
/// does not hold the log's end.
async fn send_parts(mut parts: SnapshotStream, pace: &Pace, outgoing: Outgoing) {
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
