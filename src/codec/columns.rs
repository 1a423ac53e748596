//! Columns: numbers in stretches, and texts with what they have in common apart.

use crate::codec::reader::{DecodeError, Reader, put_prefixed, put_signed, put_varint};
use crate::ids::IdError;
use crate::limits::ID_BYTES_MAX;

/// Kinds of stretches, in the lowest bit of what a stretch begins with; its length is in the others.
const RUN: u64 = 0;
const EACH: u64 = 1;
/// Equal numbers that are worth a run of their own within numbers that differ.
const RUN_MIN: usize = 3;

/// Numbers that are to be written, equal neighbours together.
#[derive(Debug, Default)]
pub struct Numbers {
    runs: Vec<Run>,
}

#[derive(Debug)]
struct Run {
    value: i64,
    len: usize,
}

impl Numbers {
    #[inline]
    pub fn push(&mut self, value: i64) {
        match self.runs.last_mut() {
            Some(run) if run.value == value => run.len += 1,
            _ => self.runs.push(Run { value, len: 1 }),
        }
    }

    /// Writes them in stretches: of equal ones how many and which, of others how many and each. How many
    /// numbers there are is known to the reader.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut differing = 0;
        for (at, run) in self.runs.iter().enumerate() {
            let is_alone = self.runs.len() == 1;
            if run.len >= RUN_MIN || is_alone {
                put_each(out, &self.runs[differing..at]);
                put_varint(out, (run.len as u64) << 1 | RUN);
                put_signed(out, run.value);
                differing = at + 1;
            }
        }
        put_each(out, &self.runs[differing..]);
    }
}

impl Extend<i64> for Numbers {
    fn extend<I: IntoIterator<Item = i64>>(&mut self, values: I) {
        values.into_iter().for_each(|value| self.push(value));
    }
}

impl FromIterator<i64> for Numbers {
    fn from_iter<I: IntoIterator<Item = i64>>(values: I) -> Self {
        let mut numbers = Self::default();
        numbers.extend(values);
        numbers
    }
}

fn put_each(out: &mut Vec<u8>, runs: &[Run]) {
    if runs.is_empty() {
        return;
    }
    let len: usize = runs.iter().map(|run| run.len).sum();
    put_varint(out, (len as u64) << 1 | EACH);
    for run in runs {
        (0..run.len).for_each(|_| put_signed(out, run.value));
    }
}

/// Reads exactly `count` numbers.
pub fn numbers(
    reader: &mut Reader<'_>,
    what: &'static str,
    count: usize,
) -> Result<Vec<i64>, DecodeError> {
    let mut values = Vec::with_capacity(count);
    while values.len() < count {
        let at = reader.position();
        let stretch = reader.varint(what)?;
        let len = stretch >> 1;
        let left = (count - values.len()) as u64;
        if len == 0 {
            return Err(DecodeError::Invalid { what, at });
        }
        if len > left {
            return Err(DecodeError::OverLimit {
                what,
                at,
                found: len,
                max: left,
            });
        }
        if stretch & 1 == RUN {
            let value = reader.signed(what)?;
            values.resize(values.len() + len as usize, value);
        } else {
            for _ in 0..len {
                values.push(reader.signed(what)?);
            }
        }
    }
    Ok(values)
}

/// Reads `count` numbers, each of which must lie below `end`.
pub fn numbers_below(
    reader: &mut Reader<'_>,
    what: &'static str,
    count: usize,
    end: usize,
) -> Result<Vec<u32>, DecodeError> {
    let at = reader.position();
    let values = numbers(reader, what, count)?;
    let narrow = |value: i64| match u64::try_from(value) {
        Ok(found) if found >= end as u64 => Err(DecodeError::OverLimit {
            what,
            at,
            found,
            max: (end as u64).saturating_sub(1),
        }),
        Ok(value) => Ok(value as u32),
        Err(_) => Err(DecodeError::Invalid { what, at }),
    };
    values.into_iter().map(narrow).collect()
}

/// Writes texts: what all begin with, then the rest of each. How many there are is known to the reader; of none nothing
/// is written.
pub fn put_texts(out: &mut Vec<u8>, texts: &[&[u8]]) {
    let Some(first) = texts.first() else {
        return;
    };
    let common = texts.iter().fold(first.len(), |common, text| {
        let both = first[..common].iter().zip(*text);
        both.take_while(|(a, b)| a == b).count()
    });
    put_prefixed(out, &first[..common]);
    texts
        .iter()
        .for_each(|text| put_prefixed(out, &text[common..]));
}

/// Reads exactly `count` texts.
pub fn texts<T>(
    reader: &mut Reader<'_>,
    what: &'static str,
    count: usize,
    check: impl Fn(&[u8]) -> Result<T, IdError>,
) -> Result<Vec<T>, DecodeError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let prefix = reader.prefixed(what, ID_BYTES_MAX)?;
    let mut text = prefix.to_vec();
    let mut texts = Vec::with_capacity(count);
    for _ in 0..count {
        let at = reader.position();
        text.truncate(prefix.len());
        text.extend_from_slice(reader.prefixed(what, ID_BYTES_MAX)?);
        let checked = check(&text);
        texts.push(checked.map_err(|source| DecodeError::Id { what, at, source })?);
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PostId;
    use proptest::prelude::*;

    fn written(values: &[i64]) -> Vec<u8> {
        let mut out = Vec::new();
        let numbers: Numbers = values.iter().copied().collect();
        numbers.put(&mut out);
        out
    }

    proptest! {
        #[test]
        fn numbers_survive(runs in prop::collection::vec((any::<i64>(), 1usize..5), 0..40)) {
            let runs = runs.into_iter().flat_map(|(value, len)| vec![value; len]);
            let values: Vec<i64> = runs.collect();
            let bytes = written(&values);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(numbers(&mut reader, "numbers", values.len()), Ok(values.clone()));
            prop_assert!(reader.finish("numbers").is_ok());
        }

        #[test]
        fn texts_survive(words in prop::collection::vec("[ab]{1,4}", 0..20)) {
            let posts: Vec<PostId> =
                words.iter().map(|word| PostId::new(word).expect("valid")).collect();
            let bytes: Vec<&[u8]> = posts.iter().map(PostId::as_bytes).collect();
            let mut out = Vec::new();
            put_texts(&mut out, &bytes);
            let mut reader = Reader::new(&out);
            let read = texts(&mut reader, "post", posts.len(), PostId::from_utf8);
            prop_assert_eq!(read, Ok(posts));
            prop_assert!(reader.finish("texts").is_ok());
        }
    }

    #[test]
    fn numbers_take_no_more_than_they_need() {
        assert_eq!(written(&[]), [0u8; 0]);
        assert_eq!(written(&[7]), [2, 14]);
        assert_eq!(written(&[7; 60]), [120, 14]);
        assert_eq!(written(&[1, 2, 2, 3]), [9, 2, 4, 4, 6]);
        assert_eq!(written(&[1, 2, 2, 2, 3]), [3, 2, 6, 4, 3, 6]);
    }

    #[test]
    fn stretches_that_do_not_fit_are_refused() {
        let read = |bytes: &[u8], count| numbers(&mut Reader::new(bytes), "numbers", count);
        assert!(
            matches!(read(&[0, 2], 1), Err(DecodeError::Invalid { .. })),
            "of no number"
        );
        assert!(
            matches!(read(&[6, 2], 2), Err(DecodeError::OverLimit { .. })),
            "of one more"
        );
        assert!(
            matches!(read(&[5, 2], 2), Err(DecodeError::Truncated { .. })),
            "cut off"
        );
    }
}
