//! Files of the operating system, by plain blocking calls.
//!
//! The futures do their work when polled and never wait: in production they are awaited on the
//! threads of the workers, which may block.

use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::seams::files::{File, Files, IoFuture, LockGuard};

/// Zeros are written in pieces of this size when space is allocated.
const ZEROS_BYTES: usize = 1 << 20;

/// The files below one folder.
#[derive(Debug, Clone)]
pub struct OsFiles {
    root: PathBuf,
}

impl OsFiles {
    /// Uses the folder, created durably if it is not there.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        create_durably(&root)?;
        Ok(Self { root })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn names(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.at(folder))? {
            let entry = entry?;
            if !entry.file_type()?.is_file() {
                continue;
            }
            match entry.file_name().into_string() {
                Ok(name) => names.push(name),
                Err(name) => tracing::warn!(?name, folder, "a file whose name is not UTF-8"),
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn try_lock(&self, path: &str) -> io::Result<LockGuard> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.at(path))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn create_durably(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = match folder.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_durably(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::File::open(parent)?.sync_all()
}

impl Files for OsFiles {
    fn create_folder<'a>(&'a self, folder: &'a str) -> IoFuture<'a, ()> {
        Box::pin(async move { fs::create_dir_all(self.at(folder)) })
    }

    fn list<'a>(&'a self, folder: &'a str) -> IoFuture<'a, Vec<String>> {
        Box::pin(async move { self.names(folder) })
    }

    fn create<'a>(&'a self, path: &'a str) -> IoFuture<'a, Arc<dyn File>> {
        Box::pin(async move {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(self.at(path))?;
            Ok(Arc::new(OsFile { file }) as Arc<dyn File>)
        })
    }

    fn open<'a>(&'a self, path: &'a str) -> IoFuture<'a, Arc<dyn File>> {
        Box::pin(async move {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(self.at(path))?;
            Ok(Arc::new(OsFile { file }) as Arc<dyn File>)
        })
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> IoFuture<'a, ()> {
        Box::pin(async move { fs::rename(self.at(from), self.at(to)) })
    }

    fn remove<'a>(&'a self, path: &'a str) -> IoFuture<'a, ()> {
        Box::pin(async move { fs::remove_file(self.at(path)) })
    }

    fn sync_folder<'a>(&'a self, folder: &'a str) -> IoFuture<'a, ()> {
        Box::pin(async move { fs::File::open(self.at(folder))?.sync_all() })
    }

    fn lock<'a>(&'a self, path: &'a str) -> IoFuture<'a, LockGuard> {
        Box::pin(async move { self.try_lock(path) })
    }
}

struct OsFile {
    file: fs::File,
}

impl OsFile {
    fn read_fully(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        // What a damaged length asks for is not allocated before it is known to be there.
        let rest = self.file.metadata()?.len().saturating_sub(offset);
        let len = len.min(usize::try_from(rest).unwrap_or(usize::MAX));
        let mut buffer = BytesMut::zeroed(len);
        let mut filled = 0;
        while filled < len {
            match self
                .file
                .read_at(&mut buffer[filled..], offset + filled as u64)
            {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(filled);
        Ok(buffer.freeze())
    }

    /// Zeros are really written: space that the file system only promises is given out, and noted in
    /// its metadata, at the first write, which is what each commit would then wait for.
    fn fill_up_to(&self, len: u64) -> io::Result<()> {
        let mut at = self.file.metadata()?.len();
        let zeros = vec![0; ZEROS_BYTES];
        while at < len {
            let count = ZEROS_BYTES.min(usize::try_from(len - at).unwrap_or(ZEROS_BYTES));
            self.file.write_all_at(&zeros[..count], at)?;
            at += count as u64;
        }
        Ok(())
    }
}

impl File for OsFile {
    fn len(&self) -> IoFuture<'_, u64> {
        Box::pin(async move { Ok(self.file.metadata()?.len()) })
    }

    fn read_at(&self, offset: u64, len: usize) -> IoFuture<'_, Bytes> {
        Box::pin(async move { self.read_fully(offset, len) })
    }

    fn write_at(&self, offset: u64, data: Bytes) -> IoFuture<'_, ()> {
        Box::pin(async move { self.file.write_all_at(&data, offset) })
    }

    fn allocate(&self, len: u64) -> IoFuture<'_, ()> {
        Box::pin(async move { self.fill_up_to(len) })
    }

    fn truncate(&self, len: u64) -> IoFuture<'_, ()> {
        Box::pin(async move {
            if len < self.file.metadata()?.len() {
                self.file.set_len(len)?;
            }
            Ok(())
        })
    }

    fn sync(&self) -> IoFuture<'_, ()> {
        Box::pin(async move { self.file.sync_data() })
    }
}
