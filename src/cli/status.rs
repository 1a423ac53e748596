//! `status`: what nodes say of themselves, compared, as a page or as an exit code.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::verdict::{Said, Verdict, judge, state};
use super::{NodeArgs, Output};
use crate::client::ClientBuilder;
use crate::display::figures::{bytes, instant, since, span};
use crate::display::output;
use crate::display::table::{Align, Table};
use crate::wire::v1::{Agreement, GetStatusResponse, LinkStatus, RegionStatus};

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    nodes: NodeArgs,
}

/// How long a node may take: someone who looks at a broken cluster wants to know now.
const DEADLINE: Duration = Duration::from_secs(3);

pub async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let trusting = args.nodes.trusting()?;
    let nodes = args.nodes.nodes.iter();
    let said = join_all(nodes.map(|node| ask(node, trusting.clone()))).await;
    let (verdict, remarks) = judge(&said);
    match args.nodes.output {
        Output::Json => output::line(json(verdict, &remarks, &said))?,
        Output::Table => output::lines(&page(verdict, &remarks, &said))?,
    }
    Ok(ExitCode::from(verdict.code()))
}

async fn ask(node: &str, trusting: ClientBuilder) -> Said {
    let client = trusting
        .endpoints([node])
        .deadline(DEADLINE)
        .attempt_timeout(DEADLINE)
        .connect_lazy();
    let answer = match client {
        Ok(client) => client.status().await,
        Err(error) => Err(error),
    };
    (node.to_owned(), answer)
}

fn agreement(link: &LinkStatus) -> &'static str {
    match link.agreement() {
        Agreement::Equal => "equal",
        Agreement::Behind => "behind",
        Agreement::Diverged => "DIVERGED",
        Agreement::Unknown | Agreement::Unspecified => "-",
    }
}

fn lag(link: &LinkStatus) -> String {
    match link.lag.and_then(|lag| Duration::try_from(lag).ok()) {
        Some(lag) if !lag.is_zero() => span(lag),
        _ => "-".to_owned(),
    }
}

fn page(verdict: Verdict, remarks: &[String], said: &[Said]) -> Vec<String> {
    let mut nodes = Table::new([
        ("REGION", Align::Left),
        ("STATE", Align::Left),
        ("POSTS", Align::Right),
        ("LIKERS", Align::Right),
        ("FINGERPRINT", Align::Left),
        ("EPOCH", Align::Left),
        ("LOG", Align::Right),
        ("CHECKPOINT", Align::Right),
        ("UP", Align::Right),
    ]);
    let mut links = Table::new([
        ("FROM", Align::Left),
        ("TO", Align::Left),
        ("ADDRESS", Align::Left),
        ("LINK", Align::Left),
        ("BEHIND", Align::Right),
        ("LAG", Align::Right),
        ("AGREEMENT", Align::Left),
    ]);
    let mut regions = Table::new([
        ("AT", Align::Left),
        ("REGION", Align::Left),
        ("STANDING", Align::Left),
        ("BEHIND", Align::Right),
        ("COMPLETE UNTIL", Align::Right),
    ]);
    for status in said.iter().filter_map(|(_, answer)| answer.as_ref().ok()) {
        nodes.row([
            status.region.clone(),
            state(status).to_owned(),
            status.posts.to_string(),
            status.likers.to_string(),
            status.fingerprint.clone(),
            status.epoch.chars().take(8).collect(),
            bytes(status.log_bytes),
            since(status.checkpointed_at),
            since(status.started_at),
        ]);
        for link in &status.links {
            links.row(link_row(status, link));
        }
        for region in &status.regions {
            regions.row(region_row(status, region));
        }
    }
    let mut lines = vec![verdict.word().to_owned()];
    lines.extend(remarks.iter().map(|remark| format!("  {remark}")));
    for table in [nodes, links, regions]
        .iter()
        .filter(|table| !table.is_empty())
    {
        lines.push(String::new());
        lines.extend(table.lines());
    }
    lines
}

fn link_row(status: &GetStatusResponse, link: &LinkStatus) -> [String; 7] {
    let up = match link.connected {
        true => "up",
        false => "down",
    };
    [
        status.region.clone(),
        link.region.clone(),
        link.address.clone(),
        up.to_owned(),
        link.events_behind.to_string(),
        lag(link),
        agreement(link).to_owned(),
    ]
}

