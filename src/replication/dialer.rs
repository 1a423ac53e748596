//! Dials one peer, runs the session, and dials again: for as long as the node runs, or the peer is wanted.

use std::error::Error;
use std::future::{pending, ready};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::address::PeerAddress;
use crate::causes;
use crate::ids::Region;
use crate::limits::{OUTGOING_FRAMES_MAX, PEER_MESSAGE_BYTES_MAX};
use crate::replication::catch_up::SnapshotFault;
use crate::replication::driver::{self, Call, Ended};
use crate::replication::frame::CloseReason;
use crate::replication::links::Direction;
use crate::replication::{Exchange, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, PeerEndpoint, gossip};
use crate::wire::replication::replication_service_client::ReplicationServiceClient;
use crate::wire::replication::{SyncRequest, SyncResponse};

/// A session that lasted this long was well: the next dial comes soon again.
const WELL_AFTER: Duration = Duration::from_secs(5);

/// The pause after an address led to this very node. Its name may lead elsewhere later.
const OWN_PAUSE: Duration = Duration::from_secs(60);

/// Who is dialled.
pub(super) enum Target {
    /// A peer of the configuration.
    Configured(PeerEndpoint),
    /// Somebody by whom the others are found.
    Seed(PeerAddress),
    /// A region that the membership told of, where it says that it is; none when it is no longer wanted.
    Learned(Region, watch::Receiver<Option<PeerAddress>>),
}

impl Target {
    /// Where it is now; none when it is no longer dialled.
    fn address(&mut self) -> Option<(String, u16)> {
        match self {
            Self::Configured(peer) => Some((peer.host.clone(), peer.port)),
            Self::Seed(address) => Some((address.host().to_owned(), address.port())),
            Self::Learned(_, addresses) => {
                let address = addresses.borrow_and_update();
                let address = address.as_ref()?;
                Some((address.host().to_owned(), address.port()))
            }
        }
    }

    /// The region that must be there; none where that is not known.
    fn region(&self) -> Option<&Region> {
        match self {
            Self::Configured(peer) => Some(&peer.region),
            Self::Seed(_) => None,
            Self::Learned(region, _) => Some(region),
        }
    }

    /// Returns when it is elsewhere.
    async fn moved(&mut self) {
        if let Self::Learned(_, addresses) = self
            && addresses.changed().await.is_ok()
        {
            return;
        }
        pending().await
    }
}

pub(super) async fn run(exchange: Arc<Exchange>, target: Target) {
    let stop = exchange.stop.clone();
    let mut dialer = Dialer {
        pause_ms: exchange.options.backoff_min_ms,
        exchange,
        target,
        problem: String::new(),
    };
    while !stop.is_cancelled() {
        let Some((host, port)) = dialer.target.address() else {
            return;
        };
        let begun = Instant::now();
        // Only the session itself says goodbye when the node stops; the dial before it is dropped.
        let outcome = match stop.run_until_cancelled(dialer.open(&host, port)).await {
            None => return,
            Some(Ok(opened)) => dialer.session(opened).await,
            Some(Err(problem)) => Err(Unconnected::Problem(problem)),
        };
        let is_own = matches!(outcome, Err(Unconnected::Own(_)));
        dialer.note(&format!("{host}:{port}"), outcome);
        if begun.elapsed() >= WELL_AFTER {
            dialer.pause_ms = dialer.exchange.options.backoff_min_ms;
        }
        stop.run_until_cancelled(dialer.pause(is_own)).await;
    }
}

/// A call that the peer has taken.
struct Opened {
    frames: tonic::Streaming<SyncResponse>,
    outgoing: mpsc::Sender<SyncRequest>,
    channel: Channel,
    certified_region: Option<Region>,
}

/// Why there is no session.
enum Unconnected {
    Problem(String),
    /// The address is this node's.
    Own(String),
}

struct Dialer {
    exchange: Arc<Exchange>,
    target: Target,
    pause_ms: u64,
    /// Why there was no session the last time; the same is logged once.
    problem: String,
}

