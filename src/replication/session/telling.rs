//! What the peer is told of this node: its durable frontier, what came of the peer's frames, and what third
//! replicas said; when something of it is new, and as a sign of life.

use std::sync::Arc;

use crate::engine::published::Published;
use crate::replication::frame::{Acknowledge, Frame};
use crate::replication::session::Session;
use crate::replication::session::effect::Effect;

/// The least time between two acknowledgements: what happens meanwhile shares one.
const ACKNOWLEDGE_PAUSE_MS: u64 = 5;
/// The least time where the peer waits for nothing: of what came from others it need not hear at once. Between
/// many regions these are nearly all, for every write is durable in each of them, and each would tell all.
const FRONTIER_PAUSE_MS: u64 = 50;

/// What was last told the peer.
#[derive(Debug, Default)]
pub(super) struct Told {
    at_ms: u64,
    frame: u64,
    durable: Option<Arc<Published>>,
}

impl Session {
    pub(super) fn tell_due_ms(&self) -> u64 {
        let told = self.told.durable.as_ref();
        let is_told = told.is_some_and(|told| Arc::ptr_eq(told, &self.durable.published));
        let pause = if self.told.frame != self.receiving.dealt() || self.passing.is_due() {
            ACKNOWLEDGE_PAUSE_MS
        } else if !is_told {
            FRONTIER_PAUSE_MS.min(self.settings.heartbeat_ms)
        } else {
            self.settings.heartbeat_ms
        };
        self.told.at_ms + pause
    }

    pub(super) fn tell(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
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
}
