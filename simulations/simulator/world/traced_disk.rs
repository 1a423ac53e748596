//! The file and the store seam once more, over those of the simulated devices: each operation and its
//! result go into the trace.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use likewise::adapters::simulated_disk::{Latency, Operation};
use likewise::seams::checkpoint_store::{Change, CheckpointStore, Row};
use likewise::seams::files::{File, Files, IoFuture, LockGuard};

use super::trace::{Kind, Trace};

/// Where operations of one machine are noted.
#[derive(Clone)]
pub struct Noted {
    pub trace: Trace,
    pub machine: usize,
}

impl Noted {
    fn note<T>(&self, what: &str, result: &io::Result<T>, bytes: &[u8]) {
        match result {
            Ok(_) => self
                .trace
                .note(Kind::Disk, self.machine, what.as_bytes(), bytes),
            Err(error) => {
                let what = format!("{what}: {error}");
                self.trace
                    .note(Kind::Disk, self.machine, what.as_bytes(), bytes);
            }
        }
    }
}

/// Files of a machine.
pub struct TracedFiles {
    inner: Arc<dyn Files>,
    noted: Noted,
}

impl TracedFiles {
    pub fn new(inner: Arc<dyn Files>, noted: Noted) -> Self {
        Self { inner, noted }
    }

    async fn file(
        &self,
        what: &str,
        path: &str,
        opening: IoFuture<'_, Arc<dyn File>>,
    ) -> io::Result<Arc<dyn File>> {
        let opened = opening.await;
        self.noted.note(&format!("{what} {path}"), &opened, &[]);
        Ok(Arc::new(TracedFile {
            inner: opened?,
            path: path.into(),
            noted: self.noted.clone(),
        }))
    }
}

impl Files for TracedFiles {
    fn create_folder<'a>(&'a self, folder: &'a str) -> IoFuture<'a, ()> {
        Box::pin(async move {
            let done = self.inner.create_folder(folder).await;
            self.noted.note(&format!("folder {folder}"), &done, &[]);
            done
        })
    }

    fn list<'a>(&'a self, folder: &'a str) -> IoFuture<'a, Vec<String>> {
        Box::pin(async move {
            let names = self.inner.list(folder).await;
            let all = names.as_ref().map(|names| names.join(" "));
            let all = all.unwrap_or_default();
            self.noted
                .note(&format!("list {folder}"), &names, all.as_bytes());
            names
        })
    }

    fn create<'a>(&'a self, path: &'a str) -> IoFuture<'a, Arc<dyn File>> {
        Box::pin(self.file("create", path, self.inner.create(path)))
    }

    fn open<'a>(&'a self, path: &'a str) -> IoFuture<'a, Arc<dyn File>> {
        Box::pin(self.file("open", path, self.inner.open(path)))
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> IoFuture<'a, ()> {
        Box::pin(async move {
            let done = self.inner.rename(from, to).await;
            self.noted.note(&format!("rename {from} {to}"), &done, &[]);
            done
        })
    }

    fn remove<'a>(&'a self, path: &'a str) -> IoFuture<'a, ()> {
        Box::pin(async move {
            let done = self.inner.remove(path).await;
            self.noted.note(&format!("remove {path}"), &done, &[]);
            done
        })
    }

    fn sync_folder<'a>(&'a self, folder: &'a str) -> IoFuture<'a, ()> {
        Box::pin(async move {
            let done = self.inner.sync_folder(folder).await;
            self.noted
                .note(&format!("sync folder {folder}"), &done, &[]);
            done
        })
    }

    fn lock<'a>(&'a self, path: &'a str) -> IoFuture<'a, LockGuard> {
        Box::pin(async move {
            let lock = self.inner.lock(path).await;
            self.noted.note(&format!("lock {path}"), &lock, &[]);
            lock
        })
    }
}

struct TracedFile {
    inner: Arc<dyn File>,
    path: Box<str>,
    noted: Noted,
}

impl TracedFile {
    fn note<T>(&self, what: &str, at: u64, result: &io::Result<T>, bytes: &[u8]) {
        let what = format!("{what} {} {at}", self.path);
        self.noted.note(&what, result, bytes);
    }
}

impl File for TracedFile {
    fn len(&self) -> IoFuture<'_, u64> {
        Box::pin(async move {
            let len = self.inner.len().await;
            self.note("len", *len.as_ref().unwrap_or(&0), &len, &[]);
            len
        })
    }

    fn read_at(&self, offset: u64, len: usize) -> IoFuture<'_, Bytes> {
        Box::pin(async move {
            let read = self.inner.read_at(offset, len).await;
            let bytes = read.as_ref().map_or(&[][..], |bytes| &bytes[..]);
            self.note("read", offset, &read, bytes);
            read
        })
    }

    fn write_at(&self, offset: u64, data: Bytes) -> IoFuture<'_, ()> {
        Box::pin(async move {
            let done = self.inner.write_at(offset, data.clone()).await;
            self.note("write", offset, &done, &data);
            done
        })
    }

    fn allocate(&self, len: u64) -> IoFuture<'_, ()> {
        Box::pin(async move {
            let done = self.inner.allocate(len).await;
            self.note("allocate", len, &done, &[]);
            done
        })
    }

    fn truncate(&self, len: u64) -> IoFuture<'_, ()> {
        Box::pin(async move {
            let done = self.inner.truncate(len).await;
            self.note("truncate", len, &done, &[]);
            done
        })
    }

    fn sync(&self) -> IoFuture<'_, ()> {
        Box::pin(async move {
            let done = self.inner.sync().await;
            self.note("sync", 0, &done, &[]);
            done
        })
    }
}

/// The checkpoint store of a machine.
pub struct TracedStore {
    inner: Arc<dyn CheckpointStore>,
    noted: Noted,
    latency: Latency,
}

impl TracedStore {
    pub fn new(inner: Arc<dyn CheckpointStore>, noted: Noted, latency: Latency) -> Self {
        Self {
            inner,
            noted,
            latency,
        }
    }
}

impl CheckpointStore for TracedStore {
    fn get<'a>(&'a self, key: &'a [u8]) -> IoFuture<'a, Option<Bytes>> {
        Box::pin(async move {
            let value = self.inner.get(key).await;
            let bytes = value.as_ref().ok().and_then(Option::as_deref);
            self.noted.note("get", &value, bytes.unwrap_or_default());
            value
        })
    }

    fn scan(&self, after: Option<Vec<u8>>, rows_max: usize) -> IoFuture<'_, Vec<Row>> {
        Box::pin(async move {
            let rows = self.inner.scan(after, rows_max).await;
            let count = rows.as_ref().map_or(0, Vec::len);
            self.noted.note(&format!("scan {count}"), &rows, &[]);
            rows
        })
    }

    fn apply(&self, changes: Vec<Change>) -> IoFuture<'_, ()> {
        Box::pin(async move {
            let mut bytes = Vec::new();
            for (key, value) in &changes {
                bytes.extend_from_slice(key);
                bytes.extend_from_slice(value.as_deref().unwrap_or_default());
            }
            let what = format!("apply {}", changes.len());
            let done = self.inner.apply(changes).await;
            self.noted.note(&what, &done, &bytes);
            done
        })
    }

    fn sync(&self) -> IoFuture<'_, ()> {
        Box::pin(async move {
            (self.latency)(Operation::Sync).await;
            let done = self.inner.sync().await;
            self.noted.note("sync store", &done, &[]);
            done
        })
    }
}
