//! Parts as messages.

use crate::crdt::dot::{ReplicaIndex, Replicas};
use crate::crdt::frontier::{Lineage, ShortForm};
use crate::crdt::orphan_removals::OrphanRemovals;
use crate::crdt::ranges::RangeSet;
use crate::engine::rows::StoredFigures;
use crate::engine::snapshot::{Beginning, Chunk, ChunkPart, Part};
use crate::ids::Replica;
use crate::wire::replication as wire;
use crate::wire::replication::snapshot_chunk::Part as WirePart;
use crate::wire::replication::snapshot_response::Body;

pub fn write(part: Part, replicas: &Replicas) -> wire::SnapshotResponse {
    let body = match part {
        Part::Begin(beginning) => Body::Begin(write_beginning(&beginning, replicas)),
        Part::Orphans(orphans) => Body::OrphanRemovals(wire::OrphanRemovals {
            orphan_removals: write_orphans(&orphans, replicas),
        }),
        Part::Chunks(group) => {
            let chunks = group.chunks.into_iter();
            let chunks = chunks.map(|chunk| write_chunk(chunk, replicas));
            Body::Chunks(wire::SnapshotChunks {
                chunks: chunks.collect(),
                shows: Some(write_vector(group.shows.iter().copied(), replicas)),
                lineage: write_lineage(&group.lineage, replicas),
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

pub(super) fn write_replica(replica: &Replica) -> wire::Replica {
    wire::Replica {
        region: replica.region.to_string(),
        epoch: replica.epoch.to_bytes().to_vec().into(),
    }
}

pub(super) fn write_vector(
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

fn write_lineage(lineage: &Lineage, replicas: &Replicas) -> Vec<wire::Lineage> {
    let described = |(replica, predecessors): (ReplicaIndex, &ShortForm)| wire::Lineage {
        replica: Some(write_replica(replicas.id(replica))),
        predecessors: Some(write_vector(predecessors.iter().copied(), replicas)),
    };
    lineage.iter().map(described).collect()
}

fn write_orphans(orphans: &OrphanRemovals, replicas: &Replicas) -> Vec<wire::OrphanRemoval> {
    let orphans = orphans.iter();
    let orphans = orphans.map(|(dot, orphan)| wire::OrphanRemoval {
        replica: Some(write_replica(replicas.id(dot.replica))),
        seq: dot.seq,
        post: orphan.post.to_string(),
        user: orphan.user.to_string(),
    });
    orphans.collect()
}

pub(super) fn write_ranges(ranges: &RangeSet) -> Vec<u32> {
    ranges.iter().map(|range| range as u32).collect()
}

fn write_beginning(beginning: &Beginning, replicas: &Replicas) -> wire::SnapshotBegin {
    wire::SnapshotBegin {
        frontier: Some(write_vector(beginning.vector.iter(), replicas)),
        lineage: write_lineage(&beginning.lineage, replicas),
        orphan_removals: write_orphans(&beginning.orphans, replicas),
        equal: write_ranges(&beginning.equal),
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