impl Dialer {
    async fn open(&self, host: &str, port: u16) -> Result<Opened, String> {
        let (outgoing, frames) = mpsc::channel(OUTGOING_FRAMES_MAX);
        let opening = async {
            let connected = connect_to(&self.exchange, host, port, self.target.region()).await;
            let Connected {
                channel,
                certified_region,
            } = connected.map_err(|error| error.to_string())?;
            let mut client = ReplicationServiceClient::new(channel.clone())
                .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
            let response = client.sync(ReceiverStream::new(frames)).await;
            let response = response.map_err(|status| refusal(&status))?;
            Ok::<_, String>(Opened {
                frames: response.into_inner(),
                outgoing,
                channel,
                certified_region,
            })
        };
        let limit = Duration::from_millis(self.exchange.options.dial_timeout_ms);
        let opened = timeout(limit, opening).await;
        opened.map_err(|_| format!("no answer within {limit:?}"))?
    }

    /// Runs the session. Where the other direction's was kept, waits until that has ended.
    async fn session(&self, opened: Opened) -> Result<(), Unconnected> {
        let Opened {
            frames,
            outgoing,
            channel,
            certified_region,
        } = opened;
        let exchange = &self.exchange;
        let over = CancellationToken::new();
        let gossip = gossip::dial(exchange.clone(), channel, certified_region.clone());
        let beside = over.clone().run_until_cancelled_owned(gossip);
        exchange.tasks.spawn(beside);
        let call = Call {
            direction: Direction::Dialled,
            expected_region: self.target.region().cloned(),
            certified_region,
        };
        let incoming = frames.map(|frame| frame.map(|response| response.frame));
        let wrap = |frame| SyncRequest { frame: Some(frame) };
        let ended = driver::run(exchange.clone(), call, incoming, (outgoing, wrap)).await;
        over.cancel();
        let Ended {
            reason,
            message,
            peer,
        } = ended;
        match (reason, peer) {
            (Some(CloseReason::Duplicate), Some(peer)) => {
                let gone = exchange.links.gone(&peer);
                exchange.stop.run_until_cancelled(gone).await;
                Ok(())
            }
            (Some(CloseReason::Duplicate), None) => Ok(()),
            (Some(CloseReason::Own), _) => Err(Unconnected::Own(message)),
            _ => Err(Unconnected::Problem(message)),
        }
    }

    fn note(&mut self, address: &str, outcome: Result<(), Unconnected>) {
        let links = &self.exchange.links;
        let problem = match (outcome, self.target.region()) {
            (Ok(()), Some(_)) => return,
            (Ok(()), None) => return links.note_seed(address, None),
            // The same list of seeds may be given to all nodes.
            (Err(Unconnected::Own(_)), None) => {
                tracing::info!(address, "a seed is this very node");
                return links.note_seed(address, Some("it is this very node"));
            }
            (Err(Unconnected::Own(problem) | Unconnected::Problem(problem)), _) => problem,
        };
        let region = self.target.region();
        match region {
            Some(region) => links.note_down(region, &problem),
            None => links.note_seed(address, Some(&problem)),
        }
        let region = region.map(tracing::field::display);
        if self.exchange.stop.is_cancelled() {
            tracing::debug!(region, address, problem, "the session with a peer is over");
        } else if self.problem != problem {
            tracing::warn!(region, address, problem, "no session with a peer");
        }
        self.problem = problem;
    }

    /// Waits, between half of the pause and all of it, and doubles it up to its bound; or until the peer is
    /// elsewhere. An address that leads to this node is left alone for long, unless it is configured for
    /// another.
    async fn pause(&mut self, is_own: bool) {
        let half = self.pause_ms / 2;
        let jitter = self.exchange.randomness.below(half + 1);
        let pause = match self.target {
            Target::Seed(_) | Target::Learned(..) if is_own => OWN_PAUSE,
            _ => Duration::from_millis(self.pause_ms - jitter),
        };
        tokio::select! {
            () = self.target.moved() => self.pause_ms = self.exchange.options.backoff_min_ms,
            () = sleep(pause) => {
                self.pause_ms = (self.pause_ms * 2).min(self.exchange.options.backoff_max_ms);
            }
        }
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
    connect_to(exchange, &peer.host, peer.port, Some(&peer.region)).await
}

async fn connect_to(
    exchange: &Exchange,
    host: &str,
    port: u16,
    expected: Option<&Region>,
) -> Result<Connected, SnapshotFault> {
    let dial = exchange.transport.connect(host, port, expected);
    let established = dial
        .await
        .map_err(|error| SnapshotFault(causes::told(&error)))?;
    let certified_region = established.remote.region().cloned();
    let fault = |error: tonic::transport::Error| SnapshotFault(causes::told(&error));
    let endpoint = Endpoint::from_shared(format!("http://{host}:{port}")).map_err(fault)?;
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
