//! What goes into a session's machine and what comes out of it.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::DecodeError;
use crate::codec::block::{self, BlockHead, HeadAndPredecessors};
use crate::crdt::dot::{ReplicaIndex, Replicas};
use crate::crdt::fingerprint::Fingerprint;
use crate::crdt::frontier::ShortForm;
use crate::crdt::version_vector::VersionVector;
use crate::engine::audit::Audited;
use crate::engine::published::Published;
use crate::engine::replicas::ReplicaTable;
use crate::ids::{ClusterId, Region, Replica};
use crate::log::Position;
use crate::replication::frame::{BadFrame, CloseReason, Frame};
use crate::replication::traffic::Traffic;
use crate::replication::trust::AllowedRegions;

/// What a session is told at its start.
#[derive(Debug, Clone)]
pub struct Settings {
    pub cluster: ClusterId,
    /// Versions of the protocol that this node speaks.
    pub protocol: RangeInclusive<u32>,
    /// The region that the dialled address is said to belong to.
    pub expected_region: Option<Region>,
    /// The region that the peer proved to be of; none without certificates.
    pub certified_region: Option<Region>,
    /// Whose nodes may be peers.
    pub regions: AllowedRegions,
    pub heartbeat_ms: u64,
    pub silence_ms: u64,
    pub relay_after_ms: u64,
    /// In this time all ranges are compared.
    pub audit_round_ms: u64,
    pub window_bytes: usize,
    pub block_bytes: usize,
}

/// What a session asks the node about replicas. Answers at once.
pub trait Knowledge: Send + Sync {
    fn table(&self) -> &ReplicaTable;

    /// The running replica and the last number it drew.
    fn own(&self) -> (ReplicaIndex, u64);

    /// The predecessors of a replica whose first event is applied here.
    fn predecessors(&self, replica: ReplicaIndex) -> Option<ShortForm>;

    /// Ranges as they are durable, of one instant; none while the node is not settled.
    fn audited(&self, ranges: &[usize]) -> Option<Audited>;

    fn replicas(&self) -> Arc<Replicas> {
        self.table().all()
    }

    fn intern(&self, replica: &Replica) -> Result<ReplicaIndex, DecodeError> {
        self.table().intern(replica)
    }

    /// The number of a replica that a peer speaks of, whether it ever was or not.
    fn intern_claimed(&self, replica: &Replica) -> Option<ReplicaIndex> {
        self.table().intern_claimed(replica)
    }

    fn beginning(&self, block: &[u8]) -> Result<HeadAndPredecessors, DecodeError> {
        block::beginning(block, &mut self.table())
    }
}

/// What a replica said of its durable state.
#[derive(Debug, Clone)]
pub struct Said {
    pub vector: Arc<VersionVector>,
    /// Heads plus exceptions of it; none where it was said in full alone, in a Hello.
    pub short: Option<Arc<ShortForm>>,
    /// The replica's clock then; 0 where it did not say. Its region's events up to then are covered by whoever
    /// covers the vector.
    pub at_ms: u64,
}

/// What a third replica said, passed on.
#[derive(Debug, Clone)]
pub struct Hearsay {
    pub replica: Replica,
    pub said: Said,
    /// Nodes between the replica and who passes it on.
    pub hops: u32,
}

/// What is durable, with its fingerprint where the node is settled.
#[derive(Debug, Clone)]
pub struct Durable {
    pub published: Arc<Published>,
    /// Origin time up to which the own replica's events are in it.
    pub complete_until_ms: u64,
    pub fingerprint: Option<Fingerprint>,
}

/// The engine's verdict on the block of the last [`Effect::Apply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Applied; [`Input::Durable`] follows.
    New,
    Known,
    /// Something before it is missing, or a snapshot is being merged.
    NotYet,
    /// The disk is full.
    NoRoom,
    /// To be tried again in a moment.
    Busy,
    Malformed(String),
    /// It holds an event of a kind that this node does not know.
    UnknownKind {
        kind: u64,
    },
    /// An event in it is known here with other contents.
    Conflict(String),
    Alarm {
        claimed: u64,
        made: u64,
    },
    /// The engine takes no more.
    Stopped(String),
}

