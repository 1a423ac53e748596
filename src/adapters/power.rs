//! The power supply of simulated devices: numbers their operations and syncs, and cuts the power at
//! a chosen one.
//!
//! The simulated disk and the store in memory share one, so that a test can let the power fail at
//! any sync of the node. Deterministic from its seed.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Where the power fails. Numbers begin at 1 and go on over reboots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutPoint {
    /// At this sync.
    Sync { number: u64, moment: Moment },
    /// Just before this operation, whatever it is, has an effect. Unsynced writes survive as in
    /// [`Moment::During`].
    Operation { number: u64 },
}

/// When, relative to the sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The device kept everything in its cache: no unsynced write survives.
    Before,
    /// The device was writing: any part of what was unsynced survives, in no order.
    During,
    /// The sync was done, and nobody was told; of what it did not cover any part survives.
    After,
}

/// What the supply decides about one sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncFate {
    Done,
    /// It fails, and what was unsynced is in no known state.
    Failed,
    /// The power is now off. The device applies the sync first if the moment is `After`.
    Cut(Moment),
}

/// The supply; clones share it.
#[derive(Clone)]
pub struct Power {
    state: Arc<Mutex<State>>,
}

struct State {
    is_on: bool,
    /// Raised at each reboot and kill: devices refuse callers of an earlier boot.
    boot: u64,
    operations: u64,
    syncs: u64,
    cut: Option<CutPoint>,
    /// How the last cut fell.
    cut_moment: Moment,
    failing_syncs: BTreeSet<u64>,
    chance: StdRng,
}

impl Power {
    pub fn new(seed: u64) -> Self {
        let state = State {
            is_on: true,
            boot: 0,
            operations: 0,
            syncs: 0,
            cut: None,
            cut_moment: Moment::During,
            failing_syncs: BTreeSet::new(),
            chance: StdRng::seed_from_u64(seed),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Plans the next cut, in place of an earlier plan.
    pub fn cut_at(&self, point: CutPoint) {
        self.state.lock().cut = Some(point);
    }

    /// Takes back a planned cut.
    pub fn cancel_cut(&self) {
        self.state.lock().cut = None;
    }

    /// The power fails now.
    pub fn cut_now(&self) {
        self.state.lock().cut_off(Moment::During);
    }

    /// The sync of this number fails, once. Syncs are numbered from 1.
    pub fn fail_sync(&self, number: u64) {
        self.state.lock().failing_syncs.insert(number);
    }

    /// Syncs begun so far.
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// Operations begun so far, syncs among them.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    pub fn is_on(&self) -> bool {
        self.state.lock().is_on
    }

    /// The present boot; a device hands it out with what it opens.
    pub(super) fn boot(&self) -> u64 {
        self.state.lock().boot
    }

    /// How the last cut fell.
    pub(super) fn cut_moment(&self) -> Moment {
        self.state.lock().cut_moment
    }

    /// Power on, for a new boot: callers of the earlier ones are refused.
    pub(super) fn begin_boot(&self) {
        let mut state = self.state.lock();
        state.is_on = true;
        state.boot += 1;
    }

    /// An operation begins: counts it, and fails it if there is no power for this boot.
    pub(super) fn begin_operation(&self, boot: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check(boot)?;
        state.operations += 1;
        if matches!(state.cut, Some(CutPoint::Operation { number }) if state.operations >= number) {
            state.cut_off(Moment::During);
        }
        state.check(boot)
    }

    /// A sync begins; returns its number.
    pub(super) fn begin_sync(&self, boot: u64) -> io::Result<u64> {
        self.begin_operation(boot)?;
        let mut state = self.state.lock();
        state.syncs += 1;
        Ok(state.syncs)
    }

    /// An operation that took its time is about to have its effect.
    pub(super) fn check(&self, boot: u64) -> io::Result<()> {
        self.state.lock().check(boot)
    }

    /// A sync is about to have its effect.
    pub(super) fn end_sync(&self, number: u64, boot: u64) -> io::Result<SyncFate> {
        let mut state = self.state.lock();
        state.check(boot)?;
        if let Some(CutPoint::Sync { number: at, moment }) = state.cut
            && number >= at
        {
            state.cut_off(moment);
            return Ok(SyncFate::Cut(moment));
        }
        if state.failing_syncs.remove(&number) {
            return Ok(SyncFate::Failed);
        }
        Ok(SyncFate::Done)
    }

    /// Evenly from `0..bound`.
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.state.lock().chance.random_range(0..bound)
    }
}

impl State {
    fn check(&self, boot: u64) -> io::Result<()> {
        if self.is_on && self.boot == boot {
            return Ok(());
        }
        Err(power_is_off())
    }

    fn cut_off(&mut self, moment: Moment) {
        self.is_on = false;
        self.cut = None;
        self.cut_moment = moment;
    }
}

/// What every operation of a device without power answers.
pub(super) fn power_is_off() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "simulated: no power")
}

/// What a sync that was planned to fail answers.
pub(super) fn failed_sync() -> io::Error {
    io::Error::other("simulated: sync failed")
}
