//! Group commit: numbers are drawn, slots of the open batch are reserved and filled, and all who wait
//! for a batch share its sync.
//!
//! Order, and its reason. A slot is reserved (and its numbers drawn) under the locks of the shards that
//! it changes, before they are changed, and filled before those locks are given back. So whoever sees an
//! effect in memory sees a ticket drawn that is not below the effect's, and one bucket's events stand
//! in the log in the order in which they were applied. The writer takes a batch only when all its
//! slots are filled.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::crdt::dot::ReplicaIndex;
use crate::engine::published::Published;
use crate::engine::section::Section;
use crate::limits::COMMIT_BYTES_MAX;
use crate::log::Room;
use crate::planted::{Bug, is_planted};

/// Events that come during one sync where streams write: they have more in hand, and gain by fewer syncs, which take much of a core
/// with the switches between tasks that they bring. Whoever waits for each call comes to fewer, also where a client gathers
/// those of some hundred tasks, and loses by a later sync.
const BUSY_EVENTS: u64 = 512;
/// How long a batch is left open where streams write.
const GATHERING: Duration = Duration::from_millis(1);

/// From so many who wait for a batch on, one task wakes the others: whoever is woken by the writer, whose thread is none of the
/// runtime's, comes into a queue that all of its threads share, and that is looked into seldom where they are busy.
const MANY_WAITING: usize = 32;

/// The order of slots. What was read from memory may leave the node once the log is synced through the
/// last ticket that was drawn when the reading was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Ticket(pub u64);

/// Why a slot was refused. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The open batch is full; wait for the next.
    #[error("the open batch is full")]
    BatchFull,
    /// The range of a post is being compared with what the disk says of it; wait until it is done.
    #[error("the range is frozen")]
    Frozen,
    /// The next segment of the log is on its way; wait until there is room for so many bytes.
    #[error("the next segment of the log is being prepared")]
    RoomComing { bytes: usize },
    #[error("there is no room for another write on the disk")]
    DiskFull,
    #[error("a sync of the log failed; no writes are taken until the node is restarted")]
    Poisoned,
    #[error("the node is stopping")]
    Stopping,
}

/// The batch was written, but whether it is on the disk nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sync failed: whether the write is durable is not known")]
pub struct OutcomeUnknown;

pub type CommitResult = Result<Arc<Published>, OutcomeUnknown>;

#[derive(Default)]
struct Filling {
    slots: Vec<Option<Section>>,
    unfilled: usize,
    /// Set when the writer has taken the batch out and waits for its last slot.
    taken: bool,
}

#[derive(Default)]
struct Waiting {
    result: Option<CommitResult>,
    wakers: Vec<Waker>,
}

/// Slots that become durable together.
#[derive(Default)]
pub struct Batch {
    filling: Mutex<Filling>,
    waiting: Mutex<Waiting>,
    filled: Notify,
}

impl Batch {
    /// Gives the result to all who wait. Called once, within a runtime.
    pub(super) fn complete(&self, result: CommitResult) {
        let wakers = {
            let mut waiting = self.waiting.lock();
            waiting.result = Some(result);
            std::mem::take(&mut waiting.wakers)
        };
        let is_many = wakers.len() >= MANY_WAITING;
        let wake_all = move || wakers.into_iter().for_each(Waker::wake);
        match is_many {
            true => drop(tokio::spawn(async move { wake_all() })),
            false => wake_all(),
        }
    }

    /// The sections in the order of their tickets, once all slots are filled.
    pub(super) async fn sections(&self) -> Vec<Section> {
        loop {
            let filled = self.filled.notified();
            {
                let mut filling = self.filling.lock();
                filling.taken = true;
                if filling.unfilled == 0 {
                    let slots = std::mem::take(&mut filling.slots);
                    let filled = "a batch without unfilled slots";
                    return slots.into_iter().map(|slot| slot.expect(filled)).collect();
                }
            }
            filled.await;
        }
    }
}

/// Waits until a batch is durable.
pub struct CommitWait {
    batch: Arc<Batch>,
}

impl Future for CommitWait {
    type Output = CommitResult;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CommitResult> {
        let mut waiting = self.batch.waiting.lock();
        if let Some(result) = &waiting.result {
            return Poll::Ready(result.clone());
        }
        waiting.wakers.push(context.waker().clone());
        Poll::Pending
    }
}