/// What is kept of the log.
#[derive(Debug, Clone, Default)]
pub struct LogSurvey {
    /// Where each kept segment begins and the frontier there, oldest first.
    pub segments: Vec<(Position, VersionVector)>,
    /// For each replica up to where the log may have gaps, because a snapshot raised the frontier.
    pub floor: VersionVector,
}

/// A block in the log.
#[derive(Debug, Clone)]
pub struct LogBlock {
    /// Where its record is.
    pub position: Position,
    pub head: BlockHead,
    pub bytes: Bytes,
}

/// A piece of the log.
#[derive(Debug, Clone)]
pub struct LogPiece {
    pub blocks: Vec<LogBlock>,
    /// Where to read on.
    pub next: Position,
}

/// Why the log was not read.
#[derive(Debug, Clone)]
pub enum LogFault {
    /// What was asked for has been cut meanwhile.
    Cut,
    Broken(String),
}

pub enum Input {
    /// The stream is there.
    Start,
    Frame(Frame),
    /// A frame came that is none.
    BadFrame(BadFrame),
    Published(Durable),
    /// What third replicas have acknowledged, as far as it is news to the peer.
    Heard(Vec<Hearsay>),
    /// Answers [`Effect::SurveyLog`].
    Survey(LogSurvey),
    /// Answers [`Effect::ReadLog`].
    LogRead {
        generation: u64,
        result: Result<LogPiece, LogFault>,
    },
    /// Answers [`Effect::Apply`], before the next frame.
    Applied(Verdict),
    /// The block of this frame is durable. Comes in the order of the frames.
    Durable {
        frame: u64,
    },
    /// Ends the session.
    Stop(CloseReason, String),
    /// Time has passed.
    Tick,
}

/// Which of the two readers of the log: that of the own region's events, which goes on at once, or
/// that of other regions' events, which waits whether they arrive by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    Own,
    Relay,
}

#[derive(Debug)]
pub enum Effect {
    Send(Frame),
    /// The peer has said who it is and what it has.
    Greeted {
        replica: Replica,
        frontier: Arc<VersionVector>,
    },
    /// The peer's durable frontier.
    Acknowledged(Said),
    /// The peer passed on what a third replica said.
    Heard(Hearsay),
    SurveyLog,
    ReadLog {
        generation: u64,
        from: Position,
        bytes_max: usize,
    },
    Apply {
        frame: u64,
        block: Bytes,
    },
    /// The peer's log does not reach what this node lacks: it must cover these numbers first.
    WantSnapshot {
        whole_from: ShortForm,
    },
    /// Ranges were compared with the peer's.
    Compared(Vec<Compared>),
    /// Somebody else runs under this node's identity: go on under a fresh replica.
    Alarm {
        claimed: u64,
        made: u64,
    },
    /// The session ends; the closing frame was sent before.
    Close {
        reason: CloseReason,
        message: String,
    },
    ClosedByPeer {
        reason: CloseReason,
        message: String,
    },
}

/// The sums of a range, of nodes that have applied the same events of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    pub range: usize,
    pub ours: Fingerprint,
    pub theirs: Fingerprint,
}

impl Compared {
    pub fn is_equal(&self) -> bool {
        self.ours == self.theirs
    }

    /// By how much the peer's sum differs.
    pub fn difference(&self) -> Fingerprint {
        let mut difference = self.theirs;
        difference -= self.ours;
        difference
    }
}

/// How a peer's state compares with this node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Agreement {
    /// Equal frontiers, equal fingerprints.
    Equal,
    /// The frontiers differ.
    Behind,
    /// Equal frontiers, different fingerprints.
    Diverged,
    /// The peer has not said.
    #[default]
    Unknown,
}

/// How a link stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Events that are durable here and not acknowledged by the peer.
    pub events_behind: u64,
    /// How long the oldest of them has waited, in milliseconds.
    pub lag_ms: u64,
    pub agreement: Agreement,
    /// The peer's, as last heard.
    pub fingerprint: Option<Fingerprint>,
    /// Why the link is down or paused; empty when it is well.
    pub problem: String,
    /// What crossed, where the session runs or ran. The driver counts it.
    pub traffic: Traffic,
}

impl Standing {
    /// Where nothing else is known.
    pub fn with_problem(problem: &str) -> Self {
        Self {
            problem: problem.to_owned(),
            ..Self::default()
        }
    }
}
