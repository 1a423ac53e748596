//! The bytes of the log: segment birth, segment header, records. The layout is told in
//! `docs/protocol.md`; nothing here reads or writes a file.

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{LogIdentity, Position, Record, RecordKind};
use crate::ids::{ClusterId, Region};
use crate::limits;
use crate::planted::{Bug, is_planted};
use crate::versions::LOG_FORMAT;

/// The birth fills the first sector of a segment and is never written with anything else.
pub(super) const BIRTH_BYTES: usize = 512;
/// Bytes of a record beside its payload, before padding.
pub const RECORD_HEADER_BYTES: usize = 32;
/// Records begin at multiples of this.
pub(super) const ALIGNMENT: usize = 8;

const BIRTH_MAGIC: &[u8; 8] = b"LWSEGMNT";
const BIRTH_FIELDS_BYTES: usize = 40;
const HEADER_MAGIC: &[u8; 8] = b"LWHEADER";
const HEADER_FIELDS_BYTES: usize = 64;
const HEADER_FIXED_BYTES: usize = HEADER_FIELDS_BYTES + 8;
const RECORD_MAGIC: u16 = u16::from_le_bytes(*b"LR");
const RECORD_FIELDS_BYTES: usize = 24;

/// Bytes that a record with this payload takes in the log.
pub const fn framed_bytes(payload_bytes: usize) -> usize {
    RECORD_HEADER_BYTES + payload_bytes.next_multiple_of(ALIGNMENT)
}

/// Bytes that a segment header takes at most, when its context has this many.
pub(super) const fn header_bytes_max(context_bytes: usize) -> usize {
    let names = limits::CLUSTER_ID_BYTES_MAX + limits::REGION_BYTES_MAX;
    (HEADER_FIXED_BYTES + names + context_bytes).next_multiple_of(ALIGNMENT)
}

/// What a segment is from its allocation on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Birth {
    pub version: u16,
    pub base: Position,
    /// Bytes of the file.
    pub capacity: u64,
    /// Binds all checksums of the segment, so that old content of its blocks is no record of it.
    pub nonce: u64,
}

impl Birth {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(BIRTH_BYTES);
        out.put_slice(BIRTH_MAGIC);
        out.put_u16_le(self.version);
        out.put_bytes(0, 6);
        out.put_u64_le(self.base.0);
        out.put_u64_le(self.capacity);
        out.put_u64_le(self.nonce);
        out.put_u64_le(xxh3_64(&out));
        out.put_bytes(0, BIRTH_BYTES - out.len());
        out.freeze()
    }

    /// None if these bytes are no birth.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let fields = bytes.get(..BIRTH_FIELDS_BYTES)?;
        let stated = u64_at(bytes, BIRTH_FIELDS_BYTES)?;
        if !fields.starts_with(BIRTH_MAGIC) || xxh3_64(fields) != stated {
            return None;
        }
        Some(Self {
            version: u16_at(bytes, 8)?,
            base: Position(u64_at(bytes, 16)?),
            capacity: u64_at(bytes, 24)?,
            nonce: u64_at(bytes, 32)?,
        })
    }
}

/// What a segment is once records are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub base: Position,
    pub capacity: u64,
    pub nonce: u64,
    /// Where the records of the segment before end.
    pub previous_end: Position,
    /// The log was synced up to here when this was written.
    pub synced: Position,
    pub identity: LogIdentity,
    /// The owner's bytes: what held before the segment's first record.
    pub context: Bytes,
}

impl Header {
    pub(super) fn encoded_bytes(&self) -> usize {
        let names = self.identity.cluster.as_bytes().len() + self.identity.region.as_bytes().len();
        (HEADER_FIXED_BYTES + names + self.context.len()).next_multiple_of(ALIGNMENT)
    }

    pub(super) fn encode_into(&self, out: &mut BytesMut) {
        let (cluster, region) = (&self.identity.cluster, &self.identity.region);
        let from = out.len();
        out.put_slice(HEADER_MAGIC);
        out.put_u32_le(len_u32(self.encoded_bytes()));
        out.put_u8(len_u8(cluster.as_bytes().len()));
        out.put_u8(len_u8(region.as_bytes().len()));
        out.put_u16_le(LOG_FORMAT);
        out.put_u32_le(len_u32(self.context.len()));
        out.put_u32_le(0);
        out.put_u64_le(self.base.0);
        out.put_u64_le(self.previous_end.0);
        out.put_u64_le(self.synced.0);
        out.put_u64_le(self.capacity);
        out.put_u64_le(self.nonce);
        out.put_u64_le(0);
        out.put_slice(cluster.as_bytes());
        out.put_slice(region.as_bytes());
        out.put_slice(&self.context);
        out.put_bytes(0, self.encoded_bytes() - (out.len() - from));
        let checksum = header_checksum(&out[from..], self.nonce);
        out[from + HEADER_FIELDS_BYTES..from + HEADER_FIXED_BYTES]
            .copy_from_slice(&checksum.to_le_bytes());
    }

