//! `repair`: an operator says which region is right.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::{NodeArgs, Output};
use crate::client::RepairOf;
use crate::display::figures::counted;
use crate::display::output;

#[derive(Debug, Args)]
pub struct RepairArgs {
    /// A post: its range is taken
    #[arg(required_unless_present = "range", conflicts_with = "range")]
    post: Option<String>,
    /// A range, 0 to 255, as `status` names it
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..256))]
    range: Option<u32>,
    /// The region that is right; the node's own, if what its memory holds is
    #[arg(long, value_name = "REGION")]
    from: String,
    #[command(flatten)]
    nodes: NodeArgs,
}

pub async fn run(args: RepairArgs) -> anyhow::Result<ExitCode> {
    let what = match (args.post, args.range) {
        (Some(post), None) => RepairOf::Post(post),
        (None, Some(range)) => RepairOf::Range(range),
        _ => bail!("give a post or --range"),
    };
    let client = args.nodes.client()?;
    let repaired = client.repair(what, &args.from).await?;
    match args.nodes.output {
        Output::Json => output::line(json!({
            "range": repaired.range, "from": args.from, "removed": repaired.removed,
            "added": repaired.added, "fingerprint": repaired.fingerprint,
        }))?,
        Output::Table => output::line(format!(
            "range {} is now what {} holds: {} gone, {} come",
            repaired.range,
            args.from,
            entries(repaired.removed),
            entries(repaired.added),
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn entries(count: u64) -> String {
    match count {
        1 => counted(1, "entry"),
        count => format!("{count} entries"),
    }
}
