//! Searches that are begun together: memory is waited for once, not for each user.

use super::{Likers, Place};
use crate::crdt::user_key::Who;

/// Searches that have begun, and wait for the memory of their buckets.
pub struct Searches<'a>(Vec<(&'a Likers, Place, Who<'a>)>);

impl<'a> Searches<'a> {
    pub fn with_capacity(searches: usize) -> Self {
        Self(Vec::with_capacity(searches))
    }

    /// Returns where the search goes on.
    pub fn begin(&mut self, likers: &'a Likers, who: Who<'a>) -> Place {
        let place = likers.place_of(who);
        likers.prefetch_bucket(place);
        self.0.push((likers, place, who));
        place
    }

    /// Once all have begun. Each asks for the slots that it looks into.
    pub fn go_on(self) {
        for (likers, place, who) in self.0 {
            likers.prefetch(place, who);
        }
    }
}
