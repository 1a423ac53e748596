//! Where in the log the sending begins, and which replicas the log cannot go on with.

use std::collections::BTreeSet;

use crate::crdt::dot::ReplicaIndex;
use crate::crdt::version_vector::VersionVector;
use crate::replication::frame::Frame;
use crate::replication::session::Session;
use crate::replication::session::effect::{Effect, LogSurvey};

impl Session {
    pub(super) fn handle_survey(&mut self, survey: &LogSurvey, effects: &mut Vec<Effect>) {
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
}
