//! grpc.health.v1: whether balancers may send clients here.
//!
//! Not serving while the node rebuilds (reads are refused), after its log failed (writes are refused) and
//! when it stops. Those who ask all the same get what is still served.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};

use crate::api::counters::Counters;
use crate::api::likes::Likes;
use crate::api::status::Cluster;
use crate::engine::{Engine, Serving};
use crate::wire::v1::cluster_service_server::ClusterServiceServer;
use crate::wire::v1::counter_service_server::CounterServiceServer;
use crate::wire::v1::like_service_server::LikeServiceServer;

/// The names that are asked for; the empty one stands for the node.
const SERVICES: [&str; 4] = [
    "",
    LikeServiceServer::<Likes>::NAME,
    CounterServiceServer::<Counters>::NAME,
    ClusterServiceServer::<Cluster>::NAME,
];

/// What the node says of its health.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    withdrawn: CancellationToken,
}

impl Health {
    /// Not serving until [`Self::follow`] runs.
    pub async fn new() -> Self {
        let health = Self {
            reporter: HealthReporter::new(),
            withdrawn: CancellationToken::new(),
        };
        health.set(ServingStatus::NotServing).await;
        health
    }

    /// Not serving from now on: the node stops, or its log has failed.
    pub async fn withdraw(&self) {
        self.withdrawn.cancel();
        self.set(ServingStatus::NotServing).await;
    }

    /// Says what the engine's state allows, until [`Self::withdraw`].
    pub async fn follow(&self, engine: Arc<Engine>) {
        let mut serving = engine.serving_changes();
        loop {
            let status = match *serving.borrow_and_update() {
                Serving::Ready => ServingStatus::Serving,
                Serving::Rebuilding => ServingStatus::NotServing,
            };
            self.set(status).await;
            let changed = tokio::select! {
                // Withdrawn is for good.
                biased;
                () = self.withdrawn.cancelled() => break,
                changed = serving.changed() => changed,
            };
            if changed.is_err() {
                break;
            }
        }
        self.set(ServingStatus::NotServing).await;
    }

    async fn set(&self, status: ServingStatus) {
        for service in SERVICES {
            self.reporter.set_service_status(service, status).await;
        }
    }

    pub(super) fn service(&self) -> HealthService {
        HealthService::from_health_reporter(self.reporter.clone())
    }
}
