//! Block → bytes.

use std::collections::HashMap;

use super::{ADD, EMPTY, LIKE, RETIRE, UNLIKE, USERS_AS_NUMBERS, USERS_AS_TEXT};
use crate::codec::columns::{Numbers, put_texts};
use crate::codec::dots::Owners;
use crate::codec::reader::{put_prefixed, put_replica, put_varint};
use crate::codec::vector::put_entries;
use crate::crdt::dot::{Dot, ReplicaIndex, Replicas};
use crate::crdt::event::{Action, Block};
use crate::ids::{CounterName, PostId, UserId, UserText};
use crate::limits::BLOCK_EVENTS_MAX;
use crate::versions::BLOCK_FORMAT;

/// Encodes a block. The caller keeps it within the limits of events and bytes.
pub fn encode(block: &Block, replicas: &Replicas) -> Vec<u8> {
    assert!((1..=BLOCK_EVENTS_MAX).contains(&block.events.len()));
    let mut columns = Columns::new(block);
    for event in &block.events {
        columns.push(event.time_ms, &event.action);
    }
    let mut out = Vec::with_capacity(64 + 16 * block.events.len());
    out.push(BLOCK_FORMAT);
    put_replica(&mut out, replicas.id(block.replica));
    put_varint(&mut out, block.first_seq);
    if let Some(predecessors) = &block.predecessors {
        put_entries(&mut out, replicas, predecessors);
    }
    put_varint(&mut out, block.events.len() as u64);
    columns.named.put(&mut out, replicas);
    put_dictionary_texts(&mut out, block.posts.iter().map(PostId::as_bytes));
    put_dictionary_texts(&mut out, block.counters.iter().map(CounterName::as_bytes));
    columns.put(&mut out);
    out
}

fn put_dictionary_texts<'a>(out: &mut Vec<u8>, texts: impl Iterator<Item = &'a [u8]>) {
    let texts: Vec<&[u8]> = texts.collect();
    put_varint(out, texts.len() as u64);
    put_texts(out, &texts);
}

/// Replicas of named dots and retirements. The block's own has position 0 and is not written; the others follow in the order in
/// which they are first named.
struct Named {
    own: ReplicaIndex,
    others: Vec<ReplicaIndex>,
    positions: HashMap<ReplicaIndex, u64>,
}

impl Named {
    fn position(&mut self, replica: ReplicaIndex) -> u64 {
        if replica == self.own {
            return 0;
        }
        let others = &mut self.others;
        *self.positions.entry(replica).or_insert_with(|| {
            others.push(replica);
            others.len() as u64
        })
    }

    fn put(&self, out: &mut Vec<u8>, replicas: &Replicas) {
        put_varint(out, self.others.len() as u64);
        for replica in &self.others {
            put_replica(out, replicas.id(*replica));
        }
    }
}

/// What the events say, by columns, each in the order of the events that have it.
struct Columns<'a> {
    named: Named,
    kinds: Numbers,
    /// Each as the difference to the one before.
    times: Numbers,
    last_time: u64,
    posts: Numbers,
    users: Vec<&'a UserId>,
    /// Each as the difference to "one more than the post's last like in this block".
    increments: Numbers,
    expected: Vec<u64>,
    owners: Owners,
    /// Numbers of the dots, each as the difference to the one before.
    seqs: Numbers,
    last_seq: u64,
    /// As they are written.
    adds: Vec<u8>,
    retired: Vec<u8>,
}

impl<'a> Columns<'a> {
    fn new(block: &Block) -> Self {
        Self {
            named: Named {
                own: block.replica,
                others: Vec::new(),
                positions: HashMap::new(),
            },
            kinds: Numbers::default(),
            times: Numbers::default(),
            last_time: 0,
            posts: Numbers::default(),
            users: Vec::with_capacity(block.events.len()),
            increments: Numbers::default(),
            expected: vec![0; block.posts.len()],
            owners: Owners::default(),
            seqs: Numbers::default(),
            last_seq: 0,
            adds: Vec::new(),
            retired: Vec::new(),
        }
    }

    fn push(&mut self, time_ms: u64, action: &'a Action) {
        self.times.push(time_ms.wrapping_sub(self.last_time) as i64);
        self.last_time = time_ms;
        match action {
            Action::Empty => self.kinds.push(EMPTY),
            Action::Like {
                post,
                user,
                increments,
                replaced,
            } => {
                self.kinds.push(LIKE);
                self.push_user(*post, user, replaced);
                let expected = &mut self.expected[*post as usize];
                self.increments
                    .push(increments.wrapping_sub(*expected) as i64);
                *expected = increments.wrapping_add(1);
            }
            Action::Unlike {
                post,
                user,
                removed,
            } => {
                self.kinds.push(UNLIKE);
                self.push_user(*post, user, removed);
            }
            Action::Add {
                post,
                counter,
                increments,
                decrements,
            } => {
                self.kinds.push(ADD);
                self.posts.push(i64::from(*post));
                put_varint(&mut self.adds, u64::from(*counter));
                put_varint(&mut self.adds, *increments);
                put_varint(&mut self.adds, *decrements);
            }
            Action::Retire { replicas } => {
                self.kinds.push(RETIRE);
                let positions = replicas.iter().map(|it| self.named.position(*it));
                let mut positions: Vec<u64> = positions.collect();
                positions.sort_unstable();
                put_varint(&mut self.retired, positions.len() as u64);
                for position in positions {
                    put_varint(&mut self.retired, position);
                }
            }
        }
    }

    fn push_user(&mut self, post: u32, user: &'a UserId, dots: &[Dot]) {
        self.posts.push(i64::from(post));
        self.users.push(user);
        self.owners
            .push(dots, |replica| self.named.position(replica));
        for dot in dots {
            self.seqs.push(dot.seq.wrapping_sub(self.last_seq) as i64);
            self.last_seq = dot.seq;
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        self.kinds.put(out);
        self.times.put(out);
        self.posts.put(out);
        put_users(out, &self.users);
        self.increments.put(out);
        self.owners.put(out);
        self.seqs.put(out);
        out.extend_from_slice(&self.adds);
        out.extend_from_slice(&self.retired);
    }
}

/// Users as a prefix and numbers, if their prefix is one, else as texts.
fn put_users(out: &mut Vec<u8>, users: &[&UserId]) {
    let start = out.len();
    if !put_as_numbers(out, users) {
        out.truncate(start);
        out.push(USERS_AS_TEXT);
        let texts: Vec<UserText<'_>> = users.iter().map(|user| user.text()).collect();
        let texts: Vec<&[u8]> = texts.iter().map(UserText::as_bytes).collect();
        put_texts(out, &texts);
    }
}

/// Whether all are of one prefix. Where not, what was written stands for nothing.
fn put_as_numbers(out: &mut Vec<u8>, users: &[&UserId]) -> bool {
    let Some((prefix, _)) = users.first().and_then(|user| user.split()) else {
        return false;
    };
    out.push(USERS_AS_NUMBERS);
    put_prefixed(out, prefix.as_bytes());
    users.iter().all(|user| match user.split() {
        Some((its, number)) if its == prefix => {
            put_varint(out, number);
            true
        }
        _ => false,
    })
}
