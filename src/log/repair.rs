//! What an opening changes, once the log is judged sound: the torn tail is cut off, the rest made
//! sure of, the spare found again or prepared.

use std::ops::Range;
use std::sync::Arc;

use super::format::BIRTH_BYTES;
use super::judgement::Judged;
use super::replay::Replay;
use super::segment::{self, Segment, Spare};
use super::survey::{Found, io_error};
use super::{LogOptions, LogSeams, OpenError, Position};

/// The parts of the log that take what comes next.
pub(super) struct Repaired {
    pub spare: Option<Spare>,
    /// Where the spare is, or will be.
    pub spare_base: Position,
}

pub(super) async fn repair<V>(
    seams: &LogSeams,
    options: &LogOptions,
    found: &[Found],
    last: usize,
    replay: &Replay<V>,
    judged: &Judged,
) -> Result<Repaired, OpenError> {
    let current = found.get(last).and_then(Found::segment);
    let mut spare_base = found
        .get(last)
        .map_or(Position::START, |segment| segment.base);
    let mut unused = found.get(last..).unwrap_or_default();
    let mut dirty = Vec::new();
    match &current {
        Some(segment) => {
            let sure = confirm(&found[last], segment, replay, &judged.dirty).await;
            sure.map_err(io_error(&segment.path, "repairing"))?;
            spare_base = segment.limit();
            unused = &unused[1..];
        }
        None if !unused.is_empty() => dirty.push(judged.dirty.clone()),
        None => {}
    }
    dirty.extend(judged.later.iter().cloned());
    let mut spare = None;
    for (segment, dirty) in unused.iter().zip(dirty) {
        let reused = reuse(seams, options, segment, spare_base, dirty).await;
        spare = reused
            .map_err(io_error(&segment.path, "repairing"))?
            .or(spare);
    }
    if current.is_none() && spare.is_none() {
        // The log has no other room; a full disk is no reason not to start and read.
        spare = match segment::prepare(seams, options, spare_base).await {
            Ok(spare) => Some(spare),
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => None,
            Err(error) => return Err(io_error(&options.folder, "allocating")(error)),
        };
    }
    Ok(Repaired { spare, spare_base })
}

/// Cuts off what is behind the end, and makes durable what is before it. What no later record proves
/// to be synced is written once more: after a failed sync the system may hold it for clean though
/// the device never got it, and would sync nothing.
async fn confirm<V>(
    found: &Found,
    segment: &Segment,
    replay: &Replay<V>,
    dirty: &Range<u64>,
) -> std::io::Result<()> {
    let file = segment.file.as_ref();
    if found.len < segment.capacity {
        file.allocate(segment.capacity).await?;
    }
    segment::zero(file, dirty.clone()).await?;
    let sure = replay.stated.0.saturating_sub(segment.base.0);
    let unsure = sure.max(BIRTH_BYTES as u64)..replay.end.0 - segment.base.0;
    if !unsure.is_empty() {
        let len = usize::try_from(unsure.end - unsure.start).unwrap_or(usize::MAX);
        let bytes = file.read_at(unsure.start, len).await?;
        file.write_at(unsure.start, bytes).await?;
    }
    file.sync().await
}

/// Takes a file without records as the spare, if it fits, or removes it.
async fn reuse(
    seams: &LogSeams,
    options: &LogOptions,
    found: &Found,
    base: Position,
    dirty: Range<u64>,
) -> std::io::Result<Option<Spare>> {
    let fits = found.base == base && found.len == options.segment_bytes;
    let birth = found
        .birth
        .filter(|birth| fits && birth.capacity == options.segment_bytes);
    let Some(birth) = birth else {
        segment::remove_if_there(seams.files.as_ref(), &found.path).await?;
        seams.files.sync_folder(&options.folder).await?;
        return Ok(None);
    };
    let file = (found.path.clone(), Arc::clone(&found.file));
    let spare = segment::recycle(seams, options, file, birth, dirty).await?;
    Ok(Some(spare))
}
