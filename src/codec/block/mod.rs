//! The columnar encoding of a block of events.
//!
//! Layout, in this order (numbers are LEB128 unless said, signed ones zigzag):
//! format (1 byte) · replica · first seq · predecessors (only where first seq is 1) · number of events
//! · replicas (dictionary of dots) · posts (dictionary) · counters (dictionary) · then columns: actions, times
//! (differences), posts, users, increments (differences to what is expected), removed dots (how many, whose, differences of
//! their numbers), counter figures, retired replicas.
//! A checksum is not part of it: the log's records and the transport have their own.

mod decode;
mod encode;

use crate::codec::reader::{DecodeError, Reader};
use crate::codec::vector::{Intern, entries};
use crate::crdt::dot::ReplicaIndex;
use crate::limits::{BLOCK_BYTES_MAX, BLOCK_EVENTS_MAX, REPLICAS_MAX};
use crate::versions::BLOCK_FORMAT;

pub use decode::{decode, decode_up_to};
pub use encode::encode;

const EMPTY: i64 = 0;
const LIKE: i64 = 1;
const UNLIKE: i64 = 2;
const ADD: i64 = 3;
const RETIRE: i64 = 4;

/// Users of any form: lengths, then bytes.
const USERS_AS_TEXT: u8 = 0;
/// Users that are a common prefix and a decimal number without leading zeros.
const USERS_AS_NUMBERS: u8 = 1;

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

/// Reads the head of a block, and the predecessors that it names if it is its replica's first.
pub fn beginning(
    bytes: &[u8],
    intern: &mut dyn Intern,
) -> Result<HeadAndPredecessors, DecodeError> {
    read_head(&mut Reader::new(bytes), intern)
}

/// What [`beginning`] reads.
pub type HeadAndPredecessors = (BlockHead, Option<Vec<(ReplicaIndex, u64)>>);

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crdt::dot::{Dot, Dots, Replicas};
    use crate::crdt::event::{Action, Block, Event};
    use crate::ids::{CounterName, Epoch, PostId, Region, Replica, UserId};
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
            prop::collection::btree_set(0u32..3, 1..4).prop_map(|set| Action::Retire {
                replicas: set.into_iter().map(ReplicaIndex).collect()
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

    /// Retired replicas come back in the order of their positions; it means nothing.
    fn with_retired_in_order(mut block: Block) -> Block {
        for event in &mut block.events {
            if let Action::Retire { replicas } = &mut event.action {
                replicas.sort_unstable();
            }
        }
        block
    }

    fn retirement(retired: u32) -> Block {
        Block {
            replica: ReplicaIndex(1),
            first_seq: 2,
            predecessors: None,
            posts: vec![],
            counters: vec![],
            events: vec![Event {
                time_ms: 5,
                action: Action::Retire {
                    replicas: (0..retired).map(ReplicaIndex).collect(),
                },
            }],
        }
    }

    #[test]
    fn a_retirement_names_each_replica_once_and_at_least_one() {
        let bytes = encode(&retirement(3), &replicas());
        assert_eq!(bytes[bytes.len() - 4..], [3, 0, 1, 2]);
        let refused = |ending: &[u8]| {
            let bytes = [&bytes[..bytes.len() - 4], ending].concat();
            decode(&bytes, &mut replicas()).is_err()
        };
        assert!(!refused(&[3, 0, 1, 2]) && !refused(&[1, 2]));
        assert!(refused(&[0]), "none");
        assert!(refused(&[2, 1, 1]), "one twice");
        assert!(refused(&[2, 2, 1]), "not ascending");
        assert!(refused(&[1, 3]), "a position that is not there");
        assert!(refused(&[1, 2, 0]), "something follows");
    }

    proptest! {
        #[test]
        fn blocks_survive(block in blocks()) {
            let mut replicas = replicas();
            let bytes = encode(&block, &replicas);
            let decoded = decode(&bytes, &mut replicas).map(with_retired_in_order);
            prop_assert_eq!(decoded, Ok(block));
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
    fn kinds_of_newer_builds_are_told_from_garbage() {
        let bytes = include_bytes!("../../../tests/fixtures/block-2.bin");
        let (kind, known) = (ADD as u64, UNLIKE as u8);
        let older = decode_up_to(bytes, known, &mut replicas());
        assert_eq!(older, Err(DecodeError::UnknownKind { kind, known }));
        assert!(decode_up_to(bytes, ADD as u8, &mut replicas()).is_ok());
        let place = bytes.windows(2).position(|pair| pair == [4, 6]);
        let mut negative = bytes.to_vec();
        negative[place.expect("one add") + 1] = 1;
        let refused = decode(&negative, &mut replicas());
        assert!(matches!(refused, Err(DecodeError::Invalid { .. })));
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

    /// Written by the first build that wrote format 2. It must read the same for ever.
    #[test]
    fn old_blocks_still_read() {
        let bytes = include_bytes!("../../../tests/fixtures/block-2.bin");
        let mut replicas = replicas();
        let block = decode(bytes, &mut replicas).expect("a block of format 2");
        assert_eq!(block.first_seq, 1);
        assert_eq!(block.events.len(), 4);
        assert_eq!(encode(&block, &replicas), bytes);
    }
}
