//! The stage: a snapshot that is being received, on disk, as the frames that came.
//!
//! Nothing is merged before all of it is here and synced: if the sender is lost half way, nothing
//! happened. The file `incoming` becomes `ready` when it is whole; from then until it is removed the
//! node is unsettled, also across a crash. Each frame has its length and checksum.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::limits::PEER_MESSAGE_BYTES_MAX;
use crate::seams::{File, Files};

const FOLDER: &str = "stage";
const INCOMING: &str = "stage/incoming";
const READY: &str = "stage/ready";
const HEADER_BYTES: usize = 8;
/// Frames are gathered to this size before they are written.
const WRITE_BYTES: usize = 1 << 20;
/// Ends the file.
const END: u32 = u32::MAX;

/// A snapshot being received.
pub struct StageWriter {
    files: Arc<dyn Files>,
    file: Arc<dyn File>,
    offset: u64,
    buffer: Vec<u8>,
}

impl StageWriter {
    /// Begins a new one; what an earlier try left is dropped.
    pub async fn create(files: Arc<dyn Files>) -> io::Result<Self> {
        files.create_folder(FOLDER).await?;
        remove(files.as_ref(), INCOMING).await?;
        let file = files.create(INCOMING).await?;
        Ok(Self {
            files,
            file,
            offset: 0,
            buffer: Vec::new(),
        })
    }

    pub async fn push(&mut self, frame: &[u8]) -> io::Result<()> {
        let len = u32::try_from(frame.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.buffer.extend_from_slice(&len.to_be_bytes());
        self.buffer
            .extend_from_slice(&crc32fast::hash(frame).to_be_bytes());
        self.buffer.extend_from_slice(frame);
        match self.buffer.len() >= WRITE_BYTES {
            true => self.write().await,
            false => Ok(()),
        }
    }

    async fn write(&mut self) -> io::Result<()> {
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        let len = bytes.len() as u64;
        self.file.write_at(self.offset, bytes).await?;
        self.offset += len;
        Ok(())
    }

    /// The snapshot is whole: from here on it will be merged, whatever happens to the sender.
    pub async fn finish(mut self) -> io::Result<()> {
        self.buffer.extend_from_slice(&END.to_be_bytes());
        self.buffer.extend_from_slice(&[0; 4]);
        self.write().await?;
        self.file.sync().await?;
        self.files.rename(INCOMING, READY).await?;
        self.files.sync_folder(FOLDER).await
    }

    /// The snapshot cannot be completed.
    pub async fn abandon(self) -> io::Result<()> {
        remove(self.files.as_ref(), INCOMING).await
    }
}

async fn remove(files: &dyn Files, path: &str) -> io::Result<()> {
    match files.remove(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A snapshot that is whole and not yet merged for good.
pub struct StageReader {
    file: Arc<dyn File>,
    offset: u64,
}

/// Whether a whole snapshot waits to be merged.
pub async fn is_ready(files: &dyn Files) -> io::Result<bool> {
    files.create_folder(FOLDER).await?;
    Ok(files.list(FOLDER).await?.iter().any(|name| name == "ready"))
}

/// Opens the snapshot from its beginning.
pub async fn open(files: &dyn Files) -> io::Result<StageReader> {
    let file = files.open(READY).await?;
    Ok(StageReader { file, offset: 0 })
}

/// The snapshot is merged, and a checkpoint holds what it brought.
pub async fn clear(files: &dyn Files) -> io::Result<()> {
    remove(files, READY).await?;
    remove(files, INCOMING).await?;
    files.sync_folder(FOLDER).await
}

impl StageReader {
    /// The next frame; none at the end. A damaged one is an error: the file was synced before it got its name.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("{READY} is damaged"));
        let header = self.file.read_at(self.offset, HEADER_BYTES).await?;
        let (len, checksum) = match header.as_ref() {
            [a, b, c, d, rest @ ..] if rest.len() == 4 => {
                (u32::from_be_bytes([*a, *b, *c, *d]), rest.to_vec())
            }
            _ => return Err(damaged()),
        };
        if len == END {
            return Ok(None);
        }
        if len as usize > PEER_MESSAGE_BYTES_MAX {
            return Err(damaged());
        }
        let from = self.offset + HEADER_BYTES as u64;
        let frame = self.file.read_at(from, len as usize).await?;
        if frame.len() != len as usize || crc32fast::hash(&frame).to_be_bytes() != *checksum {
            return Err(damaged());
        }
        self.offset = from + u64::from(len);
        Ok(Some(frame))
    }
}
