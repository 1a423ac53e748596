//! What is known of the peer's durable state, read from its short forms.

use std::sync::Arc;

use crate::crdt::dot::ReplicaIndex;
use crate::crdt::fingerprint::Fingerprint;
use crate::crdt::frontier::{Lineage, ShortForm};
use crate::crdt::version_vector::VersionVector;
use crate::limits::LINEAGE_ENTRIES_MAX;
use crate::replication::session::Fault;
use crate::replication::session::effect::Knowledge;

pub(super) struct Peer {
    pub index: ReplicaIndex,
    /// The newest durable frontier of the peer that could be read, in full.
    pub acked: Arc<VersionVector>,
    /// Whether `acked` is the last that the peer said.
    pub is_described: bool,
    /// Of the state under `acked`, where the peer said it.
    pub fingerprint: Option<Fingerprint>,
    /// Lineage that the peer told in this session.
    pub learned: Lineage,
    learned_entries: usize,
    /// The short form that `acked` stands for; empty after the Hello, which says it in full.
    short: ShortForm,
}

impl Peer {
    pub fn new(index: ReplicaIndex, frontier: VersionVector) -> Self {
        Self {
            index,
            acked: Arc::new(frontier),
            is_described: true,
            fingerprint: None,
            learned: Lineage::default(),
            learned_entries: 0,
            short: ShortForm::new(),
        }
    }

    /// Takes in what the peer said last. Returns whether it could be read, and whether it is below what
    /// was known before. A form with an unknown head changes nothing else.
    pub fn acknowledge(&mut self, short: ShortForm, knowledge: &dyn Knowledge) -> (bool, bool) {
        let Some(full) = self.expand(&short, knowledge) else {
            return self.mumble();
        };
        let fell = !full.covers_all(&self.acked);
        self.acked = Arc::new(full);
        self.is_described = true;
        self.short = short;
        (true, fell)
    }

    /// The peer said what cannot be read. Returns what [`Peer::acknowledge`] does then.
    pub fn mumble(&mut self) -> (bool, bool) {
        self.is_described = false;
        self.fingerprint = None;
        (false, false)
    }

    /// Takes in the predecessors of a replica. Refused where they are more than any history makes.
    pub fn learn(&mut self, replica: ReplicaIndex, predecessors: ShortForm) -> Result<(), Fault> {
        self.learned_entries += 1 + predecessors.len();
        if self.learned_entries > LINEAGE_ENTRIES_MAX {
            let message = format!("more than {LINEAGE_ENTRIES_MAX} entries of lineage");
            return Err(Fault::protocol(message));
        }
        self.learned.insert(replica, predecessors);
        Ok(())
    }

    fn expand(&self, short: &ShortForm, knowledge: &dyn Knowledge) -> Option<VersionVector> {
        if self.goes_on(short) {
            let mut full = VersionVector::clone(&self.acked);
            for (replica, seq) in short {
                full.raise(*replica, *seq);
            }
            return Some(full);
        }
        let mut full = VersionVector::default();
        let mut open = short.clone();
        while let Some((replica, seq)) = open.pop() {
            if full.get(replica) == 0 {
                match self.learned.get(replica) {
                    Some(predecessors) => open.extend(predecessors),
                    None => open.extend(knowledge.predecessors(replica)?),
                }
            }
            full.raise(replica, seq);
        }
        Some(full)
    }

    /// Whether the form has the entries of the last one with higher numbers: then it implies the same
    /// besides them, and nobody's lineage need be walked.
    fn goes_on(&self, short: &ShortForm) -> bool {
        let mut both = short.iter().zip(&self.short);
        !short.is_empty()
            && short.len() == self.short.len()
            && both.all(|(new, old)| new.0 == old.0 && new.1 >= old.1)
    }
}
