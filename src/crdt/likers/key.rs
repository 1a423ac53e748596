//! Users in eight or sixteen bytes. Most ids are a short prefix and a number, or UUIDs; what is neither, and longer than
//! fifteen bytes, is held as the text that it is.
//!
//! The encoding is exact: a key's text is that of the one user who has it. Keys are scrambled, reversibly, so that
//! their order is as good as random, and a place in a table follows from their highest bits.

use crate::crdt::fingerprint::UserHash;
use crate::ids::UserId;

/// `prefix` and number, in eight bytes: three of prefix, padded by zeros, which no id has, and forty bits.
const SHORT_PREFIX: usize = 3;
const SHORT_NUMBER_BITS: u32 = 40;
/// The same in sixteen: a number of 64 bits, seven bytes of prefix and one that tells their number.
const LONG_PREFIX: usize = 7;
const LONG_NUMBERED: u8 = 0x80;
/// A whole text and one byte that tells its length.
const LONG_TEXT: usize = 15;

/// Bytes of the longest text that a key stands for, which is a UUID's.
const TEXT_MAX: usize = 36;

/// Whom likers are searched for. Hash and key are made once.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    pub user: &'a UserId,
    pub hash: UserHash,
    pub(super) key: Option<Key>,
}

impl<'a> Who<'a> {
    pub fn of(user: &'a UserId) -> Self {
        Self::hashed(user, UserHash::of(user))
    }

    /// With the user's hash, where it is known already.
    pub fn hashed(user: &'a UserId, hash: UserHash) -> Self {
        let key = Key::of(user);
        Self { user, hash, key }
    }
}

/// Eight bytes, scrambled.
pub(super) type Short = u64;
/// Sixteen bytes, scrambled. No `u128`, whose alignment would cost half as much again.
pub(super) type Long = [u64; 2];

/// A user as a table holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Short(Short),
    Long(Long),
    Uuid(Long),
}

impl Key {
    /// None for texts that have none.
    pub fn of(user: &UserId) -> Option<Self> {
        let text = user.as_bytes();
        if let Some((prefix, number)) = user.numbered() {
            let prefix = prefix.as_bytes();
            if prefix.len() <= SHORT_PREFIX && number >> SHORT_NUMBER_BITS == 0 {
                let mut bytes = [0; 8];
                bytes[..prefix.len()].copy_from_slice(prefix);
                let plain = u64::from_le_bytes(bytes) << SHORT_NUMBER_BITS | number;
                return Some(Self::Short(scramble(plain)));
            }
            if prefix.len() <= LONG_PREFIX {
                let mut bytes = [0; 8];
                bytes[..prefix.len()].copy_from_slice(prefix);
                bytes[7] = LONG_NUMBERED | prefix.len() as u8;
                return Some(Self::Long(scramble_long([
                    u64::from_le_bytes(bytes),
                    number,
                ])));
            }
        }
        if text.len() <= LONG_TEXT {
            let mut bytes = [[0; 8]; 2];
            bytes[1][..text.len().min(8)].copy_from_slice(&text[..text.len().min(8)]);
            if let Some(rest) = text.get(8..) {
                bytes[0][..rest.len()].copy_from_slice(rest);
            }
            bytes[0][7] = text.len() as u8;
            return Some(Self::Long(scramble_long(bytes.map(u64::from_le_bytes))));
        }
        Some(Self::Uuid(scramble_long(uuid(text)?)))
    }

    pub fn text(self) -> Text {
        match self {
            Self::Short(key) => {
                let plain = unscramble(key);
                let number = plain & ((1 << SHORT_NUMBER_BITS) - 1);
                let prefix = (plain >> SHORT_NUMBER_BITS).to_le_bytes();
                let len = prefix.iter().position(|byte| *byte == 0);
                Text::numbered(&prefix[..len.unwrap_or(SHORT_PREFIX)], number)
            }
            Self::Long(key) => {
                let [high, low] = unscramble_long(key);
                let bytes = high.to_le_bytes();
                let len = usize::from(bytes[7] & !LONG_NUMBERED);
                if bytes[7] & LONG_NUMBERED != 0 {
                    return Text::numbered(&bytes[..len.min(LONG_PREFIX)], low);
                }
                let mut text = Text::default();
                text.push(&low.to_le_bytes());
                text.push(&bytes[..7]);
                text.len = len.min(LONG_TEXT);
                text
            }
            Self::Uuid(key) => Text::uuid(unscramble_long(key)),
        }
    }
}

