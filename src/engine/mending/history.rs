//! What checkpoint and log say of a range.

use super::{MendError, Mender};
use crate::codec::block;
use crate::codec::reader::Reader;
use crate::codec::vector::frontier;
use crate::crdt::dot::Dot;
use crate::crdt::frontier::Frontier;
use crate::crdt::version_vector::VersionVector;
use crate::engine::published::Published;
use crate::engine::rebuild::{Gap, RebuiltRange};
use crate::engine::record;
use crate::engine::rows::{self, RowError};
use crate::engine::stored::StoredPost;
use crate::ids::{PostId, UserId};
use crate::log::Position;

/// Bytes of log that are read at a time.
const LOG_BYTES_AT_ONCE: usize = 1 << 20;

impl Mender {
    /// The range as the last checkpoint and the log up to now have it, and where to read on.
    pub(super) async fn rebuilt(
        &self,
        range: usize,
    ) -> Result<(RebuiltRange, Position), MendError> {
        let (mut rebuilt, from) = self.beginning(range).await?;
        let mut add = |id: PostId, stored: StoredPost| {
            let replicas = self.engine.replicas.all();
            let (figures, buckets) = stored.into_parts();
            rebuilt.add_figures(&id, &figures, &replicas);
            for (range, likers) in buckets {
                rebuilt.add_likers(&id, range, likers, &replicas);
            }
        };
        let damaged = self.read_range(range, &mut add).await?;
        if let Some((_, error)) = damaged.into_iter().next() {
            return Err(error.into());
        }
        let next = self.replay(&mut rebuilt, from, self.log.synced()).await?;
        Ok((rebuilt, next))
    }

    /// The instant of the last checkpoint, and where replay begins.
    async fn beginning(&self, range: usize) -> Result<(RebuiltRange, Position), MendError> {
        let key = self.engine.key;
        let Some(row) = self.store.get(rows::META_KEY).await? else {
            return Ok((
                RebuiltRange::new(range, key, Frontier::default()),
                Position::START,
            ));
        };
        let meta = rows::decode_meta(&row)?;
        let mut reader = Reader::new(&meta.frontier);
        let frontier = frontier(&mut reader, &mut &self.engine.replicas)?;
        let mut rebuilt = RebuiltRange::new(range, key, frontier);
        for row in &meta.orphans {
            let replica = row.replica.replica()?;
            let replica = self.engine.replicas.intern(&replica)?;
            let dot = Dot {
                seq: row.seq,
                replica,
            };
            let post = PostId::new(&row.post).map_err(RowError::from)?;
            let user = UserId::new(&row.user).map_err(RowError::from)?;
            rebuilt.add_orphan(dot, &post, &user);
        }
        Ok((rebuilt, Position(meta.replay_from)))
    }

    /// Applies the log from a position up to `to`. Returns where to read on.
    pub(super) async fn replay(
        &self,
        rebuilt: &mut RebuiltRange,
        from: Position,
        to: Position,
    ) -> Result<Position, MendError> {
        let mut next = from;
        while next < to {
            let chunk = self.log.read(next, LOG_BYTES_AT_ONCE).await?;
            for read in &chunk.records {
                for bytes in record::blocks(&read.payload)? {
                    let block = block::decode(&bytes, &mut &self.engine.replicas)?;
                    rebuilt.apply(&block, &self.engine.replicas.all())?;
                }
            }
            next = chunk.next;
            tokio::task::yield_now().await;
        }
        Ok(next)
    }

    /// The last bit, under the freeze: afterwards all is there that memory shows of the range.
    pub(super) async fn follow(
        &self,
        rebuilt: &mut RebuiltRange,
        next: Position,
        published: &Published,
    ) -> Result<(), MendError> {
        self.replay(rebuilt, next, published.position).await?;
        match rebuilt.frontier.vector().covers_all(&published.vector) {
            true => Ok(()),
            false => Err(Gap.into()),
        }
    }

    /// Where to begin so that everything beyond a vector is read.
    pub(super) fn log_before(&self, vector: &VersionVector) -> Option<Position> {
        let segments = self.log.segments().into_iter().rev();
        let mut covered = segments.filter(|segment| {
            let context = self.engine.read_context(&segment.context);
            context.is_some_and(|context| vector.covers_all(&context))
        });
        covered.next().map(|segment| segment.base)
    }
}
