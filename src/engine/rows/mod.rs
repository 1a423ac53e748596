//! Rows of the checkpoint store: what posts look like on disk, and the metadata.
//!
//! A row is a format byte, a CRC-32 of what follows, and a bincode body; this is the one module that
//! names bincode. A small post stands whole in a pack, with others whose hashes are near; a larger one has
//! rows of its own: its figures, and its likers by buckets. A row holds everything from the hash in its
//! key to the hash before the next row of its kind, whatever else may stand in it. So what was split is
//! stored upper part first, and no order of crashes loses the lower or the upper one.

mod keys;
mod meta;
mod posts;
#[cfg(test)]
mod tests;

use bincode::Options;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::DecodeError;
use crate::crdt::dot::{ReplicaIndex, Replicas};
use crate::engine::replicas::ReplicaTable;
use crate::ids::{Epoch, IdError, Region, Replica};
use crate::versions::CHECKPOINT_FORMAT;

pub use keys::{
    META_KEY, PostKey, SHOWS_KEY, figures_key, likers_key, pack_key, post_key, range_prefix,
};
pub use meta::{
    MetaRow, OrphanRow, RequestRow, decode_meta, decode_shows, encode_meta, encode_shows,
};
pub use posts::{
    PackedPost, StoredFigures, decode_figures, decode_likers, decode_pack, encode_figures,
    encode_likers, encode_pack,
};

/// Bytes of one row; far above what buckets and tables of limited size need.
const ROW_BYTES_MAX: u64 = 1 << 30;

/// Why a row was refused.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    #[error("the checksum does not fit")]
    Checksum,
    #[error("it has format {found}; this build reads {CHECKPOINT_FORMAT}")]
    Format { found: u8 },
    #[error("it is garbled: {0}")]
    Garbled(#[from] bincode::Error),
    #[error("it holds an id that {0}")]
    Id(#[from] IdError),
    #[error("it is garbled: {0}")]
    Decode(#[from] DecodeError),
    #[error("it speaks of a replica that it does not name")]
    UnknownReplica,
    #[error("its key means nothing")]
    Key,
}

#[derive(Serialize, Deserialize)]
pub struct ReplicaRow {
    region: String,
    epoch: [u8; 16],
}

impl ReplicaRow {
    pub fn of(replica: &Replica) -> Self {
        Self {
            region: replica.region.to_string(),
            epoch: replica.epoch.to_bytes(),
        }
    }

    pub fn replica(&self) -> Result<Replica, RowError> {
        Ok(Replica {
            region: Region::new(&self.region)?,
            epoch: Epoch::from_bytes(self.epoch),
        })
    }
}

/// Replicas that a row speaks of, by their place in it.
#[derive(Default)]
struct Dictionary {
    known: Vec<ReplicaIndex>,
}

impl Dictionary {
    fn place(&mut self, replica: ReplicaIndex) -> u32 {
        let known = self.known.iter().position(|other| *other == replica);
        let place = known.unwrap_or_else(|| {
            self.known.push(replica);
            self.known.len() - 1
        });
        place as u32
    }

    fn rows(&self, replicas: &Replicas) -> Vec<ReplicaRow> {
        let ids = self.known.iter().map(|index| replicas.id(*index));
        ids.map(ReplicaRow::of).collect()
    }
}

fn intern_all(rows: &[ReplicaRow], table: &ReplicaTable) -> Result<Vec<ReplicaIndex>, RowError> {
    rows.iter()
        .map(|row| Ok(table.intern(&row.replica()?)?))
        .collect()
}

fn at(places: &[ReplicaIndex], place: u32) -> Result<ReplicaIndex, RowError> {
    places
        .get(place as usize)
        .copied()
        .ok_or(RowError::UnknownReplica)
}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_limit(ROW_BYTES_MAX)
}

fn seal<T: Serialize>(body: &T) -> Result<Bytes, RowError> {
    let mut out = vec![CHECKPOINT_FORMAT, 0, 0, 0, 0];
    options().serialize_into(&mut out, body)?;
    let checksum = crc32fast::hash(&out[5..]);
    out[1..5].copy_from_slice(&checksum.to_be_bytes());
    Ok(Bytes::from(out))
}

fn open<T: DeserializeOwned>(row: &[u8]) -> Result<T, RowError> {
    let (Some(format), Some(body)) = (row.first(), row.get(5..)) else {
        return Err(RowError::Checksum);
    };
    if *format != CHECKPOINT_FORMAT {
        return Err(RowError::Format { found: *format });
    }
    if crc32fast::hash(body).to_be_bytes() != row[1..5] {
        return Err(RowError::Checksum);
    }
    Ok(options().deserialize(body)?)
}
