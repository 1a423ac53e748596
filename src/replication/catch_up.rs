//! When a peer's log no longer reaches this node: who is asked for a snapshot, and the call itself.
//!
//! What is in a snapshot, how it is staged and merged is told nowhere here: [`SnapshotServer`] makes
//! the stream, [`SnapshotReceiver`] takes it. One snapshot is taken at a time, from the peer that
//! covers most, and only when no connected peer's log goes on.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::crdt::frontier::ShortForm;
use crate::engine::published::Published;
use crate::ids::Replica;
use crate::limits::PEER_MESSAGE_BYTES_MAX;
use crate::replication::dialer;
use crate::replication::{Exchange, PeerEndpoint};
use crate::wire::frames::write_replica;
use crate::wire::replication::replication_service_client::ReplicationServiceClient;
use crate::wire::replication::{SnapshotRequest, SnapshotResponse};

/// How long the next part of a snapshot may take, on either side, before the call is given up. The
/// connection's own keep-alives notice a cut link sooner.
pub const SNAPSHOT_SILENCE: Duration = Duration::from_secs(30);
/// How long other peers have to bring what one peer's log lacks, beyond the delay of a relay.
const GRACE: Duration = Duration::from_secs(2);
/// How often it is looked whether they do.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// The pause after a snapshot that failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Why a snapshot ended early. Nothing was merged.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SnapshotFault(pub String);

/// Why a snapshot is not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotRefused {
    #[error("the node merges a snapshot itself")]
    Unsettled,
    #[error("the node serves as many snapshots as it may")]
    Busy,
}

/// The parts of a snapshot, in the order of `SnapshotResponse`.
pub type SnapshotStream =
    Pin<Box<dyn Stream<Item = Result<SnapshotResponse, SnapshotFault>> + Send>>;

/// Serves snapshots.
pub trait SnapshotServer: Send + Sync + 'static {
    /// Begins one. Dropping the stream gives it up.
    fn open(&self, asker: &Replica) -> Result<SnapshotStream, SnapshotRefused>;
}

/// Takes snapshots.
pub trait SnapshotReceiver: Send + Sync + 'static {
    /// Stages the stream, and merges it when its last part is in and synced. Returns when that is done.
    /// An error means that nothing was merged. The stream fails by itself when the peer falls silent.
    fn receive<'a>(
        &'a self,
        from: &'a Replica,
        stream: SnapshotStream,
    ) -> Pin<Box<dyn Future<Output = Result<(), SnapshotFault>> + Send + 'a>>;
}

/// What the node brings for snapshots.
#[derive(Clone)]
pub struct SnapshotParts {
    pub server: Arc<dyn SnapshotServer>,
    pub receiver: Arc<dyn SnapshotReceiver>,
}

/// A peer whose log does not reach.
struct Want {
    endpoint: PeerEndpoint,
    /// What this node must cover before that log goes on.
    whole_from: ShortForm,
    /// What it covered of these replicas when that last changed, and since when.
    covered: u64,
    since: Instant,
    failures: u32,
}

/// The peers whose logs do not reach, and the decision what to do.
#[derive(Default)]
pub struct CatchUp {
    /// Guards the wants, by peer; one a session. Never held while anything waits.
    wants: Mutex<BTreeMap<Replica, Want>>,
    wanted: Notify,
}

impl CatchUp {
    /// A peer has said that its log does not reach. Without an address it cannot be asked.
    pub(super) fn want(&self, peer: &Replica, endpoint: &PeerEndpoint, whole_from: ShortForm) {
        let want = Want {
            endpoint: endpoint.clone(),
            whole_from,
            covered: 0,
            since: Instant::now(),
            failures: 0,
        };
        self.wants.lock().insert(peer.clone(), want);
        self.wanted.notify_one();
    }

    /// The session with the peer has ended.
    pub(super) fn forget(&self, peer: &Replica) {
        self.wants.lock().remove(peer);
    }

