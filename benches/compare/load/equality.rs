//! How long nodes take until they hold the same events and the same state.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures_util::future::try_join_all;
use likewise::wire::v1::cluster_service_client::ClusterServiceClient;
use likewise::wire::v1::{GetStatusRequest, GetStatusResponse};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tonic::transport::Channel;

use crate::figures;

/// How often the nodes are asked.
const LOOK_EVERY: Duration = Duration::from_millis(5);

#[derive(clap::Args)]
pub struct Arguments {
    /// The nodes
    #[arg(long, value_delimiter = ',')]
    nodes: Vec<String>,
    /// How many likers all of them must hold
    #[arg(long)]
    likers: u64,
    #[arg(long, default_value_t = 120.0)]
    seconds_max: f64,
}

/// The time counts from the line on the standard input.
pub async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let mut clients = Vec::new();
    for node in &arguments.nodes {
        clients.push(ClusterServiceClient::new(figures::connect(node).await?));
    }
    println!("ready");
    let mut line = String::new();
    BufReader::new(stdin()).read_line(&mut line).await?;
    let begun = Instant::now();
    loop {
        let statuses = try_join_all(clients.iter().map(status)).await?;
        let seconds = begun.elapsed().as_secs_f64();
        if are_equal(&statuses, arguments.likers) {
            return Ok(json!({ "seconds": seconds }));
        }
        ensure!(
            seconds < arguments.seconds_max,
            "not equal within {} s: likers {:?}",
            arguments.seconds_max,
            statuses
                .iter()
                .map(|status| status.likers)
                .collect::<Vec<_>>()
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn status(
    client: &ClusterServiceClient<Channel>,
) -> Result<GetStatusResponse, tonic::Status> {
    let answer = client.clone().get_status(GetStatusRequest {}).await?;
    Ok(answer.into_inner())
}

fn are_equal(statuses: &[GetStatusResponse], likers: u64) -> bool {
    let heads = |status: &GetStatusResponse| {
        let heads = status.heads.iter();
        let mut heads: Vec<_> = heads
            .map(|head| (head.region.clone(), head.epoch.clone(), head.seq))
            .collect();
        heads.sort();
        heads
    };
    let first = &statuses[0];
    statuses.iter().all(|status| {
        status.settled
            && status.likers == likers
            && !status.fingerprint.is_empty()
            && status.fingerprint == first.fingerprint
            && heads(status) == heads(first)
    })
}
