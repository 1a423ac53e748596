//! A node in a process of its own, on a folder of its own on the real disk.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use likewise::config::ENVIRONMENT_PREFIX;
use tempfile::TempDir;

/// Ended when it is dropped.
pub struct Node {
    child: Child,
    pub address: String,
    _folder: TempDir,
}

/// A folder on the disk that the build is on: a folder for temporary files may be in memory.
pub fn folder() -> anyhow::Result<TempDir> {
    Ok(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}

impl Node {
    /// Starts a node with the default configuration and waits until it serves.
    pub fn start(binary: &Path) -> anyhow::Result<Self> {
        let folder = folder()?;
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(ENVIRONMENT_PREFIX) {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(["serve", "--region=bench"])
            .args(["--client-listen=127.0.0.1:0", "--peer-listen=127.0.0.1:0"])
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("a node without an output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("client="));
        let address = address.with_context(|| format!("no ready line, but {line:?}"))?;
        Ok(Self {
            child,
            address: format!("http://{address}"),
            _folder: folder,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("the node could not be ended: {error}");
        }
    }
}
