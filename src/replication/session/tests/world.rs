//! Nodes and links in memory: a small engine, a log that is a list, and frames that take a while.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::codec::DecodeError;
use crate::codec::block::{self, BlockHead};
use crate::crdt::dot::ReplicaIndex;
use crate::crdt::event::{Action, Block, Event};
use crate::crdt::fingerprint::{Fingerprint, RangeSums};
use crate::crdt::frontier::{Frontier, ShortForm};
use crate::crdt::version_vector::VersionVector;
use crate::engine::audit::Audited;
use crate::engine::commit::Ticket;
use crate::engine::published::Published;
use crate::engine::replicas::ReplicaTable;
use crate::ids::{ClusterId, CounterName, Epoch, PostId, Region, Replica};
use crate::log::Position;
use crate::replication::frame::{CloseReason, Frame};
use crate::replication::session::{
    Durable, Effect, Hearsay, Input, Knowledge, LogBlock, LogFault, LogPiece, LogSurvey, Said,
    Session, Settings, Verdict,
};
use crate::replication::trust::AllowedRegions;
use crate::versions::Dialect;
use crate::wire::frames::{read_frame, write_frame};

/// Blocks of one segment of a test's log.
const SEGMENT_BLOCKS: usize = 4;
/// How long a frame takes.
const DISTANCE_MS: u64 = 10;

pub fn replica(region: &str, epoch: u128) -> Replica {
    Replica {
        region: Region::new(region).expect("valid"),
        epoch: Epoch(epoch),
    }
}

pub fn settings() -> Settings {
    Settings {
        cluster: ClusterId::new("test").expect("valid"),
        protocol: Dialect::default().protocol,
        expected_region: None,
        certified_region: None,
        regions: AllowedRegions::default(),
        heartbeat_ms: 1_000,
        silence_ms: 4_000,
        relay_after_ms: 1_000,
        audit_round_ms: 60_000,
        window_bytes: 4_096,
        block_bytes: 512,
    }
}

pub struct Inner {
    own: ReplicaIndex,
    made: u64,
    frontier: Frontier,
    sums: RangeSums,
    log: Vec<LogBlock>,
    segments: Vec<(Position, VersionVector)>,
    pub published: Arc<Published>,
    pub floor: VersionVector,
    raises: u64,
    clock_ms: u64,
    /// Answers every new block with this.
    pub refusal: Option<Verdict>,
    /// Blocks that came and were known.
    pub known: usize,
    /// The newest kind of event that it reads.
    pub kind_max: u8,
}

pub struct Node {
    table: ReplicaTable,
    pub inner: Mutex<Inner>,
}

impl Knowledge for Node {
    fn table(&self) -> &ReplicaTable {
        &self.table
    }

    fn own(&self) -> (ReplicaIndex, u64) {
        let inner = self.inner.lock();
        (inner.own, inner.made)
    }

    fn predecessors(&self, replica: ReplicaIndex) -> Option<ShortForm> {
        self.inner.lock().frontier.lineage().get(replica).cloned()
    }

    /// Audits are tested by themselves, and with whole nodes.
    fn audited(&self, _ranges: &[usize]) -> Option<Audited> {
        None
    }
}

impl Node {
    pub fn new(region: &str, epoch: u128) -> Arc<Self> {
        let table = ReplicaTable::default();
        let own = table.intern_own(&replica(region, epoch));
        let inner = Inner {
            own,
            made: 0,
            frontier: Frontier::default(),
            sums: RangeSums::default(),
            log: Vec::new(),
            segments: Vec::new(),
            published: Arc::new(Published::nothing(table.all(), own)),
            floor: VersionVector::default(),
            raises: 0,
            clock_ms: 0,
            refusal: None,
            known: 0,
            kind_max: Dialect::default().kind_max,
        };
        let inner = Mutex::new(inner);
        Arc::new(Self { table, inner })
    }

    /// The process ends and another begins in its folder.
    pub fn restart(&self, epoch: u128) {
        let mut inner = self.inner.lock();
        let region = self.table.all().id(inner.own).region.clone();
        let epoch = Epoch(epoch);
        inner.own = self.table.intern_own(&Replica { region, epoch });
        inner.made = 0;
    }

