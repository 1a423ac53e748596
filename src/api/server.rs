//! The listener for clients: connections, their limits, and the end.
//!
//! A connection beyond the limit waits in the listener's queue. At the shutdown no further connection is
//! taken, streams and waits end by themselves (see [`Api`]), calls under way are finished, at most
//! [`CLIENT_DRAIN_MAX`] long.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tonic::body::Body;
use tonic::codegen::http::Response;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::Router;
use tonic_health::pb::health_server::HealthServer;
use tower::layer::util::{Identity, Stack};
use tower::util::MapResponseLayer;

use crate::api::Api;
use crate::api::admin::{Admin, check_operator};
use crate::api::counters::Counters;
use crate::api::door::Door;
use crate::api::health::Health;
use crate::api::likes::Likes;
use crate::api::malformed;
use crate::api::status::Cluster;
use crate::limits::{
    CLIENT_CONNECTION_WINDOW, CLIENT_DRAIN_MAX, CLIENT_KEEPALIVE_INTERVAL,
    CLIENT_KEEPALIVE_TIMEOUT, CLIENT_MESSAGE_BYTES_MAX, CLIENT_STREAM_WINDOW,
};
use crate::seams::Listener;
use crate::seams::admission::admitted;
use crate::wire::CLIENT_DESCRIPTORS;
use crate::wire::admin::admin_service_server::AdminServiceServer;
use crate::wire::v1::cluster_service_server::ClusterServiceServer;
use crate::wire::v1::counter_service_server::CounterServiceServer;
use crate::wire::v1::like_service_server::LikeServiceServer;

/// Bounds of connections.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Connections at once; a further one waits.
    pub connections_max: usize,
    /// Calls at once on one connection; a further one waits in the client.
    pub streams_per_connection_max: u32,
}

/// Why clients are not served, or no more.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the descriptors of the services cannot be read")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("the clients' listener failed")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves clients until the API's shutdown, then finishes what is under way.
pub async fn serve_clients(
    listener: Box<dyn Listener>,
    api: Arc<Api>,
    health: Health,
    limits: ConnectionLimits,
) -> Result<(), ServeError> {
    let shutdown = api.shutdown.clone();
    let refused = Box::new(|address: Option<SocketAddr>, error: &io::Error| {
        let address = address.map(tracing::field::display);
        tracing::debug!(address, %error, "a client's connection is refused");
    });
    let incoming = admitted(listener, limits.connections_max, refused);
    let serve = router(&api, &health, &limits)?
        .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    tokio::pin!(serve);
    let outcome = tokio::select! {
        served = &mut serve => served,
        () = follow_then_drain(&api, &health) => {
            tracing::info!("clients' connections are closed with calls under way");
            Ok(())
        }
    };
    api.finish_writes().await;
    Ok(outcome?)
}

/// Tells balancers how the node is; ends when the shutdown has given calls all the time they get.
async fn follow_then_drain(api: &Api, health: &Health) {
    tokio::select! {
        biased;
        () = api.shutdown.cancelled() => {}
        () = health.follow(api.engine.clone()) => api.shutdown.cancelled().await,
    }
    health.withdraw().await;
    tokio::time::sleep(CLIENT_DRAIN_MAX).await;
}

/// What lies around the services.
type Around = Stack<Door, Stack<MapResponseLayer<fn(Response<Body>) -> Response<Body>>, Identity>>;

fn router(
    api: &Arc<Api>,
    health: &Health,
    limits: &ConnectionLimits,
) -> Result<Router<Around>, ServeError> {
    let explain: fn(Response<Body>) -> Response<Body> = malformed::explain;
    let likes = LikeServiceServer::new(Likes(api.clone()));
    let counters = CounterServiceServer::new(Counters(api.clone()));
    let cluster = ClusterServiceServer::new(Cluster(api.clone()));
    let admin = AdminServiceServer::new(Admin(api.clone()));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(CLIENT_DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let router = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(CLIENT_KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(CLIENT_KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(CLIENT_STREAM_WINDOW)
        .initial_connection_window_size(CLIENT_CONNECTION_WINDOW)
        .max_concurrent_streams(limits.streams_per_connection_max)
        .layer(MapResponseLayer::new(explain))
        .layer(Door::new(api.clone()))
        .add_service(likes.max_decoding_message_size(CLIENT_MESSAGE_BYTES_MAX))
        .add_service(counters.max_decoding_message_size(CLIENT_MESSAGE_BYTES_MAX))
        .add_service(cluster.max_decoding_message_size(CLIENT_MESSAGE_BYTES_MAX))
        .add_service(InterceptedService::new(
            admin.max_decoding_message_size(CLIENT_MESSAGE_BYTES_MAX),
            check_operator,
        ))
        .add_service(HealthServer::new(health.service()))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    Ok(router)
}
