//! Runs one session over a stream of frames both ways: feeds the machine and does what it says.
//!
//! Knows the engine, the log and tasks; decides nothing of the protocol.

mod applying;
mod outgoing;
mod place;
mod reading;

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Status;

use crate::engine::commit::{OutcomeUnknown, Ticket};
use crate::ids::{Region, Replica};
use crate::limits::OUTGOING_FRAMES_MAX;
use crate::replication::Exchange;
use crate::replication::driver::applying::{Committing, Compared, Comparing};
use crate::replication::driver::reading::Reading;
use crate::replication::frame::{BadFrame, CloseReason, Frame};
use crate::replication::knowledge::durable;
use crate::replication::links::{Direction, Place};
use crate::replication::news::News;
use crate::replication::session::{Effect, Input, Session, Settings};
use crate::replication::traffic::Traffic;
use crate::wire::codec::malformed;
use crate::wire::frames::read_frame;
use crate::wire::replication as wire;

/// How often a link's figures are brought up to date.
pub(super) const STANDING_PAUSE: Duration = Duration::from_millis(100);
/// How long the stream is kept after the closing frame, so that it arrives.
const CLOSE_LINGER: Duration = Duration::from_millis(500);
const DUPLICATE: &str = "another session between the same two nodes is kept";

/// How a stream came about.
pub(super) struct Call {
    pub direction: Direction,
    pub expected_region: Option<Region>,
    /// The region that the peer proved to be of; none without certificates.
    pub certified_region: Option<Region>,
}

/// How a session ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// None where the connection was lost.
    pub reason: Option<CloseReason>,
    pub message: String,
    /// Known if the peer's Hello came.
    pub peer: Option<Replica>,
}

struct Driver {
    exchange: Arc<Exchange>,
    direction: Direction,
    session: Session,
    begun: Instant,
    board: watch::Receiver<Ticket>,
    news: News,
    reading: Option<Reading>,
    /// A block that is being compared with the log; the session takes no frames meanwhile.
    comparing: Option<Comparing>,
    /// Waits for the durability of applied blocks, in their order. The peer's window bounds them.
    committing: FuturesOrdered<Committing>,
    /// Frames that the connection has not taken. The window bounds events; others are made only while
    /// there are few.
    outgoing: VecDeque<Frame>,
    /// Among the sessions, once the peer is known.
    place: Option<Place>,
    peer: Option<Replica>,
    traffic: Traffic,
    /// When the link's figures were last brought up to date.
    shown: Instant,
    ended: Option<Ended>,
}

/// Runs the session until it ends. Frames go out wrapped as the direction demands.
pub(super) async fn run<S, T>(
    exchange: Arc<Exchange>,
    call: Call,
    mut incoming: S,
    (frames, wrap): (mpsc::Sender<T>, fn(wire::Frame) -> T),
) -> Ended
where
    S: Stream<Item = Result<Option<wire::Frame>, Status>> + Unpin + Send,
    T: Send,
{
    let mut driver = Driver::new(exchange, call);
    driver.feed(Input::Start);
    while driver.ended.is_none() {
        driver.flush(&frames, wrap);
        let happened = driver.next(&mut incoming, &frames).await;
        let is_frame = matches!(happened, Happened::Frame(_));
        driver.handle(happened);
        // The board and the log come first in `next`; at full load frames would never get their turn.
        if !is_frame
            && driver.session.wants_frames()
            && let Some(frame) = incoming.next().now_or_never()
        {
            driver.handle(Happened::Frame(frame));
        }
        driver.show_standing();
        tokio::task::yield_now().await;
    }
    driver.leave();
    let goodbye = driver.say_goodbye(&mut incoming, frames, wrap);
    if timeout(CLOSE_LINGER, goodbye).await.is_err() {
        tracing::debug!("the peer did not end the stream in time");
    }
    driver.ended.take().expect("the loop ended by it")
}

/// What the driver waited for.
enum Happened {
    Stop,
    Displaced,
    Read(Input),
    Compared(Compared),
    Committed(Result<u64, OutcomeUnknown>),
    Published,
    Heard,
    Room,
    Frame(Option<Result<Option<wire::Frame>, Status>>),
    Time,
    Lost,
}

