//! First figures of a node: what a sync, a call and a streamed like cost here, measured in one run.
//!
//! `cargo bench --bench first_figures -- --json figures.json`. Every round measures everything once, on
//! fresh folders, and medians are taken over the rounds: on a shared machine only ratios of one run mean
//! much. The node that serves is a child process, so that its CPU time is told from the client's.

#[path = "../measure/mod.rs"]
mod measure;

mod client;
mod inside;
mod node;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use client::Client;
use inside::Likes;
use node::Node;
use report::Report;

/// Measures a node on this machine.
#[derive(Parser)]
struct Arguments {
    /// Write the figures as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds over all measurements
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only measurements whose name contains this
    #[arg(long, value_name = "PART", default_value = "")]
    only: String,
    /// Another build of the node, to be measured in place of this one
    #[arg(long, value_name = "BINARY", default_value = env!("CARGO_BIN_EXE_likewise"))]
    node: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut report = Report::new(arguments.only);
    let span = Duration::from_secs_f64(arguments.seconds);
    for round in 0..arguments.rounds {
        eprintln!("round {} of {}", round + 1, arguments.rounds);
        runtime.block_on(measure(&arguments.node, round, span, &mut report))?;
    }
    report.print(&mut std::io::stdout().lock())?;
    if let Some(file) = arguments.json {
        std::fs::write(file, report.json()?)?;
    }
    Ok(())
}

/// One round. Names begin with the place where the work is done.
async fn measure(
    binary: &Path,
    round: u64,
    span: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    if report.wants("log: sync of one record") {
        report.add("log: sync of one record", inside::syncs(span).await?);
    }
    if report.wants("in process: likes") {
        let measured = inside::likes(Likes { seed: round }, span).await?;
        report.add("in process: likes", measured);
    }
    let node = Node::start(binary)?;
    let client = Client::connect(&node).await?;
    if report.wants("unary: health check") {
        report.add("unary: health check", client.checks(span).await?);
    }
    if report.wants("unary: Like") {
        report.add("unary: Like", client.likes(span).await?);
    }
    if report.wants("unary: GetPost") {
        report.add("unary: GetPost", client.reads(span).await?);
    }
    if report.wants("stream: likes") {
        let (measured, seen) = client.stream("hot", round, span).await?;
        client.check_count("hot", &seen).await?;
        report.add("stream: likes", measured);
        // The same users in the same order, as far as the first pass came.
        if report.wants("stream: repeated likes") {
            let measured = client.stream_again("hot", round, &seen, span).await?;
            client.check_count("hot", &seen).await?;
            report.add("stream: repeated likes", measured);
        }
    }
    Ok(())
}
