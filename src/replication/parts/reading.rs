//! Messages as parts.

use std::collections::HashSet;

use crate::codec::DecodeError;
use crate::codec::vector::Intern;
use crate::crdt::dot::{Dot, Dots, ReplicaIndex};
use crate::crdt::fingerprint::RANGES;
use crate::crdt::frontier::{Lineage, ShortForm};
use crate::crdt::orphan_removals::OrphanRemovals;
use crate::crdt::pn_counter::CounterEntry;
use crate::crdt::ranges::RangeSet;
use crate::engine::rows::StoredFigures;
use crate::engine::snapshot::{Beginning, Chunk, ChunkPart, Chunks, Ending, Part};
use crate::ids::{CounterName, Epoch, IdError, PostId, Region, Replica, UserId};
use crate::limits::{BLOCK_BYTES_MAX, REMOVED_DOTS_MAX, REPLICAS_MAX, SNAPSHOT_ORPHANS_MAX};
use crate::wire::replication as wire;
use crate::wire::replication::snapshot_chunk::Part as WirePart;
use crate::wire::replication::snapshot_response::Body;

pub fn read(
    response: wire::SnapshotResponse,
    intern: &mut dyn Intern,
) -> Result<Part, DecodeError> {
    match response.body {
        Some(Body::Begin(begin)) => Ok(Part::Begin(Box::new(read_beginning(begin, intern)?))),
        Some(Body::Chunks(group)) => Ok(Part::Chunks(read_chunks(group, intern)?)),
        Some(Body::TailBlock(block)) if block.len() <= BLOCK_BYTES_MAX => Ok(Part::Tail(block)),
        Some(Body::TailBlock(_)) => Err(invalid("tail block")),
        Some(Body::OrphanRemovals(more)) => {
            Ok(Part::Orphans(read_orphans(more.orphan_removals, intern)?))
        }
        Some(Body::End(end)) => Ok(Part::End(Ending {
            vector: read_vector(end.frontier, intern)?.into_iter().collect(),
            chunks: end.chunks,
            blocks: end.blocks,
        })),
        None => Err(invalid("part of a snapshot")),
    }
}

/// In a message there is no offset to speak of.
pub(super) fn invalid(what: &'static str) -> DecodeError {
    DecodeError::Invalid { what, at: 0 }
}

pub(super) fn id<T>(what: &'static str, checked: Result<T, IdError>) -> Result<T, DecodeError> {
    checked.map_err(|source| DecodeError::Id {
        what,
        at: 0,
        source,
    })
}

fn read_replica(
    replica: Option<wire::Replica>,
    intern: &mut dyn Intern,
) -> Result<ReplicaIndex, DecodeError> {
    let replica = replica.ok_or(invalid("replica"))?;
    let epoch = replica
        .epoch
        .as_ref()
        .try_into()
        .map_err(|_| invalid("epoch"))?;
    intern.intern(&Replica {
        region: id("region", Region::new(&replica.region))?,
        epoch: Epoch::from_bytes(epoch),
    })
}

pub(super) fn read_vector(
    vector: Option<wire::VersionVector>,
    intern: &mut dyn Intern,
) -> Result<ShortForm, DecodeError> {
    let what = "version vector";
    let vector = vector.ok_or(invalid(what))?;
    if vector.replicas.len() != vector.seqs.len() || vector.seqs.len() > REPLICAS_MAX {
        return Err(invalid(what));
    }
    let mut seen = HashSet::new();
    let mut entries = ShortForm::with_capacity(vector.seqs.len());
    for (replica, seq) in vector.replicas.into_iter().zip(vector.seqs) {
        let replica = read_replica(Some(replica), intern)?;
        if seq == 0 || !seen.insert(replica) {
            return Err(invalid(what));
        }
        entries.push((replica, seq));
    }
    Ok(entries)
}

fn read_lineage(
    described: Vec<wire::Lineage>,
    intern: &mut dyn Intern,
) -> Result<Lineage, DecodeError> {
    let mut lineage = Lineage::default();
    for one in described {
        let replica = read_replica(one.replica, intern)?;
        lineage.insert(replica, read_vector(one.predecessors, intern)?);
    }
    Ok(lineage)
}

