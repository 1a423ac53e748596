//! The session with one peer, as a machine: inputs and the time come in, effects go out.
//!
//! Knows no task, socket, file or clock. What is durable comes in as [`Published`], the log as pieces
//! that the machine asked for, and the engine's verdict on a block as [`Verdict`]. Nothing but what is
//! durable leaves. `docs/protocol.md` describes the exchange.

mod auditing;
mod effect;
mod lag;
mod passing;
mod peer;
mod receiving;
mod sending;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

pub use effect::{
    Agreement, Compared, Cursor, Durable, Effect, Hearsay, Input, Knowledge, LogBlock, LogFault,
    LogPiece, LogSurvey, Said, Settings, Standing, Verdict,
};

use crate::crdt::dot::ReplicaIndex;
use crate::crdt::frontier::ShortForm;
use crate::crdt::version_vector::VersionVector;
use crate::engine::audit::RangeState;
use crate::engine::published::Published;
use crate::ids::Replica;
use crate::replication::frame::{
    Acknowledge, Audit, CloseReason, Described, Entries, Frame, Hello, RangeAudit,
};
use crate::replication::session::auditing::Auditing;
use crate::replication::session::lag::Lag;
use crate::replication::session::passing::Passing;
use crate::replication::session::peer::Peer;
use crate::replication::session::receiving::Receiving;
use crate::replication::session::sending::Sending;

/// The least time between two acknowledgements: what happens meanwhile shares one.
const ACKNOWLEDGE_PAUSE_MS: u64 = 5;

/// Why the machine ends the session.
#[derive(Debug)]
struct Fault {
    reason: CloseReason,
    message: String,
}

impl Fault {
    fn new(reason: CloseReason, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { reason, message }
    }

    fn protocol(message: impl Into<String>) -> Self {
        Self::new(CloseReason::Protocol, message)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The peer's Hello has not come.
    Greeting,
    Open,
    Closed,
}

/// What was last told the peer.
#[derive(Default)]
struct Told {
    at_ms: u64,
    frame: u64,
    durable: Option<Arc<Published>>,
}

/// See the module.
pub struct Session {
    settings: Settings,
    knowledge: Arc<dyn Knowledge>,
    /// The running replica, as the Hello named it.
    own: (Replica, ReplicaIndex),
    durable: Durable,
    state: State,
    peer: Option<Peer>,
    sending: Sending,
    receiving: Receiving,
    passing: Passing,
    lag: Lag,
    auditing: Auditing,
    told: Told,
    /// Replicas whose lineage the peer has been told.
    described: HashSet<ReplicaIndex>,
    received_ms: u64,
    /// The connection takes no frames at the moment.
    is_backlogged: bool,
}

impl Session {
    pub fn new(
        settings: Settings,
        knowledge: Arc<dyn Knowledge>,
        durable: Durable,
        now_ms: u64,
    ) -> Self {
        let (index, _) = knowledge.own();
        let own = knowledge.replicas().id(index).clone();
        Self {
            sending: Sending::new(&settings),
            auditing: Auditing::new(settings.audit_round_ms),
            settings,
            knowledge,
            own: (own, index),
            durable,
            state: State::Greeting,
            peer: None,
            receiving: Receiving::default(),
            passing: Passing::default(),
            lag: Lag::default(),
            told: Told::default(),
            described: HashSet::new(),
            received_ms: now_ms,
            is_backlogged: false,
        }
    }

    pub fn own(&self) -> &Replica {
        &self.own.0
    }

    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether the next frame may be handed over. While a block waits to be applied it may not.
    pub fn wants_frames(&self) -> bool {
        self.state != State::Closed && !self.receiving.is_stalled()
    }

    /// Tells whether the connection is behind with sending; meanwhile nothing is made for it.
    pub fn set_backlogged(&mut self, is_backlogged: bool) {
        self.is_backlogged = is_backlogged;
    }

    /// When to hand over [`Input::Tick`] if nothing else happens before.
    pub fn deadline_ms(&self) -> u64 {
        let silence = self.received_ms + self.settings.silence_ms;
        if self.state != State::Open {
            return silence;
        }
        let tell = (!self.is_backlogged).then(|| self.tell_due_ms());
        let sample = self.sending.sample_due_ms(&self.durable);
        let audit = (!self.is_backlogged).then(|| self.auditing.due_ms());
        let others = [tell, sample, audit, self.receiving.due_ms()];
        others.into_iter().flatten().fold(silence, u64::min)
    }

