//! Who likes. Most ids are a short prefix and a number, and are held as these two: the text is made where it is asked for.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use compact_str::CompactString;

use super::{IdError, check_text};
use crate::digits::{DIGITS_MAX, last_number, put_digits};
use crate::limits::ID_BYTES_MAX;

/// Bytes of the longest prefix that is held apart from its number.
pub const SHORT_PREFIX_MAX: usize = 7;

/// Who likes.
///
/// A text has one form only, so that equal forms are equal texts.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UserId(Form);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Form {
    Numbered(Numbered),
    Whole(CompactString),
}

const _: () = assert!(size_of::<UserId>() == size_of::<CompactString>());

/// A short prefix and the longest number behind it that has no leading zeros and no more than nineteen digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Numbered {
    /// Padded with zeros, which no id has.
    pub prefix: [u8; 8],
    pub number: u64,
}

impl Numbered {
    /// None where the text of the two would be split in another way, or is no id.
    pub fn new(prefix: [u8; 8], number: u64) -> Option<Self> {
        let is_split_so =
            number < NUMBER_END && (is_simple(prefix) || is_prefix(&prefix[..prefix_len(&prefix)]));
        is_split_so.then_some(Self { prefix, number })
    }
}

/// Whether these are printable bytes of ASCII behind one another, at most [`SHORT_PREFIX_MAX`], and no digit is the last. Nearly all
/// prefixes are.
fn is_simple(prefix: [u8; 8]) -> bool {
    const EACH: u64 = u64::from_be_bytes([1; 8]);
    let len = prefix_len(&prefix);
    let word = u64::from_be_bytes(prefix);
    // Spaces stand for what is not there. Of bytes below 0x80, those below 0x20 borrow, and 0x7f carries.
    let filled = word | (0x20 * EACH).checked_shr(8 * len as u32).unwrap_or(0);
    let strange = filled | filled.wrapping_sub(0x20 * EACH) | filled.wrapping_add(EACH);
    let last = len.checked_sub(1).map_or(b' ', |at| prefix[at]);
    len <= SHORT_PREFIX_MAX && strange & (0x80 * EACH) == 0 && !last.is_ascii_digit()
}

/// Whether no digit of the prefix belongs to a number behind it, and the two can be an id.
fn is_prefix(prefix: &[u8]) -> bool {
    let mut digits = prefix.iter().rev().take_while(|byte| byte.is_ascii_digit());
    prefix.len() <= SHORT_PREFIX_MAX
        && digits.all(|digit| *digit == b'0')
        && std::str::from_utf8(prefix).is_ok_and(|text| !text.chars().any(char::is_control))
}

const NUMBER_END: u64 = 10u64.pow(DIGITS_MAX as u32);

fn padded(prefix: &[u8]) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..prefix.len()].copy_from_slice(prefix);
    bytes
}

fn prefix_len(prefix: &[u8; 8]) -> usize {
    8 - u64::from_be_bytes(*prefix).trailing_zeros() as usize / 8
}

impl UserId {
    /// Checks the text; the error says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, IdError> {
        check_text(text, ID_BYTES_MAX)?;
        let form = match last_number(text.as_bytes()) {
            Some((from, number)) if from <= SHORT_PREFIX_MAX => Form::Numbered(Numbered {
                prefix: padded(&text.as_bytes()[..from]),
                number,
            }),
            _ => Form::Whole(CompactString::new(text)),
        };
        Ok(Self(form))
    }

    pub fn text(&self) -> UserText<'_> {
        match &self.0 {
            Form::Numbered(numbered) => UserText::made(*numbered),
            Form::Whole(text) => UserText(Spelled::Whole(text)),
        }
    }

    /// No fewer than the bytes of the text, found sooner than these.
    pub fn bytes_max(&self) -> usize {
        match &self.0 {
            Form::Numbered(_) => SHORT_PREFIX_MAX + DIGITS_MAX,
            Form::Whole(text) => text.len(),
        }
    }

    /// Bytes of the text.
    pub fn bytes_len(&self) -> usize {
        match &self.0 {
            Form::Numbered(Numbered { prefix, number }) => {
                prefix_len(prefix) + number.checked_ilog10().unwrap_or(0) as usize + 1
            }
            Form::Whole(text) => text.len(),
        }
    }

    /// Prefix and number, where the prefix is short.
    pub fn as_numbered(&self) -> Option<Numbered> {
        match self.0 {
            Form::Numbered(numbered) => Some(numbered),
            Form::Whole(_) => None,
        }
    }

    /// Splits `u1234` into `u` and 1234. The number is the longest end of the id that is one without leading zeros, and less
    /// than 10^19, so that the two together are the id again. None where the id ends with no digit.
    pub fn split(&self) -> Option<(Prefix<'_>, u64)> {
        match &self.0 {
            Form::Numbered(Numbered { prefix, number }) => Some((Prefix::Short(*prefix), *number)),
            Form::Whole(text) => {
                let (from, number) = last_number(text.as_bytes())?;
                Some((Prefix::Long(&text[..from]), number))
            }
        }
    }
}

impl From<Numbered> for UserId {
    fn from(numbered: Numbered) -> Self {
        Self(Form::Numbered(numbered))
    }
}

read_and_shown!(UserId, |id| id.text());

impl PartialOrd for UserId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By the bytes of the text.
impl Ord for UserId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text().as_bytes().cmp(other.text().as_bytes())
    }
}

/// What stands before the number of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prefix<'a> {
    /// Padded with zeros.
    Short([u8; 8]),
    Long(&'a str),
}

impl Prefix<'_> {
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short(padded) => &padded[..prefix_len(padded)],
            Self::Long(text) => text.as_bytes(),
        }
    }
}

