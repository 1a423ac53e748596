//! The course of a snapshot that is received: what may come next, and where to go on when it breaks off.
//!
//! Nothing of a part is believed before it is here. Pure: it is fed the parts in the order in which they
//! were staged, by whoever stages them, scans a stage after a restart, or merges one.

use std::sync::Arc;

use crate::codec::{DecodeError, block};
use crate::crdt::dot::{Dot, ReplicaIndex};
use crate::crdt::event::{Action, Block};
use crate::crdt::fingerprint::PostHash;
use crate::crdt::frontier::Lineage;
use crate::crdt::orphan_removals::OrphanRemovals;
use crate::crdt::ranges::RangeSet;
use crate::crdt::user_key::UserHash;
use crate::crdt::version_vector::VersionVector;
use crate::engine::Engine;
use crate::engine::snapshot::{
    Beginning, Chunk, ChunkPart, Chunks, Ending, Next, Part, Place, Resume,
};
use crate::ids::PostId;

/// Why a part is refused. What came before it stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CourseError {
    #[error("it is no snapshot: {0}")]
    Form(&'static str),
    #[error("it holds a block that cannot be read: {0}")]
    Block(#[from] DecodeError),
    /// The snapshot speaks of events of the running replica that it never made.
    #[error("it speaks of event {claimed} of this node's running replica, which made {made}")]
    Alarm { claimed: u64, made: u64 },
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Before,
    /// Begun; more orphan removals may come.
    Orphans,
    Posts,
    Tail,
    Ended,
}

/// What an operator is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    pub posts: u64,
    pub blocks: u64,
}

/// A snapshot that is received, as far as it came.
pub struct Course {
    engine: Arc<Engine>,
    /// Ranges that were asked for, and those of them whose sums were sent along.
    wanted: RangeSet,
    offered: RangeSet,
    phase: Phase,
    /// The first sender's beginning; its lineage grows with what later parts describe.
    beginning: Beginning,
    shows: VersionVector,
    reached: VersionVector,
    place: Option<Place>,
    /// Since the last beginning.
    chunks: u64,
    blocks: u64,
    progress: Progress,
}

fn form<T>(why: &'static str) -> Result<T, CourseError> {
    Err(CourseError::Form(why))
}

impl Course {
    /// Before its first part. Ranges may be left out as equal only where they were offered.
    pub fn new(engine: Arc<Engine>, wanted: RangeSet, offered: RangeSet) -> Self {
        Self {
            engine,
            wanted,
            offered,
            phase: Phase::Before,
            beginning: Beginning::default(),
            shows: VersionVector::default(),
            reached: VersionVector::default(),
            place: None,
            chunks: 0,
            blocks: 0,
            progress: Progress::default(),
        }
    }

    pub fn beginning(&self) -> &Beginning {
        &self.beginning
    }

    /// What F and the blocks cover: where the merge will lead.
    pub fn reached(&self) -> &VersionVector {
        &self.reached
    }

    pub fn progress(&self) -> Progress {
        self.progress
    }

    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// What to ask for after a break. None where it must begin anew: only the first sender knows the orphan
    /// removals of its instant, and before the first post it is not sure that all of them are here.
    pub fn resume(&self) -> Option<Resume> {
        (self.phase >= Phase::Posts).then(|| Resume {
            frontier: self.beginning.vector.clone(),
            shows: self.shows.clone(),
            reached: self.reached.clone(),
            place: self.place.clone(),
            equal: self.beginning.equal,
        })
    }

    /// Takes a part, or refuses it and is as it was.
    pub fn push(&mut self, part: &Part) -> Result<(), CourseError> {
        match part {
            Part::Begin(beginning) if self.phase == Phase::Before => self.begin(beginning),
            Part::Begin(beginning) => self.go_on(beginning),
            Part::Orphans(more) if self.phase == Phase::Orphans => {
                self.check_orphans(more)?;
                let orphans = &mut self.beginning.orphans;
                more.iter().for_each(|(dot, orphan)| {
                    orphans.insert(dot, &orphan.post, &orphan.user);
                });
                Ok(())
            }
            Part::Chunks(chunks) if matches!(self.phase, Phase::Orphans | Phase::Posts) => {
                self.push_chunks(chunks)
            }
            Part::Tail(bytes) if self.phase >= Phase::Orphans && !self.has_ended() => {
                self.push_block(bytes)
            }
            Part::End(ending) if self.phase >= Phase::Orphans && !self.has_ended() => {
                self.end(ending)
            }
            _ => form("a part comes out of order"),
        }
    }

