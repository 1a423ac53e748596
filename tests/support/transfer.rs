//! A snapshot on its way to a node by hand: what it asks for, what came, and where it goes on.

use likewise::crdt::fingerprint::{Fingerprint, RANGES};
use likewise::crdt::ranges::RangeSet;
use likewise::engine::snapshot::{Course, CourseError, Resume, Snapshot, SnapshotError};
use likewise::replication::parts;
use likewise::wire::replication::snapshot_response::Body;
use likewise::wire::replication::{RangeSum, SnapshotRequest, SnapshotResponse};

use super::Node;

/// Whether ranges in which both hold the same may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    Nothing,
    Sums,
}

pub struct Transfer {
    held: Vec<RangeSum>,
    /// As they came, from whichever sender.
    pub parts: Vec<SnapshotResponse>,
    course: Course,
}

fn course_of(to: &Node, held: &[RangeSum]) -> Course {
    let offered: RangeSet = held.iter().map(|sum| sum.range as usize).collect();
    Course::new(to.engine.clone(), RangeSet::all(), offered)
}

impl Transfer {
    pub fn new(to: &Node, offer: Offer) -> Self {
        let held = match offer {
            Offer::Nothing => Vec::new(),
            Offer::Sums => {
                let durable = to.engine.board().newest();
                let all = (0..RANGES).map(|range| (range, durable.sums.range(range)));
                let held = all.filter(|(_, sum)| *sum != Fingerprint::default());
                parts::write_held(&held.collect::<Vec<_>>())
            }
        };
        Self {
            course: course_of(to, &held),
            held,
            parts: Vec::new(),
        }
    }

    /// The receiver was restarted: it knows what is staged, and nothing else.
    pub fn recover(&mut self, to: &Node) {
        self.course = course_of(to, &self.held);
        // The end comes anew, for the sender's log has gone on.
        let is_end = |part: &SnapshotResponse| matches!(part.body, Some(Body::End(_)));
        self.parts.retain(|part| !is_end(part));
        for message in &self.parts {
            let part = parts::read(message.clone(), &mut to.engine.replicas());
            let part = part.expect("as it was staged");
            self.course.push(&part).expect("as it was staged");
        }
    }

    /// What the next sender is asked for.
    pub fn request(&self, to: &Node) -> SnapshotRequest {
        let replicas = to.engine.replicas().all();
        SnapshotRequest {
            cluster: to.engine.cluster().to_string(),
            resume: self
                .resume()
                .map(|resume| parts::write_resume(&resume, &replicas)),
            held: self.held.clone(),
            ..SnapshotRequest::default()
        }
    }

    pub fn resume(&self) -> Option<Resume> {
        match self.parts.is_empty() {
            true => None,
            false => self.course.resume(),
        }
    }

    pub fn take(&mut self, to: &Node, message: SnapshotResponse) -> Result<(), CourseError> {
        let part = parts::read(message.clone(), &mut to.engine.replicas())?;
        self.course.push(&part)?;
        self.parts.push(message);
        Ok(())
    }

    /// All of it is here.
    pub fn is_whole(&self) -> bool {
        self.course.has_ended()
    }

    pub fn equal(&self) -> RangeSet {
        self.course.beginning().equal
    }

    /// Takes parts from a sender until the end, or as many as are allowed. Returns how many came.
    pub async fn run(&mut self, from: &Node, to: &Node, most: usize) -> usize {
        let mut snapshot = from.serve(&self.request(to)).expect("it can go on");
        for came in 0..most {
            let Some(part) = from.next_part(&mut snapshot).await else {
                return came;
            };
            self.take(to, part).expect("an honest sender");
        }
        most
    }
}

impl Node {
    /// Answers a request as the peers' listener does.
    pub fn serve(&self, request: &SnapshotRequest) -> Result<Snapshot, SnapshotError> {
        let wanted = parts::read_wanted(request, &mut self.engine.replicas());
        self.snapshot_of(wanted.expect("a sound request"))
    }
}
