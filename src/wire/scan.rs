//! Looks over the bytes of a message before they are decoded: what would they take in memory?
//!
//! A decoder makes a value of each element, and an empty one is two bytes on the wire: 16 MiB of them
//! are half a gigabyte and more. So elements are counted first, by the shape of the message, which `build.rs` writes
//! down from the proto files. Nothing is allocated here, and nothing recurses deeper than a named limit.

use crate::limits::MESSAGE_DEPTH_MAX;

/// A message type: its fields in the order of their numbers.
pub struct Shape {
    name: &'static str,
    fields: &'static [Field],
}

struct Field {
    number: u32,
    /// What each element of a list takes in it; 0 for what is no list.
    bytes: u64,
    kind: Kind,
}

enum Kind {
    Number,
    Text,
    /// Place in the table of shapes.
    Message(usize),
}

static SHAPES: &[Shape] = include!(concat!(env!("OUT_DIR"), "/shapes.rs"));

/// Why bytes are no message, or one that is not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    #[error("it ends early")]
    Truncated,
    #[error("a number in it is too long")]
    Number,
    #[error("a field has no valid number or form")]
    Field,
    #[error("it is nested more than {MESSAGE_DEPTH_MAX} deep")]
    TooDeep,
    #[error("its elements would take more than {max} bytes")]
    TooMany { max: usize },
}

impl Shape {
    /// The shape of a type by its full name.
    pub fn of(name: &str) -> Option<&'static Self> {
        let found = SHAPES.binary_search_by(|shape| shape.name.cmp(name));
        found.ok().map(|at| &SHAPES[at])
    }

    /// Returns what the elements of the message take once decoded; an error if that is more than `max`.
    pub fn scan(&self, bytes: &[u8], max: usize) -> Result<usize, ScanError> {
        let mut scan = Scan { taken: 0, max };
        scan.message(self, bytes, MESSAGE_DEPTH_MAX)?;
        Ok(scan.taken)
    }

    fn field(&self, number: u32) -> Option<&Field> {
        let found = self
            .fields
            .binary_search_by_key(&number, |field| field.number);
        found.ok().map(|at| &self.fields[at])
    }
}

struct Scan {
    taken: usize,
    max: usize,
}

impl Scan {
    fn take(&mut self, bytes: u64) -> Result<(), ScanError> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.taken = self.taken.saturating_add(bytes);
        match self.taken > self.max {
            true => Err(ScanError::TooMany { max: self.max }),
            false => Ok(()),
        }
    }

    fn message(&mut self, shape: &Shape, mut bytes: &[u8], depth: usize) -> Result<(), ScanError> {
        let depth = depth.checked_sub(1).ok_or(ScanError::TooDeep)?;
        while !bytes.is_empty() {
            let tag = u32::try_from(number(&mut bytes)?).map_err(|_| ScanError::Field)?;
            let field = shape.field(tag >> 3);
            match tag & 7 {
                0 => {
                    number(&mut bytes)?;
                    self.take(field.map_or(0, |field| field.bytes))?;
                }
                1 => {
                    cut(&mut bytes, 8)?;
                    self.take(field.map_or(0, |field| field.bytes))?;
                }
                5 => {
                    cut(&mut bytes, 4)?;
                    self.take(field.map_or(0, |field| field.bytes))?;
                }
                2 => {
                    let len = number(&mut bytes)?;
                    let content = cut(&mut bytes, len)?;
                    if let Some(field) = field {
                        self.content(field, content, depth)?;
                    }
                }
                // Groups, which no message of ours has.
                _ => return Err(ScanError::Field),
            }
            if tag >> 3 == 0 {
                return Err(ScanError::Field);
            }
        }
        Ok(())
    }

    fn content(&mut self, field: &Field, content: &[u8], depth: usize) -> Result<(), ScanError> {
        match field.kind {
            Kind::Text => self.take(field.bytes + content.len() as u64),
            Kind::Message(at) => {
                self.take(field.bytes)?;
                self.message(&SHAPES[at], content, depth)
            }
            Kind::Number => {
                let ends = content.iter().filter(|byte| **byte < 0x80).count();
                self.take(field.bytes.saturating_mul(ends as u64))
            }
        }
    }
}

fn number(bytes: &mut &[u8]) -> Result<u64, ScanError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(ScanError::Truncated)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    Err(ScanError::Number)
}

