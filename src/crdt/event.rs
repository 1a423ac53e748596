//! Events: local writes, numbered by the replica that made them.

use crate::crdt::dot::{Dot, Dots, ReplicaIndex};
use crate::crdt::frontier::ShortForm;
use crate::ids::{CounterName, PostId, UserId};

/// What an event did. Figures are results ("increments after it"), never "+1", so that replay on top
/// of newer state is harmless. Posts and counters are positions in the block's dictionaries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A number that was drawn and not used.
    Empty,
    /// The user likes the post; the event's dot takes the place of the replaced ones.
    Like {
        post: u32,
        user: UserId,
        /// Likes that the replica ever made on the post, this one included.
        increments: u64,
        replaced: Dots,
    },
    /// The removed dots are dead.
    Unlike {
        post: u32,
        user: UserId,
        removed: Dots,
    },
    /// The replica's entry of a counter after an addition.
    Add {
        post: u32,
        counter: u32,
        increments: u64,
        decrements: u64,
    },
    /// These replicas have been retired: their region holds back nothing until a newer one comes. Says nothing
    /// of any post.
    Retire { replicas: Vec<ReplicaIndex> },
}

impl Action {
    /// The post that it is about.
    pub fn post(&self) -> Option<u32> {
        match self {
            Self::Like { post, .. } | Self::Unlike { post, .. } | Self::Add { post, .. } => {
                Some(*post)
            }
            Self::Empty | Self::Retire { .. } => None,
        }
    }

    /// The user whose likes it is about.
    pub fn user(&self) -> Option<&UserId> {
        match self {
            Self::Like { user, .. } | Self::Unlike { user, .. } => Some(user),
            Self::Empty | Self::Add { .. } | Self::Retire { .. } => None,
        }
    }

    /// The dots that it names as replaced or removed. None where it can name none.
    pub fn named(&self) -> Option<&Dots> {
        match self {
            Self::Like { replaced, .. } => Some(replaced),
            Self::Unlike { removed, .. } => Some(removed),
            Self::Empty | Self::Add { .. } | Self::Retire { .. } => None,
        }
    }
}

/// One event of a block; its number follows from its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// By the clock of the replica that made it, in milliseconds since 1970.
    pub time_ms: u64,
    pub action: Action,
}

/// Consecutive events of one replica: what the log stores and peers exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub replica: ReplicaIndex,
    pub first_seq: u64,
    /// Predecessors, if and only if `first_seq` is 1.
    pub predecessors: Option<ShortForm>,
    pub posts: Vec<PostId>,
    pub counters: Vec<CounterName>,
    /// Never empty.
    pub events: Vec<Event>,
}

impl Block {
    pub fn last_seq(&self) -> u64 {
        self.first_seq + self.events.len() as u64 - 1
    }

    /// The first number to which the two blocks of one replica give other contents.
    pub fn differs_from(&self, other: &Self) -> Option<u64> {
        let first = self.first_seq.max(other.first_seq);
        if first == 1 && !self.begins_like(other) {
            return Some(1);
        }
        let numbers = first..=self.last_seq().min(other.last_seq());
        let mut numbers = numbers.map(|number| (number, self.told(number), other.told(number)));
        numbers
            .find(|(_, ours, theirs)| ours != theirs)
            .map(|(number, _, _)| number)
    }

    fn begins_like(&self, other: &Self) -> bool {
        let sorted = |block: &Self| {
            let mut named = block.predecessors.clone().unwrap_or_default();
            named.sort_unstable();
            named
        };
        sorted(self) == sorted(other)
    }

    /// An event with names for the positions in the block.
    fn told(&self, number: u64) -> (Option<&PostId>, Option<&CounterName>, Event) {
        let mut event = self.events[(number - self.first_seq) as usize].clone();
        let (mut post, mut counter) = (None, None);
        if let Action::Like { post: place, .. }
        | Action::Unlike { post: place, .. }
        | Action::Add { post: place, .. } = &mut event.action
        {
            post = Some(&self.posts[std::mem::take(place) as usize]);
        }
        if let Action::Add { counter: place, .. } = &mut event.action {
            counter = Some(&self.counters[std::mem::take(place) as usize]);
        }
        (post, counter, event)
    }

    /// The events with their dots.
    pub fn dotted(&self) -> impl Iterator<Item = (Dot, &Event)> {
        let replica = self.replica;
        (self.first_seq..)
            .zip(&self.events)
            .map(move |(seq, event)| (Dot { seq, replica }, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(first_seq: u64, posts: &[&str], likes: &[(u32, &str)]) -> Block {
        let event = |(post, user): &(u32, &str)| Event {
            time_ms: 1,
            action: Action::Like {
                post: *post,
                user: UserId::new(user).expect("valid"),
                increments: 1,
                replaced: Dots::new(),
            },
        };
        let posts = posts.iter().map(|post| PostId::new(post).expect("valid"));
        Block {
            replica: crate::crdt::dot::ReplicaIndex(0),
            first_seq,
            predecessors: (first_seq == 1).then(Vec::new),
            posts: posts.collect(),
            counters: vec![],
            events: likes.iter().map(event).collect(),
        }
    }

    #[test]
    fn blocks_differ_by_what_they_say_and_not_by_how() {
        let whole = block(1, &["a", "b"], &[(0, "ann"), (1, "bob"), (0, "cid")]);
        let part = block(2, &["b", "a"], &[(0, "bob"), (1, "cid"), (1, "dan")]);
        assert_eq!(whole.differs_from(&part), None);
        assert_eq!(part.differs_from(&whole), None);
        let other = block(2, &["b", "a"], &[(0, "bob"), (0, "cid")]);
        assert_eq!(whole.differs_from(&other), Some(3));
        let elsewhere = block(9, &["b"], &[(0, "eve")]);
        assert_eq!(whole.differs_from(&elsewhere), None, "nothing in common");
        let mut heir = whole.clone();
        heir.predecessors = Some(vec![(crate::crdt::dot::ReplicaIndex(4), 2)]);
        assert_eq!(whole.differs_from(&heir), Some(1));
    }
}
