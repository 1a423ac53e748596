//! One call for a snapshot, or for the rest of one: on a connection of its own, so that it does not delay the
//! session's frames.

use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::ids::Replica;
use crate::limits::PEER_MESSAGE_BYTES_MAX;
use crate::replication::catch_up::{
    Ask, SNAPSHOT_SILENCE, SnapshotBroken, SnapshotFault, SnapshotStream,
};
use crate::replication::dialer;
use crate::replication::{Exchange, PeerEndpoint};
use crate::wire::replication::replication_service_client::ReplicationServiceClient;
use crate::wire::replication::{SnapshotRequest, SnapshotResponse};

/// How a call failed. Nothing was merged.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallFailed {
    /// It was not begun.
    #[error("{0}")]
    NotBegun(SnapshotFault),
    /// The peer will never go on with the snapshot that broke off.
    #[error("{0}")]
    Gone(SnapshotFault),
    #[error("{}", .0.why)]
    Broken(SnapshotBroken),
}

pub(super) async fn take(
    exchange: &Exchange,
    (peer, endpoint): (&Replica, &PeerEndpoint),
    ask: Ask,
) -> Result<(), CallFailed> {
    let parts = open(exchange, endpoint, ask.request.clone()).await?;
    let receiver = &exchange.snapshots.receiver;
    let received = receiver.receive(peer, ask, parts).await;
    received.map_err(CallFailed::Broken)
}

/// The parts as they come; the stream fails by itself when the peer falls silent.
pub(super) async fn open(
    exchange: &Exchange,
    endpoint: &PeerEndpoint,
    request: SnapshotRequest,
) -> Result<SnapshotStream, CallFailed> {
    let opening = async {
        let connected = dialer::connect(exchange, endpoint).await;
        let connected = connected.map_err(CallFailed::NotBegun)?;
        let mut client = ReplicationServiceClient::new(connected.channel)
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
        client.snapshot(request).await.map_err(refused)
    };
    let limit = Duration::from_millis(exchange.options.dial_timeout_ms);
    let opened = timeout(limit, opening).await;
    let silent = |_| CallFailed::NotBegun(SnapshotFault("the peer did not answer".to_owned()));
    let opened = opened.map_err(silent)??;
    let parts = Box::pin(opened.into_inner());
    let parts = futures_util::stream::unfold(Some(parts), next_part);
    Ok(Box::pin(parts))
}

fn refused(status: Status) -> CallFailed {
    let fault = SnapshotFault(status.message().to_owned());
    match status.code() {
        Code::OutOfRange => CallFailed::Gone(fault),
        _ => CallFailed::NotBegun(fault),
    }
}

type Parts = Pin<Box<tonic::Streaming<SnapshotResponse>>>;

/// The next part in time, or an error as the last.
async fn next_part(
    parts: Option<Parts>,
) -> Option<(Result<SnapshotResponse, SnapshotFault>, Option<Parts>)> {
    let mut parts = parts?;
    match timeout(SNAPSHOT_SILENCE, parts.next()).await {
        Ok(None) => None,
        Ok(Some(Ok(part))) => Some((Ok(part), Some(parts))),
        Ok(Some(Err(status))) => Some((Err(SnapshotFault(status.message().to_owned())), None)),
        Err(_) => Some((Err(SnapshotFault("the peer fell silent".to_owned())), None)),
    }
}
