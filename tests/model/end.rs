//! One end of a session: the real machine over a real engine and its log, and the frames that it has sent.

use std::collections::VecDeque;
use std::sync::Arc;

use likewise::engine::commit::CommitWait;
use likewise::engine::remote::Applied;
use likewise::log::LogReader;
use likewise::replication::knowledge::{durable, read_log, survey, verdict};
use likewise::replication::session::{Effect, Input, Knowledge, Session, Settings};
use likewise::replication::trust::AllowedRegions;
use likewise::versions::Dialect;
use likewise::wire::frames::{read_frame, write_frame};
use prost::Message as _;

use crate::support::Node;

/// News of others' events is passed on after this.
pub const RELAY_AFTER_MS: u64 = 10;

fn settings(node: &Node) -> Settings {
    Settings {
        cluster: node.engine.cluster().clone(),
        protocol: Dialect::default().protocol,
        expected_region: None,
        certified_region: None,
        regions: AllowedRegions::default(),
        heartbeat_ms: 60_000,
        silence_ms: 600_000,
        relay_after_ms: RELAY_AFTER_MS,
        audit_round_ms: 600_000,
        window_bytes: 4_096,
        block_bytes: 512,
    }
}

/// See the module.
pub struct End {
    engine: Arc<likewise::engine::Engine>,
    log: LogReader,
    session: Session,
    /// Frames on their way to the other end, as they travel.
    pub sent: VecDeque<Vec<u8>>,
    /// Blocks that are applied and not durable, in their order.
    undurable: VecDeque<(u64, CommitWait)>,
    pub ended: Option<String>,
}

impl End {
    pub async fn begin(node: &Node, now_ms: u64) -> Self {
        let engine = node.engine.clone();
        let knowledge: Arc<dyn Knowledge> = engine.clone();
        let mut end = Self {
            session: Session::new(settings(node), knowledge, durable(&engine), now_ms),
            engine,
            log: node.reader.clone(),
            sent: VecDeque::new(),
            undurable: VecDeque::new(),
            ended: None,
        };
        end.feed(Input::Start, now_ms).await;
        end
    }

    /// Whether something of the peer is applied and not durable.
    pub fn has_unsynced(&self) -> bool {
        !self.undurable.is_empty()
    }

    /// Whether the next frame may be handed over.
    pub fn wants_frames(&self) -> bool {
        self.session.wants_frames()
    }

    pub async fn receive(&mut self, frame: &[u8], now_ms: u64) {
        let frame = likewise::wire::replication::Frame::decode(frame).expect("it was encoded");
        let input = match read_frame(Some(frame), &Dialect::default()) {
            Ok(frame) => Input::Frame(frame),
            Err(bad) => Input::BadFrame(bad),
        };
        self.feed(input, now_ms).await;
    }

    /// What has become durable, and what time brings.
    pub async fn look(&mut self, now_ms: u64) {
        self.feed(Input::Published(durable(&self.engine)), now_ms)
            .await;
        while let Some((_, wait)) = self.undurable.front_mut() {
            let std::task::Poll::Ready(committed) = futures_util::poll!(wait) else {
                break;
            };
            let (frame, _) = self.undurable.pop_front().expect("it is there");
            match committed {
                Ok(_) => self.feed(Input::Durable { frame }, now_ms).await,
                Err(error) => self.ended = Some(error.to_string()),
            }
        }
        if self.session.deadline_ms() <= now_ms {
            self.feed(Input::Tick, now_ms).await;
        }
    }

    async fn feed(&mut self, input: Input, now_ms: u64) {
        let mut inputs = VecDeque::from([input]);
        let mut effects = Vec::new();
        while let Some(input) = inputs.pop_front() {
            self.session.handle(input, now_ms, &mut effects);
            for effect in std::mem::take(&mut effects) {
                inputs.extend(self.perform(effect).await);
            }
        }
    }

    async fn perform(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Send(frame) => self.sent.push_back(write_frame(&frame).encode_to_vec()),
            Effect::SurveyLog => {
                let survey = survey(&self.engine, &self.log).expect("the log can be read");
                return Some(Input::Survey(survey));
            }
            Effect::ReadLog {
                generation,
                from,
                bytes_max,
            } => {
                let result = read_log(&self.log, self.engine.replicas(), from, bytes_max).await;
                return Some(Input::LogRead { generation, result });
            }
            Effect::Apply { frame, block } => {
                let applied = self.engine.apply_remote(&block);
                let verdict = verdict(&applied);
                if let Ok(Applied::New(wait)) = applied {
                    self.undurable.push_back((frame, wait));
                }
                return Some(Input::Applied(verdict));
            }
            Effect::Alarm { .. } => {
                self.engine.rotate_epoch();
            }
            Effect::Close { reason, message } | Effect::ClosedByPeer { reason, message } => {
                self.ended = Some(format!("{reason:?}: {message}"));
            }
            Effect::WantSnapshot { .. } => unreachable!("no log is cut"),
            Effect::Greeted { .. }
            | Effect::Acknowledged(_)
            | Effect::Heard(_)
            | Effect::Compared(_) => {}
        }
        None
    }

    /// All that decides what this end does next.
    pub fn told(&self) -> String {
        let undurable: Vec<u64> = self.undurable.iter().map(|(frame, _)| *frame).collect();
        format!("{:?} {undurable:?} {:?}", self.session, self.ended)
    }
}