    /// How the link stands.
    pub fn standing(&self, now_ms: u64) -> Standing {
        let Some(peer) = &self.peer else {
            return Standing::default();
        };
        Standing {
            events_behind: self.durable.published.vector.events_beyond(&peer.acked),
            lag_ms: self.lag.age_ms(now_ms),
            agreement: self.agreement(peer),
            fingerprint: peer.fingerprint,
            problem: self.problem(),
            ..Standing::default()
        }
    }

    fn problem(&self) -> String {
        let behind = self.sending.behind_replicas();
        if behind > 0 {
            return format!(
                "this node's log no longer reaches what the peer lacks of {behind} replicas; it needs a snapshot"
            );
        }
        if let Some((replica, kind)) = self.receiving.unknown_kind() {
            let replicas = self.knowledge.replicas();
            let region = &replicas.id(replica).region;
            return format!(
                "events of kind {kind} came from {region}, which this node does not know: it passes over that \
                 replica's from there on until it is upgraded; upgrade this node"
            );
        }
        let withheld = self.sending.withheld_replicas();
        if withheld > 0 {
            return format!(
                "the peer does not know the kind of some events and takes no more of {withheld} replicas; upgrade \
                 the peer"
            );
        }
        self.receiving.problem().to_owned()
    }

    fn agreement(&self, peer: &Peer) -> Agreement {
        if self.auditing.differs() {
            return Agreement::Diverged;
        }
        if !peer.is_described {
            return Agreement::Unknown;
        }
        if self.durable.published.vector != *peer.acked {
            return Agreement::Behind;
        }
        match (self.durable.fingerprint, peer.fingerprint) {
            (Some(here), Some(there)) if here == there => Agreement::Equal,
            (Some(_), Some(_)) => Agreement::Diverged,
            _ => Agreement::Unknown,
        }
    }

    /// The one door. After a closing effect every input is ignored.
    pub fn handle(&mut self, input: Input, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.state == State::Closed {
            return;
        }
        let handled = self.dispatch(input, now_ms, effects);
        let handled = handled.and_then(|()| self.advance(now_ms, effects));
        if let Err(fault) = handled {
            self.close(fault, effects);
        }
    }

    fn dispatch(
        &mut self,
        input: Input,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        match input {
            Input::Start => self.greet(effects),
            Input::Frame(frame) => {
                self.received_ms = now_ms;
                self.handle_frame(frame, now_ms, effects)?;
            }
            Input::BadFrame(bad) => return Err(Fault::new(bad.reason(), bad.to_string())),
            Input::Published(durable) => self.handle_published(durable, now_ms)?,
            Input::Heard(news) => self.passing.push(news),
            Input::Survey(survey) => self.handle_survey(&survey, effects),
            Input::LogRead { generation, result } => {
                self.sending.handle_read(generation, result, effects)?;
            }
            Input::Applied(verdict) => self.handle_verdict(verdict, now_ms, effects)?,
            Input::Durable { frame } => self.receiving.handle_durable(frame),
            Input::Stop(reason, message) => return Err(Fault { reason, message }),
            Input::Tick => {}
        }
        Ok(())
    }

    fn close(&mut self, fault: Fault, effects: &mut Vec<Effect>) {
        self.state = State::Closed;
        let Fault { reason, message } = fault;
        effects.push(Effect::Send(Frame::Close {
            reason,
            message: message.clone(),
        }));
        effects.push(Effect::Close { reason, message });
    }

    fn greet(&mut self, effects: &mut Vec<Effect>) {
        let full: ShortForm = self.durable.published.vector.iter().collect();
        let hello = Hello {
            protocol: self.settings.protocol.clone(),
            cluster: self.settings.cluster.as_str().to_owned(),
            replica: self.own.0.clone(),
            lineage: self.describe(&full),
            frontier: self.named(&full),
        };
        effects.push(Effect::Send(Frame::Hello(hello)));
    }

