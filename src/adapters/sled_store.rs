//! The checkpoint store on sled 0.34.7.
//!
//! What is not obvious of it, checked in its sources:
//! - `flush()` hands bytes to the operating system and does not sync them to the device, and errors
//!   of its own syncs are swallowed. So after it we sync its files ourselves, through descriptors
//!   that we hold since the opening: a descriptor opened later would not be told of earlier errors.
//! - `flush_async` can deadlock; it is not used. The calls here block, which the threads of the
//!   workers may.
//! - Its flusher thread must stay on: its garbage collection runs only there.
//! - Each row that is written leaves a copy of its whole leaf as garbage. Its flusher clears some hundreds of them twice
//!   a second: after 200,000 rows it was busy for minutes, with 800 MB of them in memory. So whoever writes
//!   clears what it leaves.
//! - Its lock is one for the whole process. A batch of one database waits for a flush of another one, which waits for its own
//!   flusher, which waits behind the batch: where tests run several nodes in a process, calls take turns.
//! - What its threads write holds the database's lock until it is forgotten, a moment after the database was dropped: who
//!   opens a folder again waits for that. Nodes tell by a lock of their own whether another process has the folder.
//! - A damaged folder may make it panic instead of answering; that is caught and told as an error.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::seams::checkpoint_store::{Change, CheckpointStore, Row};
use crate::seams::files::IoFuture;

/// How often sled's own flusher runs. Durability does not depend on it.
const FLUSH_EVERY_MS: u64 = 500;

/// How long a folder that is in use is waited for, and between two looks.
const LET_GO: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Held over every call.
static TURN: Mutex<()> = Mutex::new(());

/// Garbage that one turn clears, at least: eight bags, of which each has about sixty pieces; a row leaves some.
const ROWS_CLEARED_A_TURN: usize = 64;

/// The folder did not open. Nothing acknowledged lives in it alone: set it aside and rebuild it from
/// the log or from a peer.
#[derive(Debug, thiserror::Error)]
pub enum SledOpenError {
    #[error("the checkpoint store in {folder} is in use by another process")]
    InUse { folder: PathBuf },
    #[error(
        "the checkpoint store in {folder} does not open: {reason}; move the folder away and start \
         again, the log or a peer rebuilds it"
    )]
    Damaged { folder: PathBuf, reason: String },
    #[error("the checkpoint store in {folder} cannot be read")]
    Io { folder: PathBuf, source: io::Error },
}

/// A sled database in a folder of its own.
pub struct SledStore {
    folder: PathBuf,
    db: sled::Db,
    /// `db` and `conf`, held open so that no write-back error is missed.
    kept: [File; 2],
    /// Guards the names of files that are written once, never again, and are synced: `snap.*` and
    /// `blobs/*`. Held over a sync, so that a second one waits.
    synced: Mutex<BTreeSet<PathBuf>>,
}

impl SledStore {
    /// Opens or creates the store; sled's cache takes about `cache_bytes`.
    pub fn open(folder: impl Into<PathBuf>, cache_bytes: u64) -> Result<Self, SledOpenError> {
        let folder = folder.into();
        let config = sled::Config::new()
            .path(&folder)
            .cache_capacity(cache_bytes)
            .flush_every_ms(Some(FLUSH_EVERY_MS));
        let mut waited = Duration::ZERO;
        let db = loop {
            match catch(|| config.open()) {
                Ok(Ok(db)) => break db,
                Ok(Err(error)) if is_in_use(&error) && waited < LET_GO => {
                    thread::sleep(LOOK_AGAIN);
                    waited += LOOK_AGAIN;
                }
                Ok(Err(error)) => return Err(open_error(folder, error)),
                Err(_) => {
                    let reason = "sled panicked while it read it".to_owned();
                    return Err(SledOpenError::Damaged { folder, reason });
                }
            }
        };
        let keep = |name: &str| {
            File::open(folder.join(name)).map_err(|source| SledOpenError::Io {
                folder: folder.clone(),
                source,
            })
        };
        let kept = [keep("db")?, keep("conf")?];
        Ok(Self {
            folder,
            db,
            kept,
            synced: Mutex::new(BTreeSet::new()),
        })
    }

    fn sync_files(&self) -> io::Result<()> {
        let mut synced = self.synced.lock();
        let mut present = BTreeSet::new();
        list_files(&self.folder.join("blobs"), &mut present)?;
        list_files(&self.folder, &mut present)?;
        // sled tidies up while we look: a file that is gone needs no sync.
        synced.retain(|path| present.contains(path));
        for path in present {
            if is_written_once(&path) && !synced.contains(&path) {
                match File::open(&path) {
                    Ok(file) => file.sync_all()?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
                synced.insert(path);
            }
        }
        for file in &self.kept {
            file.sync_all()?;
        }
        File::open(self.folder.join("blobs"))?.sync_all()?;
        File::open(&self.folder)?.sync_all()
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        // The database flushes once more when it is dropped; it finds nothing left to do then.
        if let Err(error) = guarded(|| self.db.flush()) {
            tracing::debug!(%error, "the last flush failed; what a checkpoint needed was flushed before");
        }
    }
}

/// sled wraps the failed lock into an `Other` with this text.
fn is_in_use(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(source) if source.to_string().contains("could not acquire lock"))
}

