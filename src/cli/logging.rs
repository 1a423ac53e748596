//! Where log lines go: the standard error stream, for people or for programs.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Logging};

/// Starts logging for this process; a second call is refused.
pub fn init(logging: &Logging) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(&logging.level)
        .with_context(|| format!("logging.level = {:?}", logging.level))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match logging.format {
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging is started already: {error}"))
}
