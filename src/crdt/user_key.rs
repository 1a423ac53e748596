//! Users as the state holds them: in eight or sixteen bytes, and hashed. Most ids are a short prefix and a number, or UUIDs; what is
//! neither, and longer than fifteen bytes, is held as the text that it is.
//!
//! The encoding is exact: a key's text is that of the one user who has it. Keys are scrambled, reversibly, so that
//! their order is as good as random. The first eight bytes of a key are those of the hash too, so that tables stand in the order
//! of hashes, and what a table holds is split without hashing.

use xxhash_rust::xxh3::xxh3_128;

use crate::ids::{Numbered, UserId};

/// `prefix` and number, in eight bytes: three of prefix, padded by zeros, which no id has, and forty bits.
const SHORT_NUMBER_BITS: u32 = 40;
/// The same in sixteen: a number of 64 bits, seven bytes of prefix and one that tells their number.
const LONG_NUMBERED: u8 = 0x80;
/// A whole text and one byte that tells its length.
const LONG_TEXT: usize = 15;
/// Bytes of a UUID's text.
const UUID_TEXT: usize = 36;

/// Frozen hash of a user; `docs/protocol.md` spells it out. Its upper half orders likers and splits them over buckets and shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserHash(pub u128);

impl UserHash {
    pub fn of(user: &UserId) -> Self {
        Key::of(user).hash()
    }

    pub fn order(self) -> u64 {
        (self.0 >> 64) as u64
    }
}

/// Whom likers are searched for. The key is made once.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    pub user: &'a UserId,
    pub(super) key: Key,
}

impl<'a> Who<'a> {
    pub fn of(user: &'a UserId) -> Self {
        let key = Key::of(user);
        Self { user, key }
    }

    pub fn hash(self) -> UserHash {
        self.key.hash()
    }

    /// The upper half of the hash.
    pub fn order(self) -> u64 {
        self.key.order()
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
    /// No key: the hash of the text.
    Text(Long),
}

/// Lower halves of hashes, so that two kinds of key seldom have one hash.
const SHORT_HASH: u64 = 0x243f_6a88_85a3_08d3;
const UUID_HASH: u64 = 0x1319_8a2e_0370_7344;

impl Key {
    pub fn of(user: &UserId) -> Self {
        if let Some(Numbered { prefix, number }) = user.as_numbered() {
            let high = u64::from_be_bytes(prefix);
            return match fits_short(high, number) {
                true => Self::Short(scramble(high | number)),
                false => Self::Long(scramble_long([high | u64::from(LONG_NUMBERED), number])),
            };
        }
        let text = user.text();
        let text = text.as_bytes();
        if text.len() <= LONG_TEXT {
            let mut bytes = [0; 16];
            bytes[..text.len()].copy_from_slice(text);
            bytes[LONG_TEXT] = text.len() as u8;
            let [high, low] = halves(u128::from_be_bytes(bytes));
            // The byte that tells the form is the last of the first half.
            return Self::Long(scramble_long([low, high]));
        }
        match uuid(text) {
            Some(uuid) => Self::Uuid(scramble_long(uuid)),
            None => Self::Text(halves(xxh3_128(text))),
        }
    }

    pub fn hash(self) -> UserHash {
        let low = match self {
            Self::Short(_) => SHORT_HASH,
            Self::Uuid([_, low]) => low ^ UUID_HASH,
            Self::Long([_, low]) | Self::Text([_, low]) => low,
        };
        UserHash(u128::from(self.order()) << 64 | u128::from(low))
    }

    /// The upper half of the hash.
    pub fn order(self) -> u64 {
        let (Self::Short(order)
        | Self::Long([order, _])
        | Self::Uuid([order, _])
        | Self::Text([order, _])) = self;
        order
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
            Self::Text(_) => None,
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
    Some(halves(number))
}

/// The upper and the lower.
fn halves(number: u128) -> Long {
    [(number >> 64) as u64, number as u64]
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
        let kind = match key {
            Key::Short(_) => "short",
            Key::Long(_) => "long",
            Key::Uuid(_) => "uuid",
            Key::Text(_) => return "none",
        };
        assert_eq!(key.user(), user(text), "{key:?}");
        kind
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

    /// These figures are part of the protocol: a change of them makes every pair of old and new nodes diverge.
    #[test]
    fn the_hashes_are_frozen() {
        let hash = |text| format!("{:032x}", UserHash::of(&user(text)).0);
        assert_eq!(
            FROZEN.map(|(text, _)| (text, hash(text))),
            FROZEN.map(|(text, hash)| (text, hash.to_owned()))
        );
    }

    const FROZEN: [(&str, &str); 6] = [
        ("u1", "bdcfc161af313dc4243f6a8885a308d3"),
        ("user12", "31f9298d019eb608000000000000000c"),
        ("u", "0efb0b4abc346dca7500000000000000"),
        ("投稿", "ca129cd936eb37dfe68a95e7a8bf0000"),
        (
            "0190d3c4-7a2e-7c41-9f00-00000000000f",
            "3033c0c8b80be7da8c198a2e0370734b",
        ),
        (
            "somebody.with.a@long.name",
            "5829a64b9c9a36a062399ba110a845b6",
        ),
    ];

    /// Of users who follow on one another, as nearly all do, any part of the hashes has its share.
    #[test]
    fn hashes_of_neighbours_are_spread_evenly() {
        const USERS: usize = 100_000;
        const PARTS: usize = 256;
        for prefix in [
            "",
            "u",
            "id:",
            "user",
            "account",
            "0190d3c4-7a2e-7c41-9f00-00000000",
        ] {
            let width = if prefix.len() > 30 { 4 } else { 0 };
            let orders = (0..USERS).map(|number| {
                let text = match width {
                    0 => format!("{prefix}{number}"),
                    _ => format!("{prefix}{:04x}", number & 0xffff),
                };
                UserHash::of(&user(&text)).order()
            });
            let orders: std::collections::BTreeSet<u64> = orders.collect();
            for shift in [56, 40] {
                let mut counts = [0usize; PARTS];
                for order in &orders {
                    counts[(order >> shift) as usize % PARTS] += 1;
                }
                let share = orders.len() as f64 / PARTS as f64;
                let far = counts.map(|count| (count as f64 - share).abs() / share.sqrt());
                assert!(
                    far.iter().all(|far| *far < 6.0),
                    "{prefix} {shift}: {far:?}"
                );
            }
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
