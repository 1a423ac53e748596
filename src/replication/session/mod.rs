//! The session with one peer, as a machine: inputs and the time come in, effects go out.
//!
//! Knows no task, socket, file or clock. What is durable comes in as [`Durable`], the log as pieces
//! that the machine asked for, and the engine's verdict on a block as [`Verdict`]. Nothing but what is
//! durable leaves. `docs/protocol.md` describes the exchange.

mod auditing;
mod effect;
mod greeting;
mod lag;
mod learning;
mod naming;
mod passing;
mod peer;
mod receiving;
mod sending;
mod standing;
mod surveying;
mod telling;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

pub use effect::{
    Agreement, Compared, Cursor, Durable, Effect, Hearsay, Input, Knowledge, LogBlock, LogFault,
    LogPiece, LogSurvey, Said, Settings, Standing, Verdict,
};

use crate::crdt::dot::ReplicaIndex;
use crate::ids::Replica;
use crate::replication::frame::{CloseReason, Frame};
use crate::replication::session::auditing::Auditing;
use crate::replication::session::lag::Lag;
use crate::replication::session::passing::Passing;
use crate::replication::session::peer::Peer;
use crate::replication::session::receiving::Receiving;
use crate::replication::session::sending::Sending;
use crate::replication::session::telling::Told;

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
    described: BTreeSet<ReplicaIndex>,
    received_ms: u64,
    /// The connection takes no frames at the moment.
    is_backlogged: bool,
}

/// All that decides what the machine does next, in the same words for the same state.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("own", &self.own)
            .field("durable", &self.durable)
            .field("state", &self.state)
            .field("peer", &self.peer)
            .field("sending", &self.sending)
            .field("receiving", &self.receiving)
            .field("passing", &self.passing)
            .field("lag", &self.lag)
            .field("auditing", &self.auditing)
            .field("told", &self.told)
            .field("described", &self.described)
            .field("received_ms", &self.received_ms)
            .field("is_backlogged", &self.is_backlogged)
            .finish_non_exhaustive()
    }
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
            described: BTreeSet::new(),
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
            Input::Published(durable) => self.handle_published(durable, now_ms, effects)?,
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

    fn handle_published(
        &mut self,
        durable: Durable,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        let is_raised = durable.published.raises != self.durable.published.raises;
        self.durable = durable;
        if is_raised && self.state == State::Open {
            // What a snapshot brought is in no log here: a peer that lacks it must be told so.
            self.sending.reset(effects);
        }
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
}
