//! Cores: work that can be done in any order, shared out over threads in production and done in turn in the simulator.

use std::thread;

use parking_lot::Mutex;

/// How many threads may share work. Assembly says it.
#[derive(Debug, Clone, Copy)]
pub struct Cores(usize);

impl Cores {
    /// The caller's thread alone.
    pub fn one() -> Self {
        Self(1)
    }

    /// As many as the process may use.
    pub fn all() -> Self {
        Self(thread::available_parallelism().map_or(1, usize::from))
    }

    pub fn count(self) -> usize {
        self.0
    }

    /// Does the work for each item, and returns the results in the order of the items. Every thread takes the next item when it is
    /// done with one. A panic in the work is one of the caller.
    pub fn map<I: Send, T: Send>(self, items: Vec<I>, work: impl Fn(I) -> T + Sync) -> Vec<T> {
        let threads = self.0.min(items.len());
        if threads <= 1 {
            return items.into_iter().map(work).collect();
        }
        let items = Mutex::new(items.into_iter().enumerate());
        let take_all = || {
            let mut done = Vec::new();
            loop {
                let next = items.lock().next();
                let Some((at, item)) = next else {
                    return done;
                };
                done.push((at, work(item)));
            }
        };
        let mut done = thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(take_all)).collect();
            let mut done = take_all();
            for other in others {
                match other.join() {
                    Ok(more) => done.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            done
        });
        done.sort_unstable_by_key(|(at, _)| *at);
        done.into_iter().map(|(_, result)| result).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stand_in_the_order_of_the_items() {
        for cores in [Cores::one(), Cores(3), Cores::all()] {
            let items: Vec<u64> = (0..1_000).collect();
            let squares: Vec<u64> = items.iter().map(|item| item * item).collect();
            assert_eq!(cores.map(items, |item| item * item), squares);
            assert!(cores.map(Vec::<u64>::new(), |item| item).is_empty());
        }
    }

    #[test]
    fn a_panic_in_one_thread_is_the_callers() {
        let work = |item: u64| assert_ne!(item, 77, "planted");
        let panicked = std::panic::catch_unwind(|| Cores(2).map((0..100).collect(), work));
        assert!(panicked.is_err());
    }
}
