//! Frames between peers: generated types ↔ domain. All that a peer sends in a session is checked here
//! or by the codec, before the session machine sees it.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use crate::crdt::fingerprint::{Fingerprint, RANGES};
use crate::ids::{Epoch, Region, Replica};
use crate::limits::{
    BLOCK_BYTES_MAX, CLOSE_MESSAGE_BYTES_MAX, HEARD_HOPS_MAX, HEARD_MAX, REPLICAS_MAX,
};
use crate::replication::frame::{
    Acknowledge, Audit, BadFrame, CloseReason, Described, Entries, Frame, Heard, Hello, RangeAudit,
};
use crate::versions::Dialect;
use crate::wire::replication as wire;
use crate::wire::replication::frame::Body;

fn invalid(what: &'static str, why: &'static str) -> BadFrame {
    BadFrame::Invalid { what, why }
}

fn at_most(what: &'static str, found: usize, max: usize) -> Result<(), BadFrame> {
    match found > max {
        true => Err(BadFrame::OverLimit { what, found, max }),
        false => Ok(()),
    }
}

/// The newest version that the peer speaks too; fails unless there is one.
pub fn check_protocol(
    dialect: &Dialect,
    theirs: RangeInclusive<u32>,
) -> Result<RangeInclusive<u32>, BadFrame> {
    match dialect.agree(&theirs) {
        Some(_) => Ok(theirs),
        None => Err(BadFrame::Version {
            theirs,
            ours: dialect.protocol.clone(),
        }),
    }
}

pub fn read_replica(replica: Option<wire::Replica>) -> Result<Replica, BadFrame> {
    let replica = replica.ok_or(invalid("a replica", "is missing"))?;
    let region = Region::new(&replica.region);
    let region = region.map_err(|_| invalid("a replica's region", "is no valid name"))?;
    let epoch = <[u8; 16]>::try_from(replica.epoch.as_ref());
    let epoch = epoch.map_err(|_| invalid("a replica's epoch", "has not 16 bytes"))?;
    Ok(Replica {
        region,
        epoch: Epoch::from_bytes(epoch),
    })
}

pub fn write_replica(replica: &Replica) -> wire::Replica {
    wire::Replica {
        region: replica.region.as_str().to_owned(),
        epoch: replica.epoch.to_bytes().to_vec().into(),
    }
}

pub fn read_entries(vector: Option<wire::VersionVector>) -> Result<Entries, BadFrame> {
    let vector = vector.ok_or(invalid("a version vector", "is missing"))?;
    at_most(
        "a version vector's replicas",
        vector.replicas.len(),
        REPLICAS_MAX,
    )?;
    if vector.replicas.len() != vector.seqs.len() {
        let why = "has not one number for each replica";
        return Err(invalid("a version vector", why));
    }
    let mut seen = HashSet::with_capacity(vector.replicas.len());
    let mut entries = Entries::with_capacity(vector.replicas.len());
    for (replica, seq) in vector.replicas.into_iter().zip(vector.seqs) {
        let replica = read_replica(Some(replica))?;
        if seq == 0 {
            return Err(invalid("a version vector's number", "is 0"));
        }
        if !seen.insert(replica.clone()) {
            return Err(invalid("a version vector", "names a replica twice"));
        }
        entries.push((replica, seq));
    }
    Ok(entries)
}

pub fn write_entries(entries: &[(Replica, u64)]) -> wire::VersionVector {
    wire::VersionVector {
        replicas: entries
            .iter()
            .map(|(replica, _)| write_replica(replica))
            .collect(),
        seqs: entries.iter().map(|(_, seq)| *seq).collect(),
    }
}

