//! The simulated disk as the file seam sees it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::content::Content;
use super::{Moment, Operation, SimulatedDisk, State, SyncFate};
use crate::adapters::power::{failed_sync, power_is_off};
use crate::seams::files::{File, Files, IoFuture, LockGuard, folder_of};

pub(super) struct SimulatedFiles {
    disk: SimulatedDisk,
    boot: u64,
}

struct SimulatedFile {
    disk: SimulatedDisk,
    boot: u64,
    /// Index of the content: stays that file's when the name goes to another.
    id: usize,
    /// As it was opened, for reads that are to fail.
    path: String,
}

struct SimulatedLock {
    disk: SimulatedDisk,
    boot: u64,
    path: String,
}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        // A guard of a dead process must not free the lock of a living one.
        if self.disk.power.boot() == self.boot {
            self.disk.state.lock().locks.remove(&self.path);
        }
    }
}

impl SimulatedDisk {
    /// One operation: begins, takes its time, and has its effect if there still is power.
    async fn run<T>(
        &self,
        boot: u64,
        operation: Operation,
        effect: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        self.power.begin_operation(boot)?;
        if let Some(latency) = self.latency(operation) {
            latency.await;
        }
        self.power.check(boot)?;
        effect(&mut self.state.lock())
    }

    /// One sync: `cover` notes at the call what it covers, `done` and `failed` have the effect.
    async fn run_sync<C>(
        &self,
        boot: u64,
        cover: impl FnOnce(&State) -> C,
        done: impl FnOnce(&mut State, C),
        failed: impl FnOnce(&mut State, &mut dyn FnMut(u64) -> u64),
    ) -> io::Result<()> {
        let number = self.power.begin_sync(boot)?;
        let covered = cover(&self.state.lock());
        match self.latency(Operation::Sync) {
            Some(latency) => latency.await,
            // A crash may fall between the call and its effect also without a hook.
            None => tokio::task::yield_now().await,
        }
        let fate = self.power.end_sync(number, boot)?;
        let mut state = self.state.lock();
        match fate {
            SyncFate::Done => {
                done(&mut state, covered);
                Ok(())
            }
            SyncFate::Failed => {
                failed(&mut state, &mut |bound| self.power.below(bound));
                Err(failed_sync())
            }
            SyncFate::Cut(Moment::After) => {
                done(&mut state, covered);
                Err(power_is_off())
            }
            SyncFate::Cut(Moment::Before | Moment::During) => Err(power_is_off()),
        }
    }
}

impl SimulatedFiles {
    pub(super) fn new(disk: SimulatedDisk, boot: u64) -> Self {
        Self { disk, boot }
    }

    fn file(&self, id: usize, path: &str) -> Arc<dyn File> {
        Arc::new(SimulatedFile {
            disk: self.disk.clone(),
            boot: self.boot,
            id,
            path: path.to_owned(),
        })
    }

    fn name<'a, T: Send + 'a>(
        &'a self,
        effect: impl FnOnce(&mut State) -> io::Result<T> + Send + 'a,
    ) -> IoFuture<'a, T> {
        Box::pin(self.disk.run(self.boot, Operation::Name, effect))
    }
}

