//! One segment: its file, its names, its allocation.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{BIRTH_BYTES, Birth, Header};
use super::{LogOptions, LogSeams, Position};
use crate::seams::{File, Files};
use crate::versions::LOG_FORMAT;

/// Zeros are written in pieces of this size.
const ZEROS_BYTES: usize = 1 << 20;

/// A segment with records in it.
pub(super) struct Segment {
    pub path: String,
    pub file: Arc<dyn File>,
    pub base: Position,
    pub capacity: u64,
    pub nonce: u64,
    /// Where its first record is.
    pub first: Position,
    /// Where the records of the segment before end.
    pub previous_end: Position,
    pub context: Bytes,
}

impl Segment {
    pub(super) fn new(path: String, file: Arc<dyn File>, header: &Header) -> Self {
        Self {
            path,
            file,
            base: header.base,
            capacity: header.capacity,
            nonce: header.nonce,
            first: header.base.after(BIRTH_BYTES + header.encoded_bytes()),
            previous_end: header.previous_end,
            context: header.context.clone(),
        }
    }

    /// Where the next segment begins.
    pub(super) fn limit(&self) -> Position {
        Position(self.base.0.saturating_add(self.capacity))
    }
}

/// An allocated, zeroed, durable segment that waits for its first record.
pub(super) struct Spare {
    pub path: String,
    pub file: Arc<dyn File>,
    pub birth: Birth,
}

pub(super) fn path_of(folder: &str, base: Position) -> String {
    format!("{folder}/{:016x}", base.0)
}

/// The base that a file's name says, if it is a segment's name.
pub(super) fn base_of(name: &str) -> Option<Position> {
    let is_name = name.len() == 16 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let base = is_name.then(|| u64::from_str_radix(name, 16).ok())??;
    Some(Position(base))
}

/// Allocates the segment at `base`, in place of a draft that an earlier attempt left there. If that
/// fails, what it took is given back.
pub(super) async fn prepare(
    seams: &LogSeams,
    options: &LogOptions,
    base: Position,
) -> io::Result<Spare> {
    let path = path_of(&options.folder, base);
    remove_if_there(seams.files.as_ref(), &path).await?;
    let outcome = allocate(seams, options, base, &path).await;
    if let Err(error) = &outcome {
        tracing::debug!(path, %error, "no spare segment");
        if let Err(error) = remove_if_there(seams.files.as_ref(), &path).await {
            tracing::warn!(path, %error, "a segment that was not allocated wholly stays");
        }
    }
    outcome
}

async fn allocate(
    seams: &LogSeams,
    options: &LogOptions,
    base: Position,
    path: &str,
) -> io::Result<Spare> {
    let file = seams.files.create(path).await?;
    file.allocate(options.segment_bytes).await?;
    let birth = draw_birth(seams, options.segment_bytes, base);
    file.write_at(0, birth.encode()).await?;
    file.sync().await?;
    seams.files.sync_folder(&options.folder).await?;
    let path = path.to_owned();
    Ok(Spare { path, file, birth })
}

/// Takes a whole segment file in which nothing is worth keeping as a spare. `dirty` bytes of it, after
/// the birth, are not zero. The old birth holds until the zeros are durable, so a crash leaves
/// either a segment without records or a new one. File and name are synced in any case: the process
/// that prepared it may have ended before it came to that.
pub(super) async fn recycle(
    seams: &LogSeams,
    options: &LogOptions,
    found: (String, Arc<dyn File>),
    old: Birth,
    dirty: std::ops::Range<u64>,
) -> io::Result<Spare> {
    let (path, file) = found;
    if !dirty.is_empty() {
        zero(file.as_ref(), dirty).await?;
        file.sync().await?;
    }
    let birth = draw_birth(seams, old.capacity, old.base);
    file.write_at(0, birth.encode()).await?;
    file.sync().await?;
    seams.files.sync_folder(&options.folder).await?;
    Ok(Spare { path, file, birth })
}

pub(super) async fn zero(file: &dyn File, bytes: std::ops::Range<u64>) -> io::Result<()> {
    let mut at = bytes.start;
    while at < bytes.end {
        let count = ZEROS_BYTES.min(usize::try_from(bytes.end - at).unwrap_or(ZEROS_BYTES));
        file.write_at(at, Bytes::from(vec![0; count])).await?;
        at += count as u64;
    }
    Ok(())
}

pub(super) async fn remove_if_there(files: &dyn Files, path: &str) -> io::Result<()> {
    match files.remove(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn draw_birth(seams: &LogSeams, capacity: u64, base: Position) -> Birth {
    Birth {
        version: LOG_FORMAT,
        base,
        capacity,
        nonce: seams.randomness.bits128() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_positions_do() {
        let path = path_of("log", Position(0x1_0000));
        assert_eq!(path, "log/0000000000010000");
        assert_eq!(base_of("0000000000010000"), Some(Position(0x1_0000)));
        assert_eq!(base_of("000000000001000"), None);
        assert_eq!(base_of("00000000000100G0"), None);
        assert_eq!(base_of("+000000000010000"), None);
    }
}
