//! When a peer's log no longer reaches this node: who is asked for a snapshot, or for the rest of one.
//!
//! What is in a snapshot, how it is staged and merged is told nowhere here: [`SnapshotServer`] makes
//! the stream, [`SnapshotReceiver`] takes it. One snapshot is taken at a time, and only when no connected
//! peer's log goes on: from a peer that can go on with what broke off, else from the one that covers most.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::crdt::frontier::ShortForm;
use crate::crdt::version_vector::VersionVector;
use crate::engine::published::Published;
use crate::engine::snapshot::Wanted;
use crate::ids::Replica;
use crate::limits::SNAPSHOT_RESUMES_MAX;
use crate::replication::snapshot_call::{self, CallFailed};
use crate::replication::{Exchange, PeerEndpoint};
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
    /// Another node may go on with it, or this one later.
    #[error("the node lacks events that the snapshot covers or shows")]
    NotCovered,
    #[error("the node's state of a range is disputed")]
    Doubted,
    /// This node never will.
    #[error("the node's log does not reach back to the snapshot's frontier")]
    Gone,
}

/// The parts of a snapshot, in the order of `SnapshotResponse`.
pub type SnapshotStream =
    Pin<Box<dyn Stream<Item = Result<SnapshotResponse, SnapshotFault>> + Send>>;

/// Serves snapshots.
pub trait SnapshotServer: Send + Sync + 'static {
    /// Begins one. Dropping the stream gives it up.
    fn open(&self, asker: &Replica, wanted: Wanted) -> Result<SnapshotStream, SnapshotRefused>;
}

/// What to ask a peer for.
#[derive(Debug, Clone)]
pub struct Ask {
    pub request: SnapshotRequest,
    /// What a peer must cover to go on with what broke off; none for a new snapshot.
    pub needs: Option<VersionVector>,
}

/// A snapshot ended early. What is staged of it is kept.
#[derive(Debug)]
pub struct SnapshotBroken {
    pub why: SnapshotFault,
    /// Whether anything came that was not there before.
    pub has_progressed: bool,
}

type Answering<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Takes snapshots.
pub trait SnapshotReceiver: Send + Sync + 'static {
    /// The rest of what broke off, also in an earlier process, or else a new snapshot.
    fn ask(&self) -> Answering<'_, Result<Ask, SnapshotFault>>;

    /// Drops what broke off.
    fn begin_anew(&self) -> Answering<'_, Result<(), SnapshotFault>>;

    /// Stages the stream, and merges it when its last part is in and synced. Returns when that is done.
    /// An error means that nothing was merged. The stream fails by itself when the peer falls silent.
    fn receive<'a>(
        &'a self,
        from: &'a Replica,
        ask: Ask,
        stream: SnapshotStream,
    ) -> Answering<'a, Result<(), SnapshotBroken>>;
}

/// What the node brings for snapshots.
#[derive(Clone)]
pub struct SnapshotParts {
    pub server: Arc<dyn SnapshotServer>,
    pub receiver: Arc<dyn SnapshotReceiver>,
}

