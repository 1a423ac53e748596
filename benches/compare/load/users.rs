//! Who likes what: users by number, posts by name.

use std::collections::HashMap;

use clap::ValueEnum;
use likewise::wire::v1::{Operation, WriteBatch};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::measure::stream::numbered;

/// Rounds of the Feistel network that scatters users.
const SCATTER_ROUNDS: u64 = 4;

/// Which users come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// Drawn with replacement.
    Random,
    /// Each once, scattered, then the same again.
    Distinct,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Operations {
    Like,
    Unlike,
    /// Either, by chance.
    Mixed,
}

/// The users, one after the other.
pub struct Users {
    pub order: Order,
    pub among: u64,
    /// How many have come.
    pub at: u64,
    pub rng: SmallRng,
}

impl Users {
    pub fn next(&mut self) -> u64 {
        self.at += 1;
        match self.order {
            Order::Random => self.rng.random_range(0..self.among),
            Order::Distinct => scattered(self.at - 1, self.among),
        }
    }
}

/// The user at a place of the order in which each comes once: a permutation of the numbers below `among`, without
/// the even gaps that steps of one length would leave.
pub fn scattered(place: u64, among: u64) -> u64 {
    // Two halves of so many bits hold every number, and the network permutes what they hold. What falls outside
    // is sent through again, until it falls inside.
    let half = among
        .next_power_of_two()
        .trailing_zeros()
        .div_ceil(2)
        .max(1);
    let mask = (1 << half) - 1;
    let mut number = place % among;
    loop {
        let (mut left, mut right) = (number >> half, number & mask);
        for round in 1..=SCATTER_ROUNDS {
            let mixed = (right ^ round << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (left, right) = (right, left ^ (mixed >> 32 & mask));
        }
        number = left << half | right;
        if number < among {
            return number;
        }
    }
}

/// The posts that are written to.
pub struct Posts {
    name: String,
    /// Sums of the weights of the posts up to each; none where all weigh the same.
    weights: Option<Vec<f64>>,
    count: u64,
}

impl Posts {
    /// Posts by Zipf's law with that exponent; 0 for all alike.
    pub fn new(name: String, count: u64, exponent: f64) -> Self {
        let weights = (exponent > 0.0).then(|| {
            let weights = (1..=count).scan(0.0, |sum, rank| {
                *sum += (rank as f64).powf(-exponent);
                Some(*sum)
            });
            weights.collect()
        });
        Self {
            name,
            weights,
            count,
        }
    }

    fn draw(&self, rng: &mut SmallRng) -> u64 {
        match &self.weights {
            None => rng.random_range(0..self.count),
            Some(sums) => {
                let drawn = rng.random_range(0.0..sums[sums.len() - 1]);
                sums.partition_point(|sum| *sum <= drawn) as u64
            }
        }
    }

    /// A batch of so many items.
    pub fn batch(&self, users: &mut Users, size: usize, operations: Operations) -> WriteBatch {
        let values: Vec<u64> = (0..size).map(|_| users.next()).collect();
        let operations = match operations {
            Operations::Like => vec![Operation::Like as i32],
            Operations::Unlike => vec![Operation::Unlike as i32],
            Operations::Mixed => {
                let both = [Operation::Like as i32, Operation::Unlike as i32];
                (0..size)
                    .map(|_| both[users.rng.random_range(0..2)])
                    .collect()
            }
        };
        let mut batch = WriteBatch {
            operations,
            users: Some(numbered(values)),
            ..WriteBatch::default()
        };
        if self.count == 1 {
            batch.posts.push(self.name.clone());
            return batch;
        }
        let mut places = HashMap::with_capacity(size);
        for _ in 0..size {
            let post = self.draw(&mut users.rng);
            let place = *places.entry(post).or_insert_with(|| {
                batch.posts.push(format!("{}{post:015}", self.name));
                batch.posts.len() as u32 - 1
            });
            batch.post_indexes.push(place);
        }
        batch
    }
}
