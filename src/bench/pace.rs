//! When requests are due, and who takes which.
//!
//! Times are fixed when a phase begins: the slowest node does not move them. Whoever has nothing under way takes
//! the next turn, and waits for it or is late for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Tokio's timers tell whole milliseconds only; a thread of its own wakes within a tenth of one.
const SLEEP_MIN: Duration = Duration::from_micros(50);
/// So that the thread notices in time when the run ends.
const SLEEP_MAX: Duration = Duration::from_millis(20);
/// Turns that are due at the very end are taken all the same, if they are within this.
const LAST_CALL: Duration = Duration::from_millis(20);

/// Evenly spaced times, from the beginning of a phase on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Turns a second.
    rate: f64,
    /// How many there are in all.
    turns: u64,
}

impl Schedule {
    pub fn new(rate: f64, length: Duration) -> Self {
        assert!(rate > 0.0, "a rate moves something");
        // The tiny surplus is for rates that no binary fraction is equal to.
        let turns = (rate * length.as_secs_f64() + 1e-6) as u64;
        Self { rate, turns }
    }

    /// When a turn is due.
    pub fn due(&self, turn: u64) -> Duration {
        Duration::from_secs_f64(turn as f64 / self.rate)
    }

    /// How many turns are due by then.
    pub fn due_by(&self, elapsed: Duration) -> u64 {
        let begun = (elapsed.as_secs_f64() * self.rate) as u64 + 1;
        begun.min(self.turns)
    }

    pub fn turns(&self) -> u64 {
        self.turns
    }
}

/// How the requests of a phase follow one another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rhythm {
    /// As fast as they are answered, until the phase is over.
    Free,
    /// The same, but no more than so many.
    Few(u64),
    /// At their times.
    Paced(Schedule),
}

/// The turns of one phase.
pub struct Pace {
    rhythm: Rhythm,
    began: Instant,
    ends: Instant,
    /// A permit for each turn that is due; with a schedule only.
    due: Semaphore,
    drawn: AtomicU64,
    served: AtomicU64,
    stop: CancellationToken,
}

impl Pace {
    /// Begins now. With `stop` it is over at once.
    pub fn begin(rhythm: Rhythm, length: Duration, stop: CancellationToken) -> Arc<Self> {
        let began = Instant::now();
        let pace = Arc::new(Self {
            rhythm,
            began,
            ends: began + length,
            due: Semaphore::new(0),
            drawn: AtomicU64::new(0),
            served: AtomicU64::new(0),
            stop,
        });
        if let Rhythm::Paced(schedule) = rhythm {
            let pace = Arc::clone(&pace);
            std::thread::spawn(move || pace.tell_turns(schedule));
        }
        pace
    }

    /// Waits for the next turn; since when it is due, or `None` when the phase is over.
    pub async fn turn(&self) -> Option<Instant> {
        let due = match self.rhythm {
            Rhythm::Free => Instant::now(),
            Rhythm::Few(most) => {
                let turn = self.drawn.fetch_add(1, Ordering::Relaxed);
                (turn < most).then(Instant::now)?
            }
            Rhythm::Paced(schedule) => self.wait(schedule).await?,
        };
        let grace = match self.has_schedule() {
            true => LAST_CALL,
            false => Duration::ZERO,
        };
        if self.stop.is_cancelled() || Instant::now() >= self.ends + grace {
            return None;
        }
        self.served.fetch_add(1, Ordering::Relaxed);
        Some(due)
    }

    async fn wait(&self, schedule: Schedule) -> Option<Instant> {
        let permit = tokio::select! {
            biased;
            () = self.stop.cancelled() => return None,
            permit = self.due.acquire() => permit,
        };
        permit.expect("turns are told to the end").forget();
        let turn = self.drawn.fetch_add(1, Ordering::Relaxed);
        (turn < schedule.turns()).then(|| self.began + schedule.due(turn))
    }

