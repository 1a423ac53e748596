//! Parts of a snapshot ↔ the peers' protocol. What a peer sent is checked here.

use std::collections::HashSet;

use crate::codec::DecodeError;
use crate::codec::vector::Intern;
use crate::crdt::dot::{Dot, Dots, ReplicaIndex, Replicas};
use crate::crdt::frontier::{Lineage, ShortForm};
use crate::crdt::orphan_removals::OrphanRemovals;
use crate::crdt::pn_counter::CounterEntry;
use crate::crdt::version_vector::VersionVector;
use crate::engine::rows::StoredFigures;
use crate::engine::snapshot::{Beginning, Chunk, ChunkPart, Ending, Part};
use crate::ids::{CounterName, Epoch, IdError, PostId, Region, Replica, UserId};
use crate::limits::{BLOCK_BYTES_MAX, REMOVED_DOTS_MAX, REPLICAS_MAX};
use crate::wire::replication as wire;
use crate::wire::replication::snapshot_chunk::Part as WirePart;
use crate::wire::replication::snapshot_response::Body;

pub fn write(part: Part, replicas: &Replicas) -> wire::SnapshotResponse {
    let body = match part {
        Part::Begin(beginning) => Body::Begin(write_beginning(&beginning, replicas)),
        Part::Chunks(chunks) => {
            let chunks = chunks.into_iter().map(|chunk| write_chunk(chunk, replicas));
            Body::Chunks(wire::SnapshotChunks {
                chunks: chunks.collect(),
                ..wire::SnapshotChunks::default()
            })
        }
        Part::Tail(block) => Body::TailBlock(block),
        Part::End(ending) => Body::End(wire::SnapshotEnd {
            frontier: Some(write_vector(ending.vector.iter(), replicas)),
            chunks: ending.chunks,
            blocks: ending.blocks,
        }),
    };
    wire::SnapshotResponse { body: Some(body) }
}

fn write_replica(replica: &Replica) -> wire::Replica {
    wire::Replica {
        region: replica.region.to_string(),
        epoch: replica.epoch.to_bytes().to_vec().into(),
    }
}

fn write_vector(
    entries: impl Iterator<Item = (ReplicaIndex, u64)>,
    replicas: &Replicas,
) -> wire::VersionVector {
    let (ids, seqs) = entries
        .map(|(replica, seq)| (write_replica(replicas.id(replica)), seq))
        .unzip();
    wire::VersionVector {
        replicas: ids,
        seqs,
    }
}

fn write_beginning(beginning: &Beginning, replicas: &Replicas) -> wire::SnapshotBegin {
    let lineage = beginning
        .lineage
        .iter()
        .map(|(replica, predecessors)| wire::Lineage {
            replica: Some(write_replica(replicas.id(replica))),
            predecessors: Some(write_vector(predecessors.iter().copied(), replicas)),
        });
    let orphans = beginning
        .orphans
        .iter()
        .map(|(dot, orphan)| wire::OrphanRemoval {
            replica: Some(write_replica(replicas.id(dot.replica))),
            seq: dot.seq,
            post: orphan.post.to_string(),
            user: orphan.user.to_string(),
        });
    wire::SnapshotBegin {
        frontier: Some(write_vector(beginning.vector.iter(), replicas)),
        lineage: lineage.collect(),
        orphan_removals: orphans.collect(),
        retired: beginning
            .retired
            .iter()
            .map(|replica| write_replica(replicas.id(*replica)))
            .collect(),
        ..wire::SnapshotBegin::default()
    }
}

/// Replicas that a chunk speaks of, by their place in it.
#[derive(Default)]
struct Places {
    known: Vec<ReplicaIndex>,
}

impl Places {
    fn of(&mut self, replica: ReplicaIndex) -> u32 {
        let known = self.known.iter().position(|other| *other == replica);
        let place = known.unwrap_or_else(|| {
            self.known.push(replica);
            self.known.len() - 1
        });
        place as u32
    }
}