    pub fn number(&self, replica: &Replica) -> ReplicaIndex {
        self.table.intern_own(replica)
    }

    pub fn set_clock(&self, at_ms: u64) {
        let mut inner = self.inner.lock();
        inner.clock_ms = at_ms;
        self.publish(&mut inner);
    }

    pub fn write(&self, events: usize) {
        self.write_action(events, Action::Empty);
    }

    /// Events of a kind that an older node may not know.
    pub fn write_adds(&self, events: usize) {
        let action = Action::Add {
            post: 0,
            counter: 0,
            increments: 1,
            decrements: 0,
        };
        self.write_action(events, action);
    }

    fn write_action(&self, events: usize, action: Action) {
        let mut inner = self.inner.lock();
        let replicas = self.table.all();
        let first_seq = inner.made + 1;
        let own = inner.own;
        let region = &replicas.id(own).region;
        let known = inner.frontier.vector().iter();
        let ancestors = known.filter(|(replica, _)| replicas.id(*replica).region == *region);
        let ancestors = Frontier::part(&ancestors.collect(), inner.frontier.lineage());
        let predecessors = (first_seq == 1).then(|| ancestors.short());
        let event = Event { time_ms: 1, action };
        let block = Block {
            replica: own,
            first_seq,
            predecessors,
            posts: vec![PostId::new("p").expect("valid")],
            counters: vec![CounterName::new("views").expect("valid")],
            events: vec![event; events],
        };
        inner.made += events as u64;
        let bytes = Bytes::from(block::encode(&block, &replicas));
        self.commit(&mut inner, &block, bytes);
    }

    pub fn apply(&self, bytes: &Bytes) -> Verdict {
        let mut inner = self.inner.lock();
        let block = match block::decode_up_to(bytes, inner.kind_max, &mut &self.table) {
            Ok(block) => block,
            Err(DecodeError::UnknownKind { kind, .. }) => return Verdict::UnknownKind { kind },
            Err(error) => return Verdict::Malformed(error.to_string()),
        };
        if let Some(refusal) = &inner.refusal {
            return refusal.clone();
        }
        let have = inner.frontier.get(block.replica);
        if block.last_seq() <= have {
            inner.known += 1;
            return Verdict::Known;
        }
        let predecessors = block.predecessors.as_deref().unwrap_or_default();
        if block.first_seq > have + 1 || !inner.frontier.covers_short(predecessors) {
            return Verdict::NotYet;
        }
        self.commit(&mut inner, &block, bytes.clone());
        Verdict::New
    }

    fn commit(&self, inner: &mut Inner, block: &Block, bytes: Bytes) {
        if inner.log.len().is_multiple_of(SEGMENT_BLOCKS) {
            let base = Position(inner.log.len() as u64);
            let context = inner.frontier.vector().clone();
            inner.segments.push((base, context));
        }
        let hash = self.table.all().hash(block.replica);
        for (dot, _) in block.dotted() {
            if dot.seq > inner.frontier.get(block.replica) {
                let print = Fingerprint(hash.0.wrapping_mul(u128::from(dot.seq)));
                inner.sums.add(0, print);
            }
        }
        if let Some(predecessors) = &block.predecessors {
            inner.frontier.begin(block.replica, predecessors.clone());
        }
        inner.frontier.advance(block.replica, block.last_seq());
        inner.log.push(LogBlock {
            position: Position(inner.log.len() as u64),
            head: BlockHead {
                replica: block.replica,
                first_seq: block.first_seq,
                events: block.events.len(),
            },
            bytes,
        });
        self.publish(inner);
    }

    fn publish(&self, inner: &mut Inner) {
        let end = Position(inner.log.len() as u64);
        let ticket = Ticket(inner.published.ticket.0 + 1);
        let frontier = (inner.frontier.vector().clone(), inner.frontier.short());
        let replicas = (self.table.all(), inner.own);
        let published = Published::new((ticket, end), frontier, inner.sums.clone(), replicas);
        inner.published = Arc::new(published.with_raises(inner.raises));
    }