impl Driver {
    fn new(exchange: Arc<Exchange>, call: Call) -> Self {
        let options = &exchange.options;
        let settings = Settings {
            cluster: exchange.engine.cluster().clone(),
            protocol: exchange.engine.options().dialect.protocol.clone(),
            expected_region: call.expected_region,
            certified_region: call.certified_region,
            regions: options.regions.clone(),
            heartbeat_ms: options.heartbeat_ms,
            silence_ms: options.silence_ms,
            relay_after_ms: options.relay_after_ms,
            audit_round_ms: options.audit_round_ms,
            window_bytes: options.window_bytes,
            block_bytes: options.block_bytes,
        };
        let board = exchange.engine.board().subscribe();
        let engine = exchange.engine.clone();
        let session = Session::new(settings, engine, durable(&exchange.engine), 0);
        Self {
            news: News::new(&exchange.acks),
            exchange,
            direction: call.direction,
            session,
            begun: Instant::now(),
            board,
            reading: None,
            comparing: None,
            committing: FuturesOrdered::new(),
            outgoing: VecDeque::new(),
            place: None,
            peer: None,
            traffic: Traffic::default(),
            shown: Instant::now(),
            ended: None,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits for the next thing to happen. Biased: endings first; then what the node itself has ready,
    /// which is soon done; then room and time; frames last, for they get a turn of their own.
    async fn next<S, T>(&mut self, incoming: &mut S, frames: &mpsc::Sender<T>) -> Happened
    where
        S: Stream<Item = Result<Option<wire::Frame>, Status>> + Unpin + Send,
        T: Send,
    {
        let deadline = Duration::from_millis(self.session.deadline_ms());
        let deadline = (self.begun + deadline).min(Instant::now() + STANDING_PAUSE);
        let displaced = self.place.as_ref().map(|place| place.displaced.clone());
        let displaced = async {
            match displaced {
                Some(displaced) => displaced.cancelled().await,
                None => pending().await,
            }
        };
        let reading = async {
            match &mut self.reading {
                Some(reading) => reading.await,
                None => pending().await,
            }
        };
        let comparing = async {
            match &mut self.comparing {
                Some(comparing) => comparing.await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.exchange.stop.cancelled() => Happened::Stop,
            () = displaced => Happened::Displaced,
            input = reading => Happened::Read(input),
            compared = comparing => Happened::Compared(compared),
            Some(result) = self.committing.next() => Happened::Committed(result),
            changed = self.board.changed() => match changed {
                Ok(()) => Happened::Published,
                Err(_) => Happened::Stop,
            },
            () = self.news.come(), if self.place.is_some() => Happened::Heard,
            permit = frames.reserve(), if !self.outgoing.is_empty() => match permit {
                Ok(_) => Happened::Room,
                Err(_) => Happened::Lost,
            },
            () = sleep_until(deadline) => Happened::Time,
            frame = incoming.next(), if self.session.wants_frames() => Happened::Frame(frame),
        }
    }

    fn handle(&mut self, happened: Happened) {
        if self.ended.is_some() {
            return;
        }
        match happened {
            Happened::Stop => self.stop(CloseReason::Stopping, "the node stops"),
            Happened::Displaced => self.stop(CloseReason::Duplicate, DUPLICATE),
            Happened::Read(input) => {
                self.reading = None;
                self.feed(input);
            }
            Happened::Compared(compared) => {
                self.comparing = None;
                self.handle_compared(compared);
            }
            Happened::Committed(Ok(frame)) => {
                self.feed(Input::Published(durable(&self.exchange.engine)));
                self.feed(Input::Durable { frame });
            }
            Happened::Committed(Err(error)) => {
                self.stop(CloseReason::Stopping, &error.to_string());
            }
            Happened::Published => {
                self.feed(Input::Published(durable(&self.exchange.engine)));
            }
            Happened::Heard => self.hand_over_news(),
            Happened::Room => {}
            // At rest nothing is published, and the clock goes on all the same.
            Happened::Time => self.feed(Input::Published(durable(&self.exchange.engine))),
            Happened::Lost => self.lose("the stream was closed".to_owned()),
            Happened::Frame(None) => self.lose("the peer ended the stream".to_owned()),
            Happened::Frame(Some(Err(status))) => match malformed(&status) {
                Some(why) => self.feed(Input::BadFrame(BadFrame::Malformed(why))),
                None => self.lose(format!("the connection was lost: {}", status.message())),
            },
            Happened::Frame(Some(Ok(frame))) => {
                // Before the peer is known its blocks are not looked into.
                if let (Some(frame), Some(_)) = (&frame, &self.place) {
                    let engine = self.exchange.engine.as_ref();
                    self.traffic.note_received(frame, engine);
                }
                let read = read_frame(frame, &self.exchange.engine.options().dialect);
                self.feed(match read {
                    Ok(frame) => Input::Frame(frame),
                    Err(bad) => Input::BadFrame(bad),
                });
            }
        }
    }

    fn stop(&mut self, reason: CloseReason, message: &str) {
        self.feed(Input::Stop(reason, message.to_owned()));
    }

    fn lose(&mut self, message: String) {
        self.ended = Some(Ended {
            reason: None,
            message,
            peer: self.peer.clone(),
        });
    }

    /// Hands over an input, and whatever its effects bring at once.
    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        let mut effects = Vec::new();
        while let Some(input) = inputs.pop_front() {
            let backlog = self.outgoing.len() >= OUTGOING_FRAMES_MAX;
            self.session.set_backlogged(backlog);
            let now_ms = self.now_ms();
            self.session.handle(input, now_ms, &mut effects);
            for effect in effects.drain(..) {
                inputs.extend(self.perform(effect));
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Send(frame) => self.outgoing.push_back(frame),
            Effect::Greeted { replica, frontier } => return self.enter(replica, frontier),
            Effect::Acknowledged(said) => {
                if let Some(place) = &self.place {
                    self.exchange.acks.set(place.owner, &place.peer, said);
                }
            }
            Effect::Heard(hearsay) => self.hear(hearsay),
            Effect::SurveyLog => return Some(self.survey()),
            Effect::ReadLog {
                generation,
                from,
                bytes_max,
            } => {
                self.reading = Some(self.read(generation, from, bytes_max));
            }
            Effect::Apply { frame, block } => return self.compare_or_apply(frame, block),
            Effect::Compared(compared) => {
                if let Some(place) = &self.place {
                    self.exchange.audits.note(&place.peer, &compared);
                }
            }
            Effect::WantSnapshot { whole_from } => self.want_snapshot(whole_from),
            Effect::Alarm { claimed, made } => {
                let fresh = self.exchange.engine.rotate_epoch();
                tracing::error!(
                    peer = ?self.peer, claimed, made, %fresh,
                    "a peer knows events of this node's running replica that it never made: another \
                     process runs under its identity. This node goes on under a fresh epoch"
                );
            }
            Effect::Close { reason, message } => {
                self.count(reason);
                self.end(reason, message, "closed by this node");
            }
            Effect::ClosedByPeer { reason, message } => {
                self.end(reason, message, "closed by the peer");
            }
        }
        None
    }

    /// Counts what an operator should know of.
    fn count(&self, reason: CloseReason) {
        let counts = &self.exchange.counts;
        match reason {
            CloseReason::Protocol => counts.frames_refused.one_more(),
            CloseReason::Alarm => counts.alarms.one_more(),
            CloseReason::Conflict => counts.conflicts.one_more(),
            CloseReason::WrongCluster | CloseReason::NotAllowed => counts.peers_refused.one_more(),
            _ => {}
        }
    }

    fn end(&mut self, reason: CloseReason, message: String, by: &'static str) {
        match reason {
            CloseReason::Stopping
            | CloseReason::Duplicate
            | CloseReason::Renewed
            | CloseReason::Own => {
                tracing::debug!(peer = ?self.peer, ?reason, message, by, "session ended");
            }
            _ => tracing::warn!(peer = ?self.peer, ?reason, message, by, "session ended"),
        }
        self.ended = Some(Ended {
            reason: Some(reason),
            message: format!("{by}: {message}"),
            peer: self.peer.clone(),
        });
    }
}
