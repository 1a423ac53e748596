//! An engine of [`crate::support`] behind the clients' listener on a loopback port of the system's choice.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::Arc;
use std::time::Duration;

use likewise::adapters::simulated_disk::Operation;
use likewise::api::health::Health;
use likewise::api::server::{ConnectionLimits, ServeError, serve_clients};
use likewise::api::{Api, ApiLimits, Gauges};
use likewise::replication::audits::Audits;
use likewise::replication::links::LinkBoard;
use likewise::replication::regions::RegionBoard;
use likewise::seams::Listener;
use likewise::wire::v1::cluster_service_client::ClusterServiceClient;
use likewise::wire::v1::counter_service_client::CounterServiceClient;
use likewise::wire::v1::like_service_client::LikeServiceClient;
use likewise::wire::v1::{
    AddRequest, Consistency, GetPostRequest, GetStatusRequest, GetStatusResponse, LikeRequest,
    ReadOptions, UnlikeRequest,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

use crate::support::{Machine, Node, gate};

struct FixedGauges;

impl Gauges for FixedGauges {
    fn log_bytes(&self) -> u64 {
        4_096
    }

    fn warnings(&self) -> Vec<String> {
        vec!["the checkpoint is late".to_owned()]
    }
}

pub fn limits() -> ApiLimits {
    ApiLimits {
        wait_default: Duration::from_millis(20),
        wait_max: Duration::from_secs(20),
        waiting_max: 10,
        in_flight_max: 100,
        items_in_flight_max: 100_000,
    }
}

/// A node that serves clients.
pub struct Served {
    pub node: Node,
    pub likes: LikeServiceClient<Channel>,
    pub counters: CounterServiceClient<Channel>,
    pub cluster: ClusterServiceClient<Channel>,
    pub channel: Channel,
    pub endpoint: Endpoint,
    pub shutdown: CancellationToken,
    pub serving: JoinHandle<Result<(), ServeError>>,
}

pub async fn served(region: &'static str, seed: u64) -> Served {
    serve(Machine::new(region, seed).start().await, limits(), 100).await
}

pub async fn serve(node: Node, limits: ApiLimits, connections_max: usize) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (shutdown, serving) = begin(&node, Box::new(listener), limits, connections_max).await;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let channel = endpoint.connect().await.expect("the node listens");
    Served {
        node,
        likes: LikeServiceClient::new(channel.clone()),
        counters: CounterServiceClient::new(channel.clone()),
        cluster: ClusterServiceClient::new(channel.clone()),
        channel,
        endpoint,
        shutdown,
        serving,
    }
}

/// Serves by any listener.
pub async fn begin(
    node: &Node,
    listener: Box<dyn Listener>,
    limits: ApiLimits,
    connections_max: usize,
) -> (CancellationToken, JoinHandle<Result<(), ServeError>>) {
    let shutdown = CancellationToken::new();
    let links = Arc::new(LinkBoard::new([]));
    let regions = RegionBoard::new(node.engine.clone(), Arc::default(), links.clone(), []);
    let api = Api::new(
        node.engine.clone(),
        (
            links,
            Arc::new(regions),
            Audits::new(node.engine.clone(), Arc::default()),
        ),
        (Arc::new(FixedGauges), Arc::default()),
        limits,
        shutdown.clone(),
    );
    let connections = ConnectionLimits {
        connections_max,
        streams_per_connection_max: 100,
    };
    let health = Health::new().await;
    let serving = tokio::spawn(serve_clients(listener, api, health, connections));
    (shutdown, serving)
}

impl Served {
    pub async fn status(&self) -> GetStatusResponse {
        let mut cluster = self.cluster.clone();
        let status = cluster.get_status(GetStatusRequest {}).await;
        status.expect("a status").into_inner()
    }

    /// Syncs wait until the sender says `true`.
    pub fn hold_syncs(&self) -> watch::Sender<bool> {
        gate(&self.node.disk, Operation::Sync, false)
    }
}

pub fn like(post: &str, user: &str) -> LikeRequest {
    LikeRequest {
        post: post.to_owned(),
        user: user.to_owned(),
        ..LikeRequest::default()
    }
}

pub fn unlike(post: &str, user: &str) -> UnlikeRequest {
    UnlikeRequest {
        post: post.to_owned(),
        user: user.to_owned(),
        ..UnlikeRequest::default()
    }
}

pub fn add(post: &str, counter: &str, delta: i64) -> AddRequest {
    AddRequest {
        post: post.to_owned(),
        counter: counter.to_owned(),
        delta,
        ..AddRequest::default()
    }
}

pub fn get(post: &str, viewer: &str) -> GetPostRequest {
    GetPostRequest {
        post: post.to_owned(),
        viewer: viewer.to_owned(),
        options: None,
    }
}

pub fn at_least(token: &str, wait: Duration) -> Option<ReadOptions> {
    Some(ReadOptions {
        consistency: Consistency::AtLeast as i32,
        token: token.to_owned(),
        wait: Some(wait.try_into().expect("short")),
        include_regions: false,
    })
}

/// The code, and the reason of the ErrorInfo.
pub fn refusal<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) -> (tonic::Code, String) {
    let status = answer.expect_err("refused");
    let reason = status.get_details_error_info().expect("one of ours").reason;
    (status.code(), reason)
}