pub fn read_lineage(lineage: Vec<wire::Lineage>) -> Result<Described, BadFrame> {
    at_most("lineage's replicas", lineage.len(), REPLICAS_MAX)?;
    let mut seen = HashSet::with_capacity(lineage.len());
    let mut described = Described::with_capacity(lineage.len());
    for one in lineage {
        let replica = read_replica(one.replica)?;
        let predecessors = read_entries(one.predecessors)?;
        if predecessors
            .iter()
            .any(|(ancestor, _)| *ancestor == replica)
        {
            return Err(invalid("lineage", "names a replica as its own predecessor"));
        }
        if !seen.insert(replica.clone()) {
            return Err(invalid("lineage", "names a replica twice"));
        }
        described.push((replica, predecessors));
    }
    Ok(described)
}

pub fn write_lineage(lineage: &[(Replica, Entries)]) -> Vec<wire::Lineage> {
    let one = |(replica, predecessors): &(Replica, Entries)| wire::Lineage {
        replica: Some(write_replica(replica)),
        predecessors: Some(write_entries(predecessors)),
    };
    lineage.iter().map(one).collect()
}

/// Checks a frame that a peer sent.
pub fn read_frame(frame: Option<wire::Frame>, dialect: &Dialect) -> Result<Frame, BadFrame> {
    let body = frame.and_then(|frame| frame.body);
    match body.ok_or(invalid("a frame", "is empty or of an unknown kind"))? {
        Body::Hello(hello) => read_hello(hello, dialect).map(Frame::Hello),
        Body::Events(events) => read_events(events),
        Body::Acknowledge(acknowledge) => read_acknowledge(acknowledge),
        Body::Resume(resume) => Ok(Frame::Resume {
            frontier: read_entries(resume.frontier)?,
            lineage: read_lineage(resume.lineage)?,
        }),
        Body::BehindCut(behind) => {
            let whole_from = read_entries(behind.whole_from)?;
            if whole_from.is_empty() {
                return Err(invalid("a behind-cut frame", "names no replica"));
            }
            Ok(Frame::BehindCut { whole_from })
        }
        Body::Audit(audit) => read_audit(audit),
        Body::Withhold(withhold) => read_withhold(withhold),
        Body::Close(close) => {
            let max = CLOSE_MESSAGE_BYTES_MAX;
            at_most("a closing message's bytes", close.message.len(), max)?;
            Ok(Frame::Close {
                reason: read_reason(close.reason()),
                message: close.message.escape_debug().to_string(),
            })
        }
    }
}

fn read_hello(hello: wire::Hello, dialect: &Dialect) -> Result<Hello, BadFrame> {
    Ok(Hello {
        protocol: check_protocol(dialect, hello.protocol_min..=hello.protocol_max)?,
        replica: read_replica(hello.replica)?,
        frontier: read_entries(hello.frontier)?,
        lineage: read_lineage(hello.lineage)?,
        cluster: hello.cluster,
    })
}

fn read_events(events: wire::Events) -> Result<Frame, BadFrame> {
    at_most("a block's bytes", events.block.len(), BLOCK_BYTES_MAX)?;
    if events.block.is_empty() {
        return Err(invalid("a block", "is empty"));
    }
    Ok(Frame::Events {
        frame: events.frame,
        block: events.block,
    })
}

fn read_acknowledge(acknowledge: wire::Acknowledge) -> Result<Frame, BadFrame> {
    let fingerprint = match acknowledge.fingerprint.is_empty() {
        true => None,
        false => Some(read_fingerprint(&acknowledge.fingerprint)?),
    };
    let what = "passed on acknowledgements";
    at_most(what, acknowledge.heard.len(), HEARD_MAX)?;
    let heard = acknowledge.heard.into_iter().map(read_heard);
    let heard: Vec<Heard> = heard.collect::<Result<_, _>>()?;
    let mut seen = HashSet::with_capacity(heard.len());
    if !heard.iter().all(|one| seen.insert(&one.replica)) {
        return Err(invalid(what, "name a replica twice"));
    }
    Ok(Frame::Acknowledge(Acknowledge {
        frame: acknowledge.frame,
        frontier: read_entries(acknowledge.frontier)?,
        lineage: read_lineage(acknowledge.lineage)?,
        fingerprint,
        heard,
        at_ms: acknowledge.at_ms,
    }))
}