/// The text of a user.
pub struct UserText<'a>(Spelled<'a>);

enum Spelled<'a> {
    Whole(&'a str),
    Made { bytes: [u8; MADE_MAX], len: u8 },
}

/// Digits are put down by eights.
const MADE_MAX: usize = 8 + 24;

impl UserText<'_> {
    fn made(Numbered { prefix, number }: Numbered) -> Self {
        let mut bytes = [0; MADE_MAX];
        bytes[..8].copy_from_slice(&prefix);
        let len = put_digits(&mut bytes, prefix_len(&prefix), number) as u8;
        Self(Spelled::Made { bytes, len })
    }

    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Spelled::Whole(text) => text.as_bytes(),
            Spelled::Made { bytes, len } => &bytes[..usize::from(*len)],
        }
    }

    pub fn as_str(&self) -> &str {
        match &self.0 {
            Spelled::Whole(text) => text,
            Spelled::Made { .. } => std::str::from_utf8(self.as_bytes()).expect("made of an id"),
        }
    }
}

/// Makes users of what [`UserId::split`] splits them into, many of one prefix.
pub struct NumberedUsers {
    prefix: String,
    /// Where the prefix, with whatever number, is how the text is split.
    short: Option<[u8; 8]>,
}

impl NumberedUsers {
    pub fn of(prefix: &str) -> Self {
        let short = prefix.len() <= SHORT_PREFIX_MAX;
        let short = short.then(|| padded(prefix.as_bytes()));
        Self {
            prefix: prefix.to_owned(),
            short: short.filter(|padded| Numbered::new(*padded, 0).is_some()),
        }
    }

    /// Checks the prefix with the number behind it.
    pub fn user(&self, number: u64) -> Result<UserId, IdError> {
        match self.short {
            Some(prefix) if number < NUMBER_END => Ok(UserId::from(Numbered { prefix, number })),
            _ => UserId::new(&format!("{}{number}", self.prefix)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> UserId {
        UserId::new(text).expect("valid")
    }

    proptest! {
        #[test]
        fn the_text_of_an_id_is_what_it_was_made_of(text in "[a-zü:0]{0,9}0{0,3}[0-9]{0,21}") {
            prop_assume!(!text.is_empty());
            let user = id(&text);
            let made = user.text();
            prop_assert_eq!(made.as_str(), text.as_str());
            prop_assert_eq!(user.bytes_len(), text.len());
            prop_assert!(user.bytes_max() >= text.len());
            prop_assert_eq!(user.to_string(), text.as_str());
            if let Some((prefix, number)) = user.split() {
                let prefix = std::str::from_utf8(prefix.as_bytes()).expect("text");
                prop_assert_eq!(NumberedUsers::of(prefix).user(number), Ok(user.clone()));
            }
            if let Some(numbered) = user.as_numbered() {
                prop_assert_eq!(Numbered::new(numbered.prefix, numbered.number), Some(numbered));
            }
        }

        #[test]
        fn a_prefix_and_a_number_are_the_id_of_their_text(prefix in "[a-zü0-9]{0,9}", number: u64) {
            let text = format!("{prefix}{number}");
            prop_assert_eq!(NumberedUsers::of(&prefix).user(number), Ok(id(&text)));
        }

        #[test]
        fn users_stand_in_the_order_of_their_texts(a in "[a-c0-9]{1,9}", b in "[a-c0-9]{1,9}") {
            prop_assert_eq!(id(&a).cmp(&id(&b)), a.cmp(&b));
            prop_assert_eq!(id(&a) == id(&b), a == b);
        }
    }

    #[test]
    fn simple_prefixes_are_those_that_are_looked_at_byte_by_byte() {
        let ends = [
            0, 1, 0x1f, b' ', b'/', b'0', b'9', b':', b'~', 0x7f, 0x80, 0xff,
        ];
        for bytes in ends.iter().flat_map(|a| ends.map(|b| [*a, b])) {
            for prefix in [
                &bytes[..],
                &[b"u", &bytes[..]].concat(),
                &[&bytes[..], b"u"].concat(),
            ] {
                let padded = padded(prefix);
                let used = &padded[..prefix_len(&padded)];
                let is_plain = used.iter().all(|byte| (b' '..=b'~').contains(byte));
                let ends_with_digit = used.last().is_some_and(u8::is_ascii_digit);
                assert_eq!(
                    is_simple(padded),
                    is_plain && !ends_with_digit,
                    "{prefix:?}"
                );
                assert!(is_prefix(used) || !is_simple(padded), "{prefix:?}");
            }
        }
    }

    #[test]
    fn what_is_no_id_is_not_made_of_two_parts() {
        let made = |prefix: &[u8], number| Numbered::new(padded(prefix), number);
        assert!(made(b"u", 10u64.pow(19) - 1).is_some());
        assert!(made(b"u00", 7).is_some());
        assert_eq!(made(b"u", 10u64.pow(19)), None);
        assert_eq!(made(b"u10", 1), None, "the text is u and 101");
        assert_eq!(made(b"a\n", 1), None);
        assert_eq!(made(b"\xff", 1), None);
        assert_eq!(made(b"a\0b", 1), None);
        assert_eq!(made(b"8 bytes.", 1), None);
    }

    #[test]
    fn a_number_behind_a_bad_prefix_is_refused_with_the_place_of_the_fault() {
        let refused = NumberedUsers::of("a\n").user(7);
        assert_eq!(refused, Err(IdError::ControlCharacter { at: 1 }));
        let refused = NumberedUsers::of(&"x".repeat(255)).user(77);
        assert_eq!(refused, Err(IdError::TooLong { len: 257, max: 256 }));
    }
}
