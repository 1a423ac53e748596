//! What must hold of every decoder that reads bytes of peers, clients or the disk, whatever they are.
//!
//! The fuzz targets try it on bytes of their own invention; `tests/decoders.rs` tries it on the corpora and on
//! everything that was ever found, in the ordinary run of tests.

#![allow(dead_code, reason = "each fuzz target uses one of them")]

mod disk;
mod gossip;
mod wire;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use likewise::codec::block::{beginning, decode, decode_up_to, encode, head};
use likewise::codec::text::{decode_like_id, decode_token, encode_like_id, encode_token};
use likewise::codec::vector;
use likewise::codec::{DecodeError, reader::Reader};
use likewise::crdt::dot::Replicas;
use likewise::engine::record as commit;
use likewise::ids::{ClusterId, PostId, UserId};
use likewise::limits::REPLICAS_MAX;

pub use disk::{log_segments, rows, stage};
pub use gossip::gossip;
pub use wire::{frames, snapshot_parts};

/// A property, by the name of its target.
pub type Property = fn(&[u8]);

pub const ALL: [(&str, Property); 9] = [
    ("block", block),
    ("record", record),
    ("rows", rows),
    ("text", text),
    ("frames", frames),
    ("snapshot_parts", snapshot_parts),
    ("gossip", gossip),
    ("log_segments", log_segments),
    ("stage", stage),
];

/// A block says the same after it was written again; its beginning says what the whole says; an older build
/// refuses it as too new or reads the same.
pub fn block(bytes: &[u8]) {
    let mut replicas = Replicas::default();
    let Ok(read) = decode(bytes, &mut replicas) else {
        return;
    };
    let (begun, predecessors) = beginning(bytes, &mut replicas).expect("it was read");
    assert_eq!(head(bytes, &mut replicas).as_ref(), Ok(&begun));
    assert_eq!(begun.last_seq(), read.last_seq());
    assert_eq!(predecessors, read.predecessors);
    assert_eq!(read.differs_from(&read), None);
    let again = encode(&read, &replicas);
    assert_eq!(decode(&again, &mut replicas).as_ref(), Ok(&read));
    for kind_max in 0..4 {
        match decode_up_to(bytes, kind_max, &mut replicas) {
            Ok(older) => assert_eq!(older, read),
            Err(error) => assert!(matches!(error, DecodeError::UnknownKind { .. }), "{error}"),
        }
    }
}

/// A commit record says the same after it was written again, and its blocks can be read alone.
pub fn record(bytes: &[u8]) {
    let mut replicas = Replicas::default();
    let payload = Bytes::copy_from_slice(bytes);
    let Ok(read) = commit::decode(&payload, &mut replicas) else {
        return;
    };
    assert_eq!(commit::blocks(&payload).as_ref(), Ok(&read.blocks));
    let again = commit::encode(&read, &replicas);
    assert_eq!(commit::decode(&again, &mut replicas), Ok(read));
}

/// Tokens, like ids and vectors. Texts are sealed with the right checksum, or nothing behind it would be reached.
pub fn text(bytes: &[u8]) {
    let cluster = ClusterId::new("c").expect("valid");
    let (post, user) = (
        PostId::new("p").expect("valid"),
        UserId::new("u").expect("valid"),
    );
    let sealed = [bytes, &crc32fast::hash(bytes).to_be_bytes()].concat();
    for text in [
        String::from_utf8_lossy(bytes).into_owned(),
        BASE64URL_NOPAD.encode(&sealed),
    ] {
        if let Ok(entries) = decode_token(&cluster, &text) {
            let again = encode_token(
                &cluster,
                entries.iter().map(|(replica, seq)| (replica, *seq)),
            );
            let mut sorted = entries;
            sorted.sort();
            assert_eq!(decode_token(&cluster, &again), Ok(sorted));
        }
        if let Ok(dots) = decode_like_id(&cluster, (&post, &user), &text) {
            let named = dots.iter().map(|(replica, seq)| (replica, *seq));
            let again = encode_like_id(&cluster, (&post, &user), named);
            let mut sorted = dots;
            sorted.sort();
            assert_eq!(decode_like_id(&cluster, (&post, &user), &again), Ok(sorted));
        }
    }
    let mut replicas = Replicas::default();
    if let Ok(entries) = vector::entries(&mut Reader::new(bytes), REPLICAS_MAX, &mut replicas) {
        let mut again = Vec::new();
        vector::put_entries(&mut again, &replicas, &entries);
        let read = vector::entries(&mut Reader::new(&again), REPLICAS_MAX, &mut replicas);
        assert_eq!(read, Ok(entries));
    }
    if let Ok(frontier) = vector::frontier(&mut Reader::new(bytes), &mut replicas) {
        let mut again = Vec::new();
        vector::put_frontier(&mut again, &replicas, &frontier);
        let read = vector::frontier(&mut Reader::new(&again), &mut replicas).expect("our own");
        assert_eq!(read.vector(), frontier.vector());
    }
}