    /// Loses the log's older segments.
    pub fn cut(&self, keep: usize) {
        let mut inner = self.inner.lock();
        let gone = inner.segments.len().saturating_sub(keep);
        inner.segments.drain(..gone);
    }

    /// Takes over all that the other has, as a snapshot does.
    pub fn merge(&self, other: &Self) {
        let theirs = other.inner.lock();
        let replicas = other.table.all();
        let own = |(replica, seq): (ReplicaIndex, u64)| {
            (self.table.intern_own(replicas.id(replica)), seq)
        };
        let vector: VersionVector = theirs.frontier.vector().iter().map(own).collect();
        let mut lineage = crate::crdt::frontier::Lineage::default();
        for (replica, short) in theirs.frontier.lineage().iter() {
            let short = short.iter().copied().map(own).collect();
            lineage.insert(own((replica, 0)).0, short);
        }
        let sums = theirs.sums.clone();
        drop(theirs);
        let mut inner = self.inner.lock();
        inner.frontier.raise(&vector, &lineage);
        inner.sums = sums;
        inner.floor = vector;
        inner.raises += 1;
        self.publish(&mut inner);
    }

    pub fn durable(&self) -> Durable {
        let published = self.inner.lock().published.clone();
        Durable {
            fingerprint: Some(published.sums.total()),
            complete_until_ms: self.inner.lock().clock_ms,
            published,
        }
    }

    /// The frontier by names.
    pub fn frontier(&self) -> Vec<(Replica, u64)> {
        let inner = self.inner.lock();
        let replicas = self.table.all();
        let named = inner.frontier.vector().iter();
        let mut named: Vec<_> = named
            .map(|(index, seq)| (replicas.id(index).clone(), seq))
            .collect();
        named.sort();
        named
    }

    fn read(&self, from: Position, bytes_max: usize) -> Result<LogPiece, LogFault> {
        let inner = self.inner.lock();
        if inner.segments.first().is_some_and(|(base, _)| from < *base) {
            return Err(LogFault::Cut);
        }
        let mut blocks: Vec<LogBlock> = Vec::new();
        let mut bytes = 0;
        for block in inner.log.iter().skip(from.0 as usize) {
            bytes += block.bytes.len();
            if !blocks.is_empty() && bytes > bytes_max {
                break;
            }
            blocks.push(block.clone());
        }
        let next = Position(from.0 + blocks.len() as u64);
        Ok(LogPiece { blocks, next })
    }

    fn survey(&self) -> LogSurvey {
        let inner = self.inner.lock();
        LogSurvey {
            segments: inner.segments.clone(),
            floor: inner.floor.clone(),
        }
    }
}

/// One side of a session, with what its machine did.
pub struct End {
    pub node: Arc<Node>,
    pub session: Session,
    published: Option<Arc<Published>>,
    /// Frames that it sent and the other side has not received, with when they arrive.
    pub sent: VecDeque<(u64, Frame)>,
    /// Applied and, while `is_syncing` is off, not durable.
    undurable: VecDeque<u64>,
    pub is_syncing: bool,
    pub events_sent: usize,
    pub acknowledged: usize,
    pub resumes: usize,
    pub wants: Vec<ShortForm>,
    pub alarms: usize,
    pub heard: Vec<Hearsay>,
    pub said: Vec<Said>,
    pub ended: Option<(CloseReason, String)>,
}

impl End {
    pub fn new(node: &Arc<Node>, settings: Settings, now_ms: u64) -> Self {
        let knowledge: Arc<dyn Knowledge> = node.clone();
        let mut end = Self {
            session: Session::new(settings, knowledge, node.durable(), now_ms),
            node: node.clone(),
            published: None,
            sent: VecDeque::new(),
            undurable: VecDeque::new(),
            is_syncing: true,
            events_sent: 0,
            acknowledged: 0,
            resumes: 0,
            wants: Vec::new(),
            alarms: 0,
            heard: Vec::new(),
            said: Vec::new(),
            ended: None,
        };
        end.feed(Input::Start, now_ms);
        end
    }

