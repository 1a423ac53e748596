//! The folders of a simulated disk: which name stands for which content, durably and since.

use std::collections::{BTreeMap, BTreeSet};

use super::Moment;
use super::content::Below;
use crate::seams::files::folder_of;

/// Index of a content.
type Id = usize;

#[derive(Default)]
pub(super) struct Names {
    live: Entries,
    durable: Entries,
    unsynced: Vec<Change>,
}

#[derive(Default, Clone)]
struct Entries {
    files: BTreeMap<String, Id>,
    folders: BTreeSet<String>,
}

#[derive(Clone)]
enum Change {
    Folder { path: String },
    Create { path: String, id: Id },
    Rename { from: String, to: String, id: Id },
    Remove { path: String },
}

impl Names {
    pub(super) fn find(&self, path: &str) -> Option<Id> {
        self.live.files.get(path).copied()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = Id> {
        self.live.files.values().copied()
    }

    pub(super) fn paths(&self) -> Vec<String> {
        self.live.files.keys().cloned().collect()
    }

    pub(super) fn has_folder(&self, folder: &str) -> bool {
        folder.is_empty() || self.live.folders.contains(folder)
    }

    /// Names of the files in one folder.
    pub(super) fn list(&self, folder: &str) -> Vec<String> {
        let paths = self.live.files.keys();
        let inside = paths.filter(|path| folder_of(path) == folder);
        inside
            .map(|path| path.rsplit('/').next().unwrap_or(path).to_owned())
            .collect()
    }

    pub(super) fn create_folder(&mut self, folder: &str) {
        let mut path = String::new();
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(part);
            if !self.live.folders.contains(&path) {
                self.change(Change::Folder { path: path.clone() });
            }
        }
    }

    pub(super) fn create(&mut self, path: &str, id: Id) {
        let path = path.to_owned();
        self.change(Change::Create { path, id });
    }

    pub(super) fn rename(&mut self, from: &str, to: &str, id: Id) {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.change(Change::Rename { from, to, id });
    }

    pub(super) fn remove(&mut self, path: &str) {
        let path = path.to_owned();
        self.change(Change::Remove { path });
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.unsynced.push(change);
    }

    /// Makes durable what was changed in this folder.
    pub(super) fn sync(&mut self, folder: &str) {
        for change in std::mem::take(&mut self.unsynced) {
            if change.concerns(folder) {
                change.apply(&mut self.durable);
            } else {
                self.unsynced.push(change);
            }
        }
    }

    /// A sync of this folder failed: any of its changes may be missing after a power cut.
    pub(super) fn fail_sync(&mut self, folder: &str, below: &mut Below<'_>) {
        for change in std::mem::take(&mut self.unsynced) {
            if !change.concerns(folder) {
                self.unsynced.push(change);
            } else if below(2) == 1 {
                change.apply(&mut self.durable);
            }
        }
    }

    /// The power failed. What is in a folder that did not survive is lost with it.
    pub(super) fn lose_unsynced(&mut self, moment: Moment, below: &mut Below<'_>) {
        for change in std::mem::take(&mut self.unsynced) {
            if moment != Moment::Before && below(2) == 1 {
                change.apply(&mut self.durable);
            }
        }
        let folders = &self.durable.folders;
        let is_there = |folder: &str| folder.is_empty() || folders.contains(folder);
        self.durable
            .files
            .retain(|path, _| is_there(folder_of(path)));
        self.live = self.durable.clone();
    }

    pub(super) fn settled(&self) -> Self {
        Self {
            live: self.live.clone(),
            durable: self.live.clone(),
            unsynced: Vec::new(),
        }
    }
}

impl Change {
    fn apply(&self, entries: &mut Entries) {
        match self {
            Self::Folder { path } => {
                entries.folders.insert(path.clone());
            }
            Self::Create { path, id } => {
                entries.files.insert(path.clone(), *id);
            }
            Self::Rename { from, to, id } => {
                entries.files.insert(to.clone(), *id);
                if entries.files.get(from) == Some(id) {
                    entries.files.remove(from);
                }
            }
            Self::Remove { path } => {
                entries.files.remove(path);
            }
        }
    }

    fn concerns(&self, folder: &str) -> bool {
        match self {
            Self::Folder { path } | Self::Create { path, .. } | Self::Remove { path } => {
                folder_of(path) == folder
            }
            Self::Rename { from, to, .. } => folder_of(from) == folder || folder_of(to) == folder,
        }
    }
}
