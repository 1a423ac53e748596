//! What an operator may decide about a node: defaults, then a file, then the environment, then flags.
//!
//! All defaults stand here, all relations between keys in `relations`. A [`Config`] that came from
//! [`load`] is sound; nobody checks it again. This module starts nothing and opens nothing but its file.

mod address;
mod audit;
mod exchange;
mod inspect;
mod load;
mod relations;
mod sections;
mod storage;
mod text;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use address::StaticPeer;
pub use audit::Audit;
pub use exchange::{Reads, Replication};
pub use inspect::{Effective, effective, problems};
pub use load::{ConfigError, ENVIRONMENT_PREFIX, Flag, Sources, load};
pub use relations::Violation;
pub use sections::{
    Client, ClientTls, Cluster, LogFormat, Logging, MembershipKind, Node, PeerTls, Peers,
};
pub use storage::{Checkpoint, Engine, Log, OnSyncFailure, RepeatedLikes};

use crate::ids::{ClusterId, Region};

/// A configuration file with every key, its default and what it means.
pub const COMPLETE_FILE: &str = include_str!("../../config/node.toml");

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Everything that may be decided about a node. `config/node.toml` holds it with the defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub cluster: Cluster,
    pub node: Node,
    pub client: Client,
    pub peers: Peers,
    pub log: Log,
    pub checkpoint: Checkpoint,
    pub engine: Engine,
    pub reads: Reads,
    pub replication: Replication,
    pub audit: Audit,
    pub logging: Logging,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster: Cluster {
                id: ClusterId::new("likewise").expect("a valid name"),
                regions: Vec::new(),
            },
            node: Node {
                region: Region::new("local").expect("a valid name"),
                data_dir: PathBuf::from("./data"),
            },
            client: Client {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7400)),
                connections_max: 1_024,
                streams_per_connection_max: 128,
                requests_in_flight_max: 4_096,
                items_in_flight_max: 131_072,
                tls: None,
            },
            peers: Peers {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7401)),
                insecure: false,
                tls: None,
                membership: MembershipKind::Gossip,
                advertise: None,
                seeds: Vec::new(),
                static_peers: Vec::new(),
                gossip_interval_ms: 1_000,
                dead_after_ms: 10_000,
                forget_after_ms: 24 * 60 * 60 * 1_000,
            },
            log: Log {
                segment_bytes: 16 * MIB,
                retain_bytes: GIB,
                retain_ms: 86_400_000,
                recent_bytes: 4 * MIB,
                on_sync_failure: OnSyncFailure::Refuse,
            },
            checkpoint: Checkpoint {
                interval_ms: 30_000,
                log_bytes: 256 * MIB,
                sled_cache_bytes: 16 * MIB,
            },
            engine: Engine {
                shards: 16,
                repeated_likes: RepeatedLikes::Record,
                request_window_ms: 600_000,
                request_window_items_max: 200_000,
                orphan_removals_max: 10_000,
                watchers_max: 10_000,
            },
            reads: Reads {
                wait_default_ms: 2_000,
                wait_max_ms: 30_000,
                waiting_max: 10_000,
            },
            replication: Replication {
                relay_after_ms: 1_000,
                backoff_min_ms: 50,
                backoff_max_ms: 1_000,
                heartbeat_ms: 1_000,
                silence_ms: 4_000,
                dial_timeout_ms: 3_000,
                window_bytes: 8 * MIB,
                block_bytes: 256 * KIB,
                snapshot_log_bytes_max: GIB,
                snapshot_chunk_bytes: 256 * KIB,
                catch_up_bytes_per_second: 32 * MIB,
            },
            audit: Audit {
                round_ms: 60_000,
                scrub_ms: 3_600_000,
            },
            logging: Logging {
                format: LogFormat::Human,
                level: "info".to_owned(),
            },
        }
    }
}
