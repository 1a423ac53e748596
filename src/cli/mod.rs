//! The command line: one binary for serving, asking and showing. It knows nodes through the client
//! library only, and starts one through `node::run`.

mod bench;
mod calls;
mod config;
mod explain;
mod likers;
mod regions;
mod repair;
mod serve;
mod status;
mod verdict;
mod version;

use std::fs;
use std::future::Future;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::causes;
use crate::client::{Client, ClientBuilder};
use crate::demo;
use crate::display::output;

/// Exit code of a command line that is not understood; apart from those of `status`.
const EXIT_USAGE: u8 = 64;
const EXIT_FAILED: u8 = 1;
/// Exit code where nobody reads what a command says: what a shell shows for a process that the
/// operating system ends for it.
const EXIT_UNREAD: u8 = 141;

/// A multi-region store for likes and the counters beside them.
#[derive(Debug, Parser)]
#[command(name = "likewise", version = version::TEXT.as_str(), max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node; without --config a single node on loopback with its data in ./data
    Serve(serve::ServeArgs),
    /// Like a post
    Like(calls::LikeArgs),
    /// Take a like back
    Unlike(calls::UnlikeArgs),
    /// Add to a counter of a post
    Add(calls::AddArgs),
    /// Show the likes of posts
    Count(calls::CountArgs),
    /// Follow the likes of posts until interrupted
    Watch(calls::WatchArgs),
    /// List the users who like a post
    Likers(likers::LikersArgs),
    /// Show how the figures of a post come about
    Explain(explain::ExplainArgs),
    /// Write, check or show the configuration of a node
    Config(config::ConfigArgs),
    /// Wait until regions have made durable what a token names; exit code 0 all have, 2 some are missing
    Wait(regions::WaitArgs),
    /// Retire a region that is gone: the log is no longer kept for it
    Retire(regions::RetireArgs),
    /// Show nodes and links; exit code 0 converged, 2 degraded, 3 diverged, 1 unreachable
    Status(status::StatusArgs),
    /// Take a range of posts whole from another region, where two differ and no majority decides
    Repair(repair::RepairArgs),
    /// Load for running nodes, and whether they count what they acknowledged; exit code 1 if they do not
    Bench(bench::BenchArgs),
    /// Three regions on this machine, with links to cut and nodes to kill
    Demo(demo::DemoArgs),
}

/// Which nodes a command speaks to, and how it answers.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// A node; several are gone through in turn when one fails
    #[arg(
        long = "node",
        value_name = "URL",
        env = "LIKEWISE_NODE",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7400"
    )]
    nodes: Vec<String>,
    /// PEM file of the authority whose certificates nodes with https must show
    #[arg(long = "ca", value_name = "FILE", env = "LIKEWISE_CA")]
    authority: Option<PathBuf>,
    /// PEM file of an operator's certificate
    #[arg(
        long,
        value_name = "FILE",
        env = "LIKEWISE_CERTIFICATE",
        requires = "key"
    )]
    certificate: Option<PathBuf>,
    /// PEM file of the certificate's key
    #[arg(
        long,
        value_name = "FILE",
        env = "LIKEWISE_KEY",
        requires = "certificate"
    )]
    key: Option<PathBuf>,
    /// What was seen before, from an earlier answer: nothing older is shown
    #[arg(
        long,
        value_name = "TOKEN",
        default_value = "",
        hide_default_value = true
    )]
    token: String,
    /// How to answer
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// How a command answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs: one JSON value a line
    Json,
}

impl NodeArgs {
    fn client(&self) -> anyhow::Result<Client> {
        self.client_waiting(Duration::ZERO)
    }

    /// A client for a call that itself takes up to `wait`.
    fn client_waiting(&self, wait: Duration) -> anyhow::Result<Client> {
        let client = self
            .trusting()?
            .endpoints(self.nodes.iter().cloned())
            .token(self.token.clone())
            .deadline(calls::DEADLINE.saturating_add(wait))
            .connect_lazy()?;
        Ok(client)
    }

    /// The beginning of a client that believes and is who the files say.
    fn trusting(&self) -> anyhow::Result<ClientBuilder> {
        let mut builder = Client::builder();
        if let Some(authority) = &self.authority {
            builder = builder.authority(read("--ca", authority)?);
        }
        if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
            let certificate = read("--certificate", certificate)?;
            builder = builder.certificate(certificate, read("--key", key)?);
        }
        Ok(builder)
    }
}

fn read(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {flag} {}", path.display()))
}

/// Runs the command of this process and says how it went.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli.command) {
        Ok(code) => code,
        Err(error) if output::is_closed(&error) => ExitCode::from(EXIT_UNREAD),
        Err(error) => {
            output::complain(format!("likewise: {}", causes::told(error.as_ref())));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    let code = match error.use_stderr() {
        true => ExitCode::from(EXIT_USAGE),
        false => ExitCode::SUCCESS,
    };
    match error.print() {
        Ok(()) => code,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::from(EXIT_UNREAD),
        Err(_) => ExitCode::from(EXIT_FAILED),
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => serve::run(args),
        Command::Like(args) => block_on(calls::like(args)),
        Command::Unlike(args) => block_on(calls::unlike(args)),
        Command::Add(args) => block_on(calls::add(args)),
        Command::Count(args) => block_on(calls::count(args)),
        Command::Watch(args) => block_on(calls::watch(args)),
        Command::Likers(args) => block_on(likers::run(args)),
        Command::Explain(args) => block_on(explain::run(args)),
        Command::Config(args) => config::run(args),
        Command::Wait(args) => block_on(regions::wait(args)),
        Command::Retire(args) => block_on(regions::retire(args)),
        Command::Status(args) => block_on(status::run(args)),
        Command::Repair(args) => block_on(repair::run(args)),
        Command::Bench(args) => block_on(bench::run(args)),
        Command::Demo(args) => block_on(demo::run(args)),
    }
}

fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
