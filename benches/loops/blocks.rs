//! Blocks of a peer's events, and likers as a checkpoint holds them.

use likewise::codec::block;
use likewise::codec::likers::{likers, put_likers};
use likewise::codec::reader::Reader;
use likewise::crdt::dot::{Dot, Dots, ReplicaIndex, Replicas};
use likewise::crdt::event::{Action, Block, Event};
use likewise::ids::{Epoch, PostId, Region, Replica, UserId};

use super::{ITEMS, scattered};

/// Users that likers are drawn from.
const USERS: u64 = 10_000_000;
const TIME_MS: u64 = 1_790_000_000_000;

/// What a block's likes are of.
#[derive(Debug, Clone, Copy)]
pub enum Posts {
    /// One post.
    Hot,
    /// So many posts, each as likely, with names of twenty bytes.
    Spread(u64),
}

impl Posts {
    pub fn name(self, number: u64) -> String {
        match self {
            Self::Hot => "hot".to_owned(),
            Self::Spread(posts) => format!("post-{:015}", scattered(number, posts)),
        }
    }
}

fn user(number: u64) -> UserId {
    UserId::new(&format!("u{}", scattered(number, USERS))).expect("a valid id")
}

/// A peer's replica, which has the number 0 in the table.
pub fn replicas() -> Replicas {
    let mut replicas = Replicas::default();
    replicas.intern(&Replica {
        region: Region::new("peer").expect("a valid name"),
        epoch: Epoch(7),
    });
    replicas
}

/// The peer's block of likes from this number on.
pub fn block(first_seq: u64, of: Posts) -> Block {
    let mut posts: Vec<PostId> = Vec::new();
    let mut made: Vec<u64> = Vec::new();
    let mut events = Vec::new();
    for number in first_seq..first_seq + ITEMS {
        let post = PostId::new(&of.name(number)).expect("a valid id");
        let place = posts.iter().position(|known| *known == post);
        let place = place.unwrap_or_else(|| {
            posts.push(post);
            made.push(0);
            posts.len() - 1
        });
        made[place] += 1;
        let action = Action::Like {
            post: place as u32,
            user: user(number),
            // Of a spread post they are too many, which is all the same to who merges by the maximum.
            increments: first_seq - 1 + made[place],
            replaced: Dots::new(),
        };
        events.push(Event {
            time_ms: TIME_MS + number / 100,
            action,
        });
    }
    Block {
        replica: ReplicaIndex(0),
        first_seq,
        predecessors: (first_seq == 1).then(Vec::new),
        posts,
        counters: Vec::new(),
        events,
    }
}

pub fn encode(block: &Block) -> Vec<u8> {
    block::encode(block, &replicas())
}

pub fn decode(bytes: &[u8]) -> Block {
    block::decode(bytes, &mut replicas()).expect("as it was written")
}

/// The likers of one bucket.
pub fn bucket() -> Vec<(UserId, Dots)> {
    let liker = |number: u64| {
        let dot = Dot {
            seq: 1 + scattered(number, USERS),
            replica: ReplicaIndex(0),
        };
        (user(number), Dots::from_buf([dot]))
    };
    (0..ITEMS).map(liker).collect()
}

pub fn encode_likers(likers: &[(UserId, Dots)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_likers(&mut bytes, likers, |replica| replica.0);
    bytes
}

pub fn decode_likers(bytes: &[u8]) -> Vec<(UserId, Dots)> {
    likers(&mut Reader::new(bytes), &[ReplicaIndex(0)]).expect("as it was written")
}
