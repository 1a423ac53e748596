//! A snapshot on its way into the stage: checked part by part, and gone on with after a break.
//!
//! The stage's first frame is the request that began it; the parts follow as they came, whoever sent them.
//! So a restarted node learns from the stage alone how far the snapshot had come.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::codec::DecodeError;
use crate::crdt::ranges::RangeSet;
use crate::engine::Engine;
use crate::engine::snapshot::{Course, CourseError, Part, Wanted};
use crate::engine::stage::{self, StageReader, StageWriter};
use crate::replication::parts;
use crate::seams::Files;
use crate::wire::replication::{SnapshotRequest, SnapshotResponse};

/// Why a part was not staged.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// The peer's fault. What was staged before it stays.
    #[error("the peer sent a bad part: {0}")]
    Decode(#[from] DecodeError),
    /// The peer's fault too.
    #[error("the peer sent a bad part: {0}")]
    Course(#[from] CourseError),
    /// This node's fault. The stage is worth nothing any more.
    #[error("the stage failed: {0}")]
    Stage(#[from] io::Error),
}

/// A snapshot being received.
pub struct Staging {
    engine: Arc<Engine>,
    writer: StageWriter,
    pub course: Course,
}

impl Staging {
    /// Begins a new one.
    pub async fn begin(
        engine: Arc<Engine>,
        files: Arc<dyn Files>,
        request: &SnapshotRequest,
    ) -> Result<Self, StagingError> {
        let course = course_of(&engine, request)?;
        let mut writer = StageWriter::create(files).await?;
        writer.push(&request.encode_to_vec()).await?;
        Ok(Self {
            engine,
            writer,
            course,
        })
    }

    /// What an earlier process, or an earlier try that was given up, left of one. Where it cannot be gone on
    /// with there is none, and what is there counts for nothing.
    pub async fn recover(engine: Arc<Engine>, files: Arc<dyn Files>) -> io::Result<Option<Self>> {
        let Some(mut reader) = stage::open_incoming(files.as_ref()).await? else {
            return Ok(None);
        };
        let Some(course) = scan(&engine, &mut reader).await? else {
            return Ok(None);
        };
        if course.resume().is_none() {
            return Ok(None);
        }
        let writer = StageWriter::go_on(files, reader).await?;
        Ok(Some(Self {
            engine,
            writer,
            course,
        }))
    }

    /// Bytes that are staged.
    pub fn bytes(&self) -> u64 {
        self.writer.bytes()
    }

    /// Checks a part and stages it. Returns whether it was the last.
    pub async fn take(&mut self, message: SnapshotResponse) -> Result<bool, StagingError> {
        let frame = message.encode_to_vec();
        let part = parts::read(message, &mut self.engine.replicas())?;
        self.course.push(&part)?;
        self.writer.push(&frame).await?;
        Ok(self.course.has_ended())
    }

    /// The sender is lost: what is here is kept.
    pub async fn suspend(&mut self) -> io::Result<()> {
        self.writer.flush().await
    }

    /// All of it is here.
    pub async fn finish(self) -> io::Result<()> {
        self.writer.finish().await
    }
}

fn course_of(engine: &Arc<Engine>, request: &SnapshotRequest) -> Result<Course, DecodeError> {
    let Wanted { ranges, held, .. } = parts::read_wanted(request, &mut engine.replicas())?;
    let offered: RangeSet = held.iter().map(|(range, _)| *range).collect();
    Ok(Course::new(engine.clone(), ranges, offered))
}

/// Reads what is whole and in order. The reader stands behind it.
async fn scan(engine: &Arc<Engine>, reader: &mut StageReader) -> io::Result<Option<Course>> {
    let Some(frame) = reader.peek_whole().await? else {
        return Ok(None);
    };
    let request = SnapshotRequest::decode(frame.clone()).ok();
    let course = request.and_then(|request| course_of(engine, &request).ok());
    let Some(mut course) = course else {
        return Ok(None);
    };
    reader.pass(&frame);
    while let Some(frame) = reader.peek_whole().await? {
        match read_part(engine, &frame) {
            // The end comes anew, for the log has gone on.
            Some(Part::End(_)) | None => break,
            Some(part) if course.push(&part).is_err() => break,
            Some(_) => reader.pass(&frame),
        }
    }
    Ok(Some(course))
}

fn read_part(engine: &Engine, frame: &Bytes) -> Option<Part> {
    let message = SnapshotResponse::decode(frame.clone()).ok()?;
    parts::read(message, &mut engine.replicas()).ok()
}
