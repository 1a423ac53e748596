//! `wait` and `retire`: what is said of regions.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::NodeArgs;
use super::calls::{advised, answer};
use crate::display::figures::counted;

/// Exit code where a region is missing in the end; as `status` has it for what will pass.
const EXIT_MISSING: u8 = 2;

#[derive(Debug, Args)]
pub struct WaitArgs {
    /// What the regions must have made durable, from an earlier answer of any of them
    #[arg(value_name = "SEEN")]
    seen: String,
    /// The regions; all known ones by default
    #[arg(long, value_name = "REGION", value_delimiter = ',')]
    regions: Vec<String>,
    /// How long, such as 500ms, 5s or 1m; 0s only looks
    #[arg(long, value_name = "TIME", value_parser = time)]
    wait: Option<Duration>,
    #[command(flatten)]
    nodes: NodeArgs,
}

#[derive(Debug, Args)]
pub struct RetireArgs {
    /// The region that is gone: the log is no longer kept for it. Its likes and counts stay
    region: String,
    #[command(flatten)]
    nodes: NodeArgs,
}

pub async fn wait(args: WaitArgs) -> anyhow::Result<ExitCode> {
    let client = args.nodes.client_waiting(args.wait.unwrap_or_default())?;
    let waited = client.wait_for(&args.seen, &args.regions, args.wait).await;
    let waited = waited.map_err(advised)?;
    let headline = match waited.missing.is_empty() {
        true => "reached all regions".to_owned(),
        false => format!(
            "missing in {}",
            counted(waited.missing.len() as u64, "region")
        ),
    };
    let details = [
        ("reached", waited.reached.join(", ")),
        ("missing", waited.missing.join(", ")),
        ("token", waited.token.clone()),
    ];
    let value = json!({
        "reached": waited.reached, "missing": waited.missing, "token": waited.token,
    });
    answer(&args.nodes, headline, &details, &value)?;
    Ok(match waited.missing.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_MISSING),
    })
}

pub async fn retire(args: RetireArgs) -> anyhow::Result<ExitCode> {
    let client = args.nodes.client()?;
    let retired = client.retire_region(&args.region).await.map_err(advised)?;
    let headline = match retired.replicas {
        0 => format!("{} was retired before", args.region),
        replicas => format!("{} is retired ({})", args.region, counted(replicas, "run")),
    };
    let value = json!({ "replicas": retired.replicas, "token": retired.token });
    answer(&args.nodes, headline, &[("token", retired.token)], &value)
}

/// A length of time with its unit.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err("give a number with ms, s or m".to_owned()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "give a whole number with ms, s or m".to_owned())?;
    Ok(Duration::from_millis(number.saturating_mul(unit_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "5", "s", "5h", "-1s", "1.5s", "5 s"] {
            assert!(time(bad).is_err(), "{bad:?}");
        }
    }
}