fn read_orphans(
    orphans: Vec<wire::OrphanRemoval>,
    intern: &mut dyn Intern,
) -> Result<OrphanRemovals, DecodeError> {
    if orphans.len() > SNAPSHOT_ORPHANS_MAX {
        return Err(DecodeError::OverLimit {
            what: "orphan removals",
            at: 0,
            found: orphans.len() as u64,
            max: SNAPSHOT_ORPHANS_MAX as u64,
        });
    }
    let mut read = OrphanRemovals::default();
    for orphan in orphans {
        let dot = Dot {
            replica: read_replica(orphan.replica, intern)?,
            seq: orphan.seq,
        };
        let post = id("post", PostId::new(&orphan.post))?;
        let user = id("user", UserId::new(&orphan.user))?;
        if dot.seq == 0 || !read.insert(dot, &post, &user) {
            return Err(invalid("orphan removal"));
        }
    }
    Ok(read)
}

fn read_beginning(
    begin: wire::SnapshotBegin,
    intern: &mut dyn Intern,
) -> Result<Beginning, DecodeError> {
    Ok(Beginning {
        vector: read_vector(begin.frontier, intern)?.into_iter().collect(),
        lineage: read_lineage(begin.lineage, intern)?,
        orphans: read_orphans(begin.orphan_removals, intern)?,
        equal: read_ranges(&begin.equal)?,
    })
}

fn read_chunks(
    group: wire::SnapshotChunks,
    intern: &mut dyn Intern,
) -> Result<Chunks, DecodeError> {
    let mut chunks = Vec::with_capacity(group.chunks.len());
    for chunk in group.chunks {
        chunks.push(read_chunk(chunk, intern)?);
    }
    Ok(Chunks {
        chunks,
        shows: read_vector(group.shows, intern)?,
        lineage: read_lineage(group.lineage, intern)?,
    })
}

fn read_chunk(chunk: wire::SnapshotChunk, intern: &mut dyn Intern) -> Result<Chunk, DecodeError> {
    let replicas = chunk
        .replicas
        .into_iter()
        .map(|replica| read_replica(Some(replica), intern));
    let replicas: Vec<ReplicaIndex> = replicas.collect::<Result<_, _>>()?;
    let part = match chunk.part.ok_or(invalid("chunk"))? {
        WirePart::Likers(likers) => read_likers(likers, &replicas)?,
        WirePart::Figures(figures) => ChunkPart::Figures(read_figures(figures, &replicas)?),
    };
    Ok(Chunk {
        post: id("post", PostId::new(&chunk.post))?,
        part,
    })
}

fn at(replicas: &[ReplicaIndex], place: u32) -> Result<ReplicaIndex, DecodeError> {
    replicas
        .get(place as usize)
        .copied()
        .ok_or(invalid("replica of a chunk"))
}

fn read_likers(
    likers: wire::ChunkLikers,
    replicas: &[ReplicaIndex],
) -> Result<ChunkPart, DecodeError> {
    let what = "likers of a chunk";
    let (from, to) = (likers.from_hash, likers.to_hash);
    let mut read = Vec::with_capacity(likers.likers.len());
    let mut seen = HashSet::new();
    for liker in likers.likers {
        let user = id("user", UserId::new(&liker.user))?;
        let mut dots = Dots::new();
        for dot in liker.dots {
            let dot = Dot {
                replica: at(replicas, dot.replica)?,
                seq: dot.seq,
            };
            if dot.seq == 0 || dots.contains(&dot) || dots.len() >= REMOVED_DOTS_MAX {
                return Err(invalid(what));
            }
            dots.push(dot);
        }
        if dots.is_empty() || !seen.insert(user.clone()) {
            return Err(invalid(what));
        }
        read.push((user, dots));
    }
    if from > to {
        return Err(invalid(what));
    }
    Ok(ChunkPart::Likers {
        from,
        to,
        likers: read,
    })
}

fn read_figures(
    figures: wire::ChunkFigures,
    replicas: &[ReplicaIndex],
) -> Result<StoredFigures, DecodeError> {
    let mut read = StoredFigures {
        updated_at_ms: figures.updated_at_ms,
        ..StoredFigures::default()
    };
    for entry in figures.likes {
        read.likes
            .push((at(replicas, entry.replica)?, entry.increments));
    }
    for counter in figures.counters {
        let name = id("counter", CounterName::new(&counter.counter))?;
        let entries = counter.entries.into_iter().map(|entry| {
            Ok::<_, DecodeError>(CounterEntry {
                replica: at(replicas, entry.replica)?,
                increments: entry.increments,
                decrements: entry.decrements,
            })
        });
        read.counters
            .push((name, entries.collect::<Result<_, _>>()?));
    }
    Ok(read)
}

pub(super) fn read_ranges(ranges: &[u32]) -> Result<RangeSet, DecodeError> {
    match ranges.iter().all(|range| (*range as usize) < RANGES) {
        true => Ok(ranges.iter().map(|range| *range as usize).collect()),
        false => Err(invalid("range")),
    }
}
