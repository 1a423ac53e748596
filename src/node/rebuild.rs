//! A folder whose state is to come from the peers: setting aside what it held, and remembering that it is not
//! here yet.
//!
//! Nothing is deleted. Of a start that is killed on the way either all is still in place, or the log is gone first:
//! then a plain start refuses what is left, or finds a whole staged snapshot and nothing else, which it may merge.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};

use crate::config::Config;
use crate::display::output;
use crate::seams::files::Files;

/// What holds the state, in the order in which it goes.
const STATE: [&str; 3] = ["log", "sled", "stage"];
/// A file that is there until a peer's state is.
const UNFINISHED: &str = "rebuilding";

/// Refuses a rebuild that nobody could give the state for.
pub fn check_peers(config: &Config) -> anyhow::Result<()> {
    if config.peers.are_configured() {
        return Ok(());
    }
    bail!(
        "--rebuild takes the state from the peers, and none are configured: name one with --peer REGION=HOST:PORT \
         or in [[peers.static]]. Nothing was changed"
    )
}

/// Moves the state away, under a name that tells when. The caller holds the folder's lock. None if there was none.
pub fn set_state_aside(folder: &Path) -> anyhow::Result<Option<PathBuf>> {
    let there = STATE.map(|name| (name, folder.join(name)));
    let there: Vec<_> = there.iter().filter(|(_, path)| path.exists()).collect();
    if there.is_empty() {
        output::complain(format!(
            "--rebuild: {} holds no state; it comes from the peers",
            folder.display()
        ));
        return Ok(None);
    }
    let aside = folder.join(format!("aside-{}", now()));
    output::complain(format!(
        "--rebuild: the state in {} is moved to {} and the node starts empty. Writes that no peer has yet are lost \
         with it, though they were acknowledged; keep it until you know that none are missed",
        folder.display(),
        aside.display()
    ));
    let failed = || format!("cannot move the state in {} aside", folder.display());
    fs::create_dir(&aside).with_context(failed)?;
    for (name, path) in there {
        fs::rename(path, aside.join(name)).with_context(failed)?;
        sync(folder)
            .and_then(|()| sync(&aside))
            .with_context(failed)?;
    }
    Ok(Some(aside))
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The time in UTC, as it may stand in a name.
fn now() -> String {
    let now = prost_types::Timestamp::from(SystemTime::now());
    let seconds = prost_types::Timestamp { nanos: 0, ..now };
    seconds.to_string().replace(':', "-")
}

/// Whether an earlier process was still waiting for the state of its region.
pub async fn is_unfinished(files: &dyn Files) -> io::Result<bool> {
    Ok(files.list("").await?.iter().any(|name| name == UNFINISHED))
}

/// Remembers over restarts that the state is still to come: the node's own writes alone would pass for it.
pub async fn begin(files: &dyn Files) -> io::Result<()> {
    match files.create(UNFINISHED).await {
        Ok(_) => files.sync_folder("").await,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// The state is here.
pub async fn finish(files: &dyn Files) -> io::Result<()> {
    match files.remove(UNFINISHED).await {
        Ok(()) => files.sync_folder("").await,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::os_files::OsFiles;

    #[test]
    fn the_state_is_moved_and_nothing_is_deleted() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in STATE {
            let part = folder.path().join(name);
            fs::create_dir(&part).expect("made");
            fs::write(part.join("content"), name).expect("written");
        }
        fs::write(folder.path().join("lock"), "").expect("written");
        let aside = set_state_aside(folder.path())
            .expect("moved")
            .expect("state");
        for name in STATE {
            assert!(!folder.path().join(name).exists());
            let content = fs::read_to_string(aside.join(name).join("content"));
            assert_eq!(content.expect("readable"), name);
        }
        assert!(folder.path().join("lock").exists());
        assert_eq!(set_state_aside(folder.path()).expect("fine"), None);
    }

    #[tokio::test]
    async fn what_is_unfinished_is_remembered_until_it_is_finished() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = OsFiles::new(folder.path()).expect("files");
        assert!(!is_unfinished(&files).await.expect("readable"));
        for _ in 0..2 {
            begin(&files).await.expect("marked");
            assert!(is_unfinished(&files).await.expect("readable"));
        }
        for _ in 0..2 {
            finish(&files).await.expect("unmarked");
            assert!(!is_unfinished(&files).await.expect("readable"));
        }
    }
}
