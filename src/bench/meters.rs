//! What is counted and timed while a phase runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::latency::Latencies;
use crate::wire::v1::Outcome;

/// The figures of one phase; shared by all that work in it.
#[derive(Default)]
pub struct Meters {
    /// Likes of users who became likers by them, as the node that was asked saw it.
    pub liked: Figure,
    /// Likes of users who were likers already, as that node saw it.
    pub liked_again: Figure,
    /// Likes that were sent for users who had their turn.
    pub repeats_sent: Figure,
    /// Likes that were refused and changed nothing.
    pub refused: Figure,
    /// Likes of which nobody knows what became of them.
    pub unknown: Figure,
    pub reads: Figure,
    pub reads_failed: Figure,
    pub streams_broken: Figure,
    /// Likes that are sent and not answered.
    pub under_way: Figure,
    /// Guards times; held for one of them.
    pub like_times: Mutex<Latencies>,
    /// The same.
    pub read_times: Mutex<Latencies>,
    /// Guards the words of what first went wrong; the rest is counted.
    trouble: Mutex<Option<String>>,
}

/// A number that many change.
#[derive(Default)]
pub struct Figure(AtomicU64);

impl Figure {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub fn take(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Meters {
    pub fn like_took(&self, since: Instant) {
        self.like_times.lock().record(since.elapsed());
    }

    pub fn read_took(&self, since: Instant) {
        self.read_times.lock().record(since.elapsed());
    }

    /// Whether the outcome is that of a like that happened.
    pub fn count(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Liked => self.liked.add(1),
            Outcome::LikedAgain => self.liked_again.add(1),
            _ => {
                self.refused.add(1);
                return false;
            }
        }
        true
    }

    pub fn acknowledged(&self) -> u64 {
        self.liked.get() + self.liked_again.get()
    }

    /// Keeps the words of the first trouble.
    pub fn trouble(&self, words: impl ToString) {
        self.trouble.lock().get_or_insert_with(|| words.to_string());
    }

    pub fn first_trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// Requests that were due and never sent count with the time that they have waited at the least.
    pub fn never_sent(times: &Mutex<Latencies>, waited: &[Duration]) {
        let mut times = times.lock();
        waited.iter().for_each(|waited| times.record(*waited));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_by_what_happened() {
        let meters = Meters::default();
        assert!(meters.count(Outcome::Liked));
        assert!(meters.count(Outcome::LikedAgain));
        assert!(!meters.count(Outcome::Refused) && !meters.count(Outcome::Unspecified));
        assert_eq!((meters.acknowledged(), meters.refused.get()), (2, 2));
    }

    #[test]
    fn the_first_trouble_is_told() {
        let meters = Meters::default();
        assert_eq!(meters.first_trouble(), None);
        meters.trouble("one");
        meters.trouble("two");
        assert_eq!(meters.first_trouble().as_deref(), Some("one"));
    }
}