    pub fn feed(&mut self, input: Input, now_ms: u64) {
        let mut inputs = VecDeque::from([input]);
        let mut effects = Vec::new();
        while let Some(input) = inputs.pop_front() {
            self.session.handle(input, now_ms, &mut effects);
            for effect in effects.drain(..) {
                inputs.extend(self.perform(effect, now_ms));
            }
        }
    }

    fn perform(&mut self, effect: Effect, now_ms: u64) -> Option<Input> {
        match effect {
            Effect::Send(frame) => {
                self.events_sent += usize::from(matches!(frame, Frame::Events { .. }));
                self.acknowledged += usize::from(matches!(frame, Frame::Acknowledge(_)));
                self.resumes += usize::from(matches!(frame, Frame::Resume { .. }));
                self.sent.push_back((now_ms + DISTANCE_MS, frame));
            }
            Effect::SurveyLog => return Some(Input::Survey(self.node.survey())),
            Effect::ReadLog {
                generation,
                from,
                bytes_max,
            } => {
                let result = self.node.read(from, bytes_max);
                return Some(Input::LogRead { generation, result });
            }
            Effect::Apply { frame, block } => {
                let verdict = self.node.apply(&block);
                if verdict == Verdict::New {
                    self.undurable.push_back(frame);
                }
                return Some(Input::Applied(verdict));
            }
            Effect::WantSnapshot { whole_from } => self.wants.push(whole_from),
            Effect::Compared(_) => {}
            Effect::Alarm { .. } => self.alarms += 1,
            Effect::Close { reason, message } | Effect::ClosedByPeer { reason, message } => {
                self.ended = Some((reason, message));
            }
            Effect::Heard(hearsay) => self.heard.push(hearsay),
            Effect::Acknowledged(said) => self.said.push(said),
            Effect::Greeted { .. } => {}
        }
        None
    }

    fn step(&mut self, now_ms: u64) {
        let durable = self.node.durable();
        let is_new = self
            .published
            .as_ref()
            .is_none_or(|known| !Arc::ptr_eq(known, &durable.published));
        if is_new {
            self.published = Some(durable.published.clone());
            self.feed(Input::Published(durable), now_ms);
        }
        while self.is_syncing
            && let Some(frame) = self.undurable.pop_front()
        {
            self.feed(Input::Durable { frame }, now_ms);
        }
        if self.session.deadline_ms() <= now_ms {
            self.feed(Input::Tick, now_ms);
        }
    }

    fn deliver_to(&mut self, to: &mut Self, now_ms: u64) {
        while to.session.wants_frames()
            && let Some(input) = self.arrived(now_ms)
        {
            to.feed(input, now_ms);
        }
        to.step(now_ms);
    }

    /// The next frame that has arrived, through the wire's own checks.
    fn arrived(&mut self, now_ms: u64) -> Option<Input> {
        let (at, _) = self.sent.front()?;
        if *at > now_ms {
            return None;
        }
        let (_, frame) = self.sent.pop_front()?;
        let read = read_frame(Some(write_frame(&frame)), &Dialect::default());
        Some(match read {
            Ok(frame) => Input::Frame(frame),
            Err(bad) => Input::BadFrame(bad),
        })
    }
}

pub struct Link(pub End, pub End);

impl Link {
    pub fn new(a: &Arc<Node>, b: &Arc<Node>, now_ms: u64) -> Self {
        Self(
            End::new(a, settings(), now_ms),
            End::new(b, settings(), now_ms),
        )
    }

    fn step(&mut self, now_ms: u64) {
        let Self(a, b) = self;
        a.deliver_to(b, now_ms);
        b.deliver_to(a, now_ms);
    }
}

/// Lets time pass over the links.
pub fn run(links: &mut [Link], now_ms: &mut u64, for_ms: u64) {
    for _ in 0..for_ms {
        *now_ms += 1;
        for link in &mut *links {
            link.step(*now_ms);
        }
    }
}
