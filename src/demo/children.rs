//! The nodes: child processes of this same binary, each with a folder and a log of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::Place;
use super::links::Links;
use crate::config::ENVIRONMENT_PREFIX;

const CLUSTER: &str = "demo";
/// How long a node may take to recover its folder and listen.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Lines of its log that are shown when a node does not start.
const LOG_LINES_SHOWN: usize = 8;

/// A node that serves. It is killed when this is dropped.
pub struct Node {
    pub client: SocketAddr,
    pub peers: SocketAddr,
    child: Child,
    /// Kept open, so that the node may write to it.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Node {
    /// Starts a region's node on its folder and waits until it serves.
    pub async fn start(place: Place, folder: &Path, links: &Links) -> anyhow::Result<Self> {
        let log = log_path(place, folder);
        let mut child = command(place, folder, links, &log)?
            .spawn()
            .context("cannot start a node of this same binary")?;
        let stdout = child.stdout.take().context("a node without an output")?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = tokio::time::timeout(READY_WITHIN, lines.next_line()).await;
        let line = match ready {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None)) => bail!("{place} ended before it served; {}", tail(&log)),
            Ok(Err(error)) => bail!("{place}: {error}; {}", tail(&log)),
            Err(_) => bail!(
                "{place} does not serve after {READY_WITHIN:?}; {}",
                tail(&log)
            ),
        };
        let (client, peers) = ready_addresses(&line)
            .with_context(|| format!("{place} said {line:?} in place of its ready line"))?;
        Ok(Self {
            client,
            peers,
            child,
            _stdout: lines,
        })
    }

    /// Ends the process at once, as a power cut would (SIGKILL).
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot kill a node")
    }

    /// Whether the process is still there.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

fn log_path(place: Place, folder: &Path) -> PathBuf {
    folder.join(format!("{place}.log"))
}

fn command(place: Place, folder: &Path, links: &Links, log: &Path) -> anyhow::Result<Command> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log);
    let binary = std::env::current_exe().context("cannot find this binary")?;
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(ENVIRONMENT_PREFIX) {
            command.env_remove(name);
        }
    }
    command
        .env(format!("{ENVIRONMENT_PREFIX}CLUSTER__ID"), CLUSTER)
        .args([
            "serve",
            "--client-listen=127.0.0.1:0",
            "--peer-listen=127.0.0.1:0",
        ])
        .arg(format!("--region={place}"))
        .arg("--data-dir")
        .arg(folder.join(place.name()))
        .args(
            place
                .others()
                .map(|other| format!("--peer={other}={}", links.address(place, other))),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.context("cannot write a node's log")?)
        .kill_on_drop(true);
    Ok(command)
}

/// Where a node that says so listens for clients and for peers.
fn ready_addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let words = line.strip_prefix("likewise ready ")?;
    let value = |key: &str| {
        let mut pairs = words
            .split_whitespace()
            .filter_map(|word| word.split_once('='));
        pairs.find(|(name, _)| *name == key)?.1.parse().ok()
    };
    Some((value("client")?, value("peers")?))
}

fn tail(log: &Path) -> String {
    match std::fs::read_to_string(log) {
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
            format!(
                "its log {} ends:\n{}",
                log.display(),
                lines[from..].join("\n")
            )
        }
        Err(error) => format!("its log {} cannot be read: {error}", log.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_says_where_a_node_listens() {
        let line = "likewise ready region=eu client=127.0.0.1:41234 peers=127.0.0.1:41235 epoch=00";
        let (client, peers) = ready_addresses(line).unwrap();
        assert_eq!((client.port(), peers.port()), (41_234, 41_235));
        assert_eq!(ready_addresses("likewise ready region=eu"), None);
        assert_eq!(ready_addresses("hello"), None);
    }
}
