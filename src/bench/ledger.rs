//! What was acknowledged, like by like: what the counts are held against in the end.

use parking_lot::Mutex;

/// For each post the turns whose likes were acknowledged, and those of which nobody knows.
pub struct Ledger {
    /// Each guards the likes of one post; held for one of them.
    posts: Vec<Mutex<Likes>>,
}

#[derive(Default)]
struct Likes {
    sure: Turns,
    perhaps: Turns,
}

/// A set of turns, one bit each.
#[derive(Default)]
struct Turns {
    words: Vec<u64>,
    count: u64,
}

/// What the count of a post may be: one figure, unless the outcome of some likes is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    pub least: u64,
    pub most: u64,
}

impl Ledger {
    pub fn new(posts: u32) -> Self {
        Self {
            posts: (0..posts).map(|_| Mutex::default()).collect(),
        }
    }

    /// The like is durable somewhere. It may have been acknowledged before.
    pub fn acknowledged(&self, post: u32, turn: u32) {
        self.posts[post as usize].lock().sure.insert(turn);
    }

    /// The like may have happened or not.
    pub fn unknown(&self, post: u32, turn: u32) {
        self.posts[post as usize].lock().perhaps.insert(turn);
    }

    pub fn expected(&self, post: u32) -> Expected {
        let likes = self.posts[post as usize].lock();
        let least = likes.sure.count;
        Expected {
            least,
            most: least + likes.perhaps.beyond(&likes.sure),
        }
    }
}

impl Expected {
    pub fn is_met_by(self, count: u64) -> bool {
        (self.least..=self.most).contains(&count)
    }

    /// Whether it is one figure.
    pub fn is_exact(self) -> bool {
        self.least == self.most
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.is_exact() {
            true => write!(f, "{}", self.least),
            false => write!(f, "{} to {}", self.least, self.most),
        }
    }
}

impl Turns {
    fn insert(&mut self, turn: u32) {
        let (word, bit) = (turn as usize / 64, 1 << (turn % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.count += u64::from(self.words[word] & bit == 0);
        self.words[word] |= bit;
    }

    /// How many of these the others do not hold.
    fn beyond(&self, others: &Self) -> u64 {
        let others = others.words.iter().copied().chain(std::iter::repeat(0));
        let pairs = self.words.iter().zip(others);
        pairs
            .map(|(own, other)| u64::from((own & !other).count_ones()))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_like_that_is_acknowledged_twice_counts_once() {
        let ledger = Ledger::new(2);
        for turn in [0, 63, 64, 63, 1_000] {
            ledger.acknowledged(1, turn);
        }
        assert_eq!(ledger.expected(1), Expected { least: 4, most: 4 });
        assert_eq!(ledger.expected(0), Expected { least: 0, most: 0 });
    }

    #[test]
    fn a_count_is_held_against_what_was_acknowledged() {
        let ledger = Ledger::new(1);
        (0..10).for_each(|turn| ledger.acknowledged(0, turn));
        let expected = ledger.expected(0);
        assert!(expected.is_exact() && expected.is_met_by(10));
        assert!(!expected.is_met_by(9), "a like was lost");
        assert!(!expected.is_met_by(11), "a like was counted twice");
    }

    #[test]
    fn unknown_outcomes_leave_as_much_room_and_no_more() {
        let ledger = Ledger::new(1);
        (0..10).for_each(|turn| ledger.acknowledged(0, turn));
        // The tenth was acknowledged at another try.
        (9..12).for_each(|turn| ledger.unknown(0, turn));
        ledger.unknown(0, 500);
        let expected = ledger.expected(0);
        assert_eq!(
            expected,
            Expected {
                least: 10,
                most: 13
            }
        );
        assert_eq!(expected.to_string(), "10 to 13");
        assert!([10, 13].into_iter().all(|count| expected.is_met_by(count)));
        assert!([9, 14].into_iter().all(|count| !expected.is_met_by(count)));
    }
}
