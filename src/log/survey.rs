//! What a start finds in the log's folder, before anything is believed or changed.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{ALIGNMENT, BIRTH_BYTES, Birth, Frame, Header, header_bytes_max};
use super::segment::{Segment, base_of, path_of};
use super::{LogIdentity, LogOptions, OpenError, Position};
use crate::seams::{File, Files};
use crate::versions::LOG_FORMAT;

/// One segment file.
pub(super) struct Found {
    pub path: String,
    pub file: Arc<dyn File>,
    pub base: Position,
    pub len: u64,
    pub birth: Option<Birth>,
    pub header: Option<Header>,
}

/// What lies behind a bad place in one file.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// The highest position that a valid record or header there states as synced.
    pub stated: Position,
    /// From the place to the last byte that is not zero.
    pub dirty: Range<u64>,
}

/// Refuses a log of another cluster, region or newer format, and changes nothing. For those who open
/// what lies beside the log, before they do.
pub async fn check_owner(
    files: &dyn Files,
    options: &LogOptions,
    identity: &LogIdentity,
) -> Result<(), OpenError> {
    match files.list(&options.folder).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => survey(files, options, identity).await.map(drop),
    }
}

/// The segment files, oldest first. Refuses those of another cluster, region or newer format.
pub(super) async fn survey(
    files: &dyn Files,
    options: &LogOptions,
    identity: &LogIdentity,
) -> Result<Vec<Found>, OpenError> {
    let folder = &options.folder;
    let listed = files.list(folder).await;
    let names = listed.map_err(io_error(folder, "listing"))?;
    let mut found = Vec::new();
    for base in names.iter().filter_map(|name| base_of(name)) {
        let path = path_of(folder, base);
        let segment = look_at(files, options, base, &path).await;
        let segment = segment.map_err(io_error(&path, "reading"))?;
        segment.check(identity)?;
        found.push(segment);
    }
    Ok(found)
}

async fn look_at(
    files: &dyn Files,
    options: &LogOptions,
    base: Position,
    path: &str,
) -> io::Result<Found> {
    let file = files.open(path).await?;
    let len = file.len().await?;
    let birth = Birth::decode(&file.read_at(0, BIRTH_BYTES).await?);
    let birth = birth.filter(|birth| birth.base == base);
    let usual = header_bytes_max(options.context_bytes_max);
    let front = file.read_at(BIRTH_BYTES as u64, usual).await?;
    let mut header = Header::decode(&front);
    if header.is_none() && options.context_bytes_max < LogOptions::default().context_bytes_max {
        // Written when contexts were allowed to be longer.
        let most = header_bytes_max(LogOptions::default().context_bytes_max);
        header = Header::decode(&file.read_at(BIRTH_BYTES as u64, most).await?);
    }
    let is_own = |header: &Header| {
        header.base == base && birth.is_none_or(|birth| birth.nonce == header.nonce)
    };
    Ok(Found {
        path: path.to_owned(),
        file,
        base,
        len,
        birth,
        header: header.filter(is_own),
    })
}

impl Found {
    fn check(&self, identity: &LogIdentity) -> Result<(), OpenError> {
        let file = self.path.clone();
        if let Some(birth) = self.birth
            && birth.version > LOG_FORMAT
        {
            let found = birth.version;
            return Err(OpenError::NewerFormat { file, found });
        }
        let Some(header) = &self.header else {
            return Ok(());
        };
        if header.identity.cluster != identity.cluster {
            let found = header.identity.cluster.to_string();
            return Err(OpenError::OtherCluster { file, found });
        }
        if header.identity.region != identity.region {
            let found = header.identity.region.to_string();
            return Err(OpenError::OtherRegion { file, found });
        }
        Ok(())
    }

    pub(super) fn segment(&self) -> Option<Segment> {
        let header = self.header.as_ref()?;
        Some(Segment::new(
            self.path.clone(),
            Arc::clone(&self.file),
            header,
        ))
    }

    /// All bytes of the file.
    pub(super) async fn load(&self) -> Result<Bytes, OpenError> {
        let len = usize::try_from(self.len).unwrap_or(usize::MAX);
        let bytes = self.file.read_at(0, len).await;
        bytes.map_err(io_error(&self.path, "reading"))
    }

    /// What lies in this file from `offset` on, the header of the segment apart if that is after it.
    /// `bytes` are all of the file's.
    pub(super) fn remains(&self, bytes: &Bytes, offset: u64) -> Result<Remains, OpenError> {
        let from = (offset as usize).max(BIRTH_BYTES);
        let rest = bytes.get(from..).unwrap_or_default();
        let dirty = rest
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        let nonce = self.header.as_ref().map(|header| header.nonce);
        let nonce = nonce.or(self.birth.map(|birth| birth.nonce));
        let Some(nonce) = nonce else {
            // The birth was durable before anything else was written.
            return if dirty == 0 {
                Ok(Remains::default())
            } else {
                Err(self.damaged(0, "neither its birth nor its header can be read"))
            };
        };
        let mut stated = Position::START;
        if offset <= BIRTH_BYTES as u64
            && let Some(header) = &self.header
        {
            stated = header.synced;
        }
        let mut at = from.next_multiple_of(ALIGNMENT);
        while at < from + dirty {
            let place = self.base.after(at);
            if let Some(frame) = Frame::decode(&bytes[at..], nonce, place) {
                stated = stated.max(frame.synced);
            }
            at += ALIGNMENT;
        }
        let dirty = from as u64..(from + dirty) as u64;
        Ok(Remains { stated, dirty })
    }

    pub(super) fn damaged(&self, offset: u64, what: &'static str) -> OpenError {
        let file = self.path.clone();
        OpenError::Damaged { file, offset, what }
    }
}

pub(super) fn io_error(path: &str, action: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    let file = path.to_owned();
    move |source| OpenError::Io {
        file,
        action,
        source,
    }
}