/// A place in the open batch. It must be filled.
pub struct Slot {
    batch: Arc<Batch>,
    index: usize,
    pub ticket: Ticket,
    pub replica: ReplicaIndex,
    /// The first of the numbers that were drawn.
    pub first_seq: u64,
}

impl Slot {
    /// Hands over what happened. The result comes when it is durable.
    pub fn fill(self, section: Section) -> CommitWait {
        let last = {
            let mut filling = self.batch.filling.lock();
            filling.slots[self.index] = Some(section);
            filling.unfilled -= 1;
            filling.unfilled == 0 && filling.taken
        };
        if last {
            self.batch.filled.notify_one();
        }
        CommitWait { batch: self.batch }
    }
}

struct State {
    own: ReplicaIndex,
    next_seq: u64,
    next_ticket: u64,
    open: Arc<Batch>,
    open_slots: usize,
    open_bytes: usize,
    open_events: u64,
    /// The newest batch that was taken by the writer.
    newest: Arc<Batch>,
    closed: Option<Refused>,
}

/// Draws numbers and tickets, and holds the open batch. Its lock is the innermost.
pub struct CommitQueue {
    state: Mutex<State>,
    /// Wakes the writer: the open batch has its first slot, or the queue is closed.
    work: Notify,
    /// Wakes those who wait for a new open batch.
    space: Notify,
    /// Ends the writer's gathering: the open batch is full, or the queue is closed.
    hurry: Notify,
    /// Bytes that are admitted and not yet written.
    admitted: AtomicU64,
    /// Room in the log, once there is one.
    room: OnceLock<Room>,
}

/// What a slot is wanted for.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// Numbers to draw.
    pub events: u64,
    /// No fewer bytes than the section's encoding can have.
    pub bytes: usize,
}

impl CommitQueue {
    pub fn new(own: ReplicaIndex) -> Self {
        let done = Arc::new(Batch::default());
        let state = State {
            own,
            next_seq: 1,
            next_ticket: 1,
            open: Arc::default(),
            open_slots: 0,
            open_bytes: 0,
            open_events: 0,
            newest: done,
            closed: None,
        };
        Self {
            state: Mutex::new(state),
            work: Notify::new(),
            space: Notify::new(),
            hurry: Notify::new(),
            admitted: AtomicU64::new(0),
            room: OnceLock::new(),
        }
    }

    /// Reserves a slot and draws its numbers. Called under the locks of the shards concerned.
    pub fn reserve(&self, demand: Demand) -> Result<Slot, Refused> {
        let mut state = self.state.lock();
        if let Some(refused) = state.closed {
            return Err(refused);
        }
        if state.open_slots > 0 && state.open_bytes + demand.bytes > COMMIT_BYTES_MAX {
            self.hurry.notify_one();
            return Err(Refused::BatchFull);
        }
        if demand.bytes > 0 && !self.has_room(demand.bytes) {
            let bytes = demand.bytes;
            return Err(match self.is_room_coming(bytes) {
                true => Refused::RoomComing { bytes },
                false => Refused::DiskFull,
            });
        }
        self.admitted
            .fetch_add(demand.bytes as u64, Ordering::AcqRel);
        let slot = Slot {
            batch: state.open.clone(),
            index: state.open_slots,
            ticket: Ticket(state.next_ticket),
            replica: state.own,
            first_seq: state.next_seq,
        };
        let mut filling = state.open.filling.lock();
        filling.slots.push(None);
        filling.unfilled += 1;
        drop(filling);
        state.next_seq += demand.events;
        if is_planted(Bug::NumberNeverLogged) && state.next_seq.is_multiple_of(16) {
            state.next_seq += 1;
        }
        state.next_ticket += 1;
        state.open_slots += 1;
        state.open_bytes += demand.bytes;
        state.open_events += demand.events;
        if state.open_slots == 1 {
            self.work.notify_one();
        }
        Ok(slot)
    }

    /// This process's replica and the last number it drew.
    pub fn own(&self) -> (ReplicaIndex, u64) {
        let state = self.state.lock();
        (state.own, state.next_seq - 1)
    }

