//! `bench`: what its flags mean, and its exit code.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::regions::time;
use super::{EXIT_USAGE, NodeArgs, Output};
use crate::bench::{self, Kind, Nodes, Report, Settings, Wanted};
use crate::display::output;

/// The exit code of a process that was interrupted.
const EXIT_INTERRUPTED: u8 = 130;

#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Clients like, each on a stream of batches
    Like(LikingArgs),
    /// Clients read posts, which are liked first
    Read(ReadArgs),
    /// Half of the clients like, the others read
    Mixed(LikingArgs),
    /// A quiet time, then a post that goes viral at three times the rate, then everybody at once
    Storm(LikingArgs),
}

#[derive(Debug, Args)]
struct LikingArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Likes of a batch [default: 100]
    #[arg(long, value_name = "LIKES", allow_negative_numbers = true)]
    batch: Option<i64>,
    /// Batches that a client has under way [default: 4; of storm 1]
    #[arg(long, value_name = "BATCHES", allow_negative_numbers = true)]
    in_flight: Option<i64>,
    /// The share of likes by users who like the post already, 0 to 1; a storm doubles and triples it
    /// [default: 0; of storm 0.1]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    dup_ratio: Option<f64>,
    /// Send each like in a call of its own, not batches on a stream
    #[arg(long)]
    unary: bool,
}

#[derive(Debug, Args)]
struct ReadArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Posts of one read [default: 1]
    #[arg(long, value_name = "POSTS", allow_negative_numbers = true)]
    batch: Option<i64>,
}

/// What all kinds of load take.
#[derive(Debug, Args)]
#[command(mut_arg("nodes", |nodes| nodes.help("The nodes; each client is held to one of them")))]
struct LoadArgs {
    /// Posts that are liked and read [default: 1000]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    posts: Option<i64>,
    /// How unequal posts are: the exponent of Zipf's law, 0 for all alike [default: 1]
    #[arg(long, value_name = "EXPONENT", allow_negative_numbers = true)]
    zipf: Option<f64>,
    /// Users who like [default: 10000000]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    users: Option<i64>,
    /// Clients at once, spread over the nodes [default: 16; of storm 200]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    clients: Option<i64>,
    /// How long, such as 500ms, 10s or 1m [default: 10s; of storm 30s]
    #[arg(long, value_name = "TIME", value_parser = time)]
    duration: Option<Duration>,
    /// Likes or reads a second, of all clients together; times then run from when each was due. As many as
    /// are answered by default; of storm 20000, in its first part
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    rate: Option<i64>,
    /// What the names of the posts begin with; nobody may like them yet [default: a new name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What the choice of users and posts depends on
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    nodes: NodeArgs,
}

impl What {
    fn parts(self) -> (Kind, Wanted, NodeArgs) {
        let (kind, args) = match self {
            Self::Like(args) => (Kind::Like, args),
            Self::Mixed(args) => (Kind::Mixed, args),
            Self::Storm(args) => (Kind::Storm, args),
            Self::Read(args) => {
                let (wanted, nodes) = args.load.parts();
                let batch = args.batch;
                return (Kind::Read, Wanted { batch, ..wanted }, nodes);
            }
        };
        let (wanted, nodes) = args.load.parts();
        let wanted = Wanted {
            batch: args.batch,
            in_flight: args.in_flight,
            dup_ratio: args.dup_ratio,
            unary: args.unary,
            ..wanted
        };
        (kind, wanted, nodes)
    }
}

impl LoadArgs {
    fn parts(self) -> (Wanted, NodeArgs) {
        let wanted = Wanted {
            posts: self.posts,
            zipf: self.zipf,
            users: self.users,
            clients: self.clients,
            duration: self.duration,
            rate: self.rate,
            name: self.name,
            seed: self.seed,
            ..Wanted::default()
        };
        (wanted, self.nodes)
    }
}

pub async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let (kind, wanted, node_args) = args.what.parts();
    let settings = match Settings::new(kind, wanted) {
        Ok(settings) => settings,
        Err(error) => {
            output::complain(format!("likewise: {error}"));
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let builder = node_args.trusting()?.token(node_args.token.clone());
    let nodes = Nodes::new(node_args.nodes.clone(), builder);
    let stop = CancellationToken::new();
    let running = bench::run(settings, nodes, stop.clone());
    tokio::pin!(running);
    let mut interrupts = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    loop {
        tokio::select! {
            biased;
            _ = interrupts.recv() => {
                // The first ends the phases, and what was done is told; the second ends it all.
                if stop.is_cancelled() {
                    return Ok(ExitCode::from(EXIT_INTERRUPTED));
                }
                stop.cancel();
            }
            report = &mut running => return tell(&report?, node_args.output),
        }
    }
}

fn tell(report: &Report, how: Output) -> anyhow::Result<ExitCode> {
    match how {
        Output::Json => output::line(report.json())?,
        Output::Table => output::lines(&report.lines())?,
    }
    Ok(match (report.is_accurate(), report.interrupted) {
        (false, _) => ExitCode::FAILURE,
        (true, true) => ExitCode::from(EXIT_INTERRUPTED),
        (true, false) => ExitCode::SUCCESS,
    })
}
