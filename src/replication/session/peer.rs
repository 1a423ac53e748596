//! What is known of the peer's durable state, read from its short forms.

use std::sync::Arc;

use crate::crdt::dot::ReplicaIndex;
use crate::crdt::fingerprint::Fingerprint;
use crate::crdt::frontier::{Lineage, ShortForm};
use crate::crdt::version_vector::VersionVector;
use crate::limits::LINEAGE_ENTRIES_MAX;
use crate::replication::session::Fault;
use crate::replication::session::effect::{Knowledge, Said};

#[derive(Debug)]
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
    /// The short form that `acked` stands for; none after the Hello, which says it in full.
    short: Option<Arc<ShortForm>>,
    /// The peer's clock as it said it last with a frontier that could be read.
    at_ms: u64,
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
            short: None,
            at_ms: 0,
        }
    }

    /// Takes in what the peer said last. Returns whether it could be read, and whether it is below what
    /// was known before. A form with an unknown head changes nothing else.
    pub fn acknowledge(
        &mut self,
        short: ShortForm,
        at_ms: u64,
        knowledge: &dyn Knowledge,
    ) -> (bool, bool) {
        let full = match self.goes_on(&short) {
            true => Some(self.raised(&short)),
            false => self.expand(&short, knowledge),
        };
        let Some(full) = full else {
            return self.mumble();
        };
        let fell = !full.covers_all(&self.acked);
        self.acked = Arc::new(full);
        self.is_described = true;
        self.short = Some(Arc::new(short));
        self.at_ms = self.at_ms.max(at_ms);
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

    /// What the peer said last that could be read.
    pub fn said(&self) -> Said {
        Said {
            vector: self.acked.clone(),
            short: self.short.clone(),
            at_ms: self.at_ms,
        }
    }

    fn raised(&self, short: &ShortForm) -> VersionVector {
        let mut full = VersionVector::clone(&self.acked);
        for (replica, seq) in short {
            full.raise(*replica, *seq);
        }
        full
    }

    /// The vector that a form of the peer's stands for; none if it has a head that nobody described.
    pub fn expand(&self, short: &ShortForm, knowledge: &dyn Knowledge) -> Option<VersionVector> {
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
        let last = self.short.as_deref().map_or(&[][..], Vec::as_slice);
        let mut both = short.iter().zip(last);
        !short.is_empty()
            && short.len() == last.len()
            && both.all(|(new, old)| new.0 == old.0 && new.1 >= old.1)
    }
}