    fn handle_frame(
        &mut self,
        frame: Frame,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        let frame = match (self.state, frame) {
            (_, Frame::Close { reason, message }) => {
                self.state = State::Closed;
                effects.push(Effect::ClosedByPeer { reason, message });
                return Ok(());
            }
            (State::Greeting, Frame::Hello(hello)) => {
                return self.handle_hello(hello, now_ms, effects);
            }
            (State::Greeting, _) => return Err(Fault::protocol("the first frame is no Hello")),
            (_, frame) => frame,
        };
        match frame {
            Frame::Hello(_) => Err(Fault::protocol("a second Hello")),
            Frame::Events { frame, block } => self.receiving.handle_events(frame, block, effects),
            Frame::Acknowledge(acknowledge) => self.handle_acknowledge(acknowledge, effects),
            Frame::Audit(audit) => self.handle_audit(audit, now_ms, effects),
            Frame::Withhold { replicas } => {
                let replicas = self.indexed(&replicas, effects)?;
                self.sending.withhold(replicas);
                Ok(())
            }
            Frame::Resume { frontier, lineage } => {
                self.learn(&frontier, lineage, 0, effects)?;
                self.sending.reset(effects);
                Ok(())
            }
            Frame::BehindCut { whole_from } => {
                let whole_from = self.indexed(&whole_from, effects)?;
                effects.push(Effect::WantSnapshot { whole_from });
                Ok(())
            }
            Frame::Close { .. } => unreachable!("taken above"),
        }
    }

    fn handle_acknowledge(
        &mut self,
        acknowledge: Acknowledge,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        let Acknowledge {
            frame,
            frontier,
            at_ms,
            ..
        } = acknowledge;
        self.sending.check_acknowledged(frame)?;
        let (known, fell) = self.learn(&frontier, acknowledge.lineage, at_ms, effects)?;
        for heard in acknowledge.heard {
            self.hear(heard, effects)?;
        }
        let peer = self.peer.as_mut().expect("open");
        peer.fingerprint = acknowledge.fingerprint.filter(|_| known);
        self.sending.handle_acknowledged(frame);
        self.follow(fell, effects);
        Ok(())
    }

    fn handle_audit(
        &mut self,
        audit: Audit,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        let mut ranges = Vec::with_capacity(audit.ranges.len());
        for RangeAudit {
            range,
            sum,
            changed,
        } in audit.ranges
        {
            let changed = self.indexed(&changed, effects)?;
            ranges.push(RangeState {
                range,
                sum,
                changed,
            });
        }
        let (known, fell) = self.learn(&audit.frontier, audit.lineage, 0, effects)?;
        self.follow(fell, effects);
        if known {
            let peer = self.peer.as_ref().expect("open");
            self.auditing.handle(peer.acked.clone(), ranges, now_ms);
        }
        Ok(())
    }

    /// Compares what came, and sends what is due.
    fn audit(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let compared = self.auditing.compare(self.knowledge.as_ref(), now_ms);
        if !compared.is_empty() {
            effects.push(Effect::Compared(compared));
        }
        if self.is_backlogged {
            return;
        }
        let ranges = self.auditing.take_due(&self.durable.published, now_ms);
        if ranges.is_empty() {
            return;
        }
        let Some(audited) = self.knowledge.audited(&ranges) else {
            return;
        };
        self.auditing.note_sent(&audited.ranges);
        let short = &audited.published.short;
        let audit = Audit {
            frontier: self.named(short),
            lineage: self.describe(short),
            ranges: audited
                .ranges
                .iter()
                .map(|state| RangeAudit {
                    range: state.range,
                    sum: state.sum,
                    changed: self.named(&state.changed),
                })
                .collect(),
        };
        effects.push(Effect::Send(Frame::Audit(audit)));
    }

