//! The metadata of a checkpoint.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ReplicaRow, RowError, open, seal};

/// An orphan removal.
#[derive(Serialize, Deserialize)]
pub struct OrphanRow {
    pub replica: ReplicaRow,
    pub seq: u64,
    pub post: String,
    pub user: String,
    /// Whether a client of this node asked for it: those are bounded.
    pub by_client: bool,
}

/// A remembered request. Answers are in the encoding of the log's records.
#[derive(Serialize, Deserialize)]
pub struct RequestRow {
    pub id: String,
    pub digest: u64,
    pub at_ms: u64,
    pub items: Vec<Option<Vec<u8>>>,
    pub token: Option<String>,
}

/// Everything of the instant at which a checkpoint began. Written after all its rows are durable.
#[derive(Serialize, Deserialize)]
pub struct MetaRow {
    /// The frontier with its lineage, as `codec::vector` has it.
    pub frontier: Vec<u8>,
    /// From where the log is whole, by replica, as `codec::vector` has it.
    pub floor: Vec<u8>,
    pub orphans: Vec<OrphanRow>,
    pub requests: Vec<RequestRow>,
    /// Where replay begins.
    pub replay_from: u64,
    /// The log position that rows may show: a log that ends before it is refused.
    pub shows: u64,
    pub finished_at_ms: u64,
    /// Replicas that have been retired.
    pub retired: Vec<ReplicaRow>,
    /// Of each region the replica that completed a session last.
    pub met: Vec<ReplicaRow>,
}

pub fn encode_meta(meta: &MetaRow) -> Result<Bytes, RowError> {
    seal(meta)
}

pub fn decode_meta(row: &[u8]) -> Result<MetaRow, RowError> {
    open(row)
}

pub fn encode_shows(position: u64) -> Result<Bytes, RowError> {
    seal(&position)
}

pub fn decode_shows(row: &[u8]) -> Result<u64, RowError> {
    open(row)
}
