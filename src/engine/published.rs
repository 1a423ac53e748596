//! What is durable here, and therefore may be shown: the only view of it that leaves the node.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::codec::text::encode_token;
use crate::crdt::dot::{ReplicaIndex, Replicas};
use crate::crdt::fingerprint::RangeSums;
use crate::crdt::frontier::ShortForm;
use crate::crdt::version_vector::VersionVector;
use crate::engine::commit::Ticket;
use crate::ids::{ClusterId, Replica};
use crate::log::Position;

/// The durable state after one group commit.
pub struct Published {
    pub ticket: Ticket,
    /// The end of the log.
    pub position: Position,
    pub vector: VersionVector,
    /// Heads plus exceptions of `vector`.
    pub short: ShortForm,
    pub sums: RangeSums,
    /// Replicas known when this was published: all that `vector` speaks of are among them.
    pub replicas: Arc<Replicas>,
    pub own: ReplicaIndex,
    /// Replicas that have been retired.
    pub retired: Arc<HashSet<ReplicaIndex>>,
    /// How often the vector was raised by a snapshot: over events that the log does not hold.
    pub raises: u64,
    token: OnceLock<Arc<str>>,
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published")
            .field("ticket", &self.ticket)
            .field("position", &self.position)
            .field("vector", &self.vector)
            .field("sum", &self.sums.total())
            .field("own", &self.own)
            .field("raises", &self.raises)
            .finish_non_exhaustive()
    }
}

impl Published {
    pub fn new(
        (ticket, position): (Ticket, Position),
        (vector, short): (VersionVector, ShortForm),
        sums: RangeSums,
        (replicas, own): (Arc<Replicas>, ReplicaIndex),
    ) -> Self {
        Self {
            ticket,
            position,
            vector,
            short,
            sums,
            replicas,
            own,
            retired: Arc::default(),
            raises: 0,
            token: OnceLock::new(),
        }
    }

    pub fn with_retired(mut self, retired: Arc<HashSet<ReplicaIndex>>) -> Self {
        self.retired = retired;
        self
    }

    pub fn with_raises(mut self, raises: u64) -> Self {
        self.raises = raises;
        self
    }

    /// Before anything was ever written.
    pub fn nothing(replicas: Arc<Replicas>, own: ReplicaIndex) -> Self {
        let log = (Ticket(0), Position::START);
        let frontier = (VersionVector::default(), ShortForm::new());
        Self::new(log, frontier, RangeSums::default(), (replicas, own))
    }

    /// The frontier as a token. Encoded once, however many ask.
    pub fn token(&self, cluster: &ClusterId) -> Arc<str> {
        let encode = || encode_token(cluster, self.named()).into();
        self.token.get_or_init(encode).clone()
    }

    /// The frontier in the short form, by names.
    pub fn named(&self) -> impl Iterator<Item = (&Replica, u64)> {
        self.short
            .iter()
            .map(|(replica, seq)| (self.replicas.id(*replica), *seq))
    }

    /// Whether every entry is covered.
    pub fn covers(&self, entries: &[(Replica, u64)]) -> bool {
        entries
            .iter()
            .all(|(replica, seq)| self.seq(replica) >= *seq)
    }

    /// The number up to which the replica's events are durable here.
    pub fn seq(&self, replica: &Replica) -> u64 {
        let index = self.replicas.get(replica);
        index.map_or(0, |index| self.vector.get(index))
    }
}

/// The newest published state, and a way to wait for a newer one.
pub struct Board {
    newest: ArcSwap<Published>,
    changed: watch::Sender<Ticket>,
}

impl Board {
    pub fn new(first: Published) -> Self {
        let changed = watch::Sender::new(first.ticket);
        Self {
            newest: ArcSwap::from_pointee(first),
            changed,
        }
    }

    pub fn newest(&self) -> Arc<Published> {
        self.newest.load_full()
    }

    pub fn subscribe(&self) -> watch::Receiver<Ticket> {
        self.changed.subscribe()
    }

    pub(super) fn publish(&self, published: Arc<Published>) {
        let ticket = published.ticket;
        self.newest.store(published);
        self.changed.send_replace(ticket);
    }
}
