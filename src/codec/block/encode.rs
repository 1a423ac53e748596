//! Block → bytes.

use std::collections::HashMap;

use super::{ADD, EMPTY, LIKE, RETIRE, UNLIKE, USERS_AS_NUMBERS, USERS_AS_TEXT};
use crate::codec::columns::put_runs;
use crate::codec::reader::{put_prefixed, put_replica, put_signed, put_varint};
use crate::codec::vector::put_entries;
use crate::crdt::dot::{Dots, ReplicaIndex, Replicas};
use crate::crdt::event::{Action, Block, Event};
use crate::ids::{CounterName, PostId, UserId};
use crate::limits::BLOCK_EVENTS_MAX;
use crate::versions::BLOCK_FORMAT;

/// Encodes a block. The caller keeps it within the limits of events and bytes.
pub fn encode(block: &Block, replicas: &Replicas) -> Vec<u8> {
    assert!((1..=BLOCK_EVENTS_MAX).contains(&block.events.len()));
    let mut out = Vec::with_capacity(64 + 16 * block.events.len());
    out.push(BLOCK_FORMAT);
    put_replica(&mut out, replicas.id(block.replica));
    put_varint(&mut out, block.first_seq);
    if let Some(predecessors) = &block.predecessors {
        put_entries(&mut out, replicas, predecessors);
    }
    put_varint(&mut out, block.events.len() as u64);
    let dictionary = put_dictionary(&mut out, block, replicas);
    put_texts(&mut out, block.posts.iter().map(PostId::as_bytes));
    put_texts(&mut out, block.counters.iter().map(CounterName::as_bytes));
    put_runs(
        &mut out,
        block.events.iter().map(|event| kind(&event.action)),
    );
    put_times(&mut out, &block.events);
    put_runs(
        &mut out,
        block
            .events
            .iter()
            .filter_map(|event| post_of(&event.action))
            .map(i64::from),
    );
    put_users(&mut out, &block.events);
    put_increments(&mut out, block);
    put_dots(&mut out, block, &dictionary);
    put_adds(&mut out, &block.events);
    put_retired(&mut out, block, &dictionary);
    out
}

fn kind(action: &Action) -> i64 {
    match action {
        Action::Empty => EMPTY,
        Action::Like { .. } => LIKE,
        Action::Unlike { .. } => UNLIKE,
        Action::Add { .. } => ADD,
        Action::Retire { .. } => RETIRE,
    }
}

fn post_of(action: &Action) -> Option<u32> {
    match action {
        Action::Empty | Action::Retire { .. } => None,
        Action::Like { post, .. } | Action::Unlike { post, .. } | Action::Add { post, .. } => {
            Some(*post)
        }
    }
}

fn user_of(action: &Action) -> Option<&UserId> {
    match action {
        Action::Like { user, .. } | Action::Unlike { user, .. } => Some(user),
        Action::Empty | Action::Add { .. } | Action::Retire { .. } => None,
    }
}

fn dots_of(action: &Action) -> Option<&Dots> {
    match action {
        Action::Like { replaced, .. } => Some(replaced),
        Action::Unlike { removed, .. } => Some(removed),
        Action::Empty | Action::Add { .. } | Action::Retire { .. } => None,
    }
}

/// Replicas that an event speaks of.
fn replicas_of(action: &Action) -> impl Iterator<Item = ReplicaIndex> {
    let retired = match action {
        Action::Retire { replicas } => replicas.as_slice(),
        _ => &[],
    };
    let named = dots_of(action).into_iter().flatten();
    named.map(|dot| dot.replica).chain(retired.iter().copied())
}

/// Writes the replicas of named dots and retirements other than the block's own, which has position 0.
fn put_dictionary(
    out: &mut Vec<u8>,
    block: &Block,
    replicas: &Replicas,
) -> HashMap<ReplicaIndex, u64> {
    let mut dictionary = HashMap::from([(block.replica, 0)]);
    let mut others = Vec::new();
    let events = block.events.iter();
    let named = events.flat_map(|event| replicas_of(&event.action));
    for replica in named.filter(|replica| *replica != block.replica) {
        let next = dictionary.len() as u64;
        dictionary.entry(replica).or_insert_with(|| {
            others.push(replica);
            next
        });
    }
    put_varint(out, others.len() as u64);
    for replica in others {
        put_replica(out, replicas.id(replica));
    }
    dictionary
}

