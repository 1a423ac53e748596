//! `demo`: three regions on this machine. Three child processes are the nodes; this process is the
//! links between them, and either the console or the teller of a story that checks itself.
//!
//! It knows nodes as any client does; its own record of answers is what they are checked against.

mod check;
mod children;
mod cluster;
mod console;
mod links;
mod load;
pub mod proxy;
mod record;
mod story;
mod table;

use std::fmt;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use cluster::Cluster;

use crate::display::output;

/// What `demo` takes.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Run by itself for about this long (such as 20s), tell what happens, and check the outcome
    #[arg(long = "for", value_name = "TIME", value_parser = length)]
    length: Option<Duration>,
    /// What the choice of users and posts depends on
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Shorter, and there would be no time for what the story tells.
const LENGTH_MIN: Duration = Duration::from_secs(8);
const LENGTH_MAX: Duration = Duration::from_secs(3_600);
/// The exit code of a process that was interrupted.
const EXIT_INTERRUPTED: u8 = 130;

/// One of the three regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Us,
    Eu,
    Ap,
}

impl Place {
    pub const ALL: [Self; 3] = [Self::Us, Self::Eu, Self::Ap];

    pub fn name(self) -> &'static str {
        match self {
            Self::Us => "us",
            Self::Eu => "eu",
            Self::Ap => "ap",
        }
    }

    pub fn others(self) -> [Self; 2] {
        match self {
            Self::Us => [Self::Eu, Self::Ap],
            Self::Eu => [Self::Us, Self::Ap],
            Self::Ap => [Self::Us, Self::Eu],
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|place| place.name() == text);
        found.ok_or_else(|| format!("{text:?} is no region here; there are us, eu and ap"))
    }
}

/// Runs the demo to its end, or until it is interrupted; no node outlives it.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let mut terminated = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let began = async {
        output::line("three nodes start, each with its own folder; this process is the links")?;
        Cluster::start().await.map(Arc::new)
    };
    let cluster = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
        _ = terminated.recv() => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
        cluster = began => cluster?,
    };
    let outcome = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(EXIT_INTERRUPTED)),
        _ = terminated.recv() => Ok(ExitCode::from(EXIT_INTERRUPTED)),
        outcome = show(&args, &cluster) => outcome,
    };
    cluster.stop().await?;
    if let Err(problem) = &outcome
        && !output::is_closed(problem)
    {
        cluster.keep_folder();
    }
    outcome
}

async fn show(args: &DemoArgs, cluster: &Arc<Cluster>) -> anyhow::Result<ExitCode> {
    match args.length {
        Some(length) => story::tell(cluster, length, args.seed).await,
        None if std::io::stdin().is_terminal() => console::live(cluster, args.seed).await,
        None => console::by_line(cluster, args.seed).await,
    }
}

fn length(text: &str) -> Result<Duration, String> {
    let (number, unit_ms) = match text
        .trim()
        .trim_end_matches(|c: char| c.is_ascii_alphabetic())
    {
        number if text.ends_with("ms") => (number, 1),
        number if text.ends_with('m') => (number, 60_000),
        number => (number, 1_000),
    };
    let number: u64 = number.parse().map_err(|_| "write it as 20s".to_owned())?;
    let length = Duration::from_millis(number.saturating_mul(unit_ms));
    match (LENGTH_MIN..=LENGTH_MAX).contains(&length) {
        true => Ok(length),
        false => Err(format!("give {LENGTH_MIN:?} to {LENGTH_MAX:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_a_unit_and_bounds() {
        assert_eq!(length("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(length("1m"), Ok(Duration::from_secs(60)));
        assert_eq!(length("20"), Ok(Duration::from_secs(20)));
        assert_eq!(length("9000ms"), Ok(Duration::from_secs(9)));
        for bad in ["1s", "", "s", "2 days", "999m"] {
            assert!(length(bad).is_err(), "{bad}");
        }
    }
}
