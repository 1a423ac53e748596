//! What the parts are told by the configuration.

use std::time::Duration;

use crate::api::ApiLimits;
use crate::config::{Config, RepeatedLikes};
use crate::engine::EngineOptions;
use crate::replication::ReplicationOptions;
use crate::versions::Dialect;

/// What the engine is told by the configuration.
pub fn engine_options(config: &Config) -> EngineOptions {
    EngineOptions {
        cluster: config.cluster.id.clone(),
        region: config.node.region.clone(),
        shards: config.engine.shards,
        absorb_repeated_likes: config.engine.repeated_likes == RepeatedLikes::Absorb,
        request_window_ms: config.engine.request_window_ms,
        request_window_items_max: config.engine.request_window_items_max,
        orphan_removals_max: config.engine.orphan_removals_max,
        watchers_max: config.engine.watchers_max,
        dialect: Dialect::default(),
    }
}

pub(super) fn replication_options(config: &Config) -> ReplicationOptions {
    let peers = &config.peers;
    config
        .replication
        .options(peers, &config.cluster.regions, &config.audit)
}

pub(super) fn api_limits(config: &Config) -> ApiLimits {
    ApiLimits {
        wait_default: Duration::from_millis(config.reads.wait_default_ms),
        wait_max: Duration::from_millis(config.reads.wait_max_ms),
        waiting_max: config.reads.waiting_max,
        in_flight_max: config.client.requests_in_flight_max,
        items_in_flight_max: config.client.items_in_flight_max,
    }
}