fn region_row(status: &GetStatusResponse, region: &RegionStatus) -> [String; 5] {
    let behind = match region.region == status.region {
        true => "-".to_owned(),
        false => region.events_behind.to_string(),
    };
    [
        status.region.clone(),
        region.region.clone(),
        standing(status, region).to_owned(),
        behind,
        match since(region.complete_until) {
            unknown if unknown == "-" => unknown,
            ago => format!("{ago} ago"),
        },
    ]
}

fn standing(status: &GetStatusResponse, region: &RegionStatus) -> &'static str {
    match (region.region == status.region, region.retired) {
        (true, _) => "own",
        (false, true) => "retired",
        (false, false) => "known",
    }
}

fn json(verdict: Verdict, remarks: &[String], said: &[Said]) -> Value {
    let nodes: Vec<Value> = said
        .iter()
        .map(|(node, answer)| match answer {
            Ok(status) => status_json(node, status),
            Err(error) => json!({ "node": node, "error": error.to_string() }),
        })
        .collect();
    let verdict = verdict.word().to_ascii_lowercase();
    json!({ "verdict": verdict, "remarks": remarks, "nodes": nodes })
}

fn status_json(node: &str, status: &GetStatusResponse) -> Value {
    let heads: Vec<Value> = status
        .heads
        .iter()
        .map(|head| json!({ "region": head.region, "epoch": head.epoch, "seq": head.seq }))
        .collect();
    let links: Vec<Value> = status.links.iter().map(link_json).collect();
    let regions: Vec<Value> = status.regions.iter().map(region_json).collect();
    let diverged: Vec<Value> = status
        .diverged
        .iter()
        .map(|one| {
            json!({ "range": one.range, "regions": one.regions, "since": instant(one.since), "state": one.state })
        })
        .collect();
    let counts = status.counts.iter();
    let counts: serde_json::Map<String, Value> = counts
        .map(|count| (count.name.clone(), Value::from(count.value)))
        .collect();
    json!({
        "node": node, "cluster": status.cluster, "region": status.region, "epoch": status.epoch,
        "state": state(status), "settled": status.settled, "fingerprint": status.fingerprint,
        "heads": heads, "replicas": status.replicas, "links": links, "regions": regions,
        "token": status.token,
        "posts": status.posts, "likers": status.likers,
        "orphan_removals": status.orphan_removals, "log_bytes": status.log_bytes,
        "checkpointed_at": instant(status.checkpointed_at), "warnings": status.warnings,
        "diverged": diverged, "counts": counts,
        "version": status.version, "started_at": instant(status.started_at),
    })
}

fn link_json(link: &LinkStatus) -> Value {
    let lag = link.lag.and_then(|lag| Duration::try_from(lag).ok());
    json!({
        "region": link.region, "address": link.address, "connected": link.connected,
        "epoch": link.epoch, "events_behind": link.events_behind,
        "lag_ms": lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
        "agreement": agreement(link).to_ascii_lowercase(), "problem": link.problem,
        "fingerprint": link.fingerprint,
        "sent_bytes": link.sent_bytes, "received_bytes": link.received_bytes,
        "sent_events": link.sent_events, "received_events": link.received_events,
    })
}

fn region_json(region: &RegionStatus) -> Value {
    json!({
        "region": region.region, "known": region.known, "retired": region.retired,
        "alive": region.alive, "address": region.address, "events_behind": region.events_behind,
        "complete_until": instant(region.complete_until),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_begins_with_the_verdict_and_its_reasons() {
        let status = GetStatusResponse {
            region: "us".to_owned(),
            links: vec![LinkStatus {
                region: "eu".to_owned(),
                problem: "timed out".to_owned(),
                ..LinkStatus::default()
            }],
            settled: true,
            state: crate::wire::v1::NodeState::Ready.into(),
            ..GetStatusResponse::default()
        };
        let said = [("us".to_owned(), Ok(status))];
        let (verdict, remarks) = judge(&said);
        let page = page(verdict, &remarks, &said);
        assert_eq!(page[..2], ["degraded", "  us has no link to eu: timed out"]);
        assert!(page[3].starts_with("REGION  STATE  POSTS"));
        assert!(page[6].starts_with("FROM  TO"));
        assert_eq!(json(verdict, &remarks, &said)["verdict"], "degraded");
    }
}
