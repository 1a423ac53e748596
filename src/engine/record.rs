//! What one record of the log holds: blocks of events, and what is remembered of requests.
//!
//! Peers' blocks stand first, as they came, then the node's own: its first event may name predecessors
//! that one of the peers' blocks brings.

use bytes::Bytes;

use crate::codec::DecodeError;
use crate::codec::reader::{Reader, put_prefixed, put_replica, put_varint};
use crate::codec::vector::Intern;
use crate::crdt::dot::{Dot, Dots, Replicas};
use crate::engine::requests::{Done, Outcome, RequestRecord};
use crate::ids::RequestId;
use crate::limits::{
    BATCH_ITEMS_MAX, BLOCK_BYTES_MAX, RECORD_BYTES_MAX, REMOVED_DOTS_MAX, REQUEST_ID_BYTES_MAX,
};

/// The kind of log record that holds this.
pub const COMMIT_RECORD: u8 = 1;

/// A decoded record. Blocks are still bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommitRecord {
    pub blocks: Vec<Bytes>,
    pub requests: Vec<RequestRecord>,
}

pub fn encode(record: &CommitRecord, replicas: &Replicas) -> Bytes {
    let mut out = Vec::new();
    put_varint(&mut out, record.blocks.len() as u64);
    for block in &record.blocks {
        put_prefixed(&mut out, block);
    }
    put_varint(&mut out, record.requests.len() as u64);
    for request in &record.requests {
        put_request(&mut out, request, replicas);
    }
    Bytes::from(out)
}

fn put_request(out: &mut Vec<u8>, request: &RequestRecord, replicas: &Replicas) {
    put_prefixed(out, request.id.as_bytes());
    out.extend_from_slice(&request.digest.to_be_bytes());
    put_varint(out, request.at_ms);
    put_varint(out, u64::from(request.items));
    put_varint(out, request.done.len() as u64);
    for (item, done) in &request.done {
        put_varint(out, u64::from(*item));
        put_done(out, done, replicas);
    }
}

pub fn put_done(out: &mut Vec<u8>, done: &Done, replicas: &Replicas) {
    out.push(outcome_code(done.outcome));
    out.push(u8::from(done.dot.is_some()));
    put_varint(out, done.removed.len() as u64);
    for dot in done.dot.iter().chain(&done.removed) {
        put_replica(out, replicas.id(dot.replica));
        put_varint(out, dot.seq);
    }
}

fn outcome_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Liked => 1,
        Outcome::LikedAgain => 2,
        Outcome::Unliked => 3,
        Outcome::NotLiked => 4,
        Outcome::Added => 5,
        Outcome::BeyondBound => 6,
        Outcome::OrphanRemovalsFull => 7,
    }
}

fn outcome_of(code: u8) -> Option<Outcome> {
    Some(match code {
        1 => Outcome::Liked,
        2 => Outcome::LikedAgain,
        3 => Outcome::Unliked,
        4 => Outcome::NotLiked,
        5 => Outcome::Added,
        6 => Outcome::BeyondBound,
        7 => Outcome::OrphanRemovalsFull,
        _ => return None,
    })
}

/// Reads the blocks alone, without copying them.
pub fn blocks(payload: &Bytes) -> Result<Vec<Bytes>, DecodeError> {
    read_blocks(payload, &mut Reader::new(payload))
}

fn read_blocks(payload: &Bytes, reader: &mut Reader<'_>) -> Result<Vec<Bytes>, DecodeError> {
    let count = reader.count("number of blocks", RECORD_BYTES_MAX)?;
    (0..count)
        .map(|_| Ok(payload.slice_ref(reader.prefixed("block", BLOCK_BYTES_MAX)?)))
        .collect()
}

pub fn decode(payload: &Bytes, intern: &mut dyn Intern) -> Result<CommitRecord, DecodeError> {
    let mut reader = Reader::new(payload);
    let blocks = read_blocks(payload, &mut reader)?;
    let count = reader.count("number of requests", RECORD_BYTES_MAX)?;
    let mut requests = Vec::with_capacity(count);
    for _ in 0..count {
        requests.push(request(&mut reader, intern)?);
    }
    reader.finish("end of a commit record")?;
    Ok(CommitRecord { blocks, requests })
}

fn request(reader: &mut Reader<'_>, intern: &mut dyn Intern) -> Result<RequestRecord, DecodeError> {
    let id = reader.id("request id", REQUEST_ID_BYTES_MAX, RequestId::from_utf8)?;
    let digest = u64::from_be_bytes(reader.array("digest of a request")?);
    let at_ms = reader.varint("time of a request")?;
    let items = reader.bounded("items of a request", BATCH_ITEMS_MAX as u64)? as u32;
    let count = reader.count("answers of a request", items as usize)?;
    let mut done = Vec::with_capacity(count);
    for _ in 0..count {
        let item = reader.bounded("item of a request", u64::from(items).saturating_sub(1))? as u32;
        done.push((item, read_done(reader, intern)?));
    }
    Ok(RequestRecord {
        id,
        digest,
        at_ms,
        items,
        done,
    })
}

pub fn read_done(reader: &mut Reader<'_>, intern: &mut dyn Intern) -> Result<Done, DecodeError> {
    let at = reader.position();
    let what = "answer of a request";
    let invalid = DecodeError::Invalid { what, at };
    let outcome = outcome_of(reader.byte(what)?).ok_or(invalid)?;
    let has_dot = reader.byte(what)? == 1;
    let count = reader.count("removed dots", REMOVED_DOTS_MAX)?;
    let mut dot = || -> Result<Dot, DecodeError> {
        let replica = intern.intern(&reader.replica()?)?;
        let seq = reader.varint("number of a dot")?;
        Ok(Dot { seq, replica })
    };
    let own = if has_dot { Some(dot()?) } else { None };
    let removed = (0..count).map(|_| dot()).collect::<Result<Dots, _>>()?;
    Ok(Done {
        outcome,
        dot: own,
        removed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Region, Replica};

    fn sample() -> (Replicas, CommitRecord) {
        let mut replicas = Replicas::default();
        let eu = replicas.intern(&Replica {
            region: Region::new("eu").expect("valid"),
            epoch: Epoch(1),
        });
        let dot = Dot {
            seq: 9,
            replica: eu,
        };
        let record = CommitRecord {
            blocks: vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")],
            requests: vec![RequestRecord {
                id: RequestId::new("r").expect("valid"),
                digest: 77,
                at_ms: 5,
                items: 2,
                done: vec![(
                    1,
                    Done {
                        outcome: Outcome::LikedAgain,
                        dot: Some(dot),
                        removed: Dots::from_slice(&[dot]),
                    },
                )],
            }],
        };
        (replicas, record)
    }

    /// Written by the first version of the format. It must read the same for ever.
    #[test]
    fn old_records_still_read() {
        let (mut replicas, record) = sample();
        let bytes = Bytes::from_static(include_bytes!("../../tests/fixtures/record-1.bin"));
        assert_eq!(decode(&bytes, &mut replicas), Ok(record));
    }

    #[test]
    fn records_survive_and_cut_ones_are_refused() {
        let (mut replicas, record) = sample();
        let bytes = encode(&record, &replicas);
        assert_eq!(decode(&bytes, &mut replicas).as_ref(), Ok(&record));
        assert_eq!(blocks(&bytes).as_ref(), Ok(&record.blocks));
        for cut in 0..bytes.len() {
            assert!(decode(&bytes.slice(..cut), &mut replicas).is_err());
        }
    }
}
