//! Removing what the log no longer needs, segment by segment, oldest first.

use std::sync::Arc;

use super::reader::Shared;
use super::segment::{base_of, path_of, remove_if_there};
use super::space::Space;
use super::{LogOptions, LogSeams, Position, RemoveError};

/// The one that removes segments.
pub struct LogTrimmer {
    pub(super) seams: LogSeams,
    pub(super) options: LogOptions,
    pub(super) shared: Arc<Shared>,
    pub(super) space: Arc<Space>,
}

impl LogTrimmer {
    /// Removes the segments that end at or before `position`, never the current one, durably; with
    /// them files that an earlier start found unusable before the kept ones. Readers that are behind
    /// get [`super::ReadError::Cut`] from then on. Returns how many files went.
    pub async fn remove_before(&mut self, position: Position) -> Result<usize, RemoveError> {
        let mut removed = 0;
        while let Some(segment) = self.shared.take_before(position) {
            // Synced one by one, so that a crash never leaves an older segment without a newer one.
            self.remove(&segment.path).await?;
            removed += 1;
        }
        removed += self.remove_leftovers().await?;
        if removed > 0 {
            self.space.retry();
        }
        Ok(removed)
    }

    async fn remove_leftovers(&mut self) -> Result<usize, RemoveError> {
        let Some(first) = self.shared.first_base() else {
            return Ok(0);
        };
        let listed = self.seams.files.list(&self.options.folder).await;
        let names = listed.map_err(|source| RemoveError {
            file: self.options.folder.clone(),
            source,
        })?;
        let mut removed = 0;
        for base in names.iter().filter_map(|name| base_of(name)) {
            if base < first {
                self.remove(&path_of(&self.options.folder, base)).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    async fn remove(&self, path: &str) -> Result<(), RemoveError> {
        let files = self.seams.files.as_ref();
        let outcome = match remove_if_there(files, path).await {
            Ok(()) => files.sync_folder(&self.options.folder).await,
            failed => failed,
        };
        outcome.map_err(|source| RemoveError {
            file: path.to_owned(),
            source,
        })
    }
}