    /// None if these bytes, from the header's place on, are no header. `capacity` bounds what a
    /// length may say.
    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let len = u32_at(bytes, 8)? as usize;
        if !bytes.starts_with(HEADER_MAGIC) || len < HEADER_FIXED_BYTES || len > bytes.len() {
            return None;
        }
        let bytes = bytes.slice(..len);
        let nonce = u64_at(&bytes, 56)?;
        if u64_at(&bytes, HEADER_FIELDS_BYTES)? != header_checksum(&bytes, nonce) {
            return None;
        }
        let cluster_end = HEADER_FIXED_BYTES + usize::from(bytes[12]);
        let region_end = cluster_end + usize::from(bytes[13]);
        let context_end = region_end + u32_at(&bytes, 16)? as usize;
        Some(Self {
            base: Position(u64_at(&bytes, 24)?),
            previous_end: Position(u64_at(&bytes, 32)?),
            synced: Position(u64_at(&bytes, 40)?),
            capacity: u64_at(&bytes, 48)?,
            nonce,
            identity: LogIdentity {
                cluster: ClusterId::from_utf8(bytes.get(HEADER_FIXED_BYTES..cluster_end)?).ok()?,
                region: Region::from_utf8(bytes.get(cluster_end..region_end)?).ok()?,
            },
            context: bytes
                .get(region_end..context_end)
                .map(|_| bytes.slice(region_end..context_end))?,
        })
    }
}

fn header_checksum(bytes: &[u8], nonce: u64) -> u64 {
    let mut hash = Xxh3::with_seed(nonce);
    hash.update(&bytes[..HEADER_FIELDS_BYTES]);
    hash.update(&bytes[HEADER_FIXED_BYTES..]);
    hash.digest()
}

/// Appends one record, whose payload comes in pieces.
pub(super) fn encode_record(
    out: &mut BytesMut,
    nonce: u64,
    position: Position,
    synced: Position,
    kind: RecordKind,
    payload: &[Bytes],
) {
    let len: usize = payload.iter().map(Bytes::len).sum();
    let padding = len.next_multiple_of(ALIGNMENT) - len;
    let mut hash = Xxh3::with_seed(nonce);
    for piece in payload {
        hash.update(piece);
    }
    hash.update(&[0; ALIGNMENT][..padding]);
    let from = out.len();
    out.put_u16_le(RECORD_MAGIC);
    out.put_u8(kind.0);
    out.put_u8(0);
    out.put_u32_le(len_u32(len));
    out.put_u64_le(synced.0);
    out.put_u64_le(hash.digest());
    let checksum = record_checksum(&out[from..], nonce, position);
    out.put_u64_le(checksum);
    for piece in payload {
        out.put_slice(piece);
    }
    out.put_bytes(0, padding);
}

fn record_checksum(fields: &[u8], nonce: u64, position: Position) -> u64 {
    let mut hash = Xxh3::with_seed(nonce);
    hash.update(&position.0.to_le_bytes());
    hash.update(&fields[..RECORD_FIELDS_BYTES]);
    hash.digest()
}

/// The checked header of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    kind: RecordKind,
    payload_bytes: usize,
    payload_checksum: u64,
    pub synced: Position,
}

impl Frame {
    /// None if there is no record header of this segment at this place.
    pub(super) fn decode(bytes: &[u8], nonce: u64, position: Position) -> Option<Self> {
        let header = bytes.get(..RECORD_HEADER_BYTES)?;
        if u16_at(header, 0)? != RECORD_MAGIC
            || u64_at(header, RECORD_FIELDS_BYTES)? != record_checksum(header, nonce, position)
        {
            return None;
        }
        let payload_bytes = u32_at(header, 4)? as usize;
        Some(Self {
            kind: RecordKind(header[2]),
            payload_bytes,
            payload_checksum: u64_at(header, 16)?,
            synced: Position(u64_at(header, 8)?),
        })
        .filter(|frame| header[3] == 0 && frame.payload_bytes <= limits::RECORD_BYTES_MAX)
    }

