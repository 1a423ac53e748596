//! What is worked on at once, in calls and in items: what a full node holds is bounded, and so is how long it takes to get through it.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::api::ApiLimits;
use crate::api::error::ApiError;

/// Calls that are under way, and the items of their batches.
#[derive(Debug)]
pub(super) struct Workload {
    calls: Bounded,
    items: Bounded,
}

/// What there is as much of as allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Calls,
    Items,
}

/// A call's place. It is free again when this is dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct Work<'a> {
    load: &'a Workload,
    items: usize,
}

impl Workload {
    pub fn new(limits: &ApiLimits) -> Self {
        Self {
            calls: Bounded::new(limits.in_flight_max),
            items: Bounded::new(limits.items_in_flight_max),
        }
    }

    /// A place for a call with so many items. Never waited for: a full node says so at once.
    pub fn enter(&self, items: usize) -> Result<Work<'_>, ApiError> {
        if !self.calls.add(1) {
            return Err(self.refusal(Full::Calls));
        }
        if !self.items.add(items) {
            self.calls.take_off(1);
            return Err(self.refusal(Full::Items));
        }
        Ok(Work { load: self, items })
    }

    /// Why a call would be refused whatever its items.
    pub fn full(&self) -> Option<Full> {
        let calls = self.calls.is_full().then_some(Full::Calls);
        calls.or_else(|| self.items.is_full().then_some(Full::Items))
    }

    pub fn refusal(&self, full: Full) -> ApiError {
        let (what, max) = match full {
            Full::Calls => ("requests at once", self.calls.max),
            Full::Items => ("items at once", self.items.max),
        };
        ApiError::Overloaded { what, max }
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.load.calls.take_off(1);
        self.load.items.take_off(self.items);
    }
}

/// Something that is refused while there is as much of it as allowed. The last that is let in may take it beyond.
#[derive(Debug)]
struct Bounded {
    max: usize,
    used: AtomicUsize,
}

impl Bounded {
    fn new(max: usize) -> Self {
        let used = AtomicUsize::new(0);
        Self { max, used }
    }

    fn is_full(&self) -> bool {
        self.used.load(Ordering::Acquire) >= self.max
    }

    /// Returns whether there was room.
    fn add(&self, more: usize) -> bool {
        let had_room = self.used.fetch_add(more, Ordering::AcqRel) < self.max;
        if !had_room {
            self.take_off(more);
        }
        had_room
    }

    fn take_off(&self, less: usize) {
        self.used.fetch_sub(less, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn workload(in_flight_max: usize, items_in_flight_max: usize) -> Workload {
        Workload::new(&ApiLimits {
            wait_default: Duration::ZERO,
            wait_max: Duration::ZERO,
            waiting_max: 0,
            in_flight_max,
            items_in_flight_max,
        })
    }

    #[test]
    fn calls_and_items_are_bounded_each_by_itself_and_leave_nothing_behind() {
        let load = workload(3, 100);
        let full = |load: &Workload| load.enter(1).expect_err("full").to_string();
        let first = load.enter(99).expect("empty");
        assert_eq!(load.full(), None, "one item more has room");
        let large = load.enter(10_000).expect("the last may be large");
        assert_eq!(load.full(), Some(Full::Items));
        let why = "the node is busy: items at once are limited to 100";
        assert_eq!(full(&load), why);
        drop(large);
        assert_eq!(load.full(), None, "who was refused has taken nothing");
        let two = [0, 0].map(|items| load.enter(items).expect("room"));
        assert_eq!(load.full(), Some(Full::Calls));
        let why = "the node is busy: requests at once are limited to 3";
        assert_eq!(full(&load), why);
        drop((first, two));
        for bounded in [&load.calls, &load.items] {
            assert_eq!(bounded.used.load(Ordering::Relaxed), 0);
        }
    }
}