    /// Returns when the phase is over.
    pub async fn over(&self) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep_until(self.ends) => {}
        }
    }

    /// Since when those turns were due that nobody has taken; for a look at the moment.
    pub fn late(&self) -> Vec<Duration> {
        let Rhythm::Paced(schedule) = self.rhythm else {
            return Vec::new();
        };
        let elapsed = self.began.elapsed();
        let served = self.served.load(Ordering::Relaxed);
        let late = served..schedule.due_by(elapsed);
        late.map(|turn| elapsed.saturating_sub(schedule.due(turn)))
            .collect()
    }

    /// How many turns are due that nobody has taken.
    pub fn late_turns(&self) -> u64 {
        let Rhythm::Paced(schedule) = self.rhythm else {
            return 0;
        };
        let due = schedule.due_by(self.began.elapsed());
        due.saturating_sub(self.served.load(Ordering::Relaxed))
    }

    /// Whether turns are due at times of their own, which are then what answers are timed from.
    pub fn has_schedule(&self) -> bool {
        matches!(self.rhythm, Rhythm::Paced(_))
    }

    /// Gives a permit for each turn when it is due, and wakes all who wait in the end.
    fn tell_turns(&self, schedule: Schedule) {
        let mut told = 0;
        while told < schedule.turns() && !self.stop.is_cancelled() {
            let due = schedule.due_by(self.began.elapsed());
            self.due.add_permits((due - told) as usize);
            told = due;
            let next = (self.began + schedule.due(told)).saturating_duration_since(Instant::now());
            std::thread::sleep(next.clamp(SLEEP_MIN, SLEEP_MAX));
        }
        self.due.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn turns_are_evenly_spaced_from_the_beginning_on() {
        let schedule = Schedule::new(4.0, 2 * SECOND);
        assert_eq!(schedule.turns(), 8);
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(6), Duration::from_millis(1_500));
        assert_eq!(schedule.due_by(Duration::ZERO), 1);
        assert_eq!(schedule.due_by(Duration::from_millis(249)), 1);
        assert_eq!(schedule.due_by(Duration::from_millis(250)), 2);
        assert_eq!(schedule.due_by(10 * SECOND), 8);
        assert_eq!(Schedule::new(0.1, SECOND / 10).turns(), 0);
        assert_eq!(Schedule::new(0.1, 10 * SECOND).turns(), 1);
    }

    #[tokio::test]
    async fn a_turn_that_is_taken_late_was_due_at_its_time() {
        let schedule = Schedule::new(1_000.0, SECOND / 10);
        let stop = CancellationToken::new();
        let pace = Pace::begin(Rhythm::Paced(schedule), 60 * SECOND, stop.clone());
        for turn in 0..100 {
            let due = pace.turn().await.expect("it is not over");
            assert_eq!(due, pace.began + Duration::from_millis(turn));
            assert!(due <= Instant::now());
        }
        assert_eq!(pace.turn().await, None);
        assert_eq!(pace.late_turns(), 0);
    }

    #[tokio::test]
    async fn turns_that_nobody_took_are_told_with_their_wait() {
        let schedule = Schedule::new(1_000.0, SECOND / 100);
        let length = Duration::from_millis(20);
        let pace = Pace::begin(Rhythm::Paced(schedule), length, CancellationToken::new());
        tokio::time::sleep(length + LAST_CALL).await;
        assert_eq!(pace.turn().await, None, "the phase is over");
        let late = pace.late();
        assert_eq!((late.len(), pace.late_turns()), (10, 10));
        assert!(late[0] >= length && late[0] > late[9], "{late:?}");
    }

    #[tokio::test]
    async fn without_a_schedule_turns_go_on_until_enough_or_the_end() {
        let stop = CancellationToken::new();
        let few = Pace::begin(Rhythm::Few(2), SECOND, stop.clone());
        assert!(few.turn().await.is_some() && few.turn().await.is_some());
        assert_eq!(few.turn().await, None);
        let free = Pace::begin(Rhythm::Free, 60 * SECOND, stop.clone());
        assert!(free.turn().await.is_some());
        stop.cancel();
        assert_eq!(free.turn().await, None);
        let over = Pace::begin(Rhythm::Free, Duration::ZERO, CancellationToken::new());
        assert_eq!(over.turn().await, None);
    }
}
