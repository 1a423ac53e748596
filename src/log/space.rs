//! Room in the log: the rest of the current segment and the spare behind it, and the worker that
//! prepares the spare.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::segment::{self, Spare};
use super::{LogOptions, LogSeams, Position};

/// Shared by the writer, the preparer and whoever asks for room.
pub(super) struct Space {
    options: LogOptions,
    /// Follows `state`; apart from it so that asking takes no lock.
    room: AtomicU64,
    /// Guards what is left; never held across an await.
    state: Mutex<State>,
    /// Wakes the preparer: there is something to prepare, or it should try again.
    prod: Notify,
    /// Wakes who waits for room.
    changed: Notify,
}

struct State {
    /// Bytes left in the current segment.
    rest: u64,
    spare: SpareState,
}

enum SpareState {
    Wanted {
        base: Position,
        /// The last try found no space on the disk.
        has_failed: bool,
    },
    Ready(Spare),
    /// The writer is gone or poisoned.
    Closed,
}

impl Space {
    pub(super) fn new(
        options: LogOptions,
        rest: u64,
        base: Position,
        spare: Option<Spare>,
    ) -> Self {
        let spare = spare.map_or(SpareState::wanted(base), SpareState::Ready);
        let space = Self {
            options,
            room: AtomicU64::new(0),
            state: Mutex::new(State { rest, spare }),
            prod: Notify::new(),
            changed: Notify::new(),
        };
        space.tell(&space.state.lock());
        space
    }

    pub(super) fn room(&self) -> u64 {
        self.room.load(Ordering::Acquire)
    }

    /// Takes the spare, to be the current segment, for a group of so many bytes; the one after it is
    /// wanted then. What the group leaves of it is room at once: nobody is refused while it is written.
    pub(super) fn take_spare(&self, bytes: u64) -> Option<Spare> {
        let mut state = self.state.lock();
        let SpareState::Ready(spare) = &state.spare else {
            return None;
        };
        let base = Position(spare.birth.base.0 + spare.birth.capacity);
        let taken = std::mem::replace(&mut state.spare, SpareState::wanted(base));
        state.rest = self.options.segment_record_bytes().saturating_sub(bytes);
        self.tell(&state);
        self.prod.notify_one();
        match taken {
            SpareState::Ready(spare) => Some(spare),
            SpareState::Wanted { .. } | SpareState::Closed => None,
        }
    }

    pub(super) fn set_rest(&self, rest: u64) {
        let mut state = self.state.lock();
        state.rest = rest;
        self.tell(&state);
    }

    /// Nothing more will be appended.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.rest = 0;
        state.spare = SpareState::Closed;
        self.tell(&state);
        self.prod.notify_one();
    }

    /// Tries again to prepare a spare that is missing.
    pub(super) fn retry(&self) {
        if matches!(self.state.lock().spare, SpareState::Wanted { .. }) {
            self.prod.notify_one();
        }
    }

    fn is_coming(&self, bytes: u64) -> bool {
        if bytes > self.options.segment_record_bytes() {
            return false;
        }
        match self.state.lock().spare {
            SpareState::Wanted { has_failed, .. } => !has_failed,
            SpareState::Ready(_) => true,
            SpareState::Closed => false,
        }
    }

    fn is_closed(&self) -> bool {
        matches!(self.state.lock().spare, SpareState::Closed)
    }

    /// There is no space for a spare.
    fn has_failed(&self) {
        let mut state = self.state.lock();
        if let SpareState::Wanted { has_failed, .. } = &mut state.spare {
            *has_failed = true;
        }
        self.tell(&state);
    }

    fn put_spare(&self, spare: Spare) {
        let mut state = self.state.lock();
        if let SpareState::Wanted { .. } = state.spare {
            state.spare = SpareState::Ready(spare);
        }
        self.tell(&state);
    }

    /// A group that does not fit into the rest leaves it unused, so only what no group can waste
    /// counts once there is a spare.
    fn tell(&self, state: &State) {
        let room = match &state.spare {
            SpareState::Ready(_) => {
                let surely = state.rest.saturating_sub(self.options.group_bytes_max);
                state.rest.max(surely + self.options.segment_record_bytes())
            }
            SpareState::Wanted { .. } => state.rest,
            SpareState::Closed => 0,
        };
        self.room.store(room, Ordering::Release);
        self.changed.notify_waiters();
    }
}

impl SpareState {
    fn wanted(base: Position) -> Self {
        let has_failed = false;
        Self::Wanted { base, has_failed }
    }
}

/// The log was poisoned or closed: it never takes anything again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log takes nothing more")]
pub struct LogEnded;

/// How much may still be appended; clones share it, on any thread.
#[derive(Clone)]
pub struct Room {
    space: Arc<Space>,
}

impl Room {
    pub(super) fn new(space: Arc<Space>) -> Self {
        Self { space }
    }

    /// Bytes, framed ([`super::framed_bytes`]), that can surely still be appended, in any groups.
    /// Small while the spare is missing; 0 once the log is poisoned or closed.
    pub fn bytes(&self) -> u64 {
        self.space.room()
    }

    /// Tries again to allocate the spare that is missing, if it is: call it when space may have
    /// come free. Removing segments does so by itself.
    pub fn retry(&self) {
        self.space.retry();
    }

    /// Whether room for so many bytes will come without anybody's help: the next segment is prepared, or is being
    /// prepared and the last try has not failed.
    pub fn is_coming(&self, bytes: u64) -> bool {
        self.space.is_coming(bytes)
    }

    /// Returns when there is room for so many bytes; fails if there never will be.
    pub async fn wait_for(&self, bytes: u64) -> Result<(), LogEnded> {
        self.wait_until(|| self.bytes() >= bytes || self.space.is_closed())
            .await;
        match self.space.is_closed() {
            true => Err(LogEnded),
            false => Ok(()),
        }
    }

    /// Looks again and again: whenever the room changes, or somebody [says](Self::stir) that something else did.
    pub async fn wait_until(&self, is_so: impl Fn() -> bool) {
        loop {
            let changed = self.space.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            if is_so() {
                return;
            }
            changed.await;
        }
    }

    /// Has everybody look again who waits.
    pub fn stir(&self) {
        self.space.changed.notify_waiters();
    }
}

/// Allocates spare segments ahead of their use. Belongs on a worker of its own: it writes tens of
/// megabytes of zeros, which no commit should wait for.
pub struct SparePreparer {
    seams: LogSeams,
    space: Arc<Space>,
}

impl SparePreparer {
    pub(super) fn new(seams: LogSeams, space: Arc<Space>) -> Self {
        Self { seams, space }
    }

    /// Runs until the writer is gone or poisoned. After a failure, such as a full disk, it waits for
    /// [`Room::retry`].
    pub async fn run(self) {
        let mut is_told = false;
        loop {
            let wanted = match self.space.state.lock().spare {
                SpareState::Closed => return,
                SpareState::Ready(_) => None,
                SpareState::Wanted { base, .. } => Some(base),
            };
            if let Some(base) = wanted {
                match segment::prepare(&self.seams, &self.space.options, base).await {
                    Ok(spare) => {
                        is_told = false;
                        self.space.put_spare(spare);
                        continue;
                    }
                    Err(error) => {
                        self.space.has_failed();
                        if !std::mem::replace(&mut is_told, true) {
                            tracing::warn!(
                                %error,
                                room = self.space.room(),
                                "no space for the next log segment; writes will be refused when the \
                                 current one is full"
                            );
                        }
                    }
                }
            }
            self.space.prod.notified().await;
        }
    }
}
