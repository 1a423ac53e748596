//! The columnar encoding of a block of events.
//!
//! Layout, in this order (numbers are LEB128 unless said, signed ones zigzag):
//! format (1 byte) · replica · first seq · predecessors (only where first seq is 1) · number of events
//! · replicas (dictionary of dots) · posts (dictionary) · counters (dictionary) · then columns: actions, times
//! (differences), posts, users, increments (differences to what is expected), removed dots, counter figures.
//! A checksum is not part of it: the log's records and the transport have their own.

use std::collections::HashMap;

use crate::codec::columns::{put_runs, runs, runs_below};
use crate::codec::reader::{
    DecodeError, Reader, put_prefixed, put_replica, put_signed, put_varint,
};
use crate::codec::vector::{Intern, entries, put_entries};
use crate::crdt::dot::{Dot, Dots, ReplicaIndex, Replicas};
use crate::crdt::event::{Action, Block, Event};
use crate::ids::{CounterName, PostId, UserId};
use crate::limits::{
    BLOCK_BYTES_MAX, BLOCK_EVENTS_MAX, ID_BYTES_MAX, REMOVED_DOTS_MAX, REPLICAS_MAX,
};
use crate::versions::BLOCK_FORMAT;

const EMPTY: i64 = 0;
const LIKE: i64 = 1;
const UNLIKE: i64 = 2;
const ADD: i64 = 3;

/// Users of any form: lengths, then bytes.
const USERS_AS_TEXT: u8 = 0;
/// Users that are a common prefix and a decimal number without leading zeros.
const USERS_AS_NUMBERS: u8 = 1;

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
    out
}

fn kind(action: &Action) -> i64 {
    match action {
        Action::Empty => EMPTY,
        Action::Like { .. } => LIKE,
        Action::Unlike { .. } => UNLIKE,
        Action::Add { .. } => ADD,
    }
}

fn post_of(action: &Action) -> Option<u32> {
    match action {
        Action::Empty => None,
        Action::Like { post, .. } | Action::Unlike { post, .. } | Action::Add { post, .. } => {
            Some(*post)
        }
    }
}

fn user_of(action: &Action) -> Option<&UserId> {
    match action {
        Action::Like { user, .. } | Action::Unlike { user, .. } => Some(user),
        Action::Empty | Action::Add { .. } => None,
    }
}

fn dots_of(action: &Action) -> Option<&Dots> {
    match action {
        Action::Like { replaced, .. } => Some(replaced),
        Action::Unlike { removed, .. } => Some(removed),
        Action::Empty | Action::Add { .. } => None,
    }
}

