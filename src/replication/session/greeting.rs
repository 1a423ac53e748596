//! The two Hellos: who this node is, and whether the peer is who it should be.

use crate::crdt::frontier::ShortForm;
use crate::replication::frame::{CloseReason, Frame, Hello};
use crate::replication::session::effect::Effect;
use crate::replication::session::peer::Peer;
use crate::replication::session::{Fault, Session, State};

impl Session {
    pub(super) fn greet(&mut self, effects: &mut Vec<Effect>) {
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

    pub(super) fn handle_hello(
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
}
