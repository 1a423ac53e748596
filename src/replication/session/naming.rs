//! Replicas by name, as frames say them, and by number, as this node does; and what nobody can claim of its
//! own.

use crate::crdt::dot::ReplicaIndex;
use crate::crdt::frontier::ShortForm;
use crate::ids::Replica;
use crate::replication::frame::{CloseReason, Described, Entries};
use crate::replication::session::effect::Effect;
use crate::replication::session::{Fault, Session};

impl Session {
    /// The durable frontier in the short form, with what the peer must be told to read it.
    pub(super) fn short(&mut self) -> (Entries, Described) {
        let short = self.durable.published.short.clone();
        (self.named(&short), self.describe(&short))
    }

    /// Lineage of these replicas, and of those that it names, where the peer has not been told.
    pub(super) fn describe(&mut self, entries: &[(ReplicaIndex, u64)]) -> Described {
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

    pub(super) fn named(&self, entries: &[(ReplicaIndex, u64)]) -> Entries {
        let replicas = self.knowledge.replicas();
        let named = entries.iter();
        named
            .map(|(replica, seq)| (replicas.id(*replica).clone(), *seq))
            .collect()
    }

    /// Those of the entries whose replicas have a number here.
    pub(super) fn indexed(
        &self,
        entries: &Entries,
        effects: &mut Vec<Effect>,
    ) -> Result<ShortForm, Fault> {
        self.check_claims(entries.iter(), effects)?;
        Ok(self.intern_all(entries).0)
    }

    /// The entries by number, and whether those are all: a replica that the table has no place for was never heard
    /// of otherwise, so nothing of it is here.
    pub(super) fn intern_all(&self, entries: &Entries) -> (ShortForm, bool) {
        let indexed = entries.iter();
        let indexed: ShortForm = indexed
            .filter_map(|(replica, seq)| Some((self.knowledge.intern_claimed(replica)?, *seq)))
            .collect();
        let is_whole = indexed.len() == entries.len();
        (indexed, is_whole)
    }

    pub(super) fn intern(&self, replica: &Replica) -> Result<ReplicaIndex, Fault> {
        let interned = self.knowledge.intern(replica);
        interned.map_err(|error| Fault::protocol(error.to_string()))
    }

    /// Nobody can know numbers of the running replica that it never made, unless somebody else runs
    /// under its identity.
    pub(super) fn check_claims<'a>(
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

    pub(super) fn alarm(&self, claimed: u64, made: u64, effects: &mut Vec<Effect>) -> Fault {
        effects.push(Effect::Alarm { claimed, made });
        let message = format!(
            "the peer knows events of this node's running replica up to {claimed}; it made {made}"
        );
        Fault::new(CloseReason::Alarm, message)
    }
}