fn found(state: &State, path: &str) -> io::Result<usize> {
    let id = state.names.find(path);
    id.ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl Files for SimulatedFiles {
    fn create_folder<'a>(&'a self, folder: &'a str) -> IoFuture<'a, ()> {
        self.name(move |state| {
            state.names.create_folder(folder);
            Ok(())
        })
    }

    fn list<'a>(&'a self, folder: &'a str) -> IoFuture<'a, Vec<String>> {
        self.name(move |state| {
            if !state.names.has_folder(folder) {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(state.names.list(folder))
        })
    }

    fn create<'a>(&'a self, path: &'a str) -> IoFuture<'a, Arc<dyn File>> {
        Box::pin(async move {
            let id = self
                .name(move |state| {
                    if state.names.find(path).is_some() {
                        return Err(io::ErrorKind::AlreadyExists.into());
                    }
                    if !state.names.has_folder(folder_of(path)) {
                        return Err(io::ErrorKind::NotFound.into());
                    }
                    let id = state.contents.len();
                    state.contents.push(Content::default());
                    state.names.create(path, id);
                    Ok(id)
                })
                .await?;
            Ok(self.file(id, path))
        })
    }

    fn open<'a>(&'a self, path: &'a str) -> IoFuture<'a, Arc<dyn File>> {
        Box::pin(async move {
            let id = self.name(move |state| found(state, path)).await?;
            Ok(self.file(id, path))
        })
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> IoFuture<'a, ()> {
        self.name(move |state| {
            let id = found(state, from)?;
            if !state.names.has_folder(folder_of(to)) {
                return Err(io::ErrorKind::NotFound.into());
            }
            state.names.rename(from, to, id);
            Ok(())
        })
    }

    fn remove<'a>(&'a self, path: &'a str) -> IoFuture<'a, ()> {
        self.name(move |state| {
            found(state, path)?;
            state.names.remove(path);
            Ok(())
        })
    }

    fn sync_folder<'a>(&'a self, folder: &'a str) -> IoFuture<'a, ()> {
        Box::pin(self.disk.run_sync(
            self.boot,
            |_| (),
            move |state, ()| state.names.sync(folder),
            move |state, below| state.names.fail_sync(folder, below),
        ))
    }

    fn lock<'a>(&'a self, path: &'a str) -> IoFuture<'a, LockGuard> {
        Box::pin(async move {
            self.name(move |state| match state.locks.insert(path.to_owned()) {
                true => Ok(()),
                false => Err(io::ErrorKind::WouldBlock.into()),
            })
            .await?;
            Ok(Box::new(SimulatedLock {
                disk: self.disk.clone(),
                boot: self.boot,
                path: path.to_owned(),
            }) as LockGuard)
        })
    }
}

impl SimulatedFile {
    fn run<'a, T: Send + 'a>(
        &'a self,
        operation: Operation,
        effect: impl FnOnce(&mut State) -> io::Result<T> + Send + 'a,
    ) -> IoFuture<'a, T> {
        Box::pin(self.disk.run(self.boot, operation, effect))
    }

    fn check_readable(&self, state: &State, from: u64, to: u64) -> io::Result<()> {
        let is_bad = state
            .bad_places
            .iter()
            .any(|(path, bad)| *path == self.path && bad.start < to && from < bad.end);
        if is_bad {
            return Err(io::Error::other("simulated: unreadable sector"));
        }
        Ok(())
    }
}

impl State {
    fn len(&self, id: usize) -> u64 {
        self.contents[id].live().len() as u64
    }
}

impl File for SimulatedFile {
    fn len(&self) -> IoFuture<'_, u64> {
        self.run(Operation::Read, |state| Ok(state.len(self.id)))
    }

    fn read_at(&self, offset: u64, len: usize) -> IoFuture<'_, Bytes> {
        self.run(Operation::Read, move |state| {
            let end = state.len(self.id).min(offset.saturating_add(len as u64));
            let from = offset.min(end);
            self.check_readable(state, from, end)?;
            let live = state.contents[self.id].live();
            Ok(Bytes::copy_from_slice(&live[from as usize..end as usize]))
        })
    }

    fn write_at(&self, offset: u64, data: Bytes) -> IoFuture<'_, ()> {
        self.run(Operation::Write, move |state| {
            let end = offset + data.len() as u64;
            if end.saturating_sub(state.len(self.id)) > state.free() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.contents[self.id].write(offset, data);
            Ok(())
        })
    }

    fn allocate(&self, len: u64) -> IoFuture<'_, ()> {
        self.run(Operation::Allocate, move |state| {
            let has = state.len(self.id);
            let wanted = len.saturating_sub(has);
            let given = wanted.min(state.free());
            if given > 0 {
                state.contents[self.id].extend(has + given);
            }
            if given < wanted {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        })
    }

    fn truncate(&self, len: u64) -> IoFuture<'_, ()> {
        self.run(Operation::Write, move |state| {
            if len < state.len(self.id) {
                state.contents[self.id].truncate(len);
            }
            Ok(())
        })
    }

    fn sync(&self) -> IoFuture<'_, ()> {
        Box::pin(self.disk.run_sync(
            self.boot,
            |state| state.contents[self.id].changes(),
            |state, covered| state.contents[self.id].sync_through(covered),
            |state, below| state.contents[self.id].fail_sync(below),
        ))
    }
}
