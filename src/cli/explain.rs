//! `explain`: how the figures of a post come about.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::calls::advised;
use super::{NodeArgs, Output};
use crate::client::Read;
use crate::display::figures::{counted, instant, since};
use crate::display::output;
use crate::display::table::{Align, Table};
use crate::wire::v1::{ExplainPostResponse, LiveDot, ReplicaEntry};

/// Characters of an epoch that tell replicas apart for people.
const EPOCH_CHARS: usize = 8;

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The post's id
    post: String,
    /// A user: show which likes of theirs are live
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    nodes: NodeArgs,
}

pub async fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let client = args.nodes.client()?;
    let user = args.user.as_deref();
    let explained = client.explain_post(&args.post, user, Read::default());
    let explained = explained.await.map_err(advised)?;
    match args.nodes.output {
        Output::Json => output::line(explained_json(&explained))?,
        Output::Table => output::lines(&explained_lines(&explained, user))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn explained_lines(explained: &ExplainPostResponse, user: Option<&str>) -> Vec<String> {
    let fingerprint = match explained.fingerprint.as_str() {
        "" => "not known at this moment",
        known => known,
    };
    let mut lines = vec![
        format!(
            "{}: {}, updated {}",
            explained.post,
            counted(explained.count, "like"),
            match explained.updated_at {
                None => "never".to_owned(),
                updated => format!("{} ago", since(updated)),
            }
        ),
        format!("fingerprint {fingerprint}, in range {}", explained.range),
        format!(
            "{} of likes that have not arrived here",
            counted(explained.orphan_removals, "removal")
        ),
    ];
    let entries = entries_table(explained);
    if !entries.is_empty() {
        lines.push(String::new());
        lines.extend(entries.lines());
    }
    if let Some(user) = user {
        lines.push(String::new());
        match explained.dots.is_empty() {
            true => lines.push(format!("{user} does not like it")),
            false => lines.extend(dots_table(&explained.dots).lines()),
        }
    }
    lines
}

fn entries_table(explained: &ExplainPostResponse) -> Table {
    let mut table = Table::new([
        ("COUNTER", Align::Left),
        ("REGION", Align::Left),
        ("EPOCH", Align::Left),
        ("INCREMENTS", Align::Right),
        ("DECREMENTS", Align::Right),
        ("VALUE", Align::Right),
    ]);
    let mut row = |counter: &str, entry: &ReplicaEntry| {
        let value = i128::from(entry.increments) - i128::from(entry.decrements);
        table.row([
            counter.to_owned(),
            entry.region.clone(),
            short(&entry.epoch),
            entry.increments.to_string(),
            entry.decrements.to_string(),
            value.to_string(),
        ]);
    };
    for entry in &explained.likes {
        row("(likes)", entry);
    }
    for counter in &explained.counters {
        for entry in &counter.entries {
            row(&counter.counter, entry);
        }
    }
    table
}

fn dots_table(dots: &[LiveDot]) -> Table {
    let mut table = Table::new([
        ("LIKE OF", Align::Left),
        ("EPOCH", Align::Left),
        ("NUMBER", Align::Right),
        ("COUNTS", Align::Left),
        ("LIKE ID", Align::Left),
    ]);
    for dot in dots {
        let counts = match dot.credited {
            true => "yes",
            false => "no",
        };
        table.row([
            dot.region.clone(),
            short(&dot.epoch),
            dot.seq.to_string(),
            counts.to_owned(),
            dot.like_id.clone(),
        ]);
    }
    table
}

fn short(epoch: &str) -> String {
    epoch.chars().take(EPOCH_CHARS).collect()
}

fn explained_json(explained: &ExplainPostResponse) -> Value {
    let entry = |entry: &ReplicaEntry| {
        json!({
            "region": entry.region, "epoch": entry.epoch,
            "increments": entry.increments, "decrements": entry.decrements,
        })
    };
    let entries = |all: &[ReplicaEntry]| -> Value { all.iter().map(entry).collect() };
    let counters = explained.counters.iter();
    let counters = counters.map(|counter| (counter.counter.clone(), entries(&counter.entries)));
    let dot = |dot: &LiveDot| {
        json!({
            "region": dot.region, "epoch": dot.epoch, "seq": dot.seq,
            "like_id": dot.like_id, "credited": dot.credited,
        })
    };
    json!({
        "post": explained.post, "count": explained.count, "likes": entries(&explained.likes),
        "counters": Value::Object(counters.collect()),
        "dots": explained.dots.iter().map(dot).collect::<Value>(),
        "orphan_removals": explained.orphan_removals, "range": explained.range,
        "fingerprint": explained.fingerprint, "updated_at": instant(explained.updated_at),
        "token": explained.token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1::CounterExplanation;

    fn entry(region: &str, increments: u64, decrements: u64) -> ReplicaEntry {
        ReplicaEntry {
            region: region.to_owned(),
            epoch: "0123456789abcdef0123456789abcdef".to_owned(),
            increments,
            decrements,
        }
    }

    #[test]
    fn an_explanation_is_readable() {
        let explained = ExplainPostResponse {
            post: "p".to_owned(),
            count: 3,
            likes: vec![entry("eu", 5, 2)],
            counters: vec![CounterExplanation {
                counter: "views".to_owned(),
                entries: vec![entry("us", 1, 4)],
            }],
            fingerprint: "f".to_owned(),
            range: 7,
            ..ExplainPostResponse::default()
        };
        let lines = explained_lines(&explained, Some("ada"));
        assert_eq!(
            lines,
            [
                "p: 3 likes, updated never",
                "fingerprint f, in range 7",
                "0 removals of likes that have not arrived here",
                "",
                "COUNTER  REGION  EPOCH     INCREMENTS  DECREMENTS  VALUE",
                "(likes)  eu      01234567           5           2      3",
                "views    us      01234567           1           4     -3",
                "",
                "ada does not like it",
            ]
        );
    }
}