fn cut<'a>(bytes: &mut &'a [u8], len: u64) -> Result<&'a [u8], ScanError> {
    let len = usize::try_from(len).map_err(|_| ScanError::Truncated)?;
    let (taken, rest) = bytes.split_at_checked(len).ok_or(ScanError::Truncated)?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{PEER_DECODED_BYTES_MAX, PEER_MESSAGE_BYTES_MAX, REPLICAS_MAX};
    use crate::wire::replication as wire;
    use proptest::prelude::*;
    use prost::{Message, Name};

    fn scan<M: Name>(bytes: &[u8]) -> Result<usize, ScanError> {
        let shape = Shape::of(&M::full_name()).expect("every message has a shape");
        shape.scan(bytes, PEER_DECODED_BYTES_MAX)
    }

    fn replica(number: usize) -> wire::Replica {
        let mut epoch = vec![7; 16];
        epoch[..8].copy_from_slice(&number.to_be_bytes());
        wire::Replica {
            region: "a-region-of-24-characters"[..24].to_owned(),
            epoch: epoch.into(),
        }
    }

    #[test]
    fn the_largest_honest_hello_is_taken() {
        let replicas: Vec<_> = (0..REPLICAS_MAX).map(replica).collect();
        let lineage = replicas.iter().map(|one| wire::Lineage {
            replica: Some(one.clone()),
            predecessors: Some(wire::VersionVector {
                replicas: vec![replica(0)],
                seqs: vec![u64::MAX],
            }),
        });
        let hello = wire::Hello {
            lineage: lineage.collect(),
            frontier: Some(wire::VersionVector {
                replicas,
                seqs: vec![u64::MAX; REPLICAS_MAX],
            }),
            ..wire::Hello::default()
        };
        let bytes = hello.encode_to_vec();
        assert!(bytes.len() < PEER_MESSAGE_BYTES_MAX, "{}", bytes.len());
        let taken = scan::<wire::Hello>(&bytes).expect("taken");
        println!("{} bytes take {taken}", bytes.len());
    }

    /// A field of length 0, over and over, within fields that lead there.
    fn bomb(path: &[u8]) -> Vec<u8> {
        let element = path.last().expect("a field") << 3 | 2;
        let mut bytes = [element, 0].repeat(PEER_MESSAGE_BYTES_MAX / 2 - 64);
        for field in path[..path.len() - 1].iter().rev() {
            let mut outer = vec![field << 3 | 2];
            prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
            outer.extend_from_slice(&bytes);
            bytes = outer;
        }
        bytes
    }

    #[test]
    fn empty_elements_are_not_decoded() {
        // A frame's Hello's frontier's replicas; its lineage; an audit's ranges; what was heard.
        for path in [&[1, 1, 5, 1][..], &[1, 1, 6], &[1, 7, 3], &[1, 3, 5]] {
            let refused = scan::<wire::SyncRequest>(&bomb(path));
            assert!(
                matches!(refused, Err(ScanError::TooMany { .. })),
                "{path:?}"
            );
        }
        for path in [&[2, 1][..], &[1, 3], &[2, 1, 3, 3], &[5, 1]] {
            let refused = scan::<wire::SnapshotResponse>(&bomb(path));
            assert!(
                matches!(refused, Err(ScanError::TooMany { .. })),
                "{path:?}"
            );
        }
    }

    #[test]
    fn empty_elements_of_clients_are_not_decoded_either() {
        use crate::limits::{CLIENT_DECODED_BYTES_MAX, CLIENT_MESSAGE_BYTES_MAX};
        let batch = [2 << 3 | 2, 0].repeat(CLIENT_MESSAGE_BYTES_MAX / 2);
        let shape = Shape::of("likewise.v1.WriteBatch").expect("there is one");
        let max = CLIENT_DECODED_BYTES_MAX;
        assert_eq!(shape.scan(&batch, max), Err(ScanError::TooMany { max }));
    }

    #[test]
    fn packed_numbers_count_each() {
        let vector = wire::VersionVector {
            replicas: vec![],
            seqs: vec![1; PEER_DECODED_BYTES_MAX / 8 + 1],
        };
        let refused = scan::<wire::VersionVector>(&vector.encode_to_vec());
        assert!(matches!(refused, Err(ScanError::TooMany { .. })));
    }

    #[test]
    fn broken_forms_are_told() {
        use ScanError::{Field, Number, Truncated};
        let cases: [(&[u8], _); 6] = [
            (&[0x0a], Truncated),
            (&[0x0a, 5, 1], Truncated),
            (&[0x0b], Field),
            (&[0x02, 0], Field),
            (
                &[
                    0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
                ],
                Number,
            ),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], Field),
        ];
        for (bytes, error) in cases {
            assert_eq!(scan::<wire::SyncRequest>(bytes), Err(error), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_over_without_panic(bytes: Vec<u8>) {
            let _outcome_is_free = scan::<wire::SyncRequest>(&bytes);
        }
    }
}