    /// Goes on under a fresh replica. Called under the locks of all shards.
    pub fn rotate(&self, own: ReplicaIndex) {
        let mut state = self.state.lock();
        state.own = own;
        state.next_seq = 1;
    }

    /// Goes on under the replica of an earlier process.
    #[cfg(feature = "sim")]
    pub(super) fn resume(&self, own: ReplicaIndex, last: u64) {
        let mut state = self.state.lock();
        state.own = own;
        state.next_seq = last + 1;
    }

    /// Waits until everything is durable that was drawn until now.
    pub fn barrier(&self) -> CommitWait {
        let state = self.state.lock();
        let batch = match state.open_slots {
            0 => state.newest.clone(),
            _ => state.open.clone(),
        };
        CommitWait { batch }
    }

    /// Waits until the batch that had no room has been taken by the writer. A batch with a slot always
    /// will be, and an empty one has room for anything.
    pub async fn wait_for_space(&self) {
        let space = self.space.notified();
        let has_slots = self.state.lock().open_slots > 0;
        if has_slots {
            space.await;
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        let admitted = self.admitted.load(Ordering::Acquire) + bytes as u64;
        admitted <= self.room.get().map_or(0, Room::bytes)
    }

    /// Waits until there is room for so many bytes, or it is known that there will be none.
    pub async fn wait_for_room(&self, bytes: usize) {
        let room = self.room();
        let is_over =
            || self.has_room(bytes) || !self.is_room_coming(bytes) || self.closed().is_some();
        room.wait_until(is_over).await;
    }

    fn is_room_coming(&self, bytes: usize) -> bool {
        let room = self.room.get();
        room.is_some_and(|room| room.is_coming(bytes as u64))
    }

    /// Takes no more; those who come from now on are told why.
    pub fn close(&self, why: Refused) {
        let mut state = self.state.lock();
        if state.closed.is_none_or(|known| known == Refused::Stopping) {
            state.closed = Some(why);
        }
        drop(state);
        self.work.notify_one();
        self.hurry.notify_one();
        self.space.notify_waiters();
        self.room.get().into_iter().for_each(Room::stir);
    }

    pub fn closed(&self) -> Option<Refused> {
        self.state.lock().closed
    }

    /// Room in the log, for those who wait for it.
    ///
    /// # Panics
    /// Before recovery has opened the log.
    pub fn room(&self) -> &Room {
        self.room.get().expect("the log is open")
    }

    /// Asked at each reservation: room may come free without a commit.
    pub(super) fn set_room(&self, room: Room) {
        assert!(self.room.set(room).is_ok(), "a queue has one log");
    }

    /// The bytes are in the log, or never will be: they are no longer to come.
    pub(super) fn release(&self, bytes: u64) {
        self.admitted.fetch_sub(bytes, Ordering::AcqRel);
        self.room().stir();
    }

    /// Leaves the open batch open for a while, where streams write. Called by the writer alone.
    pub(super) async fn gather(&self) {
        let is_busy = self.state.lock().open_events >= BUSY_EVENTS;
        if is_busy {
            let full = self.hurry.notified();
            let _either = tokio::time::timeout(GATHERING, full).await;
        }
    }

    /// The next batch with at least one slot, with its last ticket and the bytes that were admitted
    /// for it; none when the queue is closed and empty. Called by the writer alone.
    pub(super) async fn take(&self) -> Option<(Arc<Batch>, Ticket, u64)> {
        loop {
            let work = self.work.notified();
            {
                let mut state = self.state.lock();
                if state.open_slots > 0 {
                    let batch = std::mem::take(&mut state.open);
                    state.newest = batch.clone();
                    let bytes = state.open_bytes as u64;
                    state.open_slots = 0;
                    state.open_bytes = 0;
                    state.open_events = 0;
                    let last = Ticket(state.next_ticket - 1);
                    drop(state);
                    self.space.notify_waiters();
                    return Some((batch, last, bytes));
                }
                if state.closed.is_some() {
                    return None;
                }
            }
            work.await;
        }
    }

    /// Completes the batch that stands for "nothing was ever written".
    pub(super) fn complete_first(&self, published: Arc<Published>) {
        let newest = self.state.lock().newest.clone();
        newest.complete(Ok(published));
    }
}
