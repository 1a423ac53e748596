//! Reading and writing of the elements that everything else is made of.

use crate::ids::{Epoch, IdError, Region, Replica};

/// Why bytes were refused. The place is an offset in what was being read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{what} ends early at byte {at}")]
    Truncated { what: &'static str, at: usize },
    #[error("{what} at byte {at} is {found}; the limit is {max}")]
    OverLimit {
        what: &'static str,
        at: usize,
        found: u64,
        max: u64,
    },
    #[error("{what} at byte {at} is not valid")]
    Invalid { what: &'static str, at: usize },
    #[error("{what} at byte {at} {source}")]
    Id {
        what: &'static str,
        at: usize,
        source: IdError,
    },
    #[error("{what} has format {found}; this build reads {known}")]
    Format {
        what: &'static str,
        found: u8,
        known: u8,
    },
    #[error(
        "an event is of kind {kind}, which a newer version made; this one ({version}) knows kinds up to {known}: \
         upgrade this node", version = env!("CARGO_PKG_VERSION")
    )]
    UnknownKind { kind: u64, known: u8 },
    #[error("{what} is garbled: its checksum does not fit")]
    Checksum { what: &'static str },
    #[error("too many replicas: the limit is {max}")]
    TooManyReplicas { max: usize },
}

/// A cursor over bytes that never reads past their end.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub fn take(&mut self, what: &'static str, len: usize) -> Result<&'a [u8], DecodeError> {
        if len > self.remaining() {
            return Err(DecodeError::Truncated { what, at: self.at });
        }
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(taken)
    }

    pub fn byte(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.take(what, 1)?[0])
    }

    /// An LEB128 number in its shortest form.
    pub fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let at = self.at;
        let invalid = DecodeError::Invalid { what, at };
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(invalid);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                let padded = byte == 0 && shift > 0;
                return if padded { Err(invalid) } else { Ok(value) };
            }
        }
        Err(invalid)
    }

    /// A number between 0 and `max`.
    pub fn bounded(&mut self, what: &'static str, max: u64) -> Result<u64, DecodeError> {
        let at = self.at;
        match self.varint(what)? {
            found if found > max => Err(DecodeError::OverLimit {
                what,
                at,
                found,
                max,
            }),
            found => Ok(found),
        }
    }

    /// A count of elements, each of which takes at least one byte of what remains.
    pub fn count(&mut self, what: &'static str, max: usize) -> Result<usize, DecodeError> {
        let count = self.bounded(what, max as u64)? as usize;
        if count > self.remaining() {
            return Err(DecodeError::Truncated { what, at: self.at });
        }
        Ok(count)
    }

    /// A signed number in zigzag form.
    pub fn signed(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        let value = self.varint(what)?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Bytes behind their length.
    pub fn prefixed(&mut self, what: &'static str, max: usize) -> Result<&'a [u8], DecodeError> {
        let len = self.bounded(what, max as u64)? as usize;
        self.take(what, len)
    }

    /// An id behind its length.
    pub fn id<T>(
        &mut self,
        what: &'static str,
        max: usize,
        check: impl Fn(&[u8]) -> Result<T, IdError>,
    ) -> Result<T, DecodeError> {
        let at = self.at;
        let bytes = self.prefixed(what, max)?;
        check(bytes).map_err(|source| DecodeError::Id { what, at, source })
    }

    pub fn replica(&mut self) -> Result<Replica, DecodeError> {
        let region = self.id("region", crate::limits::REGION_BYTES_MAX, Region::from_utf8)?;
        let epoch = self.array("epoch")?;
        Ok(Replica {
            region,
            epoch: Epoch::from_bytes(epoch),
        })
    }

    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let bytes = self.take(what, N)?;
        Ok(bytes.try_into().expect("took N bytes"))
    }

    /// Fails unless everything was read.
    pub fn finish(self, what: &'static str) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            _ => Err(DecodeError::Invalid { what, at: self.at }),
        }
    }
}

pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    if (0x80..1 << 28).contains(&value) {
        // Up to four bytes at once.
        let sevens = |at: u32| (value >> (7 * at) & 0x7f) << (8 * at);
        let bytes = sevens(0) | sevens(1) | sevens(2) | sevens(3);
        let last = 7 - bytes.leading_zeros() / 8;
        let more = 0x80_8080 & ((1u64 << (8 * last)) - 1);
        let end = out.len() + last as usize + 1;
        out.extend_from_slice(&(bytes | more).to_le_bytes());
        out.truncate(end);
        return;
    }
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

pub fn put_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub fn put_replica(out: &mut Vec<u8>, replica: &Replica) {
    put_prefixed(out, replica.region.as_bytes());
    out.extend_from_slice(&replica.epoch.to_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_survive(value: u64, signed: i64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            put_signed(&mut bytes, signed);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint("number"), Ok(value));
            prop_assert_eq!(reader.signed("number"), Ok(signed));
            prop_assert!(reader.finish("numbers").is_ok());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while reader.remaining() > 0 && reader.varint("number").is_ok() {}
        }
    }

    #[test]
    fn a_number_has_one_form_only() {
        assert!(Reader::new(&[0x80, 0x00]).varint("number").is_err());
        assert!(Reader::new(&[0xff; 11]).varint("number").is_err());
    }
}