fn put_texts<'a>(out: &mut Vec<u8>, texts: impl ExactSizeIterator<Item = &'a [u8]>) {
    put_varint(out, texts.len() as u64);
    for text in texts {
        put_prefixed(out, text);
    }
}

fn put_times(out: &mut Vec<u8>, events: &[Event]) {
    let mut last = 0;
    put_runs(
        out,
        events.iter().map(|event| {
            let step = event.time_ms.wrapping_sub(last) as i64;
            last = event.time_ms;
            step
        }),
    );
}

fn put_users(out: &mut Vec<u8>, events: &[Event]) {
    let users: Vec<&UserId> = events
        .iter()
        .filter_map(|event| user_of(&event.action))
        .collect();
    if let Some((prefix, numbers)) = as_numbers(&users) {
        out.push(USERS_AS_NUMBERS);
        put_prefixed(out, prefix.as_bytes());
        for number in numbers {
            put_varint(out, number);
        }
        return;
    }
    out.push(USERS_AS_TEXT);
    for user in users {
        put_prefixed(out, user.as_bytes());
    }
}

/// Splits `u1234` into `u` and 1234, if that is reversible for all users and their prefix is one.
fn as_numbers<'a>(users: &[&'a UserId]) -> Option<(&'a str, Vec<u64>)> {
    let first = users.first()?.as_str();
    let prefix = first.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = |user: &UserId| {
        let digits = user.as_str().strip_prefix(prefix)?;
        let canonical = digits == "0" || !digits.starts_with('0');
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        (canonical && plain).then(|| digits.parse().ok()).flatten()
    };
    let numbers: Option<Vec<u64>> = users.iter().map(|user| number(user)).collect();
    Some((prefix, numbers?))
}

/// Increments are written as the difference to "one more than the post's last like in this block".
fn put_increments(out: &mut Vec<u8>, block: &Block) {
    let mut expected = vec![0u64; block.posts.len()];
    put_runs(
        out,
        block.events.iter().filter_map(|event| match &event.action {
            Action::Like {
                post, increments, ..
            } => {
                let expected = &mut expected[*post as usize];
                let difference = increments.wrapping_sub(*expected) as i64;
                *expected = increments.wrapping_add(1);
                Some(difference)
            }
            _ => None,
        }),
    );
}

fn put_dots(out: &mut Vec<u8>, block: &Block, dictionary: &HashMap<ReplicaIndex, u64>) {
    let named = || {
        block
            .events
            .iter()
            .filter_map(|event| dots_of(&event.action))
    };
    put_runs(out, named().map(|dots| dots.len() as i64));
    let mut last = 0;
    for dot in named().flatten() {
        let place = match dot.replica == block.replica {
            true => 0,
            false => dictionary[&dot.replica],
        };
        put_varint(out, place);
        put_signed(out, dot.seq.wrapping_sub(last) as i64);
        last = dot.seq;
    }
}

fn put_adds(out: &mut Vec<u8>, events: &[Event]) {
    for event in events {
        if let Action::Add {
            counter,
            increments,
            decrements,
            ..
        } = &event.action
        {
            put_varint(out, u64::from(*counter));
            put_varint(out, *increments);
            put_varint(out, *decrements);
        }
    }
}

fn put_retired(out: &mut Vec<u8>, block: &Block, dictionary: &HashMap<ReplicaIndex, u64>) {
    for event in &block.events {
        if let Action::Retire { replicas } = &event.action {
            let mut places: Vec<u64> = replicas.iter().map(|replica| dictionary[replica]).collect();
            places.sort_unstable();
            put_varint(out, places.len() as u64);
            places.iter().for_each(|place| put_varint(out, *place));
        }
    }
}
