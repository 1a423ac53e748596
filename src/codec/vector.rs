//! Version vectors with their replicas and lineage, for the log and the checkpoint.

use std::collections::HashSet;

use crate::codec::reader::{DecodeError, Reader, put_replica, put_varint};
use crate::crdt::dot::{ReplicaIndex, Replicas};
use crate::crdt::frontier::{Frontier, Lineage, ShortForm};
use crate::crdt::version_vector::VersionVector;
use crate::ids::Replica;
use crate::limits::REPLICAS_MAX;

/// Gives numbers to replicas that were read. Bounded, for a peer could invent any number of them.
pub trait Intern {
    fn intern(&mut self, replica: &Replica) -> Result<ReplicaIndex, DecodeError>;
}

impl Intern for Replicas {
    fn intern(&mut self, replica: &Replica) -> Result<ReplicaIndex, DecodeError> {
        if self.get(replica).is_none() && self.len() >= REPLICAS_MAX {
            return Err(DecodeError::TooManyReplicas { max: REPLICAS_MAX });
        }
        Ok(Self::intern(self, replica))
    }
}

/// Writes entries of a vector.
pub fn put_entries(out: &mut Vec<u8>, replicas: &Replicas, entries: &[(ReplicaIndex, u64)]) {
    put_varint(out, entries.len() as u64);
    for (replica, seq) in entries {
        put_replica(out, replicas.id(*replica));
        put_varint(out, *seq);
    }
}

/// Reads entries of a vector.
pub fn entries(
    reader: &mut Reader<'_>,
    max: usize,
    intern: &mut dyn Intern,
) -> Result<ShortForm, DecodeError> {
    let count = reader.count("number of replicas", max)?;
    let mut entries = ShortForm::with_capacity(count);
    let mut seen = HashSet::new();
    for _ in 0..count {
        let replica = reader.replica()?;
        let at = reader.position();
        let seq = reader.varint("number of an event")?;
        let known = intern.intern(&replica)?;
        if seq == 0 || !seen.insert(known) {
            let what = "entry of a version vector";
            return Err(DecodeError::Invalid { what, at });
        }
        entries.push((known, seq));
    }
    Ok(entries)
}

/// Writes a frontier in full, with its lineage.
pub fn put_frontier(out: &mut Vec<u8>, replicas: &Replicas, frontier: &Frontier) {
    let full: Vec<_> = frontier.vector().iter().collect();
    put_entries(out, replicas, &full);
    let lineage = frontier.lineage();
    let known: Vec<_> = full
        .iter()
        .filter_map(|(replica, _)| Some((*replica, lineage.get(*replica)?)))
        .collect();
    put_varint(out, known.len() as u64);
    for (replica, predecessors) in known {
        put_replica(out, replicas.id(replica));
        put_entries(out, replicas, predecessors);
    }
}

/// Reads a frontier.
pub fn frontier(reader: &mut Reader<'_>, intern: &mut dyn Intern) -> Result<Frontier, DecodeError> {
    let full = entries(reader, REPLICAS_MAX, intern)?;
    let vector: VersionVector = full.into_iter().collect();
    let mut lineage = Lineage::default();
    let count = reader.count("number of replicas with lineage", REPLICAS_MAX)?;
    for _ in 0..count {
        let replica = reader.replica()?;
        let replica = intern.intern(&replica)?;
        lineage.insert(replica, entries(reader, REPLICAS_MAX, intern)?);
    }
    let mut frontier = Frontier::default();
    frontier.raise(&vector, &lineage);
    Ok(frontier)
}