/// The bytes of an id, without an allocation.
pub(super) struct Text {
    bytes: [u8; TEXT_MAX],
    len: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            bytes: [0; TEXT_MAX],
            len: 0,
        }
    }
}

impl Text {
    fn numbered(prefix: &[u8], number: u64) -> Self {
        let mut text = Self::default();
        text.push(prefix);
        text.push(itoa::Buffer::new().format(number).as_bytes());
        text
    }

    fn uuid([high, low]: Long) -> Self {
        let number = u128::from(high) << 64 | u128::from(low);
        let mut text = Self::default();
        for (at, byte) in number.to_be_bytes().into_iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push(b"-");
            }
            let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
            text.push(&[digit(byte >> 4), digit(byte & 15)]);
        }
        text
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The user. Of decayed memory something else, which is no user's key: sums tell.
    pub fn user(&self) -> UserId {
        UserId::from_utf8(self.as_bytes())
            .unwrap_or_else(|_| UserId::new("\u{fffd}").expect("a valid id"))
    }
}

/// A UUID in the usual form, in lower case.
fn uuid(text: &[u8]) -> Option<Long> {
    if text.len() != TEXT_MAX {
        return None;
    }
    let mut number = 0u128;
    for (at, byte) in text.iter().enumerate() {
        let digit = match (at, byte) {
            (8 | 13 | 18 | 23, b'-') => continue,
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9') => byte - b'0',
            (_, b'a'..=b'f') => byte - b'a' + 10,
            _ => return None,
        };
        number = number << 4 | u128::from(digit);
    }
    Some([(number >> 64) as u64, number as u64])
}

const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];
const INVERSES: [u64; 2] = [inverse(FACTORS[0]), inverse(FACTORS[1])];

/// The inverse of an odd number modulo 2^64: each round doubles the bits that are right.
const fn inverse(odd: u64) -> u64 {
    let mut found = odd;
    let mut round = 0;
    while round < 6 {
        found = found.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(found)));
        round += 1;
    }
    found
}

fn scramble(plain: u64) -> u64 {
    let once = plain.wrapping_mul(FACTORS[0]);
    (once ^ once >> 32).wrapping_mul(FACTORS[1])
}

fn unscramble(key: u64) -> u64 {
    let once = key.wrapping_mul(INVERSES[1]);
    (once ^ once >> 32).wrapping_mul(INVERSES[0])
}

fn scramble_long([high, low]: Long) -> Long {
    [scramble(high ^ scramble(low)), low]
}

fn unscramble_long([high, low]: Long) -> Long {
    [unscramble(high) ^ scramble(low), low]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn user(text: &str) -> UserId {
        UserId::new(text).expect("valid")
    }

    fn kind(text: &str) -> &'static str {
        let key = Key::of(&user(text));
        if let Some(key) = key {
            assert_eq!(key.text().user(), user(text), "{key:?}");
        }
        match key {
            Some(Key::Short(_)) => "short",
            Some(Key::Long(_)) => "long",
            Some(Key::Uuid(_)) => "uuid",
            None => "none",
        }
    }

    #[test]
    fn what_is_usual_is_short() {
        for text in [
            "u1",
            "u10000000",
            "0",
            "7",
            "id:5",
            "u007",
            "00",
            "usr1099511627775",
        ] {
            assert_eq!(kind(text), "short", "{text}");
        }
        for text in [
            "user12",
            "usr1099511627776",
            "1759288472991170634",
            "alice",
            "投稿",
            "a234567890bcdef",
            "account9999999999999999999",
        ] {
            assert_eq!(kind(text), "long", "{text}");
        }
        assert_eq!(kind("0190d3c4-7a2e-7c41-9f00-00000000000f"), "uuid");
        for text in [
            "0190D3C4-7a2e-7c41-9f00-00000000000f",
            "0190d3c4-7a2e-7c41-9f00-00000000000g",
            "0190d3c407a2e-7c41-9f00-00000000000f",
            "u123456789012345678901234567890",
            "somebody.with.a@long.name",
        ] {
            assert_eq!(kind(text), "none", "{text}");
        }
    }

    proptest! {
        /// No two users have one key, for each key tells its user.
        #[test]
        fn a_key_tells_its_user(text in "[a-z0:é-]{0,8}[0-9]{0,21}|[ -~]{1,20}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}") {
            prop_assume!(!text.is_empty());
            kind(&text);
        }

        /// Whatever bits memory comes to hold, they are read.
        #[test]
        fn any_bits_are_read(high: u64, low: u64) {
            for key in [Key::Short(high), Key::Long([high, low]), Key::Uuid([high, low])] {
                key.text().user();
            }
        }
    }
}
