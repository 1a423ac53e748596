//! Decimal numbers in texts, eight digits at a time.

/// Of a number at the end of a text: twenty digits may be more than 64 bits hold.
pub const DIGITS_MAX: usize = 19;
const ZEROS: u64 = u64::from_le_bytes([b'0'; 8]);

/// Where the longest number at the end of the text begins that has no leading zeros, and the number. None where the text
/// ends with no digit, or the number has more than nineteen.
pub fn last_number(text: &[u8]) -> Option<(usize, u64)> {
    let (mut number, mut worth, mut from) = (0, 1, text.len());
    while let Some(eight) = text[..from].last_chunk()
        && let Some(value) = eight_digits(*eight)
        && text.len() - from <= DIGITS_MAX - 8
    {
        number += value * worth;
        worth *= 100_000_000;
        from -= 8;
    }
    let digit = |at: usize| text[at].wrapping_sub(b'0');
    while from > 0 && digit(from - 1) <= 9 {
        from -= 1;
        if text.len() - from > DIGITS_MAX {
            // Zeros before a number are none of its digits.
            let rest = text[..=from].iter().rev();
            let mut rest = rest.take_while(|byte| byte.is_ascii_digit());
            if rest.any(|byte| *byte != b'0') {
                return None;
            }
            from += 1;
            break;
        }
        number += u64::from(digit(from)) * worth;
        worth = worth.wrapping_mul(10);
    }
    while from + 1 < text.len() && digit(from) == 0 {
        from += 1;
    }
    (from < text.len()).then_some((from, number))
}

/// The value of eight digits: neighbours become pairs, pairs become fours, and the two fours one number.
fn eight_digits(text: [u8; 8]) -> Option<u64> {
    const HIGH: u64 = u64::from_le_bytes([0xf0; 8]);
    const SIX: u64 = u64::from_le_bytes([6; 8]);
    const PAIRS: u64 = 0xff_0000_00ff;
    let text = u64::from_le_bytes(text);
    // No digit has another high half, nor one that six more change.
    if (text & HIGH) != ZEROS || (text.wrapping_add(SIX) & HIGH) != ZEROS {
        return None;
    }
    let digits = text - ZEROS;
    let pairs = digits * 10 + (digits >> 8);
    let first = (pairs & PAIRS).wrapping_mul(100 + (1_000_000 << 32));
    let last = (pairs >> 16 & PAIRS).wrapping_mul(1 + (10_000 << 32));
    Some(first.wrapping_add(last) >> 32)
}

const EIGHT_END: u64 = 100_000_000;

/// Writes a number from `at` on and returns where it ends. Up to seven bytes behind it are overwritten.
pub fn put_digits(out: &mut [u8], at: usize, number: u64) -> usize {
    if number >= EIGHT_END {
        let end = put_digits(out, at, number / EIGHT_END);
        let digits = digits_of_eight(number % EIGHT_END);
        out[end..end + 8].copy_from_slice(&digits.to_le_bytes());
        return end + 8;
    }
    let digits = digits_of_eight(number);
    let zeros = ((digits ^ ZEROS).trailing_zeros() / 8).min(7);
    out[at..at + 8].copy_from_slice(&(digits >> (8 * zeros)).to_le_bytes());
    at + 8 - zeros as usize
}

/// Eight digits, the first in the lowest byte: two fours become pairs, and pairs become digits. For such small numbers a product and
/// a shift divide exactly.
fn digits_of_eight(number: u64) -> u64 {
    let fours = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x7f_0000_007f;
    let pairs = hundreds | (fours - 100 * hundreds) << 16;
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    (tens | (pairs - 10 * tens) << 8) + ZEROS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Digit by digit.
    fn slowly(text: &[u8]) -> Option<(usize, u64)> {
        let digits = text.iter().rev().take_while(|byte| byte.is_ascii_digit());
        let mut from = text.len() - digits.count();
        while from + 1 < text.len() && text[from] == b'0' {
            from += 1;
        }
        let digits = std::str::from_utf8(&text[from..]).expect("digits");
        let is_short = (1..=DIGITS_MAX).contains(&digits.len());
        is_short.then(|| (from, digits.parse().expect("a number")))
    }

    #[test]
    fn every_four_digits_are_written() {
        for four in 0..10_000 {
            for number in [four, 10_000 * four + 9_999] {
                let text = digits_of_eight(number).to_le_bytes();
                assert_eq!(text, format!("{number:08}").as_bytes());
            }
        }
    }

    proptest! {
        #[test]
        fn a_number_is_written_as_digits(number: u64, shift in 0..64u32, at in 0usize..8) {
            let number = number >> shift;
            let mut out = [0; 40];
            let end = put_digits(&mut out, at, number);
            let text = number.to_string();
            prop_assert_eq!(&out[at..end], text.as_bytes());
        }

        #[test]
        fn a_number_is_found_as_digit_by_digit(text in "[a-z/:0]{0,9}0{0,12}[0-9]{0,26}") {
            prop_assert_eq!(last_number(text.as_bytes()), slowly(text.as_bytes()));
        }

        #[test]
        fn bytes_beside_the_digits_end_the_number(bytes in prop::collection::vec(any::<u8>(), 0..4), number: u64) {
            let mut text = bytes;
            text.extend(number.to_string().as_bytes());
            prop_assert_eq!(last_number(&text), slowly(&text));
        }
    }
}
