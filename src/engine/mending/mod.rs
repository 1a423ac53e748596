//! Looking after the state at rest: one range at a time is compared with its kept sum, with the rows of
//! the checkpoint and, where these differ, with what rows and log say it should be.
//!
//! Run by the checkpointer's worker alone: no checkpoint and no merge may come between. The algorithm and its
//! argument stand in `docs/architecture.md`, "Audit and repair".

mod arriving;
mod comparison;
mod history;

use std::io;
use std::sync::Arc;

use crate::codec::DecodeError;
use crate::crdt::fingerprint::Fingerprint;
use crate::engine::commit::{Demand, OutcomeUnknown, Refused};
use crate::engine::freeze::Frozen;
use crate::engine::published::Published;
use crate::engine::rebuild::{Gap, RebuiltRange};
use crate::engine::replacement::Difference;
use crate::engine::rows::RowError;
use crate::engine::section::Section;
use crate::engine::snapshot::CourseError;
use crate::engine::{Engine, Settlement};
use crate::log::{LogReader, ReadError};
use crate::seams::CheckpointStore;

pub use arriving::Arriving;

/// So many likers, and shards of posts, are gone through in a few milliseconds.
const SMALL_RANGE_MAX: u64 = 32 << 10;

/// Why a range was not looked at or mended. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    #[error("a snapshot is being merged")]
    Unsettled,
    #[error("the checkpoint store failed")]
    Store(#[from] io::Error),
    #[error("a row of the checkpoint is damaged: {0}")]
    Row(#[from] RowError),
    #[error("the log cannot be read")]
    Read(#[from] ReadError),
    #[error("the log holds a record that cannot be read")]
    Decode(#[from] DecodeError),
    #[error("the log failed: what memory shows may not be durable")]
    Log(#[from] OutcomeUnknown),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Gap(#[from] Gap),
    /// What was taken from another region shows events that have not arrived here.
    #[error("events have not arrived yet that the other region's state shows")]
    Ahead,
    #[error("this node's log does not reach back to what the other region's state covers")]
    LogCut,
    #[error("what came is no snapshot of the range: {0}")]
    Course(#[from] CourseError),
    /// The state that was taken is not the one that was meant.
    #[error("the other region's state is not what its sum said")]
    Unexpected,
}

/// What other regions are known to hold of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hearsay {
    /// One of them has the sum that is kept here.
    pub is_shared: bool,
    /// By how much the sums of others differ from the one kept here.
    pub differences: Vec<Fingerprint>,
}

/// What was wrong with a range, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Memory, kept sum, rows and log agree.
    Sound,
    /// Memory was put right from checkpoint and log.
    MemoryMended,
    /// Memory is right; the next checkpoint writes the rows again.
    RowsMended,
    /// The kept sum was put right.
    SumMended,
    /// Not to be told from what this node has.
    Unclear,
}

/// A look at a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    pub range: usize,
    /// The sum over the entries in memory.
    pub memory: Fingerprint,
    /// The sum that follows the changes.
    pub kept: Fingerprint,
    /// The sum over what checkpoint and log say, where it was asked for and can be told.
    pub rebuilt: Option<Fingerprint>,
    /// Posts whose rows will be written again.
    pub rows: usize,
    pub outcome: Outcome,
}

impl Checked {
    /// Whether the kept sum is another one afterwards.
    pub fn changes_sum(&self) -> bool {
        match self.outcome {
            Outcome::MemoryMended => self.rebuilt != Some(self.kept),
            Outcome::SumMended => true,
            Outcome::Sound | Outcome::RowsMended | Outcome::Unclear => false,
        }
    }
}

/// What became of a range that was taken from another region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub range: usize,
    pub before: Fingerprint,
    pub after: Fingerprint,
    pub difference: Difference,
}

pub struct Mender {
    pub engine: Arc<Engine>,
    pub store: Arc<dyn CheckpointStore>,
    pub log: LogReader,
}

/// A frozen range as memory has it, and its kept sum, of one moment.
struct Still {
    frozen: Frozen,
    memory: Fingerprint,
    kept: Fingerprint,
    published: Arc<Published>,
}

impl Mender {
    /// Compares the range with its kept sum, and the rows of what did not change since the checkpoint with
    /// memory. Rows are trusted to be comparable only after a checkpoint that was finished.
    pub async fn scrub(&self, range: usize, are_rows_sure: bool) -> Result<Checked, MendError> {
        let bad = match are_rows_sure {
            true => self.posts_with_bad_rows(range).await?,
            false => Vec::new(),
        };
        let still = self.still(range).await?;
        let outcome = match (still.memory == still.kept, bad.is_empty()) {
            (true, true) => Outcome::Sound,
            (true, false) => Outcome::RowsMended,
            (false, _) => Outcome::Unclear,
        };
        let mut checked = still.checked(None, outcome);
        if outcome == Outcome::RowsMended {
            bad.iter()
                .for_each(|post| self.engine.mark_post_changed(post));
            checked.rows = bad.len();
        }
        Ok(checked)
    }

    /// Whether there is or should be something in it, and so little that writes to it can wait while it is summed.
    pub fn is_small(&self, range: usize) -> bool {
        let posts = self.engine.directory.in_range(range);
        let likers: u64 = posts.iter().map(|post| post.likers()).sum();
        let visits = likers + (posts.len() * self.engine.shards.len()) as u64;
        let kept = self.engine.board.newest().sums.range(range);
        (visits > 0 || kept != Fingerprint::default()) && visits <= SMALL_RANGE_MAX
    }

    /// Rebuilds the range from the last checkpoint and the log, and puts right what can be told to be wrong.
    pub async fn check(&self, range: usize, hearsay: &Hearsay) -> Result<Checked, MendError> {
        let rebuilt = self.rebuilt(range).await;
        let still = self.still(range).await?;
        let rebuilt = match rebuilt {
            Ok((mut rebuilt, next)) => {
                self.follow(&mut rebuilt, next, &still.published).await?;
                Some(rebuilt)
            }
            Err(error @ (MendError::Row(_) | MendError::Decode(_) | MendError::Gap(_))) => {
                tracing::warn!(range, %error, "checkpoint and log do not say what the range should be");
                None
            }
            Err(error) => return Err(error),
        };
        let replicas = self.engine.replicas.all();
        let sum = rebuilt.as_ref().map(|rebuilt| rebuilt.sum(&replicas));
        let outcome = still.judge(sum, hearsay);
        let mut checked = still.checked(sum, outcome);
        match (outcome, rebuilt) {
            (Outcome::MemoryMended, Some(rebuilt)) => {
                self.engine.replace_range(&still.frozen, rebuilt);
                drop(self.correct(&still, sum.expect("rebuilt"))?);
            }
            (Outcome::SumMended, _) => drop(self.correct(&still, still.memory)?),
            (Outcome::RowsMended, _) => {
                self.engine.mark_range_changed(range);
                checked.rows = self.engine.directory.in_range(range).len();
            }
            _ => {}
        }
        Ok(checked)
    }

    /// Puts a range from another region in the place of what is here. Where it is known by how much the sum must
    /// change, nothing else is taken.
    pub async fn take(
        &self,
        mut other: RebuiltRange,
        expected: Option<Fingerprint>,
    ) -> Result<Taken, MendError> {
        let range = other.range;
        let shown = other.frontier.vector().clone();
        if !self.engine.board.newest().vector.covers_all(&shown) {
            return Err(MendError::Ahead);
        }
        let from = self.log_before(&shown).ok_or(MendError::LogCut)?;
        let next = self.replay(&mut other, from, self.log.synced()).await?;
        let still = self.still(range).await?;
        self.follow(&mut other, next, &still.published).await?;
        let after = other.sum(&self.engine.replicas.all());
        let mut by = after;
        by -= still.kept;
        if expected.is_some_and(|expected| expected != by) {
            return Err(MendError::Unexpected);
        }
        if self.engine.own_would_fall(&still.frozen, &other) {
            let fresh = self.engine.rotate_epoch();
            tracing::info!(range, %fresh, "figures of the running replica fall: it goes on under a fresh epoch");
        }
        let difference = self.engine.replace_range(&still.frozen, other);
        self.settle(still, after, difference).await
    }

    /// What memory holds of the range is right, as an operator decided: the kept sum follows it, and so do the rows.
    pub async fn keep(&self, range: usize) -> Result<Taken, MendError> {
        let still = self.still(range).await?;
        // Whether figures of the running replica were lost is not to be known.
        self.engine.rotate_epoch();
        self.engine.mark_range_changed(range);
        let after = still.memory;
        self.settle(still, after, Difference::default()).await
    }

    /// The kept sum follows what is in place now, durably.
    async fn settle(
        &self,
        still: Still,
        after: Fingerprint,
        difference: Difference,
    ) -> Result<Taken, MendError> {
        let waits = self.correct(&still, after)?;
        let (range, before) = (still.frozen.range, still.kept);
        // Writes go on while it becomes durable.
        drop(still);
        waits.await?;
        Ok(Taken {
            range,
            before,
            after,
            difference,
        })
    }

    /// Freezes the range, and waits until its kept sum is published.
    async fn still(&self, range: usize) -> Result<Still, MendError> {
        if self.engine.settlement() != Settlement::Settled {
            return Err(MendError::Unsettled);
        }
        let frozen = self.engine.freeze(range);
        let durable = self.engine.barrier();
        let scanned = self.engine.scan(&frozen);
        if !scanned.misplaced.is_empty() {
            let posts = scanned.misplaced.len();
            tracing::error!(
                range,
                posts,
                "figures did not follow from the likers; put right"
            );
            self.engine.put_right(&frozen, &scanned.misplaced);
        }
        let published = durable.await?;
        Ok(Still {
            frozen,
            memory: scanned.sum,
            kept: published.sums.range(range),
            published,
        })
    }

    /// Lets the kept sum follow what was put in place. It belongs to the same events as before.
    fn correct(
        &self,
        still: &Still,
        sum: Fingerprint,
    ) -> Result<crate::engine::commit::CommitWait, MendError> {
        let mut change = sum;
        change -= still.kept;
        let demand = Demand {
            events: 0,
            bytes: 0,
        };
        let section = Section {
            prints: vec![(still.frozen.range, change)],
            ..Section::default()
        };
        Ok(self.engine.queue.reserve(demand)?.fill(section))
    }
}

impl Still {
    fn checked(&self, rebuilt: Option<Fingerprint>, outcome: Outcome) -> Checked {
        Checked {
            range: self.frozen.range,
            memory: self.memory,
            kept: self.kept,
            rebuilt,
            rows: 0,
            outcome,
        }
    }

    /// What is wrong. The table is that of `docs/architecture.md`.
    fn judge(&self, rebuilt: Option<Fingerprint>, hearsay: &Hearsay) -> Outcome {
        let (memory, kept) = (self.memory, self.kept);
        let is_heard = |sum: Fingerprint| {
            let mut difference = sum;
            difference -= kept;
            hearsay.differences.contains(&difference)
        };
        match rebuilt {
            Some(rebuilt) if memory == kept && rebuilt == kept => Outcome::Sound,
            Some(rebuilt) if rebuilt == kept => Outcome::MemoryMended,
            // No chance makes two sums equal: what is kept is right. A region that differs as memory does
            // may have its state from here.
            _ if hearsay.is_shared && memory != kept => Outcome::Unclear,
            _ if hearsay.is_shared => Outcome::RowsMended,
            Some(rebuilt) if is_heard(rebuilt) => Outcome::MemoryMended,
            _ if memory == kept => Outcome::RowsMended,
            _ if is_heard(memory) => Outcome::SumMended,
            _ => Outcome::Unclear,
        }
    }
}
