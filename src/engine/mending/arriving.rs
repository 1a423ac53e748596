//! A range that is taken from another region.

use std::sync::Arc;

use super::MendError;
use crate::codec::block;
use crate::crdt::frontier::Frontier;
use crate::crdt::ranges::RangeSet;
use crate::engine::Engine;
use crate::engine::rebuild::{Gap, RebuiltRange};
use crate::engine::snapshot::{Chunk, ChunkPart, Course, Part};

/// A range that comes from another region, part by part.
pub struct Arriving {
    engine: Arc<Engine>,
    range: usize,
    course: Course,
    rebuilt: Option<RebuiltRange>,
}

impl Arriving {
    pub fn new(engine: Arc<Engine>, range: usize) -> Self {
        let wanted: RangeSet = [range].into_iter().collect();
        Self {
            course: Course::new(engine.clone(), wanted, RangeSet::default()),
            engine,
            range,
            rebuilt: None,
        }
    }

    /// Takes a part of the snapshot, in their order. Returns the range after the last.
    pub fn take(&mut self, part: Part) -> Result<Option<RebuiltRange>, MendError> {
        self.course.push(&part)?;
        let replicas = self.engine.replicas.all();
        match part {
            Part::Begin(beginning) => {
                let frontier = Frontier::part(&beginning.vector, &beginning.lineage);
                let rebuilt = RebuiltRange::new(self.range, self.engine.key, frontier);
                self.begun(rebuilt).add_orphans(&beginning.orphans);
            }
            Part::Orphans(orphans) => self.rebuilt()?.add_orphans(&orphans),
            Part::Chunks(chunks) => {
                let rebuilt = self.rebuilt()?;
                for Chunk { post, part } in chunks.chunks {
                    match part {
                        ChunkPart::Likers { from, to, likers } => {
                            rebuilt.add_likers(&post, (from, to), likers, &replicas);
                        }
                        ChunkPart::Figures(stored) => {
                            rebuilt.add_figures(&post, &stored, &replicas)
                        }
                    }
                }
            }
            Part::Tail(bytes) => {
                let block = block::decode(&bytes, &mut &self.engine.replicas)?;
                let replicas = self.engine.replicas.all();
                self.rebuilt()?.apply(&block, &replicas)?;
            }
            Part::End(_) => return Ok(self.rebuilt.take()),
        }
        Ok(None)
    }

    fn begun(&mut self, rebuilt: RebuiltRange) -> &mut RebuiltRange {
        self.rebuilt.insert(rebuilt)
    }

    fn rebuilt(&mut self) -> Result<&mut RebuiltRange, MendError> {
        self.rebuilt.as_mut().ok_or(Gap.into())
    }
}
