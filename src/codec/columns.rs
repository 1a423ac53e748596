//! Columns: runs of equal numbers, and texts with their lengths apart.

use crate::codec::reader::{DecodeError, Reader, put_signed, put_varint};

/// Writes numbers as runs: how many, then which.
pub fn put_runs(out: &mut Vec<u8>, values: impl IntoIterator<Item = i64>) {
    let mut runs: Vec<(u64, i64)> = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some((len, last)) if *last == value => *len += 1,
            _ => runs.push((1, value)),
        }
    }
    put_varint(out, runs.len() as u64);
    for (len, value) in runs {
        put_varint(out, len);
        put_signed(out, value);
    }
}

/// Reads exactly `count` numbers that were written as runs.
pub fn runs(
    reader: &mut Reader<'_>,
    what: &'static str,
    count: usize,
) -> Result<Vec<i64>, DecodeError> {
    let runs = reader.count(what, count)?;
    let mut values = Vec::with_capacity(count);
    for _ in 0..runs {
        let at = reader.position();
        let left = (count - values.len()) as u64;
        let len = reader.bounded(what, left)? as usize;
        if len == 0 {
            return Err(DecodeError::Invalid { what, at });
        }
        let value = reader.signed(what)?;
        values.resize(values.len() + len, value);
    }
    if values.len() != count {
        let at = reader.position();
        return Err(DecodeError::Truncated { what, at });
    }
    Ok(values)
}

/// Reads `count` numbers written as runs, each of which must lie below `end`.
pub fn runs_below(
    reader: &mut Reader<'_>,
    what: &'static str,
    count: usize,
    end: usize,
) -> Result<Vec<u32>, DecodeError> {
    let at = reader.position();
    let values = runs(reader, what, count)?;
    let narrow = |value: i64| match u32::try_from(value) {
        Ok(value) if (value as usize) < end => Ok(value),
        _ => Err(DecodeError::Invalid { what, at }),
    };
    values.into_iter().map(narrow).collect()
}