    fn begin(&mut self, beginning: &Beginning) -> Result<(), CourseError> {
        let offered = self.offered;
        self.check_own(own_of(&beginning.vector))?;
        if !beginning.equal.without(&offered).is_empty() {
            return form("it leaves out a range that was not offered");
        }
        self.beginning = beginning.clone();
        let orphans = std::mem::take(&mut self.beginning.orphans);
        if let Err(error) = self.check_orphans(&orphans) {
            self.beginning = Beginning::default();
            return Err(error);
        }
        self.beginning.orphans = orphans;
        self.reached = beginning.vector.clone();
        self.shows = beginning.vector.clone();
        self.phase = Phase::Orphans;
        Ok(())
    }

    /// A sender goes on with what broke off.
    fn go_on(&mut self, beginning: &Beginning) -> Result<(), CourseError> {
        if self.phase < Phase::Posts || self.has_ended() {
            return form("it begins twice");
        }
        let first = &self.beginning;
        let is_same = beginning.vector == first.vector && beginning.equal == first.equal;
        if !is_same || !beginning.orphans.is_empty() {
            return form("it does not go on with what broke off");
        }
        self.describe(&beginning.lineage);
        self.phase = Phase::Posts;
        (self.chunks, self.blocks) = (0, 0);
        Ok(())
    }

    fn describe(&mut self, lineage: &Lineage) {
        for (replica, predecessors) in lineage.iter() {
            self.beginning.lineage.insert(replica, predecessors.clone());
        }
    }

    fn check_orphans(&self, orphans: &OrphanRemovals) -> Result<(), CourseError> {
        let (own, _) = self.engine.made();
        let claims = orphans.iter().filter(|(dot, _)| dot.replica == own);
        self.check_own(|_| claims.map(|(dot, _)| dot.seq).max())?;
        for (dot, orphan) in orphans.iter() {
            let is_open = dot.seq > 0 && !self.beginning.vector.covers(dot);
            if !is_open || !self.is_sent(&orphan.post) || self.beginning.orphans.holds(dot) {
                return form("an orphan removal has no place in it");
            }
        }
        Ok(())
    }

    /// Whether the post is of a range that was asked for and not left out.
    fn is_sent(&self, post: &PostId) -> bool {
        let sent = self.wanted.without(&self.beginning.equal);
        sent.contains(PostHash::of(post).range())
    }

    fn check_own(
        &self,
        claimed: impl FnOnce(ReplicaIndex) -> Option<u64>,
    ) -> Result<(), CourseError> {
        let (own, made) = self.engine.made();
        match claimed(own) {
            Some(claimed) if claimed > made => Err(CourseError::Alarm { claimed, made }),
            _ => Ok(()),
        }
    }

    fn push_chunks(&mut self, chunks: &Chunks) -> Result<(), CourseError> {
        if chunks.chunks.is_empty() {
            return form("a group has no chunks");
        }
        let Some(shows) = self.shown_by(chunks) else {
            return form("what it shows names a replica that nobody described");
        };
        self.check_own(own_of(&shows))?;
        let mut place = self.place.clone();
        let mut posts = 0;
        for chunk in &chunks.chunks {
            check_shown(chunk, &shows)?;
            place = Some(self.after(place, chunk)?);
            posts += u64::from(matches!(chunk.part, ChunkPart::Figures(_)));
        }
        self.describe(&chunks.lineage);
        self.shows.join(&shows);
        self.place = place;
        self.phase = Phase::Posts;
        self.chunks += chunks.chunks.len() as u64;
        self.progress.posts += posts;
        Ok(())
    }

    fn shown_by(&self, chunks: &Chunks) -> Option<VersionVector> {
        let known = &self.beginning.lineage;
        if chunks.lineage.iter().next().is_none() {
            return known.expand(&chunks.shows);
        }
        let mut lineage = known.clone();
        for (replica, predecessors) in chunks.lineage.iter() {
            lineage.insert(replica, predecessors.clone());
        }
        lineage.expand(&chunks.shows)
    }

