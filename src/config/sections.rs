//! Who the node is, where it listens, and what it says of itself.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::address::StaticPeer;
use super::text;
use crate::ids::{ClusterId, Region};

/// `[cluster]`: what all nodes have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// The cluster's name: 1 to 64 of `a-z`, `0-9` and `-`. Nodes with another name are refused as peers,
    /// and so is a data folder or token of theirs. It cannot be changed later.
    #[serde(with = "text")]
    pub id: ClusterId,
}

/// `[node]`: this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// The node's region: 1 to 24 of `a-z`, `0-9` and `-`, its own in the cluster. Each token spells out
    /// the regions, so a short name makes short tokens. It cannot be changed later for a data folder.
    #[serde(with = "text")]
    pub region: Region,
    /// The folder of the log and the checkpoints, made where it is missing; one process at a time uses it.
    /// A relative path counts from the folder in which the node is started.
    pub data_dir: PathBuf,
}

/// `[client]`: the listener for clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Address and port for clients. Port 0 lets the system choose; the ready line names what it chose.
    #[serde(with = "text")]
    pub listen: SocketAddr,
    /// Connections at once; a further one waits until one of them ends. More takes more memory and files,
    /// fewer makes a burst of clients wait.
    pub connections_max: usize,
    /// Calls at once on one connection; a further one waits in the client. More lets one connection take a
    /// larger share of the node.
    pub streams_per_connection_max: u32,
    /// Requests that are worked on at once, over all connections; a further one is refused with
    /// OVERLOADED. More absorbs longer bursts at more memory and longer waits; fewer refuses sooner.
    /// At least `streams_per_connection_max`, or one connection could not use its calls.
    pub requests_in_flight_max: usize,
}

/// `[peers]`: the listener for the other regions' nodes, and where those are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peers {
    /// Address and port for peers; not that of the clients. Port 0 lets the system choose.
    #[serde(with = "text")]
    pub listen: SocketAddr,
    /// Whether peers may be spoken to in the clear beyond this machine. Who reaches the peers' port can
    /// change any like, so set it only where the network itself is private.
    pub insecure: bool,
    /// The other regions' nodes. Names are resolved again at each dial. Empty for a node that is alone or
    /// is dialled by its peers.
    #[serde(rename = "static")]
    pub static_peers: Vec<StaticPeer>,
}

impl Peers {
    /// Whether this node can find anybody to take a state from.
    pub fn are_configured(&self) -> bool {
        !self.static_peers.is_empty()
    }
}

/// `[logging]`: what the node writes about itself on the standard error stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logging {
    /// One line of text an event, or one JSON object.
    pub format: LogFormat,
    /// The least level that is written (`error`, `warn`, `info`, `debug`, `trace`), or directives by module
    /// such as `info,likewise::replication=debug`. `debug` and `trace` cost speed.
    pub level: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Human,
    Json,
}
