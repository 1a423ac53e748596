//! Messages of peers: looked over, decoded, checked.

use bytes::Bytes;
use likewise::crdt::dot::Replicas;
use likewise::limits::PEER_DECODED_BYTES_MAX;
use likewise::replication::frame::Frame;
use likewise::replication::parts;
use likewise::versions::Dialect;
use likewise::wire::codec::BoundedDecoder;
use likewise::wire::frames::{read_frame, write_frame};
use likewise::wire::replication::{SnapshotRequest, SnapshotResponse, SyncRequest};
use likewise::wire::scan::Shape;
use prost::{Message, Name};

/// What the decoder of the port makes of the bytes. Where they are a message, the look over them has found it well
/// formed too, and at least as large as its texts.
fn message<M: Name + Default>(bytes: &[u8]) -> Option<M> {
    let decoder = BoundedDecoder::<M>::default();
    let read = decoder.read(Bytes::copy_from_slice(bytes));
    let shape = Shape::of(&M::full_name()).expect("every message has one");
    let scanned = shape.scan(bytes, PEER_DECODED_BYTES_MAX);
    assert!(read.is_err() || scanned.is_ok());
    read.ok()
}

/// A frame of a session says the same after it was written again.
pub fn frames(bytes: &[u8]) {
    if let Some(request) = message::<SyncRequest>(bytes)
        && let Ok(frame) = read_frame(request.frame, &Dialect::default())
    {
        let again = read_frame(Some(write_frame(&frame)), &Dialect::default());
        // What a closing peer says is escaped whenever it is read.
        if !matches!(frame, Frame::Close { .. }) {
            assert_eq!(again, Ok(frame));
        }
    }
    drop(message::<SnapshotRequest>(bytes));
}

/// A part of a snapshot is written as it was read.
pub fn snapshot_parts(bytes: &[u8]) {
    let Some(response) = message::<SnapshotResponse>(bytes) else {
        return;
    };
    let mut replicas = Replicas::default();
    let Ok(part) = parts::read(response, &mut replicas) else {
        return;
    };
    let written = parts::write(part, &replicas);
    let again = parts::read(written.clone(), &mut replicas).expect("our own");
    let again = parts::write(again, &replicas);
    assert_eq!(again.encode_to_vec().len(), written.encode_to_vec().len());
}
