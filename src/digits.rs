//! Decimal numbers at the end of texts, eight digits at a time.

/// Twenty digits may be more than 64 bits hold.
const DIGITS_MAX: usize = 19;
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

    proptest! {
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