    fn handle_hello(
        &mut self,
        hello: Hello,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        self.check_identity(&hello)?;
        let predecessors = hello.lineage.iter().flat_map(|(_, entries)| entries);
        self.check_claims(hello.frontier.iter().chain(predecessors), effects)?;
        let index = self.intern(&hello.replica)?;
        let (frontier, is_whole) = self.intern_all(&hello.frontier);
        let mut peer = Peer::new(index, frontier.into_iter().collect());
        peer.is_described = is_whole;
        self.learn_lineage(&mut peer, hello.lineage)?;
        effects.push(Effect::Greeted {
            replica: hello.replica,
            frontier: peer.acked.clone(),
        });
        self.lag
            .follow(&self.durable.published, &peer.acked, now_ms);
        self.peer = Some(peer);
        self.state = State::Open;
        self.sending.open(&self.durable, now_ms);
        self.sending.reset(effects);
        Ok(())
    }

    fn check_identity(&self, hello: &Hello) -> Result<(), Fault> {
        if hello.cluster != self.settings.cluster.as_str() {
            let ours = &self.settings.cluster;
            let theirs: String = hello.cluster.chars().take(64).collect();
            let message = format!("this node is of cluster {ours}, the peer of {theirs:?}");
            return Err(Fault::new(CloseReason::WrongCluster, message));
        }
        if hello.replica == self.own.0 {
            let message = "the peer is this very replica; check the peers' addresses";
            return Err(Fault::new(CloseReason::Own, message));
        }
        let (regions, certified) = (&self.settings.regions, &self.settings.certified_region);
        if let Err(why) = regions.check(&hello.replica.region, certified.as_ref()) {
            return Err(Fault::new(CloseReason::NotAllowed, why.to_string()));
        }
        match &self.settings.expected_region {
            Some(expected) if *expected != hello.replica.region => {
                let found = &hello.replica.region;
                let message = format!("the address of {expected} belongs to {found}");
                Err(Fault::new(CloseReason::WrongRegion, message))
            }
            _ => Ok(()),
        }
    }

