//! The store of checkpoints and metadata: keys to values, in the order of the keys.
//!
//! It condenses what the log says; no acknowledged write lives in it alone. It knows nothing of what
//! the bytes mean.

use bytes::Bytes;

use super::IoFuture;

/// One row: key and value.
pub type Row = (Vec<u8>, Bytes);

/// One change of a batch: a key and its new value, or none to remove it.
pub type Change = (Vec<u8>, Option<Bytes>);

/// An ordered store of bytes.
///
/// What was applied is read at once. After a power cut what was applied before the last
/// [`CheckpointStore::sync`] that returned is there; of the batches applied later a prefix may be,
/// each batch wholly or not at all.
pub trait CheckpointStore: Send + Sync + 'static {
    /// The value of a key, if it has one.
    fn get<'a>(&'a self, key: &'a [u8]) -> IoFuture<'a, Option<Bytes>>;

    /// Up to `rows_max` rows in the order of their keys, those after `after`, or from the first.
    /// Fewer rows than asked for means that there are no more.
    fn scan(&self, after: Option<Vec<u8>>, rows_max: usize) -> IoFuture<'_, Vec<Row>>;

    /// Applies all changes, in their order, at one instant. Few large batches are cheaper than many
    /// small ones.
    fn apply(&self, changes: Vec<Change>) -> IoFuture<'_, ()>;

    /// Returns when everything applied before the call is durable, on the device.
    fn sync(&self) -> IoFuture<'_, ()>;
}
