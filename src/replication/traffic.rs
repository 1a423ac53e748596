//! What crossed in a session, both ways.

use prost::Message;

use crate::replication::session::Knowledge;
use crate::wire::replication::Frame;
use crate::wire::replication::frame::Body;

/// Bytes are those of frames, without what the connection puts around them. Events are counted as they cross,
/// known ones included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub sent_events: u64,
    pub received_events: u64,
}

impl Traffic {
    pub(super) fn note_sent(&mut self, frame: &Frame, knowledge: &impl Knowledge) {
        self.sent_bytes += frame.encoded_len() as u64;
        self.sent_events += events(frame, knowledge);
    }

    pub(super) fn note_received(&mut self, frame: &Frame, knowledge: &impl Knowledge) {
        self.received_bytes += frame.encoded_len() as u64;
        self.received_events += events(frame, knowledge);
    }
}

/// A block that cannot be read counts as none; the session refuses it.
fn events(frame: &Frame, knowledge: &impl Knowledge) -> u64 {
    match &frame.body {
        Some(Body::Events(events)) => {
            let beginning = knowledge.beginning(&events.block);
            beginning.map_or(0, |(head, _)| head.events as u64)
        }
        _ => 0,
    }
}