pub fn read_fingerprint(bytes: &[u8]) -> Result<Fingerprint, BadFrame> {
    let bytes = <[u8; 16]>::try_from(bytes);
    let bytes = bytes.map_err(|_| invalid("a fingerprint", "has not 16 bytes"))?;
    Ok(Fingerprint::from_bytes(bytes))
}

pub fn read_range(range: u32) -> Result<usize, BadFrame> {
    let range = range as usize;
    match range < RANGES {
        true => Ok(range),
        false => Err(BadFrame::OverLimit {
            what: "a range",
            found: range,
            max: RANGES - 1,
        }),
    }
}

fn read_heard(heard: wire::Heard) -> Result<Heard, BadFrame> {
    let what = "the hops of a passed on acknowledgement";
    at_most(what, heard.hops as usize, HEARD_HOPS_MAX as usize)?;
    Ok(Heard {
        replica: read_replica(heard.replica)?,
        frontier: read_entries(heard.frontier)?,
        hops: heard.hops,
        at_ms: heard.at_ms,
    })
}

fn write_heard(heard: &Heard) -> wire::Heard {
    wire::Heard {
        replica: Some(write_replica(&heard.replica)),
        frontier: Some(write_entries(&heard.frontier)),
        hops: heard.hops,
        at_ms: heard.at_ms,
    }
}

fn read_audit(audit: wire::Audit) -> Result<Frame, BadFrame> {
    at_most("the ranges of an audit", audit.ranges.len(), RANGES)?;
    let mut seen = HashSet::new();
    let mut ranges = Vec::with_capacity(audit.ranges.len());
    for one in audit.ranges {
        let range = read_range(one.range)?;
        if !seen.insert(range) {
            return Err(invalid("an audit", "names a range twice"));
        }
        ranges.push(RangeAudit {
            range,
            sum: read_fingerprint(&one.sum)?,
            changed: read_entries(one.changed)?,
        });
    }
    Ok(Frame::Audit(Audit {
        frontier: read_entries(audit.frontier)?,
        lineage: read_lineage(audit.lineage)?,
        ranges,
    }))
}

fn write_audit(audit: &Audit) -> wire::Audit {
    let range = |one: &RangeAudit| wire::RangeAudit {
        range: one.range as u32,
        sum: one.sum.to_bytes().to_vec().into(),
        changed: Some(write_entries(&one.changed)),
    };
    wire::Audit {
        frontier: Some(write_entries(&audit.frontier)),
        lineage: write_lineage(&audit.lineage),
        ranges: audit.ranges.iter().map(range).collect(),
    }
}

fn read_withhold(withhold: wire::Withhold) -> Result<Frame, BadFrame> {
    let replicas = read_entries(withhold.replicas)?;
    match replicas.is_empty() {
        true => Err(invalid("a withhold frame", "names no replica")),
        false => Ok(Frame::Withhold { replicas }),
    }
}

