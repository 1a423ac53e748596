//! The Gossip call beside a session: carries the membership's messages to a peer and back. What they say is
//! none of its business.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::ids::Region;
use crate::limits::GOSSIP_QUEUE_MAX;
use crate::replication::Exchange;
use crate::replication::frame::BadFrame;
use crate::replication::trust::NotAllowed;
use crate::seams::membership::{Correspondence, Uncorresponding};
use crate::wire::gossip::{read_datagram, read_hello, write_datagram, write_hello};
use crate::wire::replication::replication_service_client::ReplicationServiceClient;
use crate::wire::replication::{GossipMessage, GossipRequest};

/// The pause before the call to a connected peer is made again.
const AGAIN_PAUSE: Duration = Duration::from_secs(1);

/// Why no more messages are exchanged. The session beside it goes on.
#[derive(Debug, thiserror::Error)]
pub(super) enum GossipFault {
    #[error("the call ended: {0}")]
    Lost(String),
    #[error(transparent)]
    Bad(#[from] BadFrame),
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    #[error("the peer is this very node")]
    Own,
    #[error("the peer said nothing of itself in time")]
    Silent,
    #[error(transparent)]
    Uncorresponding(#[from] Uncorresponding),
}

impl GossipFault {
    /// What the peer that called is told.
    pub fn status(&self) -> Status {
        let code = match self {
            Self::Lost(_) => Code::Cancelled,
            Self::Bad(BadFrame::Version { .. }) | Self::Own => Code::FailedPrecondition,
            Self::Bad(_) => Code::InvalidArgument,
            Self::NotAllowed(_) => Code::PermissionDenied,
            Self::Silent => Code::DeadlineExceeded,
            Self::Uncorresponding(Uncorresponding::NotNeeded) => Code::Unimplemented,
            Self::Uncorresponding(Uncorresponding::TooMany { .. }) => Code::ResourceExhausted,
        };
        Status::new(code, self.to_string())
    }
}

/// Calls the peer of a session, again and again, until it is dropped. Where one of the two does not gossip,
/// it rests.
pub(super) async fn dial(exchange: Arc<Exchange>, channel: Channel, certified: Option<Region>) {
    if !exchange.membership.corresponds() {
        return pending().await;
    }
    let mut client = ReplicationServiceClient::new(channel);
    loop {
        let (outgoing, messages) = mpsc::channel(GOSSIP_QUEUE_MAX);
        let called = client.gossip(ReceiverStream::new(messages)).await;
        let fault = match called {
            Ok(response) => {
                let incoming = response.into_inner();
                let incoming = incoming.map(|message| message.map(|response| response.message));
                let wrap = |message| GossipRequest {
                    message: Some(message),
                };
                let peer = certified.as_ref();
                run(&exchange, peer, incoming, (&outgoing, wrap)).await
            }
            Err(status) if status.code() == Code::Unimplemented => return pending().await,
            Err(status) => GossipFault::Lost(status.message().to_owned()),
        };
        note(&exchange, &fault);
        sleep(AGAIN_PAUSE).await;
    }
}

/// Exchanges messages until the call ends.
pub(super) async fn run<S, T>(
    exchange: &Exchange,
    certified: Option<&Region>,
    mut incoming: S,
    (outgoing, wrap): (&mpsc::Sender<T>, fn(GossipMessage) -> T),
) -> GossipFault
where
    S: Stream<Item = Result<Option<GossipMessage>, Status>> + Unpin + Send,
    T: Send,
{
    let greeting = greet(exchange, certified, &mut incoming, (outgoing, wrap));
    let limit = Duration::from_millis(exchange.options.dial_timeout_ms);
    let way = match timeout(limit, greeting).await {
        Ok(Ok(way)) => way,
        Ok(Err(fault)) => return fault,
        Err(_) => return GossipFault::Silent,
    };
    // Side by side: a peer that takes nothing is listened to all the same, or both might wait for ever.
    tokio::select! {
        fault = listen(&mut incoming, way.as_ref()) => fault,
        fault = speak((outgoing, wrap), way.as_ref()) => fault,
    }
}

async fn greet<S, T>(
    exchange: &Exchange,
    certified: Option<&Region>,
    incoming: &mut S,
    (outgoing, wrap): (&mpsc::Sender<T>, fn(GossipMessage) -> T),
) -> Result<Box<dyn Correspondence>, GossipFault>
where
    S: Stream<Item = Result<Option<GossipMessage>, Status>> + Unpin + Send,
{
    let (cluster, own) = (exchange.engine.cluster(), exchange.engine.own());
    let dialect = &exchange.engine.options().dialect;
    let hello = wrap(write_hello(dialect, cluster, &own));
    let hello = outgoing.send(hello).await;
    hello.map_err(|_| GossipFault::Lost("it takes no message".to_owned()))?;
    let peer = read_hello(next(incoming).await?, dialect, cluster)?;
    exchange.options.regions.check(&peer.region, certified)?;
    if peer == own {
        return Err(GossipFault::Own);
    }
    Ok(exchange.membership.correspond(&peer)?)
}

async fn next<S>(incoming: &mut S) -> Result<Option<GossipMessage>, GossipFault>
where
    S: Stream<Item = Result<Option<GossipMessage>, Status>> + Unpin + Send,
{
    match incoming.next().await {
        Some(Ok(message)) => Ok(message),
        Some(Err(status)) => Err(GossipFault::Lost(status.message().to_owned())),
        None => Err(GossipFault::Lost("the peer ended it".to_owned())),
    }
}

async fn listen<S>(incoming: &mut S, way: &dyn Correspondence) -> GossipFault
where
    S: Stream<Item = Result<Option<GossipMessage>, Status>> + Unpin + Send,
{
    loop {
        let datagram = match next(incoming).await {
            Ok(message) => read_datagram(message),
            Err(fault) => return fault,
        };
        match datagram {
            Ok(datagram) => way.deliver(datagram),
            Err(bad) => return bad.into(),
        }
    }
}

async fn speak<T>(
    (outgoing, wrap): (&mpsc::Sender<T>, fn(GossipMessage) -> T),
    way: &dyn Correspondence,
) -> GossipFault {
    loop {
        // First the room, then the message: the newest are kept while there is none.
        let Ok(room) = outgoing.reserve().await else {
            return GossipFault::Lost("it takes no message".to_owned());
        };
        let Some(datagram) = way.next().await else {
            return GossipFault::Lost("another call with the peer takes its place".to_owned());
        };
        room.send(wrap(write_datagram(datagram)));
    }
}

/// Counts what an operator should know of.
pub(super) fn note(exchange: &Exchange, fault: &GossipFault) {
    match fault {
        GossipFault::Bad(bad) => {
            exchange.counts.gossip_refused.one_more();
            tracing::warn!(%bad, "a peer's gossip is refused");
        }
        GossipFault::NotAllowed(why) => {
            exchange.counts.peers_refused.one_more();
            tracing::warn!(%why, "a peer's gossip is refused");
        }
        fault => tracing::debug!(%fault, "gossip with a peer is over"),
    }
}
