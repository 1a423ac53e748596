//! Who else is there: the nodes of the cluster as far as anybody has told, where they are and how far. Hints
//! throughout: what is done with a node is decided by its own session.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::address::PeerAddress;
use crate::ids::{Epoch, Region, Replica};

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Whoever says it.
    pub own: Replica,
    /// Where peers reach it; none if they cannot.
    pub address: Option<PeerAddress>,
    /// Hash of its durable frontier in the short form: equal where frontiers are.
    pub frontier: u64,
    /// Fingerprint of its durable state, where it is settled.
    pub fingerprint: Option<[u8; 16]>,
    /// The oldest and the newest protocol between peers that it speaks.
    pub protocol: (u32, u32),
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    Alive,
    /// It was there, and nobody has heard of it lately.
    Gone,
    /// Nobody looks.
    Unknown,
}

/// One run of another node, or of this one in its earlier runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub region: Region,
    /// None where only the configuration tells of it.
    pub epoch: Option<Epoch>,
    pub address: Option<PeerAddress>,
    /// See [`Announcement`]; none until it was heard.
    pub frontier: Option<u64>,
    pub fingerprint: Option<[u8; 16]>,
    pub protocol: Option<(u32, u32)>,
    pub liveness: Liveness,
}

/// By region; of one region's runs the newest first, as they were heard of.
pub type Members = Arc<[Member]>;

/// A way for the membership's messages to a peer and back. Dropping it ends it.
pub trait Correspondence: Send + Sync {
    /// The peer has sent a message. Never waits: where messages come faster than they are read, the oldest
    /// go.
    fn deliver(&self, message: Bytes);

    /// The next message for the peer; none when another way to the same peer has taken the place of this
    /// one. Dropping the future loses no message.
    fn next(&self) -> Pin<Box<dyn Future<Output = Option<Bytes>> + Send + '_>>;
}

/// Why a peer is not corresponded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Uncorresponding {
    #[error("this node knows its peers by configuration and does not gossip")]
    NotNeeded,
    #[error("this node gossips with as many peers as it may, {max}")]
    TooMany { max: usize },
}

/// Finds the other nodes.
pub trait Membership: Send + Sync + 'static {
    /// The newest list, and word of changes.
    fn members(&self) -> watch::Receiver<Members>;

    /// Tells the others, soon. Never waits.
    fn announce(&self, announcement: Announcement);

    /// Whether it wants messages exchanged with peers at all.
    fn corresponds(&self) -> bool;

    /// Begins to exchange messages with a peer whose name has been checked.
    fn correspond(&self, peer: &Replica) -> Result<Box<dyn Correspondence>, Uncorresponding>;

    /// Ends what runs in the background; the list stays as it is.
    fn stop(&self);
}
