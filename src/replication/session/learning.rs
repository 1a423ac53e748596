//! What the peer says of its frontier, and what follows for the sending.

use crate::replication::frame::{Acknowledge, Described, Entries};
use crate::replication::session::effect::Effect;
use crate::replication::session::peer::Peer;
use crate::replication::session::{Fault, Session};

impl Session {
    pub(super) fn handle_acknowledge(
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

    /// Takes in a frontier in the short form. Returns whether it could be read, and whether it is below
    /// what was known before.
    pub(super) fn learn(
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

    pub(super) fn learn_lineage(&self, peer: &mut Peer, lineage: Described) -> Result<(), Fault> {
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
    pub(super) fn follow(&mut self, fell: bool, effects: &mut Vec<Effect>) {
        let peer = self.peer.as_ref().expect("open");
        if fell || self.sending.is_reached(&peer.acked) {
            self.sending.reset(effects);
        }
    }
}