    /// Takes in a frontier in the short form. Returns whether it could be read, and whether it is below
    /// what was known before.
    fn learn(
        &mut self,
        frontier: &Entries,
        lineage: Described,
        at_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(bool, bool), Fault> {
        let predecessors = lineage.iter().flat_map(|(_, entries)| entries);
        self.check_claims(frontier.iter().chain(predecessors), effects)?;
        let (short, is_whole) = self.intern_all(frontier);
        let mut peer = self.peer.take().expect("open");
        let learned = self.learn_lineage(&mut peer, lineage);
        let outcome = match is_whole {
            true => peer.acknowledge(short, at_ms, self.knowledge.as_ref()),
            false => peer.mumble(),
        };
        if outcome.0 {
            effects.push(Effect::Acknowledged(peer.said()));
        }
        self.peer = Some(peer);
        learned.map(|()| outcome)
    }

    fn learn_lineage(&self, peer: &mut Peer, lineage: Described) -> Result<(), Fault> {
        for (replica, predecessors) in lineage {
            let (predecessors, is_whole) = self.intern_all(&predecessors);
            let replica = self.knowledge.intern_claimed(&replica).filter(|_| is_whole);
            // What cannot be read is not known; forms that rest on it are not used.
            if let Some(replica) = replica {
                peer.learn(replica, predecessors)?;
            }
        }
        Ok(())
    }

    /// After the peer's frontier changed.
    fn follow(&mut self, fell: bool, effects: &mut Vec<Effect>) {
        let peer = self.peer.as_ref().expect("open");
        if fell || self.sending.is_reached(&peer.acked) {
            self.sending.reset(effects);
        }
    }

    fn handle_published(&mut self, durable: Durable, now_ms: u64) -> Result<(), Fault> {
        self.durable = durable;
        self.receiving.handle_published(&self.durable.published);
        if let Some(peer) = &self.peer {
            self.lag
                .follow(&self.durable.published, &peer.acked, now_ms);
        }
        if self.receiving.is_withheld_covered(&self.durable.published) {
            let message = "events that were withheld came another way";
            return Err(Fault::new(CloseReason::Renewed, message));
        }
        Ok(())
    }

    fn handle_survey(&mut self, survey: &LogSurvey, effects: &mut Vec<Effect>) {
        let Some(peer) = &self.peer else {
            return;
        };
        let replicas = self.knowledge.replicas();
        let region = &self.own.0.region;
        let is_own = |replica| replicas.id(replica).region == *region;
        let behind = self.sending.find_behind(survey, peer);
        let waiting = self.followers(&behind, &peer.acked);
        self.sending.place(survey, peer, waiting, &is_own);
        if !behind.is_empty() {
            let whole_from = self.named(&behind);
            effects.push(Effect::Send(Frame::BehindCut { whole_from }));
        }
    }

    /// Replicas whose first events the peer could not apply, for they name these among their predecessors, or such
    /// as follow on them.
    fn followers(
        &self,
        behind: &[(ReplicaIndex, u64)],
        acked: &VersionVector,
    ) -> BTreeSet<ReplicaIndex> {
        let mut stuck: BTreeSet<ReplicaIndex> = behind.iter().map(|(one, _)| *one).collect();
        let mut followers = BTreeSet::new();
        let durable = &self.durable.published.vector;
        while !stuck.is_empty() {
            let follows = |replica: ReplicaIndex| {
                let named = self.knowledge.predecessors(replica);
                named.is_some_and(|named| named.iter().any(|(one, _)| stuck.contains(one)))
            };
            let unbegun = durable.iter().map(|(replica, _)| replica);
            let unbegun = unbegun.filter(|one| acked.get(*one) == 0 && !followers.contains(one));
            stuck = unbegun.filter(|replica| follows(*replica)).collect();
            followers.extend(stuck.iter().copied());
        }
        followers
    }

    fn handle_verdict(
        &mut self,
        verdict: Verdict,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        match verdict {
            Verdict::Malformed(why) => Err(Fault::protocol(format!("a block was refused: {why}"))),
            Verdict::Stopped(why) => Err(Fault::new(CloseReason::Stopping, why)),
            Verdict::Alarm { claimed, made } => Err(self.alarm(claimed, made, effects)),
            Verdict::Conflict(why) => Err(Fault::new(CloseReason::Conflict, why)),
            Verdict::New
            | Verdict::Known
            | Verdict::NotYet
            | Verdict::NoRoom
            | Verdict::Busy
            | Verdict::UnknownKind { .. } => {
                let beginning = |block: &[u8]| self.knowledge.beginning(block);
                let published = &self.durable.published;
                let handled = self
                    .receiving
                    .handle_verdict(&verdict, beginning, published, now_ms);
                let withhold = handled.map_err(|error| Fault::protocol(error.to_string()))?;
                if let Some(from) = withhold {
                    let replicas = self.named(&[from]);
                    effects.push(Effect::Send(Frame::Withhold { replicas }));
                }
                Ok(())
            }
        }
    }

    /// What time brings, and what can be sent now.
    fn advance(&mut self, now_ms: u64, effects: &mut Vec<Effect>) -> Result<(), Fault> {
        if self.state == State::Closed {
            return Ok(());
        }
        if self.receiving.is_stalled() {
            // Nothing is read meanwhile, so silence says nothing of the peer.
            self.received_ms = now_ms;
        }
        if now_ms >= self.received_ms + self.settings.silence_ms {
            let silent = now_ms - self.received_ms;
            let message = format!("nothing was received for {silent} ms");
            return Err(Fault::new(CloseReason::Silence, message));
        }
        if self.state != State::Open {
            return Ok(());
        }
        if self.knowledge.own().0 != self.own.1 {
            let message = "this node goes on under a fresh replica";
            return Err(Fault::new(CloseReason::Renewed, message));
        }
        self.receiving.retry(now_ms, effects);
        if self.receiving.take_resume(now_ms) {
            let (frontier, lineage) = self.short();
            effects.push(Effect::Send(Frame::Resume { frontier, lineage }));
        }
        if !self.is_backlogged && now_ms >= self.tell_due_ms() {
            self.tell(now_ms, effects);
        }
        let peer = self.peer.as_mut().expect("open");
        self.lag
            .drop_covered(&self.durable.published, &peer.acked, now_ms);
        self.sending.sample(&self.durable, now_ms);
        self.audit(now_ms, effects);
        let peer = self.peer.as_mut().expect("open");
        if !self.is_backlogged {
            let replicas = self.knowledge.replicas();
            let region = &self.own.0.region;
            let is_own = |replica| replicas.id(replica).region == *region;
            self.sending.pump(&self.durable, peer, &is_own, effects);
        }
        Ok(())
    }

    fn tell_due_ms(&self) -> u64 {
        let told = self.told.durable.as_ref();
        let is_told = told.is_some_and(|told| Arc::ptr_eq(told, &self.durable.published))
            && self.told.frame == self.receiving.dealt()
            && !self.passing.is_due();
        let pause = match is_told {
            true => self.settings.heartbeat_ms,
            false => ACKNOWLEDGE_PAUSE_MS,
        };
        self.told.at_ms + pause
    }

    fn tell(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let (frontier, mut lineage) = self.short();
        let heard = self.pass_on(&mut lineage);
        self.told = Told {
            at_ms: now_ms,
            frame: self.receiving.dealt(),
            durable: Some(self.durable.published.clone()),
        };
        effects.push(Effect::Send(Frame::Acknowledge(Acknowledge {
            frame: self.told.frame,
            frontier,
            lineage,
            fingerprint: self.durable.fingerprint,
            heard,
            at_ms: self.durable.complete_until_ms,
        })));
    }

    /// The durable frontier in the short form, with what the peer must be told to read it.
    fn short(&mut self) -> (Entries, Described) {
        let short = self.durable.published.short.clone();
        (self.named(&short), self.describe(&short))
    }

    /// Lineage of these replicas, and of those that it names, where the peer has not been told.
    fn describe(&mut self, entries: &[(ReplicaIndex, u64)]) -> Described {
        let mut described = Described::new();
        let mut open: Vec<ReplicaIndex> = entries.iter().map(|(replica, _)| *replica).collect();
        while let Some(replica) = open.pop() {
            if self.described.contains(&replica) {
                continue;
            }
            let Some(predecessors) = self.knowledge.predecessors(replica) else {
                continue;
            };
            self.described.insert(replica);
            open.extend(predecessors.iter().map(|(ancestor, _)| *ancestor));
            let name = self.knowledge.replicas().id(replica).clone();
            described.push((name, self.named(&predecessors)));
        }
        described
    }

    fn named(&self, entries: &[(ReplicaIndex, u64)]) -> Entries {
        let replicas = self.knowledge.replicas();
        let named = entries.iter();
        named
            .map(|(replica, seq)| (replicas.id(*replica).clone(), *seq))
            .collect()
    }

    /// Those of the entries whose replicas have a number here.
    fn indexed(&self, entries: &Entries, effects: &mut Vec<Effect>) -> Result<ShortForm, Fault> {
        self.check_claims(entries.iter(), effects)?;
        Ok(self.intern_all(entries).0)
    }

    /// The entries by number, and whether those are all: a replica that the table has no place for was never heard
    /// of otherwise, so nothing of it is here.
    fn intern_all(&self, entries: &Entries) -> (ShortForm, bool) {
        let indexed = entries.iter();
        let indexed: ShortForm = indexed
            .filter_map(|(replica, seq)| Some((self.knowledge.intern_claimed(replica)?, *seq)))
            .collect();
        let is_whole = indexed.len() == entries.len();
        (indexed, is_whole)
    }

    fn intern(&self, replica: &Replica) -> Result<ReplicaIndex, Fault> {
        let interned = self.knowledge.intern(replica);
        interned.map_err(|error| Fault::protocol(error.to_string()))
    }

    /// Nobody can know numbers of the running replica that it never made, unless somebody else runs
    /// under its identity.
    fn check_claims<'a>(
        &self,
        entries: impl Iterator<Item = &'a (Replica, u64)>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        let (own, made) = self.knowledge.own();
        let replicas = self.knowledge.replicas();
        let own = replicas.id(own);
        let claims = entries.filter(|(replica, _)| replica == own);
        match claims.map(|(_, seq)| *seq).max() {
            Some(claimed) if claimed > made => Err(self.alarm(claimed, made, effects)),
            _ => Ok(()),
        }
    }

    fn alarm(&self, claimed: u64, made: u64, effects: &mut Vec<Effect>) -> Fault {
        effects.push(Effect::Alarm { claimed, made });
        let message = format!(
            "the peer knows events of this node's running replica up to {claimed}; it made {made}"
        );
        Fault::new(CloseReason::Alarm, message)
    }
}