fn open_error(folder: PathBuf, error: sled::Error) -> SledOpenError {
    match error {
        error if is_in_use(&error) => SledOpenError::InUse { folder },
        sled::Error::Io(source)
            if matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::StorageFull
                    | io::ErrorKind::NotADirectory
            ) =>
        {
            SledOpenError::Io { folder, source }
        }
        error => SledOpenError::Damaged {
            folder,
            reason: error.to_string(),
        },
    }
}

/// `snap.*` and blobs are complete when they get their name; a draft is renamed later.
fn is_written_once(path: &Path) -> bool {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    let is_draft = name.ends_with(".generating");
    let is_kept_open = name == "db" || name == "conf";
    !is_draft && !is_kept_open
}

fn list_files(folder: &Path, into: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            into.insert(entry.path());
        }
    }
    Ok(())
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a call of sled's, whose panics are caught and become errors.
pub fn is_inside() -> bool {
    INSIDE.get()
}

fn catch<T>(call: impl FnOnce() -> T) -> std::thread::Result<T> {
    INSIDE.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(call));
    INSIDE.set(false);
    outcome
}

/// Runs one call of sled's, whose errors and panics both become errors.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> io::Result<T> {
    let _turn = TURN.lock();
    match catch(call) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(error),
        Ok(Err(error @ sled::Error::Corruption { .. })) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, error))
        }
        Ok(Err(error)) => Err(io::Error::other(error)),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "sled panicked over its folder",
        )),
    }
}

impl CheckpointStore for SledStore {
    fn get<'a>(&'a self, key: &'a [u8]) -> IoFuture<'a, Option<Bytes>> {
        Box::pin(async move {
            let value = guarded(|| self.db.get(key))?;
            Ok(value.map(|value| Bytes::copy_from_slice(&value)))
        })
    }

    fn scan(&self, after: Option<Vec<u8>>, rows_max: usize) -> IoFuture<'_, Vec<Row>> {
        Box::pin(async move {
            let start = after.map_or(Bound::Unbounded, Bound::Excluded);
            guarded(|| {
                self.db
                    .range::<Vec<u8>, _>((start, Bound::Unbounded))
                    .take(rows_max)
                    .map(|row| row.map(|(k, v)| (k.to_vec(), Bytes::copy_from_slice(&v))))
                    .collect()
            })
        })
    }

    fn apply(&self, changes: Vec<Change>) -> IoFuture<'_, ()> {
        Box::pin(async move {
            let rows = changes.len();
            let mut batch = sled::Batch::default();
            for (key, value) in changes {
                match value {
                    Some(value) => batch.insert(key, value.as_ref()),
                    None => batch.remove(key),
                }
            }
            guarded(|| self.db.apply_batch(batch))?;
            guarded(|| {
                clear_garbage(rows);
                Ok(())
            })
        })
    }

    fn sync(&self) -> IoFuture<'_, ()> {
        Box::pin(async move {
            guarded(|| self.db.flush())?;
            self.sync_files()
        })
    }
}

/// Clears about what writing so many rows left behind.
fn clear_garbage(rows: usize) {
    for _ in 0..=rows / ROWS_CLEARED_A_TURN {
        crossbeam_epoch::pin().flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_is_told_from_a_damaged_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SledStore::open(folder.path(), 1 << 20).expect("opens");
        let second = SledStore::open(folder.path(), 1 << 20).err();
        assert!(
            matches!(second, Some(SledOpenError::InUse { .. })),
            "{second:?}"
        );
        drop(store);
    }

    #[test]
    fn a_folder_that_is_being_let_go_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SledStore::open(folder.path(), 1 << 20).expect("opens");
        let (begins, begun) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                begun.recv().expect("says so");
                drop(store);
            });
            begins.send(()).expect("listens");
            SledStore::open(folder.path(), 1 << 20).expect("opens again");
        });
    }

    #[test]
    fn a_damaged_folder_is_a_typed_error() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(SledStore::open(folder.path(), 1 << 20).expect("opens"));
        fs::write(folder.path().join("conf"), b"no configuration of any store").expect("written");
        let error = SledStore::open(folder.path(), 1 << 20).err();
        assert!(
            matches!(error, Some(SledOpenError::Damaged { .. })),
            "{error:?}"
        );
    }
}
