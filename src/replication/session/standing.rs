//! How the link stands, for status.

use crate::replication::session::Session;
use crate::replication::session::effect::{Agreement, Standing};
use crate::replication::session::peer::Peer;

impl Session {
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
}