/// Writes the replicas of named dots other than the block's own, which has position 0.
fn put_dictionary(
    out: &mut Vec<u8>,
    block: &Block,
    replicas: &Replicas,
) -> HashMap<ReplicaIndex, u64> {
    let mut dictionary = HashMap::from([(block.replica, 0)]);
    let mut others = Vec::new();
    for dot in block
        .events
        .iter()
        .filter_map(|event| dots_of(&event.action))
        .flatten()
        .filter(|dot| dot.replica != block.replica)
    {
        let next = dictionary.len() as u64;
        dictionary.entry(dot.replica).or_insert_with(|| {
            others.push(dot.replica);
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

/// What can be said of a block without reading its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHead {
    pub replica: ReplicaIndex,
    pub first_seq: u64,
    pub events: usize,
}

impl BlockHead {
    pub fn last_seq(&self) -> u64 {
        self.first_seq + self.events as u64 - 1
    }
}

/// Reads the head of a block.
pub fn head(bytes: &[u8], intern: &mut dyn Intern) -> Result<BlockHead, DecodeError> {
    read_head(&mut Reader::new(bytes), intern).map(|(head, _)| head)
}

type HeadAndPredecessors = (BlockHead, Option<Vec<(ReplicaIndex, u64)>>);

fn read_head(
    reader: &mut Reader<'_>,
    intern: &mut dyn Intern,
) -> Result<HeadAndPredecessors, DecodeError> {
    if reader.remaining() > BLOCK_BYTES_MAX {
        return Err(DecodeError::OverLimit {
            what: "bytes of a block",
            at: 0,
            found: reader.remaining() as u64,
            max: BLOCK_BYTES_MAX as u64,
        });
    }
    let format = reader.byte("block format")?;
    if format != BLOCK_FORMAT {
        return Err(DecodeError::Format {
            what: "block",
            found: format,
            known: BLOCK_FORMAT,
        });
    }
    let replica = intern.intern(&reader.replica()?)?;
    let at = reader.position();
    let first_seq = reader.varint("first number")?;
    let predecessors = match first_seq {
        1 => Some(entries(reader, REPLICAS_MAX, intern)?),
        _ => None,
    };
    let events = reader.bounded("number of events", BLOCK_EVENTS_MAX as u64)? as usize;
    if first_seq == 0 || events == 0 || first_seq.checked_add(events as u64).is_none() {
        let what = "numbers of a block";
        return Err(DecodeError::Invalid { what, at });
    }
    let head = BlockHead {
        replica,
        first_seq,
        events,
    };
    Ok((head, predecessors))
}

/// Decodes a block, giving local numbers to the replicas it speaks of.
pub fn decode(bytes: &[u8], intern: &mut dyn Intern) -> Result<Block, DecodeError> {
    let reader = &mut Reader::new(bytes);
    let (head, predecessors) = read_head(reader, intern)?;
    let mut dictionary = vec![head.replica];
    for _ in 0..reader.count("number of replicas", REPLICAS_MAX)? {
        dictionary.push(intern.intern(&reader.replica()?)?);
    }
    let posts = texts(reader, "post", PostId::from_utf8)?;
    let counters = texts(reader, "counter", CounterName::from_utf8)?;
    let actions = runs(reader, "actions", head.events)?;
    let events = Columns::read(reader, &actions, posts.len())?;
    let events = events.assemble(reader, &actions, &dictionary, counters.len())?;
    let rest = std::mem::replace(reader, Reader::new(&[]));
    rest.finish("end of a block")?;
    Ok(Block {
        replica: head.replica,
        first_seq: head.first_seq,
        predecessors,
        posts,
        counters,
        events,
    })
}

fn texts<T>(
    reader: &mut Reader<'_>,
    what: &'static str,
    check: fn(&[u8]) -> Result<T, crate::ids::IdError>,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.count(what, BLOCK_EVENTS_MAX)?;
    (0..count)
        .map(|_| reader.id(what, ID_BYTES_MAX, check))
        .collect()
}

/// The columns that stand before the adds, in the order of the events that have them.
struct Columns {
    times: Vec<u64>,
    posts: Vec<u32>,
    users: Vec<UserId>,
    increments: Vec<u64>,
    dots: Vec<i64>,
}

impl Columns {
    fn read(reader: &mut Reader<'_>, actions: &[i64], posts: usize) -> Result<Self, DecodeError> {
        let at = reader.position();
        let number = |wanted: &[i64]| actions.iter().filter(|kind| wanted.contains(kind)).count();
        if number(&[EMPTY, LIKE, UNLIKE, ADD]) != actions.len() {
            let what = "kind of an event";
            return Err(DecodeError::Invalid { what, at });
        }
        let mut last = 0u64;
        let steps = runs(reader, "times", actions.len())?.into_iter();
        let times = steps
            .map(|step| {
                last = last.wrapping_add(step as u64);
                last
            })
            .collect();
        let posts_column = runs_below(reader, "posts", number(&[LIKE, UNLIKE, ADD]), posts)?;
        let users = users(reader, number(&[LIKE, UNLIKE]))?;
        let like_posts = posts_of_likes(actions, &posts_column);
        let differences = runs(reader, "increments", number(&[LIKE]))?;
        let increments = resolve_increments(&differences, &like_posts, posts);
        let dots = runs(reader, "removed dots", number(&[LIKE, UNLIKE]))?;
        Ok(Self {
            times,
            posts: posts_column,
            users,
            increments,
            dots,
        })
    }

    fn assemble(
        self,
        reader: &mut Reader<'_>,
        actions: &[i64],
        dictionary: &[ReplicaIndex],
        counters: usize,
    ) -> Result<Vec<Event>, DecodeError> {
        let mut posts = self.posts.into_iter();
        let mut users = self.users.into_iter();
        let mut increments = self.increments.into_iter();
        let mut named = Vec::with_capacity(self.dots.len());
        let mut last = 0;
        for count in self.dots {
            named.push(dots(reader, count, dictionary, &mut last)?);
        }
        let mut named = named.into_iter();
        let mut events = Vec::with_capacity(actions.len());
        for (kind, time_ms) in actions.iter().zip(self.times) {
            let missing = "the column was read for exactly these events";
            let action = match *kind {
                LIKE => Action::Like {
                    post: posts.next().expect(missing),
                    user: users.next().expect(missing),
                    increments: increments.next().expect(missing),
                    replaced: named.next().expect(missing),
                },
                UNLIKE => Action::Unlike {
                    post: posts.next().expect(missing),
                    user: users.next().expect(missing),
                    removed: named.next().expect(missing),
                },
                ADD => add(reader, posts.next().expect(missing), counters)?,
                _ => Action::Empty,
            };
            events.push(Event { time_ms, action });
        }
        Ok(events)
    }
}

fn posts_of_likes(actions: &[i64], posts: &[u32]) -> Vec<u32> {
    let with_post = actions.iter().filter(|kind| **kind != EMPTY);
    let both = with_post.zip(posts);
    both.filter(|(kind, _)| **kind == LIKE)
        .map(|(_, post)| *post)
        .collect()
}

fn resolve_increments(differences: &[i64], like_posts: &[u32], posts: usize) -> Vec<u64> {
    let mut expected = vec![0u64; posts];
    let both = differences.iter().zip(like_posts);
    both.map(|(difference, post)| {
        let expected = &mut expected[*post as usize];
        let increments = expected.wrapping_add(*difference as u64);
        *expected = increments.wrapping_add(1);
        increments
    })
    .collect()
}

fn users(reader: &mut Reader<'_>, count: usize) -> Result<Vec<UserId>, DecodeError> {
    let at = reader.position();
    match reader.byte("form of users")? {
        USERS_AS_TEXT => (0..count)
            .map(|_| reader.id("user", ID_BYTES_MAX, UserId::from_utf8))
            .collect(),
        USERS_AS_NUMBERS => {
            let prefix = reader.prefixed("prefix of users", ID_BYTES_MAX)?;
            let prefix = std::str::from_utf8(prefix).map_err(|_| DecodeError::Invalid {
                what: "prefix of users",
                at,
            })?;
            let mut text = String::with_capacity(prefix.len() + 20);
            (0..count)
                .map(|_| {
                    let at = reader.position();
                    let number = reader.varint("number of a user")?;
                    text.clear();
                    text.push_str(prefix);
                    text.push_str(&number.to_string());
                    let what = "user";
                    UserId::new(&text).map_err(|source| DecodeError::Id { what, at, source })
                })
                .collect()
        }
        _ => Err(DecodeError::Invalid {
            what: "form of users",
            at,
        }),
    }
}

fn dots(
    reader: &mut Reader<'_>,
    count: i64,
    dictionary: &[ReplicaIndex],
    last: &mut u64,
) -> Result<Dots, DecodeError> {
    let at = reader.position();
    let what = "removed dots";
    let count = usize::try_from(count).map_err(|_| DecodeError::Invalid { what, at })?;
    if count > REMOVED_DOTS_MAX || count > reader.remaining() {
        return Err(DecodeError::OverLimit {
            what,
            at,
            found: count as u64,
            max: REMOVED_DOTS_MAX as u64,
        });
    }
    let mut dots = Dots::with_capacity(count);
    for _ in 0..count {
        let replica = reader.bounded(what, dictionary.len() as u64 - 1)?;
        let seq = last.wrapping_add(reader.signed(what)? as u64);
        *last = seq;
        let dot = Dot {
            seq,
            replica: dictionary[replica as usize],
        };
        if seq == 0 || dots.contains(&dot) {
            return Err(DecodeError::Invalid { what, at });
        }
        dots.push(dot);
    }
    Ok(dots)
}

fn add(reader: &mut Reader<'_>, post: u32, counters: usize) -> Result<Action, DecodeError> {
    let what = "counter of an add";
    let at = reader.position();
    let counter = reader.varint(what)?;
    if counter >= counters as u64 {
        return Err(DecodeError::Invalid { what, at });
    }
    Ok(Action::Add {
        post,
        counter: counter as u32,
        increments: reader.varint("increments")?,
        decrements: reader.varint("decrements")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Region, Replica};
    use proptest::prelude::*;

    fn replicas() -> Replicas {
        let mut replicas = Replicas::default();
        for (region, epoch) in [("us", 1), ("eu", 2), ("ap", 3)] {
            let region = Region::new(region).expect("valid");
            replicas.intern(&Replica {
                region,
                epoch: Epoch(epoch),
            });
        }
        replicas
    }

    fn all_dots() -> impl Strategy<Value = Dots> {
        prop::collection::btree_set((0u32..3, 1u64..1_000), 0..4).prop_map(|set| {
            let dot = |(replica, seq)| Dot {
                seq,
                replica: ReplicaIndex(replica),
            };
            set.into_iter().map(dot).collect()
        })
    }

    fn users() -> impl Strategy<Value = UserId> {
        prop_oneof!["u(0|[1-9][0-9]{0,6})", "[a-z0-9é]{1,12}"]
            .prop_map(|text| UserId::new(&text).expect("valid"))
    }

    fn actions() -> impl Strategy<Value = Action> {
        prop_oneof![
            Just(Action::Empty),
            (0u32..2, users(), any::<u64>(), all_dots()).prop_map(
                |(post, user, increments, replaced)| {
                    Action::Like {
                        post,
                        user,
                        increments,
                        replaced,
                    }
                }
            ),
            (0u32..2, users(), all_dots()).prop_map(|(post, user, removed)| Action::Unlike {
                post,
                user,
                removed
            }),
            (0u32..2, any::<u64>(), any::<u64>()).prop_map(|(post, increments, decrements)| {
                Action::Add {
                    post,
                    counter: 0,
                    increments,
                    decrements,
                }
            }),
        ]
    }

    fn blocks() -> impl Strategy<Value = Block> {
        let event =
            (any::<u64>(), actions()).prop_map(|(time_ms, action)| Event { time_ms, action });
        (1u64..4, prop::collection::vec(event, 1..40)).prop_map(|(first_seq, events)| Block {
            replica: ReplicaIndex(1),
            first_seq,
            predecessors: (first_seq == 1).then(|| vec![(ReplicaIndex(2), 7)]),
            posts: ["a", "b"]
                .map(|text| PostId::new(text).expect("valid"))
                .to_vec(),
            counters: vec![CounterName::new("views").expect("valid")],
            events,
        })
    }

    proptest! {
        #[test]
        fn blocks_survive(block in blocks()) {
            let mut replicas = replicas();
            let bytes = encode(&block, &replicas);
            let decoded = decode(&bytes, &mut replicas);
            prop_assert_eq!(decoded.as_ref(), Ok(&block));
        }

        #[test]
        fn cut_or_changed_blocks_never_panic(block in blocks(), cut: prop::sample::Index, flip: u8) {
            let mut replicas = replicas();
            let mut bytes = encode(&block, &replicas);
            let at = cut.index(bytes.len());
            prop_assert!(decode(&bytes[..at], &mut replicas).is_err());
            bytes[at] ^= flip;
            let _outcome_is_free = decode(&bytes, &mut replicas);
        }

        #[test]
        fn any_bytes_never_panic(mut bytes: Vec<u8>) {
            bytes.insert(0, BLOCK_FORMAT);
            let _outcome_is_free = decode(&bytes, &mut replicas());
        }
    }

    #[test]
    fn a_hot_post_of_numbered_users_is_small() {
        let likes = (0..1_000u64).map(|number| Event {
            time_ms: 1_700_000_000_000,
            action: Action::Like {
                post: 0,
                user: UserId::new(&format!("u{}", number * 9_973)).expect("valid"),
                increments: number + 1,
                replaced: Dots::new(),
            },
        });
        let block = Block {
            replica: ReplicaIndex(0),
            first_seq: 2,
            predecessors: None,
            posts: vec![PostId::new("post").expect("valid")],
            counters: vec![],
            events: likes.collect(),
        };
        let bytes = encode(&block, &replicas());
        assert!(bytes.len() < 4_200, "{} bytes for 1,000 likes", bytes.len());
    }

    /// Written by the first version of the format. It must read the same for ever.
    #[test]
    fn old_blocks_still_read() {
        let bytes = include_bytes!("../../tests/fixtures/block-1.bin");
        let mut replicas = replicas();
        let block = decode(bytes, &mut replicas).expect("a block of format 1");
        assert_eq!(block.first_seq, 1);
        assert_eq!(block.events.len(), 4);
        assert_eq!(encode(&block, &replicas), bytes);
    }
}
