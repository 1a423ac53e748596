//! Dials one configured peer, runs the session, and dials again: for as long as the node runs.

use std::error::Error;
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::causes;
use crate::ids::Region;
use crate::limits::{OUTGOING_FRAMES_MAX, PEER_MESSAGE_BYTES_MAX};
use crate::replication::catch_up::SnapshotFault;
use crate::replication::driver::{self, Call, Ended};
use crate::replication::frame::CloseReason;
use crate::replication::links::Direction;
use crate::replication::{Exchange, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, PeerEndpoint};
use crate::wire::replication::replication_service_client::ReplicationServiceClient;
use crate::wire::replication::{SyncRequest, SyncResponse};

/// A session that lasted this long was well: the next dial comes soon again.
const WELL_AFTER: Duration = Duration::from_secs(5);

pub(super) async fn run(exchange: Arc<Exchange>, peer: PeerEndpoint) {
    let stop = exchange.stop.clone();
    let mut dialer = Dialer {
        pause_ms: exchange.options.backoff_min_ms,
        exchange,
        peer,
        problem: String::new(),
    };
    while !stop.is_cancelled() {
        let begun = Instant::now();
        // Only the session itself says goodbye when the node stops; the dial before it is dropped.
        let outcome = match stop.run_until_cancelled(dialer.open()).await {
            None => return,
            Some(Ok(opened)) => dialer.session(opened).await,
            Some(Err(problem)) => Err(problem),
        };
        dialer.note(outcome);
        if begun.elapsed() >= WELL_AFTER {
            dialer.pause_ms = dialer.exchange.options.backoff_min_ms;
        }
        stop.run_until_cancelled(dialer.pause()).await;
    }
}

/// A call that the peer has taken.
struct Opened {
    frames: tonic::Streaming<SyncResponse>,
    outgoing: mpsc::Sender<SyncRequest>,
    certified_region: Option<Region>,
}

struct Dialer {
    exchange: Arc<Exchange>,
    peer: PeerEndpoint,
    pause_ms: u64,
    /// Why there was no session the last time; the same is logged once.
    problem: String,
}

impl Dialer {
    async fn open(&self) -> Result<Opened, String> {
        let (outgoing, frames) = mpsc::channel(OUTGOING_FRAMES_MAX);
        let opening = async {
            let connected = connect(&self.exchange, &self.peer).await;
            let connected = connected.map_err(|error| error.to_string())?;
            let mut client = ReplicationServiceClient::new(connected.channel)
                .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
            let response = client.sync(ReceiverStream::new(frames)).await;
            let response = response.map_err(|status| refusal(&status))?;
            Ok::<_, String>((response.into_inner(), connected.certified_region))
        };
        let limit = Duration::from_millis(self.exchange.options.dial_timeout_ms);
        let opened = timeout(limit, opening).await;
        let opened = opened.map_err(|_| format!("no answer within {limit:?}"))?;
        let (frames, certified_region) = opened?;
        Ok(Opened {
            frames,
            outgoing,
            certified_region,
        })
    }

    /// Runs the session. Where the other direction's was kept, waits until that has ended.
    async fn session(&self, opened: Opened) -> Result<(), String> {
        let call = Call {
            direction: Direction::Dialled,
            expected_region: Some(self.peer.region.clone()),
            certified_region: opened.certified_region,
        };
        let outgoing = opened.outgoing;
        let incoming = opened
            .frames
            .map(|frame| frame.map(|response| response.frame));
        let wrap = |frame| SyncRequest { frame: Some(frame) };
        let ended = driver::run(self.exchange.clone(), call, incoming, (outgoing, wrap)).await;
        if ended.reason == Some(CloseReason::Duplicate) {
            if let Some(peer) = &ended.peer {
                let gone = self.exchange.links.gone(peer);
                self.exchange.stop.run_until_cancelled(gone).await;
            }
            return Ok(());
        }
        let Ended { message, .. } = ended;
        Err(message)
    }

    fn note(&mut self, outcome: Result<(), String>) {
        let Err(problem) = outcome else {
            return;
        };
        let address = self.peer.to_string();
        let region = &self.peer.region;
        if self.exchange.stop.is_cancelled() {
            tracing::debug!(%region, %address, problem, "the session with a peer is over");
        } else if self.problem != problem {
            tracing::warn!(%region, %address, problem, "no session with a peer");
        }
        self.exchange.links.note_down(region, &problem);
        self.problem = problem;
    }

    /// Waits, between half of the pause and all of it, and doubles it up to its bound.
    async fn pause(&mut self) {
        let half = self.pause_ms / 2;
        let jitter = self.exchange.randomness.below(half + 1);
        sleep(Duration::from_millis(self.pause_ms - jitter)).await;
        self.pause_ms = (self.pause_ms * 2).min(self.exchange.options.backoff_max_ms);
    }
}

/// Why the call was not taken. Where the connection broke, what broke it is all there is to say.
fn refusal(status: &Status) -> String {
    match status.source() {
        Some(broken) => causes::innermost(broken).to_string(),
        None => format!("the peer refused the session: {status}"),
    }
}

/// A connection to a peer.
pub(super) struct Connected {
    pub channel: Channel,
    /// The region that the peer proved to be of; none without certificates.
    pub certified_region: Option<Region>,
}

/// Connects to the peer, by the transport seam. The caller bounds the time.
///
/// The channel is this one connection: once it is lost, calls fail. It would else be dialled again unseen,
/// and another node may answer there.
pub(super) async fn connect(
    exchange: &Exchange,
    peer: &PeerEndpoint,
) -> Result<Connected, SnapshotFault> {
    let dial = exchange
        .transport
        .connect(&peer.host, peer.port, Some(&peer.region));
    let established = dial
        .await
        .map_err(|error| SnapshotFault(causes::told(&error)))?;
    let certified_region = established.remote.region().cloned();
    let fault = |error: tonic::transport::Error| SnapshotFault(causes::told(&error));
    let endpoint = Endpoint::from_shared(format!("http://{peer}")).map_err(fault)?;
    let endpoint = endpoint
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .http2_adaptive_window(true);
    let mut once = Some(TokioIo::new(established.io));
    let connector = tower::service_fn(move |_: Uri| {
        let lost = || io::Error::new(io::ErrorKind::NotConnected, "the connection was lost");
        ready(once.take().ok_or_else(lost))
    });
    let channel = endpoint.connect_with_connector(connector).await;
    Ok(Connected {
        channel: channel.map_err(fault)?,
        certified_region,
    })
}