pub fn write_frame(frame: &Frame) -> wire::Frame {
    let body = match frame {
        Frame::Hello(hello) => Body::Hello(wire::Hello {
            protocol_min: *hello.protocol.start(),
            protocol_max: *hello.protocol.end(),
            cluster: hello.cluster.clone(),
            replica: Some(write_replica(&hello.replica)),
            frontier: Some(write_entries(&hello.frontier)),
            lineage: write_lineage(&hello.lineage),
        }),
        Frame::Events { frame, block } => Body::Events(wire::Events {
            frame: *frame,
            block: block.clone(),
        }),
        Frame::Acknowledge(acknowledge) => Body::Acknowledge(wire::Acknowledge {
            frame: acknowledge.frame,
            frontier: Some(write_entries(&acknowledge.frontier)),
            lineage: write_lineage(&acknowledge.lineage),
            fingerprint: acknowledge
                .fingerprint
                .map(|print| print.to_bytes().to_vec())
                .unwrap_or_default()
                .into(),
            heard: acknowledge.heard.iter().map(write_heard).collect(),
            at_ms: acknowledge.at_ms,
        }),
        Frame::Audit(audit) => Body::Audit(write_audit(audit)),
        Frame::Withhold { replicas } => Body::Withhold(wire::Withhold {
            replicas: Some(write_entries(replicas)),
        }),
        Frame::Resume { frontier, lineage } => Body::Resume(wire::Resume {
            frontier: Some(write_entries(frontier)),
            lineage: write_lineage(lineage),
        }),
        Frame::BehindCut { whole_from } => Body::BehindCut(wire::BehindCut {
            whole_from: Some(write_entries(whole_from)),
        }),
        Frame::Close { reason, message } => Body::Close(wire::Close {
            reason: write_reason(*reason).into(),
            message: shortened(message),
        }),
    };
    wire::Frame { body: Some(body) }
}

/// As much of a text as a closing message may have.
fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(CLOSE_MESSAGE_BYTES_MAX);
    text[..end].to_owned()
}

fn read_reason(reason: wire::CloseReason) -> CloseReason {
    match reason {
        wire::CloseReason::Unspecified => CloseReason::Unknown,
        wire::CloseReason::Stopping => CloseReason::Stopping,
        wire::CloseReason::Duplicate => CloseReason::Duplicate,
        wire::CloseReason::WrongCluster => CloseReason::WrongCluster,
        wire::CloseReason::Version => CloseReason::Version,
        wire::CloseReason::Protocol => CloseReason::Protocol,
        wire::CloseReason::Self_ => CloseReason::Own,
        wire::CloseReason::Alarm => CloseReason::Alarm,
        wire::CloseReason::Silence => CloseReason::Silence,
        wire::CloseReason::Renewed => CloseReason::Renewed,
        wire::CloseReason::WrongRegion => CloseReason::WrongRegion,
        wire::CloseReason::Fault => CloseReason::Fault,
        wire::CloseReason::Conflict => CloseReason::Conflict,
        wire::CloseReason::NotAllowed => CloseReason::NotAllowed,
    }
}

