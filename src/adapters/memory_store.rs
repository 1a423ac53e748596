//! The checkpoint store in memory, with a durable image beside it, for tests and the simulator.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::power::{Moment, Power, SyncFate, failed_sync, power_is_off};
use crate::seams::checkpoint_store::{Change, CheckpointStore, Row};
use crate::seams::files::IoFuture;

type Rows = BTreeMap<Vec<u8>, Bytes>;

/// The device: keeps its durable rows over reboots.
#[derive(Clone)]
pub struct MemoryDevice {
    power: Power,
    /// Guards the rows; never held across an await.
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    live: Rows,
    durable: Rows,
    /// Batches applied since the last sync, oldest first.
    unsynced: VecDeque<Vec<Change>>,
    /// Batches that are durable.
    synced: u64,
}

/// The store as one boot sees it: refused once the power failed.
pub struct MemoryStore {
    device: MemoryDevice,
    boot: u64,
}

impl Default for MemoryDevice {
    fn default() -> Self {
        Self::new(Power::new(0))
    }
}

impl MemoryDevice {
    /// An empty device on this supply.
    pub fn new(power: Power) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        Self { power, state }
    }

    /// The store for the present boot.
    pub fn store(&self) -> Arc<MemoryStore> {
        Arc::new(MemoryStore {
            device: self.clone(),
            boot: self.power.boot(),
        })
    }

    /// The power was off: a prefix of the unsynced batches survives, chosen by the supply's seed.
    /// The disk on the same supply begins the next boot; a device alone calls
    /// [`MemoryDevice::reboot`].
    pub fn lose_unsynced(&self) {
        let mut state = self.state.lock();
        let batches = std::mem::take(&mut state.unsynced);
        let kept = match self.power.cut_moment() {
            Moment::Before => 0,
            Moment::During | Moment::After => self.power.below(batches.len() as u64 + 1),
        };
        for batch in batches.into_iter().take(kept as usize) {
            change(&mut state.durable, batch);
        }
        state.synced = 0;
        state.live = state.durable.clone();
    }

    /// Cuts the power, if it is not off already, and turns it on again.
    pub fn reboot(&self) {
        if self.power.is_on() {
            self.power.cut_now();
        }
        self.lose_unsynced();
        self.power.begin_boot();
    }

    /// Another device with the same rows, all durable, on this supply: a copied folder.
    pub fn copy(&self, power: Power) -> Self {
        let copy = Self::new(power);
        {
            let (state, mut other) = (self.state.lock(), copy.state.lock());
            other.live = state.live.clone();
            other.durable = state.live.clone();
        }
        copy
    }

    /// Changes a row behind the store's back, as a decaying disk does.
    pub fn tamper(&self, key: &[u8], value: Option<Bytes>) {
        let mut state = self.state.lock();
        change(&mut state.live, vec![(key.to_vec(), value.clone())]);
        change(&mut state.durable, vec![(key.to_vec(), value)]);
    }
}

fn change(rows: &mut Rows, changes: Vec<Change>) {
    for (key, value) in changes {
        match value {
            Some(value) => rows.insert(key, value),
            None => rows.remove(&key),
        };
    }
}

impl State {
    /// Batches ever applied.
    fn applied(&self) -> u64 {
        self.synced + self.unsynced.len() as u64
    }

    fn sync_through(&mut self, applied: u64) {
        while self.synced < applied
            && let Some(batch) = self.unsynced.pop_front()
        {
            change(&mut self.durable, batch);
            self.synced += 1;
        }
    }
}

impl CheckpointStore for MemoryStore {
    fn get<'a>(&'a self, key: &'a [u8]) -> IoFuture<'a, Option<Bytes>> {
        Box::pin(async move {
            self.device.power.begin_operation(self.boot)?;
            Ok(self.device.state.lock().live.get(key).cloned())
        })
    }

    fn scan(&self, after: Option<Vec<u8>>, rows_max: usize) -> IoFuture<'_, Vec<Row>> {
        Box::pin(async move {
            self.device.power.begin_operation(self.boot)?;
            let start = after.map_or(Bound::Unbounded, Bound::Excluded);
            let state = self.device.state.lock();
            let rows = state.live.range::<Vec<u8>, _>((start, Bound::Unbounded));
            let rows = rows.take(rows_max);
            Ok(rows
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect())
        })
    }

    fn apply(&self, changes: Vec<Change>) -> IoFuture<'_, ()> {
        Box::pin(async move {
            self.device.power.begin_operation(self.boot)?;
            let mut state = self.device.state.lock();
            change(&mut state.live, changes.clone());
            state.unsynced.push_back(changes);
            Ok(())
        })
    }

    fn sync(&self) -> IoFuture<'_, ()> {
        Box::pin(async move {
            let power = &self.device.power;
            let number = power.begin_sync(self.boot)?;
            let covered = self.device.state.lock().applied();
            // A crash may fall here, between the call and its effect.
            tokio::task::yield_now().await;
            let fate = power.end_sync(number, self.boot)?;
            let mut state = self.device.state.lock();
            match fate {
                SyncFate::Done => {
                    state.sync_through(covered);
                    Ok(())
                }
                SyncFate::Cut(Moment::After) => {
                    state.sync_through(covered);
                    Err(power_is_off())
                }
                SyncFate::Cut(_) => Err(power_is_off()),
                SyncFate::Failed => Err(failed_sync()),
            }
        })
    }
}