fn write_chunk(chunk: Chunk, replicas: &Replicas) -> wire::SnapshotChunk {
    let mut places = Places::default();
    let part = match chunk.part {
        ChunkPart::Likers { from, to, likers } => {
            let likers = likers.into_iter().map(|(user, dots)| wire::ChunkLiker {
                user: user.to_string(),
                dots: dots
                    .iter()
                    .map(|dot| wire::ChunkDot {
                        replica: places.of(dot.replica),
                        seq: dot.seq,
                    })
                    .collect(),
            });
            WirePart::Likers(wire::ChunkLikers {
                from_hash: from,
                to_hash: to,
                likers: likers.collect(),
            })
        }
        ChunkPart::Figures(figures) => WirePart::Figures(write_figures(figures, &mut places)),
    };
    wire::SnapshotChunk {
        post: chunk.post.to_string(),
        replicas: places
            .known
            .iter()
            .map(|known| write_replica(replicas.id(*known)))
            .collect(),
        part: Some(part),
    }
}

fn write_figures(figures: StoredFigures, places: &mut Places) -> wire::ChunkFigures {
    let likes = figures
        .likes
        .iter()
        .map(|(replica, increments)| wire::ChunkEntry {
            replica: places.of(*replica),
            increments: *increments,
            decrements: 0,
        });
    let likes = likes.collect();
    let counters = figures
        .counters
        .into_iter()
        .map(|(counter, entries)| wire::ChunkCounter {
            counter: counter.to_string(),
            entries: entries
                .iter()
                .map(|entry| wire::ChunkEntry {
                    replica: places.of(entry.replica),
                    increments: entry.increments,
                    decrements: entry.decrements,
                })
                .collect(),
        });
    wire::ChunkFigures {
        likes,
        counters: counters.collect(),
        updated_at_ms: figures.updated_at_ms,
    }
}

pub fn read(
    response: wire::SnapshotResponse,
    intern: &mut dyn Intern,
) -> Result<Part, DecodeError> {
    match response.body {
        Some(Body::Begin(begin)) => Ok(Part::Begin(Box::new(read_beginning(begin, intern)?))),
        Some(Body::Chunks(chunks)) => {
            let chunks = chunks.chunks.into_iter();
            let chunks = chunks.map(|chunk| read_chunk(chunk, intern));
            Ok(Part::Chunks(chunks.collect::<Result<_, _>>()?))
        }
        Some(Body::TailBlock(block)) if block.len() <= BLOCK_BYTES_MAX => Ok(Part::Tail(block)),
        Some(Body::TailBlock(_)) => Err(invalid("tail block")),
        Some(Body::OrphanRemovals(_)) => Err(invalid("orphan removals")),
        Some(Body::End(end)) => Ok(Part::End(Ending {
            vector: read_vector(end.frontier, intern)?.into_iter().collect(),
            chunks: end.chunks,
            blocks: end.blocks,
        })),
        None => Err(invalid("part of a snapshot")),
    }
}

/// In a message there is no offset to speak of.
fn invalid(what: &'static str) -> DecodeError {
    DecodeError::Invalid { what, at: 0 }
}

fn id<T>(what: &'static str, checked: Result<T, IdError>) -> Result<T, DecodeError> {
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

fn read_vector(
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

fn read_beginning(
    begin: wire::SnapshotBegin,
    intern: &mut dyn Intern,
) -> Result<Beginning, DecodeError> {
    let vector: VersionVector = read_vector(begin.frontier, intern)?.into_iter().collect();
    let mut lineage = Lineage::default();
    for described in begin.lineage {
        let replica = read_replica(described.replica, intern)?;
        lineage.insert(replica, read_vector(described.predecessors, intern)?);
    }
    let mut orphans = OrphanRemovals::default();
    for orphan in begin.orphan_removals {
        let dot = Dot {
            replica: read_replica(orphan.replica, intern)?,
            seq: orphan.seq,
        };
        let post = id("post", PostId::new(&orphan.post))?;
        let user = id("user", UserId::new(&orphan.user))?;
        if dot.seq == 0 || vector.covers(dot) || !orphans.insert(dot, &post, &user) {
            return Err(invalid("orphan removal"));
        }
    }
    let mut retired = Vec::with_capacity(begin.retired.len().min(REPLICAS_MAX));
    for replica in begin.retired {
        retired.push(read_replica(Some(replica), intern)?);
    }
    Ok(Beginning {
        vector,
        lineage,
        orphans,
        retired,
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
