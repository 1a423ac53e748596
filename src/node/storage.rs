//! Opening the data folder: one process at a time, and a checkpoint store that can be set aside.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};

use crate::adapters::os_files::OsFiles;
use crate::adapters::sled_store::{SledOpenError, SledStore};
use crate::adapters::system::{OsRandomness, SystemClock};
use crate::config::Config;
use crate::engine::EngineOptions;
use crate::engine::recovery::{EngineSeams, Recovered, RecoveryError, recover};
use crate::log::{self, LogIdentity, LogOptions};
use crate::node::rebuild;
use crate::seams::files::{Files, LockGuard};
use crate::seams::{Clock, Cores};

const LOCK: &str = "lock";
const STORE: &str = "sled";

/// An open data folder.
pub struct Storage {
    pub seams: EngineSeams,
    pub recovered: Recovered,
    /// Kept for as long as the folder is in use.
    pub lock: LockGuard,
}

/// The log as the configuration wants it.
pub fn log_options(config: &Config) -> LogOptions {
    LogOptions {
        recent_bytes: config.log.recent_bytes as usize,
        ..LogOptions::with_segments_of(config.log.segment_bytes)
    }
}

/// What becomes of the state that a folder holds at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folder {
    /// The node goes on from it.
    Keep,
    /// It is moved aside, and the node takes its state from its peers.
    Rebuild,
}

/// Opens a node's state on seams of the caller's, such as devices that are simulated: the folder is locked and
/// recovered as any other, but a store that is damaged is not set aside.
pub async fn open_on(
    seams: EngineSeams,
    options: EngineOptions,
    log: LogOptions,
) -> anyhow::Result<Storage> {
    let lock = seams.files.lock(LOCK).await.context("the folder's lock")?;
    let recovered = recover(seams.clone(), options, log).await?;
    Ok(Storage {
        seams,
        recovered,
        lock,
    })
}

/// Moves the state of the folder aside and opens it empty. Refused, with nothing changed, where there is no
/// peer to take the state from, and for a folder of another node.
pub async fn rebuild(config: &Config, options: EngineOptions) -> anyhow::Result<Storage> {
    rebuild::check_peers(config)?;
    open_folder(config, options, Folder::Rebuild).await
}

/// Locks and recovers the folder. A checkpoint store that does not open is set aside, and built anew
/// from the log if that is whole.
pub async fn open(config: &Config, options: EngineOptions) -> anyhow::Result<Storage> {
    open_folder(config, options, Folder::Keep).await
}

async fn open_folder(
    config: &Config,
    options: EngineOptions,
    what: Folder,
) -> anyhow::Result<Storage> {
    let folder = &config.node.data_dir;
    let files = OsFiles::new(folder)
        .with_context(|| format!("cannot use the data folder {}", folder.display()))?;
    let files: Arc<dyn Files> = Arc::new(files);
    let lock = lock(files.as_ref(), folder).await?;
    // Before the store: opening it writes to it, and a foreign one must not even be set aside.
    let identity = LogIdentity {
        cluster: options.cluster.clone(),
        region: options.region.clone(),
    };
    let owned = log::check_owner(files.as_ref(), &log_options(config), &identity).await;
    match what {
        Folder::Keep => owned?,
        Folder::Rebuild => {
            refuse_foreign(owned)?;
            rebuild::set_state_aside(folder)?;
        }
    }
    match try_open(config, options.clone(), files.clone()).await {
        Ok((seams, recovered)) => Ok(Storage {
            seams,
            recovered,
            lock,
        }),
        Err(OpenError::StoreDamaged(reason)) => {
            let aside = set_aside(folder)?;
            tracing::warn!(%reason, aside = %aside.display(), "the checkpoint store was set aside; it is built anew from the log");
            let (seams, recovered) = try_open(config, options, files).await?;
            Ok(Storage {
                seams,
                recovered,
                lock,
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// A damaged log is what a rebuild is for; another node's is a mistake.
fn refuse_foreign(owned: Result<(), log::OpenError>) -> anyhow::Result<()> {
    match owned {
        Err(
            error @ (log::OpenError::OtherCluster { .. }
            | log::OpenError::OtherRegion { .. }
            | log::OpenError::NewerFormat { .. }),
        ) => Err(error).context("--rebuild: nothing was changed"),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn lock(files: &dyn Files, folder: &Path) -> anyhow::Result<LockGuard> {
    match files.lock(LOCK).await {
        Ok(lock) => Ok(lock),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => bail!(
            "the data folder {} is in use by another process; give each node its own with node.data_dir",
            folder.display()
        ),
        Err(error) => {
            Err(error).with_context(|| format!("cannot lock the data folder {}", folder.display()))
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("the checkpoint store is damaged: {0}")]
    StoreDamaged(String),
    #[error(transparent)]
    Store(SledOpenError),
    #[error(transparent)]
    Recovery(RecoveryError),
}

async fn try_open(
    config: &Config,
    options: EngineOptions,
    files: Arc<dyn Files>,
) -> Result<(EngineSeams, Recovered), OpenError> {
    let store = SledStore::open(
        config.node.data_dir.join(STORE),
        config.checkpoint.sled_cache_bytes,
    );
    let store = store.map_err(|error| match error {
        SledOpenError::Damaged { .. } => OpenError::StoreDamaged(error.to_string()),
        other => OpenError::Store(other),
    })?;
    let seams = EngineSeams {
        files,
        store: Arc::new(store),
        clock: Arc::new(SystemClock),
        randomness: Arc::new(OsRandomness),
        cores: Cores::all(),
    };
    let recovered = recover(seams.clone(), options, log_options(config)).await;
    let recovered = recovered.map_err(|error| match &error {
        RecoveryError::Row { .. } => OpenError::StoreDamaged(error.to_string()),
        RecoveryError::Store(source) if source.kind() == io::ErrorKind::InvalidData => {
            OpenError::StoreDamaged(error.to_string())
        }
        _ => OpenError::Recovery(error),
    })?;
    Ok((seams, recovered))
}

/// Moves the store away, under a name that tells when.
fn set_aside(folder: &Path) -> anyhow::Result<std::path::PathBuf> {
    let from = folder.join(STORE);
    let aside = folder.join(format!("{STORE}.damaged-{}", SystemClock.now_ms()));
    std::fs::rename(&from, &aside).with_context(|| {
        format!(
            "cannot move the damaged checkpoint store {} away",
            from.display()
        )
    })?;
    Ok(aside)
}