fn write_reason(reason: CloseReason) -> wire::CloseReason {
    match reason {
        CloseReason::Unknown => wire::CloseReason::Unspecified,
        CloseReason::Stopping => wire::CloseReason::Stopping,
        CloseReason::Duplicate => wire::CloseReason::Duplicate,
        CloseReason::WrongCluster => wire::CloseReason::WrongCluster,
        CloseReason::Version => wire::CloseReason::Version,
        CloseReason::Protocol => wire::CloseReason::Protocol,
        CloseReason::Own => wire::CloseReason::Self_,
        CloseReason::Alarm => wire::CloseReason::Alarm,
        CloseReason::Silence => wire::CloseReason::Silence,
        CloseReason::Renewed => wire::CloseReason::Renewed,
        CloseReason::WrongRegion => wire::CloseReason::WrongRegion,
        CloseReason::Fault => wire::CloseReason::Fault,
        CloseReason::Conflict => wire::CloseReason::Conflict,
        CloseReason::NotAllowed => wire::CloseReason::NotAllowed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(frame: Option<wire::Frame>) -> Result<Frame, BadFrame> {
        read_frame(frame, &Dialect::default())
    }

    fn replica(region: &str) -> wire::Replica {
        wire::Replica {
            region: region.to_owned(),
            epoch: vec![7; 16].into(),
        }
    }

    fn vector(replicas: Vec<wire::Replica>, seqs: Vec<u64>) -> Option<wire::VersionVector> {
        Some(wire::VersionVector { replicas, seqs })
    }

    #[test]
    fn hostile_vectors_are_refused() {
        let short_epoch = wire::Replica {
            epoch: vec![1].into(),
            ..replica("eu")
        };
        let cases = [
            None,
            vector(vec![replica("eu")], vec![]),
            vector(vec![replica("eu")], vec![0]),
            vector(vec![replica("EU")], vec![1]),
            vector(vec![replica("")], vec![1]),
            vector(vec![short_epoch], vec![1]),
            vector(vec![replica("eu"), replica("eu")], vec![1, 2]),
            vector(
                vec![replica("eu"); REPLICAS_MAX + 1],
                vec![1; REPLICAS_MAX + 1],
            ),
        ];
        for case in cases {
            assert!(read_entries(case).is_err());
        }
    }

    #[test]
    fn hostile_frames_are_refused() {
        let events = |block: Vec<u8>| {
            Body::Events(wire::Events {
                frame: 1,
                block: block.into(),
            })
        };
        let acknowledge = Body::Acknowledge(wire::Acknowledge {
            frontier: Some(wire::VersionVector::default()),
            fingerprint: vec![1; 15].into(),
            ..wire::Acknowledge::default()
        });
        let own_ancestor = Body::Resume(wire::Resume {
            frontier: vector(vec![], vec![]),
            lineage: vec![wire::Lineage {
                replica: Some(replica("eu")),
                predecessors: vector(vec![replica("eu")], vec![1]),
            }],
        });
        let no_cut = Body::BehindCut(wire::BehindCut {
            whole_from: vector(vec![], vec![]),
        });
        let long = Body::Close(wire::Close {
            reason: 1,
            message: "x".repeat(CLOSE_MESSAGE_BYTES_MAX + 1),
        });
        let huge = events(vec![0; BLOCK_BYTES_MAX + 1]);
        for body in [
            events(vec![]),
            huge,
            acknowledge,
            own_ancestor,
            no_cut,
            long,
        ] {
            assert!(read(Some(wire::Frame { body: Some(body) })).is_err());
        }
        assert!(read(None).is_err());
        assert!(read(Some(wire::Frame { body: None })).is_err());
    }

    #[test]
    fn another_protocol_is_told_before_anything_else_is_looked_at() {
        let hello = wire::Hello {
            protocol_min: 99,
            protocol_max: 99,
            ..wire::Hello::default()
        };
        let body = Some(Body::Hello(hello));
        let refused = read(Some(wire::Frame { body })).expect_err("refused");
        assert_eq!(refused.reason(), CloseReason::Version);
    }

    #[test]
    fn frames_survive_the_wire() {
        let eu = read_replica(Some(replica("eu"))).expect("valid");
        let us = read_replica(Some(replica("us"))).expect("valid");
        let entries = vec![(eu.clone(), 3)];
        let lineage = vec![(us.clone(), entries.clone())];
        let frames = [
            Frame::Hello(Hello {
                protocol: 1..=7,
                cluster: "c".to_owned(),
                replica: us,
                frontier: entries.clone(),
                lineage: lineage.clone(),
            }),
            Frame::Acknowledge(Acknowledge {
                frame: 4,
                frontier: entries.clone(),
                lineage: lineage.clone(),
                fingerprint: Some(Fingerprint(9)),
                heard: vec![Heard {
                    replica: eu.clone(),
                    frontier: entries.clone(),
                    hops: 1,
                    at_ms: 5,
                }],
                at_ms: 6,
            }),
            Frame::Audit(Audit {
                frontier: entries.clone(),
                lineage: lineage.clone(),
                ranges: vec![RangeAudit {
                    range: 255,
                    sum: Fingerprint(8),
                    changed: entries.clone(),
                }],
            }),
            Frame::Withhold {
                replicas: entries.clone(),
            },
            Frame::Resume {
                frontier: vec![],
                lineage,
            },
            Frame::BehindCut {
                whole_from: entries,
            },
            Frame::Close {
                reason: CloseReason::Own,
                message: "so".to_owned(),
            },
        ];
        for frame in frames {
            assert_eq!(read(Some(write_frame(&frame))), Ok(frame));
        }
    }
}