    /// Drops what is fulfilled, and picks a peer when it is time for a snapshot.
    fn choose(&self, exchange: &Exchange) -> Option<(Replica, PeerEndpoint)> {
        let published = exchange.engine.board().newest();
        let acked = exchange.acks.all();
        let mut wants = self.wants.lock();
        wants.retain(|_, want| want.is_open(&published));
        let now = Instant::now();
        let grace = GRACE + Duration::from_millis(exchange.options.relay_after_ms);
        let mut is_time = false;
        for want in wants.values_mut() {
            want.note_progress(&published, now);
            is_time |= now.duration_since(want.since) >= grace;
        }
        // Nobody else is there who could bring it.
        is_time |= acked
            .iter()
            .filter(|peer| peer.is_connected)
            .all(|peer| wants.contains_key(&peer.replica));
        if !is_time {
            return None;
        }
        let beyond = |replica: &Replica| {
            let acked = acked.iter().find(|peer| peer.replica == *replica);
            acked.map_or(0, |peer| peer.vector.events_beyond(&published.vector))
        };
        let best = wants
            .iter()
            .min_by_key(|(replica, want)| (want.failures, std::cmp::Reverse(beyond(replica))))?;
        Some((best.0.clone(), best.1.endpoint.clone()))
    }

    fn note_failure(&self, peer: &Replica) {
        if let Some(want) = self.wants.lock().get_mut(peer) {
            want.failures += 1;
        }
    }
}

impl Want {
    fn is_open(&self, published: &Published) -> bool {
        let mut numbers = self.whole_from.iter();
        numbers.any(|(replica, number)| published.vector.get(*replica) < *number)
    }

    fn note_progress(&mut self, published: &Published, now: Instant) {
        let replicas = self.whole_from.iter();
        let covered = replicas
            .map(|(replica, _)| published.vector.get(*replica))
            .sum();
        if covered > self.covered {
            self.covered = covered;
            self.since = now;
        }
    }
}

/// Takes snapshots for as long as the node runs.
pub(super) async fn run(exchange: Arc<Exchange>) {
    let stop = exchange.stop.clone();
    stop.run_until_cancelled(take_snapshots(&exchange)).await;
}

async fn take_snapshots(exchange: &Exchange) {
    let catch_up = &exchange.catch_up;
    loop {
        if catch_up.wants.lock().is_empty() {
            catch_up.wanted.notified().await;
        }
        let Some((peer, endpoint)) = catch_up.choose(exchange) else {
            sleep(LOOK_PAUSE).await;
            continue;
        };
        tracing::info!(%peer, address = %endpoint, "taking a snapshot: no log reaches this node");
        match take_snapshot(exchange, &peer, &endpoint).await {
            Ok(()) => tracing::info!(%peer, "the snapshot is in"),
            Err(error) => {
                tracing::warn!(%peer, %error, "the snapshot failed; nothing was merged");
                catch_up.note_failure(&peer);
                sleep(FAILURE_PAUSE).await;
            }
        }
    }
}

/// On a connection of its own, so that it does not delay the session's frames.
async fn take_snapshot(
    exchange: &Exchange,
    peer: &Replica,
    endpoint: &PeerEndpoint,
) -> Result<(), SnapshotFault> {
    let protocol = &exchange.engine.options().dialect.protocol;
    let request = SnapshotRequest {
        protocol_min: *protocol.start(),
        protocol_max: *protocol.end(),
        cluster: exchange.engine.cluster().as_str().to_owned(),
        replica: Some(write_replica(&exchange.engine.own())),
        ..SnapshotRequest::default()
    };
    let opening = async {
        let channel = dialer::connect(exchange, endpoint).await?;
        let mut client = ReplicationServiceClient::new(channel)
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX);
        let response = client.snapshot(request).await;
        response.map_err(|status| SnapshotFault(status.message().to_owned()))
    };
    let limit = Duration::from_millis(exchange.options.dial_timeout_ms);
    let opened = timeout(limit, opening).await;
    let opened = opened.map_err(|_| SnapshotFault("the peer did not answer".to_owned()))??;
    let parts = Box::pin(opened.into_inner());
    let parts = futures_util::stream::unfold(Some(parts), next_part);
    let receiver = &exchange.snapshots.receiver;
    receiver.receive(peer, Box::pin(parts)).await
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
