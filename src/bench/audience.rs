//! Who likes which post next: somebody who never did, or somebody who did.
//!
//! The users of a post come in a fixed order that looks like chance, so it takes one number a post to know who
//! had their turn, and one bit a like to know whose like was acknowledged.

use std::sync::atomic::{AtomicU64, Ordering};

use rand::Rng;
use rand::rngs::SmallRng;

/// The users of all posts. A user's place in a post's order is their turn.
pub struct Audience {
    users: u64,
    /// Has no divisor in common with the number of users, so that each of them has one turn.
    stride: u64,
    /// For each post how many turns were given. May exceed the number of users: then all had theirs.
    turns: Vec<AtomicU64>,
}

/// The part of all users by which consecutive turns lie apart: no other ratio keeps them so evenly spread.
const GOLDEN_RATIO: f64 = 0.618_033_988_749_895;

impl Audience {
    pub fn new(posts: u32, users: u32) -> Self {
        let users = u64::from(users);
        let near = (users as f64 * GOLDEN_RATIO) as u64;
        let stride = (near.max(1)..).find(|stride| gcd(*stride, users) == 1);
        Self {
            users,
            stride: stride.expect("numbers go on beyond the number of users"),
            turns: (0..posts).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Somebody who has not liked the post yet, or the turn of anybody once all have.
    pub fn newcomer(&self, post: u32, chance: &mut SmallRng) -> u32 {
        let turn = self.turns[post as usize].fetch_add(1, Ordering::Relaxed);
        match turn < self.users {
            true => turn as u32,
            false => chance.random_range(0..self.users) as u32,
        }
    }

    /// Somebody who has liked the post, or is just about to; where nobody has, a newcomer.
    pub fn regular(&self, post: u32, chance: &mut SmallRng) -> u32 {
        match self.given(post) {
            0 => self.newcomer(post, chance),
            given => chance.random_range(0..given) as u32,
        }
    }

    /// The number of the user whose turn it is.
    pub fn user(&self, post: u32, turn: u32) -> u64 {
        // No sum nears 2^64: turns and strides are below 2^32 or little above.
        (u64::from(turn) * self.stride + u64::from(post)) % self.users
    }

    /// Whether all users have had their turn at the post.
    pub fn is_full(&self, post: u32) -> bool {
        self.given(post) == self.users
    }

    fn given(&self, post: u32) -> u64 {
        let turns = self.turns[post as usize].load(Ordering::Relaxed);
        turns.min(self.users)
    }
}

fn gcd(one: u64, other: u64) -> u64 {
    match other {
        0 => one,
        other => gcd(other, one % other),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn each_user_has_one_turn_at_each_post() {
        for users in [1, 2, 3, 10, 97, 1_000, 4_096] {
            let audience = Audience::new(3, users);
            for post in 0..3 {
                let seen: BTreeSet<u64> =
                    (0..users).map(|turn| audience.user(post, turn)).collect();
                assert_eq!(seen.len(), users as usize);
                assert!(seen.iter().all(|user| *user < u64::from(users)));
            }
        }
    }

    #[test]
    fn newcomers_are_new_until_all_have_come() {
        let mut chance = SmallRng::seed_from_u64(1);
        let audience = Audience::new(2, 100);
        let turns: BTreeSet<u32> = (0..100)
            .map(|_| audience.newcomer(1, &mut chance))
            .collect();
        assert_eq!(turns.len(), 100);
        assert!(audience.is_full(1) && !audience.is_full(0));
        assert!(audience.newcomer(1, &mut chance) < 100);
    }

    #[test]
    fn regulars_have_come_before() {
        let mut chance = SmallRng::seed_from_u64(1);
        let audience = Audience::new(1, 1_000);
        assert_eq!(audience.regular(0, &mut chance), 0);
        for _ in 0..9 {
            audience.newcomer(0, &mut chance);
        }
        for _ in 0..100 {
            assert!(audience.regular(0, &mut chance) < 10);
        }
    }

    #[test]
    fn turns_of_the_largest_audience_do_not_overflow() {
        let audience = Audience::new(1, u32::MAX);
        assert!(audience.user(0, u32::MAX - 1) < u64::from(u32::MAX));
    }
}