    /// The place after a chunk: posts ascend, and each has the likers of all hashes, then its figures.
    fn after(&self, place: Option<Place>, chunk: &Chunk) -> Result<Place, CourseError> {
        if !self.is_sent(&chunk.post) {
            return form("a post of a range that is not sent");
        }
        let expected = match &place {
            Some(Place { post, next }) if *post == chunk.post => *next,
            Some(Place { next: Some(_), .. }) => return form("a post is not whole"),
            Some(Place { post, next: None }) if *post > chunk.post => None,
            Some(_) | None => Some(Next::Likers(0)),
        };
        let next = match (&chunk.part, expected) {
            (ChunkPart::Likers { from, to, .. }, Some(Next::Likers(next))) if *from == next => {
                Some(to.checked_add(1).map_or(Next::Figures, Next::Likers))
            }
            (ChunkPart::Figures(_), Some(Next::Figures)) => None,
            _ => return form("a chunk comes out of order"),
        };
        let post = chunk.post.clone();
        Ok(Place { post, next })
    }

    fn push_block(&mut self, bytes: &[u8]) -> Result<(), CourseError> {
        if self.is_amid_post() {
            return form("a post is not whole");
        }
        let decoded = block::decode(bytes, &mut self.engine.replicas())?;
        self.check_own(|own| claims_of(&decoded, own))?;
        let predecessors = decoded.predecessors.iter().flatten();
        let mut missing = predecessors.filter(|(replica, seq)| self.reached.get(*replica) < *seq);
        let reached = self.reached.get(decoded.replica);
        if decoded.first_seq > reached + 1 || missing.next().is_some() {
            return form("its tail has a gap");
        }
        if decoded.last_seq() <= reached {
            return form("a block brings nothing new");
        }
        self.reached.raise(decoded.replica, decoded.last_seq());
        self.phase = Phase::Tail;
        self.blocks += 1;
        self.progress.blocks += 1;
        Ok(())
    }

    fn is_amid_post(&self) -> bool {
        let place = self.place.as_ref();
        place.is_some_and(|place| place.next.is_some())
    }

    fn end(&mut self, ending: &Ending) -> Result<(), CourseError> {
        if self.is_amid_post() {
            return form("a post is not whole");
        }
        if (ending.chunks, ending.blocks) != (self.chunks, self.blocks) {
            return form("it lacks chunks or blocks");
        }
        if !ending.vector.covers_all(&self.shows) {
            return form("its end does not cover what it shows");
        }
        if !self.reached.covers_all(&ending.vector) {
            return form("its tail does not lead to its end");
        }
        self.phase = Phase::Ended;
        Ok(())
    }
}

fn own_of(vector: &VersionVector) -> impl FnOnce(ReplicaIndex) -> Option<u64> {
    |own| Some(vector.get(own))
}

/// The highest number of a replica that the block names.
fn claims_of(decoded: &Block, replica: ReplicaIndex) -> Option<u64> {
    let named = decoded.events.iter().flat_map(|event| match &event.action {
        Action::Like { replaced, .. } => replaced.as_slice(),
        Action::Unlike { removed, .. } => removed.as_slice(),
        Action::Empty | Action::Add { .. } | Action::Retire { .. } => &[],
    });
    let named = named.filter(|dot| dot.replica == replica);
    let events = (decoded.replica == replica).then(|| decoded.last_seq());
    let predecessors = decoded.predecessors.iter().flatten();
    let predecessors = predecessors.filter(|(named, _)| *named == replica);
    let claims = named.map(|dot| dot.seq).chain(events);
    claims.chain(predecessors.map(|(_, seq)| *seq)).max()
}

/// A dot that no event up to the end names would live for ever, and so would an increment.
fn check_shown(chunk: &Chunk, shows: &VersionVector) -> Result<(), CourseError> {
    match &chunk.part {
        ChunkPart::Likers { from, to, likers } => {
            for (user, dots) in likers {
                if !(from..=to).contains(&&UserHash::of(user).order()) {
                    return form("a liker is outside of its chunk");
                }
                if !dots.iter().all(|dot: &Dot| shows.covers(*dot)) {
                    return form("a chunk shows more than it says");
                }
            }
        }
        ChunkPart::Figures(figures) => {
            let mut likes = figures.likes.iter();
            if !likes.all(|(replica, increments)| *increments <= shows.get(*replica)) {
                return form("figures show more than they say");
            }
        }
    }
    Ok(())
}
