//! Where the records end: torn tail or damage? Changes nothing.
//!
//! A place that is no record is *damage* if anything behind it states that the log was synced beyond
//! it, or if the checkpoint does; then the log is refused, untouched. Otherwise it is a *torn tail*:
//! the group there was never synced, and nobody was told of it.

use std::ops::Range;

use super::recovery::TornTail;
use super::replay::Replay;
use super::survey::Found;
use super::{OpenError, Position};

/// What is to be changed.
pub(super) struct Judged {
    pub torn_tail: Option<TornTail>,
    /// Bytes behind the end in the last segment, to be zeroed.
    pub dirty: Range<u64>,
    /// The same of each later file, all of it but the birth.
    pub later: Vec<Range<u64>>,
}

/// Tells a torn tail from damage. Changes nothing.
pub(super) async fn judge<V>(
    found: &[Found],
    last: usize,
    replay: &Replay<V>,
    must_reach: Position,
) -> Result<Judged, OpenError> {
    let end = replay.end;
    let mut judged = Judged {
        torn_tail: None,
        dirty: 0..0,
        later: Vec::new(),
    };
    let Some(segment) = found.get(last) else {
        return ends_at(end, must_reach).map(|()| judged);
    };
    let offset = end.0 - segment.base.0;
    let mut stated = replay.stated;
    let mut torn_bytes = 0;
    for (index, other) in found.iter().enumerate().skip(last) {
        let from = if index == last { offset } else { 0 };
        let remains = other.remains(&other.load().await?, from)?;
        stated = stated.max(remains.stated);
        torn_bytes += remains.dirty.end - remains.dirty.start;
        if index == last {
            judged.dirty = remains.dirty;
        } else {
            judged.later.push(remains.dirty);
        }
    }
    if stated > end {
        let what = match found.get(last + 1) {
            Some(next) if segment.header.is_some() && is_whole_until(segment, next, end) => {
                "the segment after it is missing or unreadable"
            }
            _ => "no valid record is there",
        };
        return Err(segment.damaged(offset, what));
    }
    ends_at(end, must_reach)?;
    if torn_bytes > 0 {
        let file = segment.path.clone();
        let bytes = torn_bytes;
        judged.torn_tail = Some(TornTail {
            file,
            offset,
            bytes,
        });
    }
    Ok(judged)
}

/// Whether the records of `segment` end where the one after says, so that what is missing is between.
fn is_whole_until(segment: &Found, next: &Found, end: Position) -> bool {
    let follows = segment
        .header
        .as_ref()
        .map(|header| header.base.0 + header.capacity);
    let previous_end = next.header.as_ref().map(|header| header.previous_end);
    follows != Some(next.base.0) || previous_end.is_none_or(|previous| previous == end)
}

fn ends_at(end: Position, must_reach: Position) -> Result<(), OpenError> {
    if end < must_reach {
        let wanted = must_reach;
        return Err(OpenError::EndsBefore { wanted, end });
    }
    Ok(())
}
