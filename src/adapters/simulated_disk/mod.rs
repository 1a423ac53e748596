//! A disk for power-cut tests and the simulator: it loses what was not synced, tears at sectors,
//! fills up, fails a chosen sync or read, and takes its time.
//!
//! Each file has its durable bytes and an ordered list of unsynced changes; each folder likewise its
//! unsynced creations, renames and removals. When the power fails, every unsynced change survives
//! wholly, in part, or not at all, in any combination, for real disks write in an order of their
//! own. Deterministic from the seed of its [`Power`], given the same calls in the same order.

mod content;
mod handles;
mod names;

use std::collections::BTreeSet;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;

use super::power::SyncFate;
pub use super::power::{CutPoint, Moment, Power};
use crate::seams::Files;
use content::Content;
use handles::SimulatedFiles;
use names::Names;

/// One sector: written wholly or not at all.
pub const SECTOR_BYTES: u64 = 512;

/// What an operation does, for the latency hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
    Allocate,
    Sync,
    /// Anything that concerns names: create, open, list, rename, remove, lock.
    Name,
}

/// Awaited by each operation between its call and its effect.
pub type Latency = Arc<dyn Fn(Operation) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// The disk; clones share it. It outlives the processes that use it.
#[derive(Clone)]
pub struct SimulatedDisk {
    power: Power,
    /// Guards all of the disk's content; never held across an await.
    state: Arc<Mutex<State>>,
}

struct State {
    contents: Vec<Content>,
    names: Names,
    capacity_bytes: u64,
    bad_places: Vec<(String, Range<u64>)>,
    locks: BTreeSet<String>,
    latency: Option<Latency>,
}

impl SimulatedDisk {
    /// An empty disk without a limit, on a supply of its own.
    pub fn new(seed: u64) -> Self {
        Self::with_power(Power::new(seed))
    }

    /// An empty disk on a supply that other devices share.
    pub fn with_power(power: Power) -> Self {
        let state = State {
            contents: Vec::new(),
            names: Names::default(),
            capacity_bytes: u64::MAX,
            bad_places: Vec::new(),
            locks: BTreeSet::new(),
            latency: None,
        };
        Self {
            power,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The disk's files for a process of the present boot. They fail for ever after a cut, a
    /// [`SimulatedDisk::kill`] or a [`SimulatedDisk::reboot`]; ask again then.
    pub fn files(&self) -> Arc<dyn Files> {
        Arc::new(SimulatedFiles::new(self.clone(), self.power.boot()))
    }

    /// The supply: plans cuts and failing syncs, and counts.
    pub fn power(&self) -> &Power {
        &self.power
    }

    /// Plans the next cut. See [`Power::cut_at`].
    pub fn cut_at(&self, point: CutPoint) {
        self.power.cut_at(point);
    }

    /// Syncs begun so far, of files and folders.
    pub fn syncs(&self) -> u64 {
        self.power.syncs()
    }

    /// The process using the disk ends; the machine goes on. Nothing is lost, what was unsynced
    /// stays so, and locks are free.
    pub fn kill(&self) {
        self.state.lock().locks.clear();
        self.power.begin_boot();
    }

    /// Cuts the power, unless it is off already, decides what survives, and turns it on.
    pub fn reboot(&self) {
        if self.power.is_on() {
            self.power.cut_now();
        }
        let moment = self.power.cut_moment();
        let mut state = self.state.lock();
        state.locks.clear();
        let power = &self.power;
        let mut below = |bound| power.below(bound);
        state.names.lose_unsynced(moment, &mut below);
        for content in &mut state.contents {
            content.lose_unsynced(moment, &mut below);
        }
        state.free_unnamed();
        power.begin_boot();
    }

    /// Bytes that all files together may take. Below what they take already, only growth fails.
    pub fn set_capacity(&self, bytes: u64) {
        self.state.lock().capacity_bytes = bytes;
    }

    /// Bytes that all files together take.
    pub fn used(&self) -> u64 {
        self.state.lock().used()
    }

    /// Reads that touch these bytes of the file fail, until [`SimulatedDisk::heal_reads`].
    pub fn fail_reads(&self, path: &str, bytes: Range<u64>) {
        self.state.lock().bad_places.push((path.to_owned(), bytes));
    }

    pub fn heal_reads(&self) {
        self.state.lock().bad_places.clear();
    }

    /// Each operation awaits this between its call and its effect.
    pub fn set_latency(&self, latency: Option<Latency>) {
        self.state.lock().latency = latency;
    }

    /// Paths of all files, as a process sees them, sorted.
    pub fn paths(&self) -> Vec<String> {
        self.state.lock().names.paths()
    }

    /// The bytes of a file, as a process sees them.
    pub fn image(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let id = state.names.find(path)?;
        Some(state.contents[id].live().to_vec())
    }

    /// Changes a file behind everybody's back, durably, as a decaying disk or an operator does.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn tamper(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state.lock();
        let id = state.names.find(path).expect("the file to tamper with");
        state.contents[id].tamper(change);
    }

    /// Another disk with the same files, all durable, on a supply of its own: a copied folder.
    pub fn copy(&self, seed: u64) -> Self {
        let copy = Self::new(seed);
        {
            let state = self.state.lock();
            let mut other = copy.state.lock();
            other.contents = state.contents.iter().map(Content::settled).collect();
            other.names = state.names.settled();
        }
        copy
    }

    fn latency(&self, operation: Operation) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let hook = self.state.lock().latency.clone();
        hook.map(|hook| hook(operation))
    }
}

impl State {
    fn used(&self) -> u64 {
        let ids = self.names.ids();
        ids.map(|id| self.contents[id].live().len() as u64).sum()
    }

    fn free(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.used())
    }

    /// After a reboot no process has a file open that has no name.
    fn free_unnamed(&mut self) {
        let named: BTreeSet<usize> = self.names.ids().collect();
        for (id, content) in self.contents.iter_mut().enumerate() {
            if !named.contains(&id) {
                *content = Content::default();
            }
        }
    }
}