/// A peer whose log does not reach.
struct Want {
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
    /// A peer has said that its log does not reach.
    pub(super) fn want(&self, peer: &Replica, whole_from: ShortForm) {
        let want = Want {
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
    fn choose(
        &self,
        exchange: &Exchange,
        ask: &Ask,
        tries: &Tries,
    ) -> Option<(Replica, PeerEndpoint)> {
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
        let cannot_go_on = |replica: &Replica| {
            let acked = acked.iter().find(|peer| peer.replica == *replica);
            let covers = |needs| acked.is_some_and(|peer| peer.vector.covers_all(needs));
            tries.gone.contains(replica) || !ask.needs.as_ref().is_none_or(covers)
        };
        // Who has no address yet cannot be asked: the membership will tell.
        let askable = wants.iter().filter_map(|(replica, want)| {
            let endpoint = want.choose(exchange.endpoints(replica))?;
            Some((replica, want.failures, endpoint))
        });
        let (peer, _, endpoint) = askable.min_by_key(|(replica, failures, _)| {
            let beyond = std::cmp::Reverse(beyond(replica));
            (cannot_go_on(replica), *failures, beyond)
        })?;
        Some((peer.clone(), endpoint))
    }

    /// Whether a snapshot from the peer has not brought what its log lacks: another node answered at its address.
    fn is_unfulfilled(&self, peer: &Replica, published: &Published) -> bool {
        let wants = self.wants.lock();
        wants.get(peer).is_some_and(|want| want.is_open(published))
    }

    fn note_failure(&self, peer: &Replica) {
        if let Some(want) = self.wants.lock().get_mut(peer) {
            want.failures += 1;
        }
    }
}

impl Want {
    /// Where the peer is asked now, of where it may be: after a failure, elsewhere.
    fn choose(&self, mut endpoints: Vec<PeerEndpoint>) -> Option<PeerEndpoint> {
        let at = (self.failures as usize).checked_rem(endpoints.len())?;
        Some(endpoints.swap_remove(at))
    }

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

/// What was tried of a snapshot that broke off.
#[derive(Default)]
struct Tries {
    /// Peers that will never go on with it.
    gone: BTreeSet<Replica>,
    /// Tries one after the other that brought nothing more.
    fruitless: u32,
}

impl Tries {
    fn note(&mut self, peer: &Replica, failed: &CallFailed) {
        match failed {
            CallFailed::Broken(broken) if broken.has_progressed => self.fruitless = 0,
            CallFailed::Broken(_) | CallFailed::NotBegun(_) => self.fruitless += 1,
            CallFailed::Gone(_) => {
                self.gone.insert(peer.clone());
            }
        }
    }

    /// Whether nobody who is there will go on with it, or it was tried often enough.
    fn are_over(&self, catch_up: &CatchUp) -> bool {
        let wants = catch_up.wants.lock();
        // With nobody there it is too soon to tell: the sender's session breaks with its snapshot.
        let are_gone = !wants.is_empty() && wants.keys().all(|peer| self.gone.contains(peer));
        self.fruitless >= SNAPSHOT_RESUMES_MAX || are_gone
    }
}

async fn take_snapshots(exchange: &Exchange) {
    let mut tries = Tries::default();
    loop {
        let receiver = &exchange.snapshots.receiver;
        if exchange.catch_up.wants.lock().is_empty() {
            // What logs have made needless goes.
            if let Err(error) = receiver.ask().await {
                tracing::warn!(%error, "what broke off of a snapshot cannot be read");
            }
            exchange.catch_up.wanted.notified().await;
        }
        match receiver.ask().await {
            Ok(ask) => try_one(exchange, ask, &mut tries).await,
            Err(error) => {
                tracing::warn!(%error, "no snapshot can be staged");
                sleep(FAILURE_PAUSE).await;
            }
        }
    }
}

/// Asks a peer, when it is time.
async fn try_one(exchange: &Exchange, ask: Ask, tries: &mut Tries) {
    let catch_up = &exchange.catch_up;
    let Some((peer, endpoint)) = catch_up.choose(exchange, &ask, tries) else {
        return sleep(LOOK_PAUSE).await;
    };
    let goes_on = ask.needs.is_some();
    tracing::info!(%peer, address = %endpoint, goes_on, "taking a snapshot: no log reaches this node");
    let Err(failed) = snapshot_call::take(exchange, (&peer, &endpoint), ask).await else {
        tracing::info!(%peer, "the snapshot is in");
        *tries = Tries::default();
        if catch_up.is_unfulfilled(&peer, &exchange.engine.board().newest()) {
            tracing::warn!(
                %peer, address = %endpoint,
                "the snapshot lacks what it was taken for: another node answers at the peer's address"
            );
            catch_up.note_failure(&peer);
            sleep(FAILURE_PAUSE).await;
        }
        return;
    };
    tracing::warn!(%peer, error = %failed, "the snapshot broke off; nothing was merged");
    catch_up.note_failure(&peer);
    tries.note(&peer, &failed);
    if tries.are_over(catch_up) {
        *tries = Tries::default();
        if let Err(error) = exchange.snapshots.receiver.begin_anew().await {
            tracing::warn!(%error, "what broke off of a snapshot cannot be dropped");
        }
    }
    sleep(FAILURE_PAUSE).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Region;

    #[test]
    fn what_broke_off_is_not_given_up_while_nobody_is_there_to_be_asked() {
        let (catch_up, mut tries) = (CatchUp::default(), Tries::default());
        assert!(!tries.are_over(&catch_up));
        tries.fruitless = SNAPSHOT_RESUMES_MAX;
        assert!(tries.are_over(&catch_up));
    }

    #[test]
    fn a_peer_that_is_not_where_its_region_is_is_asked_elsewhere() {
        let endpoint = |address: &str| {
            let region = Region::new("eu").expect("valid");
            PeerEndpoint::new(region, &address.parse().expect("an address"))
        };
        let both = [endpoint("eu:7401"), endpoint("other:7401")];
        let mut want = Want {
            whole_from: ShortForm::new(),
            covered: 0,
            since: Instant::now(),
            failures: 0,
        };
        assert_eq!(want.choose(Vec::new()), None, "nobody knows where it is");
        for expected in [&both[0], &both[1], &both[0]] {
            assert_eq!(want.choose(both.to_vec()).as_ref(), Some(expected));
            want.failures += 1;
        }
    }
}
