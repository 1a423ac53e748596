//! The load generator of `benches/compare/run`: one measurement a process, its figures as one line of JSON.
//!
//! It drives Likewise over gRPC, Redis over its own protocol, and the engine in this process, so that peers and
//! Likewise pay for the same generator on the same cores.

#[path = "../../measure/mod.rs"]
mod measure;
#[path = "../../../tests/support/process/mod.rs"]
mod process;
#[path = "../../../tests/support/raw.rs"]
mod raw;

mod bare;
mod equality;
mod figures;
mod gathered;
mod inside;
mod lines;
mod lone;
mod overload;
mod reads;
mod redis;
mod streaming;
mod unary;
mod users;
mod visibility;

use clap::{Parser, Subcommand};

/// One measurement.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Threads that work
    #[arg(long, global = true, default_value_t = 2)]
    threads: usize,
}

#[derive(Subcommand)]
enum What {
    /// Writes on streams of batches
    Stream(streaming::Arguments),
    /// Unary calls from many tasks, each with a user of its own
    Unary(unary::Arguments),
    /// One like a call, from many tasks of one client that gathers them
    Gathered(gathered::Arguments),
    /// One write after the other, until the input ends or the time is over
    Lone(lone::Arguments),
    /// Reads of one post at a steady rate
    Reads(reads::Paced),
    /// BatchGetPosts with a viewer
    BatchReads(reads::Batches),
    /// Commands to a Redis server
    Redis(redis::Arguments),
    /// Serves a bare echo: what gRPC costs without any work
    Bare,
    /// Likes in process, without gRPC
    Engine(inside::Likes),
    /// Exact counts in process, while 200 tasks write
    Counts(inside::Counts),
    /// A wire between two nodes that counts its bytes
    Counted,
    /// A wire between two nodes that can be cut
    Switched,
    /// Waits for a line, then until nodes are equal
    Equal(equality::Arguments),
    /// Writes to several nodes, timed until every node shows them
    Visible(visibility::Arguments),
    /// More batches than a node can take
    Overload(overload::Arguments),
}

fn main() -> anyhow::Result<()> {
    // Cargo's own flag is of no interest.
    let given = std::env::args().filter(|argument| argument != "--bench");
    let arguments = Arguments::parse_from(given);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.threads)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(measure(arguments.what));
    runtime.shutdown_background();
    if let Some(figures) = outcome? {
        println!("{figures}");
    }
    Ok(())
}

async fn measure(what: What) -> anyhow::Result<Option<serde_json::Value>> {
    match what {
        What::Stream(arguments) => streaming::run(arguments).await.map(Some),
        What::Unary(arguments) => unary::run(arguments).await.map(Some),
        What::Gathered(arguments) => gathered::run(arguments).await.map(Some),
        What::Lone(arguments) => lone::run(arguments).await.map(Some),
        What::Reads(paced) => reads::paced(paced).await.map(Some),
        What::BatchReads(batches) => reads::batches(batches).await.map(Some),
        What::Redis(arguments) => redis::run(arguments).await.map(Some),
        What::Bare => bare::serve().await.map(|()| None),
        What::Engine(likes) => inside::likes(likes).await.map(Some),
        What::Counts(counts) => inside::counts(counts).await.map(Some),
        What::Counted => lines::counted().await.map(|()| None),
        What::Switched => lines::switched().await.map(|()| None),
        What::Equal(arguments) => equality::run(arguments).await.map(Some),
        What::Visible(arguments) => visibility::run(arguments).await.map(Some),
        What::Overload(arguments) => overload::run(arguments).await.map(Some),
    }
}
