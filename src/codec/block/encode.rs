//! Block → bytes.

use std::collections::HashMap;

use super::{ADD, EMPTY, LIKE, RETIRE, UNLIKE, USERS_AS_NUMBERS, USERS_AS_TEXT};
use crate::codec::columns::{put_numbers, put_texts};
use crate::codec::dots::put_owned;
use crate::codec::reader::{put_prefixed, put_replica, put_varint};
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
    put_dictionary_texts(&mut out, block.posts.iter().map(PostId::as_bytes));
    put_dictionary_texts(&mut out, block.counters.iter().map(CounterName::as_bytes));
    let actions = || block.events.iter().map(|event| &event.action);
    let events = block.events.len();
    put_column(&mut out, events, actions().map(kind));
    put_times(&mut out, &block.events);
    let places = actions().filter_map(Action::post).map(i64::from);
    put_column(&mut out, events, places);
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

/// Replicas that an event speaks of.
fn replicas_of(action: &Action) -> impl Iterator<Item = ReplicaIndex> {
    let retired = match action {
        Action::Retire { replicas } => replicas.as_slice(),
        _ => &[],
    };
    let named = action.named().into_iter().flatten();
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

/// A column of values, which may be many fewer than the most that there can be.
fn put_column(out: &mut Vec<u8>, most: usize, values: impl Iterator<Item = i64>) {
    let mut column = Vec::with_capacity(most);
    column.extend(values);
    put_numbers(out, &column);
}

fn put_dictionary_texts<'a>(out: &mut Vec<u8>, texts: impl Iterator<Item = &'a [u8]>) {
    let texts: Vec<&[u8]> = texts.collect();
    put_varint(out, texts.len() as u64);
    put_texts(out, &texts);
}

fn put_times(out: &mut Vec<u8>, events: &[Event]) {
    let mut last = 0;
    let steps = events.iter().map(|event| {
        let step = event.time_ms.wrapping_sub(last) as i64;
        last = event.time_ms;
        step
    });
    put_column(out, events.len(), steps);
}

fn put_users(out: &mut Vec<u8>, events: &[Event]) {
    let mut users: Vec<&UserId> = Vec::with_capacity(events.len());
    users.extend(events.iter().filter_map(|event| event.action.user()));
    if let Some((prefix, numbers)) = as_numbers(&users) {
        out.push(USERS_AS_NUMBERS);
        put_prefixed(out, prefix.as_bytes());
        for number in numbers {
            put_varint(out, number);
        }
        return;
    }
    out.push(USERS_AS_TEXT);
    let texts: Vec<&[u8]> = users.iter().map(|user| user.as_bytes()).collect();
    put_texts(out, &texts);
}

/// Users as a prefix and numbers, if their prefix is one.
fn as_numbers<'a>(users: &[&'a UserId]) -> Option<(&'a str, Vec<u64>)> {
    let (prefix, _) = users.first()?.numbered()?;
    let mut numbers = Vec::with_capacity(users.len());
    for user in users {
        let (its, number) = user.numbered()?;
        if its != prefix {
            return None;
        }
        numbers.push(number);
    }
    Some((prefix, numbers))
}

/// Increments are written as the difference to "one more than the post's last like in this block".
fn put_increments(out: &mut Vec<u8>, block: &Block) {
    let mut expected = vec![0u64; block.posts.len()];
    let differences = block.events.iter().filter_map(|event| match &event.action {
        Action::Like {
            post, increments, ..
        } => {
            let expected = &mut expected[*post as usize];
            let difference = increments.wrapping_sub(*expected) as i64;
            *expected = increments.wrapping_add(1);
            Some(difference)
        }
        _ => None,
    });
    put_column(out, block.events.len(), differences);
}

fn put_dots(out: &mut Vec<u8>, block: &Block, dictionary: &HashMap<ReplicaIndex, u64>) {
    let events = block.events.iter();
    let named: Vec<&Dots> = events.filter_map(|event| event.action.named()).collect();
    put_owned(out, &named, |replica| match replica == block.replica {
        true => 0,
        false => dictionary[&replica],
    });
    let mut last = 0;
    let steps = named.into_iter().flatten().map(|dot| {
        let step = dot.seq.wrapping_sub(last) as i64;
        last = dot.seq;
        step
    });
    put_column(out, 0, steps);
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