    /// Bytes of the whole record.
    pub(super) fn bytes(&self) -> usize {
        framed_bytes(self.payload_bytes)
    }

    /// The record, if `bytes` hold all of it, unharmed.
    pub(super) fn record(&self, bytes: &Bytes, nonce: u64, position: Position) -> Option<Record> {
        let padded = bytes.get(RECORD_HEADER_BYTES..self.bytes())?;
        let mut hash = Xxh3::with_seed(nonce);
        hash.update(padded);
        if hash.digest() != self.payload_checksum && !is_planted(Bug::TornRecordAccepted) {
            return None;
        }
        let end = RECORD_HEADER_BYTES + self.payload_bytes;
        Some(Record {
            position,
            kind: self.kind,
            payload: bytes.slice(RECORD_HEADER_BYTES..end),
        })
    }
}

/// The record at the beginning of `bytes`, and the length of its frame.
pub(super) fn decode_record(
    bytes: &Bytes,
    nonce: u64,
    position: Position,
) -> Option<(Record, Frame)> {
    let frame = Frame::decode(bytes, nonce, position)?;
    let record = frame.record(bytes, nonce, position)?;
    Some((record, frame))
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("checked against the limits before it is encoded")
}

fn len_u8(len: usize) -> u8 {
    u8::try_from(len).expect("ids are shorter than 256 bytes")
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

const _: () = assert!(RECORD_FIELDS_BYTES + 8 == RECORD_HEADER_BYTES);
const _: () =
    assert!(BIRTH_FIELDS_BYTES + 8 <= BIRTH_BYTES && BIRTH_BYTES.is_multiple_of(ALIGNMENT));
const _: () = assert!(HEADER_FIXED_BYTES.is_multiple_of(ALIGNMENT));
const _: () = assert!(limits::RECORD_BYTES_MAX <= u32::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(context: Vec<u8>) -> Header {
        Header {
            base: Position(4096),
            capacity: 1 << 20,
            nonce: 99,
            previous_end: Position(4000),
            synced: Position(3000),
            identity: LogIdentity {
                cluster: ClusterId::new("c").expect("valid"),
                region: Region::new("eu").expect("valid"),
            },
            context: context.into(),
        }
    }

    fn record(payload: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        let pieces = [Bytes::copy_from_slice(payload)];
        encode_record(
            &mut out,
            7,
            Position(800),
            Position(640),
            RecordKind(3),
            &pieces,
        );
        out.freeze()
    }

    #[test]
    fn a_record_is_bound_to_its_segment_and_place() {
        let bytes = record(b"payload");
        assert!(decode_record(&bytes, 7, Position(800)).is_some());
        assert!(decode_record(&bytes, 8, Position(800)).is_none());
        assert!(decode_record(&bytes, 7, Position(808)).is_none());
    }

    proptest! {
        #[test]
        fn records_are_read_as_written(payload: Vec<u8>) {
            let bytes = record(&payload);
            prop_assert_eq!(bytes.len(), framed_bytes(payload.len()));
            let (read, frame) = decode_record(&bytes, 7, Position(800)).expect("valid");
            prop_assert_eq!(&read.payload[..], &payload[..]);
            prop_assert_eq!((read.kind, frame.synced), (RecordKind(3), Position(640)));
        }

        #[test]
        fn a_flipped_bit_is_noticed(payload: Vec<u8>, at: prop::sample::Index, bit in 0..8) {
            let mut bytes = record(&payload).to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert!(decode_record(&bytes.into(), 7, Position(800)).is_none());
        }

        #[test]
        fn any_bytes_are_decoded_without_panic(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            prop_assert!(Birth::decode(&bytes).is_none());
            prop_assert!(Header::decode(&bytes).is_none());
            prop_assert!(decode_record(&bytes, 7, Position(8)).is_none());
        }

        #[test]
        fn headers_are_read_as_written(context: Vec<u8>, at: prop::sample::Index) {
            let header = header(context);
            let mut out = BytesMut::new();
            header.encode_into(&mut out);
            prop_assert!(out.len() <= header_bytes_max(header.context.len()));
            let bytes = out.clone().freeze();
            prop_assert_eq!(Header::decode(&bytes), Some(header));
            let at = at.index(out.len());
            out[at] ^= 1;
            prop_assert_eq!(Header::decode(&out.freeze()), None);
        }
    }
}
