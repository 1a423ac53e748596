//! Users in eight or sixteen bytes. Most ids are a short prefix and a number, or UUIDs; what is neither, and longer than
//! fifteen bytes, is held as the text that it is.
//!
//! The encoding is exact: a key's text is that of the one user who has it. Keys are scrambled, reversibly, so that
//! their order is as good as random, and a place in a table follows from their highest bits.

use crate::crdt::fingerprint::UserHash;
use crate::ids::{Numbered, UserId};

/// `prefix` and number, in eight bytes: three of prefix, padded by zeros, which no id has, and forty bits.
const SHORT_NUMBER_BITS: u32 = 40;
/// The same in sixteen: a number of 64 bits, seven bytes of prefix and one that tells their number.
const LONG_NUMBERED: u8 = 0x80;
/// A whole text and one byte that tells its length.
const LONG_TEXT: usize = 15;
/// Bytes of a UUID's text.
const UUID_TEXT: usize = 36;

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
        if let Some(Numbered { prefix, number }) = user.as_numbered() {
            let high = u64::from_be_bytes(prefix);
            return Some(match fits_short(high, number) {
                true => Self::Short(scramble(high | number)),
                false => Self::Long(scramble_long([high | u64::from(LONG_NUMBERED), number])),
            });
        }
        let text = user.text();
        let text = text.as_bytes();
        if text.len() <= LONG_TEXT {
            let mut bytes = [0; 16];
            bytes[..text.len()].copy_from_slice(text);
            bytes[LONG_TEXT] = text.len() as u8;
            let number = u128::from_be_bytes(bytes);
            // The byte that tells the form is the last of the first half.
            return Some(Self::Long(scramble_long([
                number as u64,
                (number >> 64) as u64,
            ])));
        }
        Some(Self::Uuid(scramble_long(uuid(text)?)))
    }

    /// The user. Of decayed memory something else, which is no user's key: sums tell.
    pub fn user(self) -> UserId {
        self.known_user()
            .unwrap_or_else(|| UserId::new("\u{fffd}").expect("a valid id"))
    }

    fn known_user(self) -> Option<UserId> {
        let numbered = |high: u64, number| {
            let prefix = high.to_be_bytes();
            Some(UserId::from(Numbered::new(prefix, number)?))
        };
        match self {
            Self::Short(key) => {
                let plain = unscramble(key);
                let number = plain & SHORT_NUMBER;
                numbered(plain - number, number)
            }
            Self::Long(key) => {
                let [high, low] = unscramble_long(key);
                let form = high as u8;
                if form == LONG_NUMBERED {
                    return numbered(high - u64::from(form), low);
                }
                let text = (u128::from(low) << 64 | u128::from(high)).to_be_bytes();
                UserId::from_utf8(text.get(..usize::from(form))?).ok()
            }
            Self::Uuid(key) => UserId::from_utf8(&uuid_text(unscramble_long(key))).ok(),
        }
    }
}

const SHORT_NUMBER: u64 = (1 << SHORT_NUMBER_BITS) - 1;

fn fits_short(prefix: u64, number: u64) -> bool {
    prefix & SHORT_NUMBER == 0 && number <= SHORT_NUMBER
}

fn uuid_text([high, low]: Long) -> [u8; UUID_TEXT] {
    let number = u128::from(high) << 64 | u128::from(low);
    let mut text = [b'-'; UUID_TEXT];
    let mut digits = (0..32)
        .rev()
        .map(|place| (number >> (4 * place)) as usize & 15);
    for (at, byte) in text.iter_mut().enumerate() {
        if !is_hyphen(at) {
            *byte = b"0123456789abcdef"[digits.next().expect("as many as there are places")];
        }
    }
    text
}

fn is_hyphen(at: usize) -> bool {
    matches!(at, 8 | 13 | 18 | 23)
}

/// A UUID in the usual form, in lower case.
fn uuid(text: &[u8]) -> Option<Long> {
    if text.len() != UUID_TEXT {
        return None;
    }
    let mut number = 0u128;
    for (at, byte) in text.iter().enumerate() {
        let digit = match (at, byte) {
            (at, b'-') if is_hyphen(at) => continue,
            (at, _) if is_hyphen(at) => return None,
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
            assert_eq!(key.user(), user(text), "{key:?}");
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
                key.user();
            }
        }
    }
}
