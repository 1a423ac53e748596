//! The stage: a snapshot that is being received, on disk, as the frames that came.
//!
//! Nothing is merged before all of it is here and synced: if the sender is lost half way, nothing
//! happened. The file `incoming` outlives breaks and restarts: what of it is whole is read back, a torn tail
//! is cut, and it goes on. It becomes `ready` when it is whole and synced; from then until it is removed the
//! node is unsettled, also across a crash. Each frame has its length and checksum.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::limits::{PEER_MESSAGE_BYTES_MAX, STAGE_SYNC_BYTES, STAGE_WRITE_BYTES};
use crate::seams::{File, Files};

const FOLDER: &str = "stage";
const INCOMING: &str = "stage/incoming";
const READY: &str = "stage/ready";
const HEADER_BYTES: usize = 8;
/// Ends the file.
const END: u32 = u32::MAX;

/// A snapshot being received.
pub struct StageWriter {
    files: Arc<dyn Files>,
    file: Arc<dyn File>,
    offset: u64,
    synced: u64,
    buffer: Vec<u8>,
}

impl StageWriter {
    /// Begins a new one; what an earlier try left is dropped.
    pub async fn create(files: Arc<dyn Files>) -> io::Result<Self> {
        files.create_folder(FOLDER).await?;
        remove(files.as_ref(), INCOMING).await?;
        let file = files.create(INCOMING).await?;
        files.sync_folder(FOLDER).await?;
        Ok(Self {
            files,
            file,
            offset: 0,
            synced: 0,
            buffer: Vec::new(),
        })
    }

    /// Goes on behind the frames that `read` has given; what follows them is cut off.
    pub async fn go_on(files: Arc<dyn Files>, read: StageReader) -> io::Result<Self> {
        let StageReader { file, offset, .. } = read;
        file.truncate(offset).await?;
        file.sync().await?;
        Ok(Self {
            files,
            file,
            offset,
            synced: offset,
            buffer: Vec::new(),
        })
    }

    /// Bytes of the stage, those included that are not written yet.
    pub fn bytes(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    pub async fn push(&mut self, frame: &[u8]) -> io::Result<()> {
        let len = u32::try_from(frame.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.buffer.extend_from_slice(&len.to_be_bytes());
        self.buffer
            .extend_from_slice(&crc32fast::hash(frame).to_be_bytes());
        self.buffer.extend_from_slice(frame);
        if self.buffer.len() >= STAGE_WRITE_BYTES {
            self.flush().await?;
        }
        // Little is left to sync at the end, and little is lost with the power.
        if self.offset - self.synced >= STAGE_SYNC_BYTES {
            self.sync().await?;
        }
        Ok(())
    }

    /// Writes what was gathered, such as when the sender is lost: the process may end before it goes on.
    pub async fn flush(&mut self) -> io::Result<()> {
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        let len = bytes.len() as u64;
        self.file.write_at(self.offset, bytes).await?;
        self.offset += len;
        Ok(())
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.file.sync().await?;
        self.synced = self.offset;
        Ok(())
    }

    /// The snapshot is whole: from here on it will be merged, whatever happens to the sender.
    pub async fn finish(mut self) -> io::Result<()> {
        self.buffer.extend_from_slice(&END.to_be_bytes());
        self.buffer.extend_from_slice(&[0; 4]);
        self.flush().await?;
        self.sync().await?;
        self.files.rename(INCOMING, READY).await?;
        self.files.sync_folder(FOLDER).await
    }
}

/// Returns whether it was there.
async fn remove(files: &dyn Files, path: &str) -> io::Result<bool> {
    match files.remove(path).await {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The frames of a stage, from the first on.
pub struct StageReader {
    file: Arc<dyn File>,
    path: &'static str,
    offset: u64,
}

/// Whether a whole snapshot waits to be merged.
pub async fn is_ready(files: &dyn Files) -> io::Result<bool> {
    files.create_folder(FOLDER).await?;
    Ok(files.list(FOLDER).await?.iter().any(|name| name == "ready"))
}

/// Opens the snapshot that is whole.
pub async fn open(files: &dyn Files) -> io::Result<StageReader> {
    read(files, READY).await
}

/// Opens one that is not whole, where there is one.
pub async fn open_incoming(files: &dyn Files) -> io::Result<Option<StageReader>> {
    match read(files, INCOMING).await {
        Ok(reader) => Ok(Some(reader)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn read(files: &dyn Files, path: &'static str) -> io::Result<StageReader> {
    let file = files.open(path).await?;
    Ok(StageReader {
        file,
        path,
        offset: 0,
    })
}

/// What is not whole is not wanted any more. Returns whether there was something.
pub async fn drop_incoming(files: &dyn Files) -> io::Result<bool> {
    remove(files, INCOMING).await
}

/// The snapshot is merged, and a checkpoint holds what it brought.
pub async fn clear(files: &dyn Files) -> io::Result<()> {
    remove(files, READY).await?;
    remove(files, INCOMING).await?;
    files.sync_folder(FOLDER).await
}

/// What stands at a place of the file.
enum Found {
    Frame(Bytes),
    End,
    /// Neither: torn, or damaged.
    Broken,
}

impl StageReader {
    /// The next frame; none at the end. A damaged one is an error: the file was synced before it got its name.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self.look().await? {
            Found::Frame(frame) => {
                self.pass(&frame);
                Ok(Some(frame))
            }
            Found::End => Ok(None),
            Found::Broken => {
                let what = format!("{} is damaged", self.path);
                Err(io::Error::new(io::ErrorKind::InvalidData, what))
            }
        }
    }

    /// The next frame of a stage that is not whole, without passing it; none where it is torn.
    pub async fn peek_whole(&self) -> io::Result<Option<Bytes>> {
        match self.look().await? {
            Found::Frame(frame) => Ok(Some(frame)),
            // It ended, and did not get its name: it goes on before its end.
            Found::End | Found::Broken => Ok(None),
        }
    }

    /// Goes on behind a frame that was looked at.
    pub fn pass(&mut self, frame: &Bytes) {
        self.offset += (HEADER_BYTES + frame.len()) as u64;
    }

    async fn look(&self) -> io::Result<Found> {
        let header = self.file.read_at(self.offset, HEADER_BYTES).await?;
        let Ok([a, b, c, d, checksum @ ..]) = <[u8; HEADER_BYTES]>::try_from(header.as_ref())
        else {
            return Ok(Found::Broken);
        };
        let len = u32::from_be_bytes([a, b, c, d]);
        if len == END && checksum == [0; 4] {
            return Ok(Found::End);
        }
        if len as usize > PEER_MESSAGE_BYTES_MAX {
            return Ok(Found::Broken);
        }
        let from = self.offset + HEADER_BYTES as u64;
        let frame = self.file.read_at(from, len as usize).await?;
        // Zeros are what a torn file ends in; as a frame they would be an empty one with its checksum.
        let is_whole = frame.len() == len as usize && len > 0;
        match is_whole && crc32fast::hash(&frame).to_be_bytes() == checksum {
            true => Ok(Found::Frame(frame)),
            false => Ok(Found::Broken),
        }
    }
}
