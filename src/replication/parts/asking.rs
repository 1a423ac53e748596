//! What a snapshot's request asks for, as a message and back.

use crate::codec::DecodeError;
use crate::codec::vector::Intern;
use crate::crdt::dot::Replicas;
use crate::crdt::fingerprint::{Fingerprint, RANGES};
use crate::crdt::ranges::RangeSet;
use crate::crdt::version_vector::VersionVector;
use crate::engine::snapshot::{Next, Place, Resume, Wanted};
use crate::ids::PostId;
use crate::replication::parts::reading::{id, invalid, read_ranges, read_vector};
use crate::replication::parts::writing::{write_ranges, write_vector};
use crate::wire::replication as wire;

/// Asks for the rest of a snapshot.
pub fn write_resume(resume: &Resume, replicas: &Replicas) -> wire::SnapshotResume {
    let place = resume.place.as_ref();
    wire::SnapshotResume {
        frontier: Some(write_vector(resume.frontier.iter(), replicas)),
        shows: Some(write_vector(resume.shows.iter(), replicas)),
        reached: Some(write_vector(resume.reached.iter(), replicas)),
        post: place.map_or_else(String::new, |place| place.post.to_string()),
        next_hash: place.and_then(|place| match place.next {
            Some(Next::Likers(hash)) => Some(hash),
            Some(Next::Figures) | None => None,
        }),
        has_figures: place.is_some_and(|place| place.next.is_none()),
        equal: write_ranges(&resume.equal),
    }
}

pub fn write_held(held: &[(usize, Fingerprint)]) -> Vec<wire::RangeSum> {
    let sum = |(range, sum): &(usize, Fingerprint)| wire::RangeSum {
        range: *range as u32,
        sum: sum.to_bytes().to_vec().into(),
    };
    held.iter().map(sum).collect()
}

/// What a request asks for. Naming no range asks for all.
pub fn read_wanted(
    request: &wire::SnapshotRequest,
    intern: &mut dyn Intern,
) -> Result<Wanted, DecodeError> {
    let resume = request.resume.clone();
    Ok(Wanted {
        ranges: match request.only.as_slice() {
            [] => RangeSet::all(),
            only => read_ranges(only)?,
        },
        held: read_held(&request.held)?,
        resume: resume
            .map(|resume| read_resume(resume, intern))
            .transpose()?,
    })
}

fn read_held(held: &[wire::RangeSum]) -> Result<Vec<(usize, Fingerprint)>, DecodeError> {
    let mut seen = RangeSet::default();
    let mut read = Vec::new();
    for one in held {
        let range = one.range as usize;
        let sum = one.sum.as_ref().try_into();
        let sum = sum.map_err(|_| invalid("sum of a range"))?;
        if range >= RANGES || seen.contains(range) {
            return Err(invalid("range"));
        }
        seen.insert(range);
        read.push((range, Fingerprint::from_bytes(sum)));
    }
    Ok(read)
}

fn read_resume(
    resume: wire::SnapshotResume,
    intern: &mut dyn Intern,
) -> Result<Resume, DecodeError> {
    let next = match (resume.next_hash, resume.has_figures) {
        (Some(_), true) => return Err(invalid("place in a snapshot")),
        (Some(hash), false) => Some(Next::Likers(hash)),
        (None, false) => Some(Next::Figures),
        (None, true) => None,
    };
    let place = match resume.post.is_empty() {
        true => None,
        false => Some(Place {
            post: id("post", PostId::new(&resume.post))?,
            next,
        }),
    };
    let mut vector = |vector| {
        let entries = read_vector(vector, intern)?;
        Ok::<VersionVector, DecodeError>(entries.into_iter().collect())
    };
    Ok(Resume {
        frontier: vector(resume.frontier)?,
        shows: vector(resume.shows)?,
        reached: vector(resume.reached)?,
        place,
        equal: read_ranges(&resume.equal)?,
    })
}
