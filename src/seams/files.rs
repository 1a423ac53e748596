//! Files of one data folder, asynchronously.
//!
//! Each operation completes later: from the caller's own thread in production, after simulated time
//! in the simulator. Were a simulated sync one step, no crash could fall between write and sync.
//! This module knows nothing of what the files hold.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

/// What an operation of a seam returns. It does nothing until it is awaited.
pub type IoFuture<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// Holds a lock until it is dropped.
pub type LockGuard = Box<dyn Send + Sync>;

/// The files of one data folder. Paths are relative and separated by `/`; an empty path as folder is
/// the data folder itself.
///
/// Creations, removals and renames survive a power cut once [`Files::sync_folder`] has returned for
/// the folder that they changed; until then each may survive or not.
pub trait Files: Send + Sync + 'static {
    /// Creates the folder and those above it; one that is there already is no error. The caller
    /// syncs the folder above.
    fn create_folder<'a>(&'a self, folder: &'a str) -> IoFuture<'a, ()>;

    /// The names of the files in the folder, without those of folders, sorted.
    fn list<'a>(&'a self, folder: &'a str) -> IoFuture<'a, Vec<String>>;

    /// Creates an empty file; fails with `AlreadyExists` if there is one.
    fn create<'a>(&'a self, path: &'a str) -> IoFuture<'a, Arc<dyn File>>;

    /// Opens a file for reading and writing; fails with `NotFound` if there is none.
    fn open<'a>(&'a self, path: &'a str) -> IoFuture<'a, Arc<dyn File>>;

    /// Renames a file; one of the new name is replaced, at one instant.
    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> IoFuture<'a, ()>;

    /// Removes a file. Who has it open goes on reading it.
    fn remove<'a>(&'a self, path: &'a str) -> IoFuture<'a, ()>;

    /// Makes the folder's creations, removals and renames durable.
    fn sync_folder<'a>(&'a self, folder: &'a str) -> IoFuture<'a, ()>;

    /// Locks a file of this name, created if need be, against other processes and other openings,
    /// until the guard is dropped or the process ends. Fails at once with `WouldBlock` if another
    /// holds it.
    fn lock<'a>(&'a self, path: &'a str) -> IoFuture<'a, LockGuard>;
}

/// One open file. Usable from several tasks at once.
#[expect(
    clippy::len_without_is_empty,
    reason = "asks the disk; nobody needs the other"
)]
pub trait File: Send + Sync + 'static {
    /// Bytes of the file.
    fn len(&self) -> IoFuture<'_, u64>;

    /// Up to `len` bytes from `offset`; fewer only where the file ends.
    fn read_at(&self, offset: u64, len: usize) -> IoFuture<'_, Bytes>;

    /// Writes all of `data` at `offset`; the file grows if need be. After an error any part of it
    /// may have been written.
    fn write_at(&self, offset: u64, data: Bytes) -> IoFuture<'_, ()>;

    /// Makes the file at least `len` bytes long, new bytes zero and backed by space on the device,
    /// so that later writes below `len` neither run out of space nor change metadata. Fails with
    /// `StorageFull` if there is no room; the file may then be longer than before.
    fn allocate(&self, len: u64) -> IoFuture<'_, ()>;

    /// Cuts the file to `len` bytes; a shorter one stays as it is.
    fn truncate(&self, len: u64) -> IoFuture<'_, ()>;

    /// Makes what was written before the call durable, on the device. After an error nothing is
    /// known of it, and a later sync that succeeds proves nothing.
    fn sync(&self) -> IoFuture<'_, ()>;
}

/// The folder that holds `path`; empty for the data folder.
pub fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// All bytes of a file.
pub async fn read_whole(files: &dyn Files, path: &str) -> io::Result<Bytes> {
    let file = files.open(path).await?;
    let len = file.len().await?;
    let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    file.read_at(0, len).await
}

/// Puts a file with these bytes in place of what is at `path`: after a crash there is the old one or
/// the new one, and the new one for sure once this has returned.
pub async fn write_whole(files: &dyn Files, path: &str, bytes: Bytes) -> io::Result<()> {
    let draft = format!("{path}.tmp");
    match files.remove(&draft).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = files.create(&draft).await?;
    file.write_at(0, bytes).await?;
    file.sync().await?;
    files.rename(&draft, path).await?;
    files.sync_folder(folder_of(path)).await
}
