//! Who the node is, where it listens, and what it says of itself.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::address::StaticPeer;
use super::text;
use crate::address::PeerAddress;
use crate::ids::{ClusterId, Region};

/// `[cluster]`: what all nodes have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// The cluster's name: 1 to 64 of `a-z`, `0-9` and `-`. Nodes with another name are refused as peers,
    /// and so is a data folder or token of theirs. It cannot be changed later.
    #[serde(with = "text")]
    pub id: ClusterId,
    /// The regions whose nodes may be peers, this node's among them; empty for any. A node of another region
    /// is refused, also with a certificate of the cluster.
    #[serde(with = "text::list")]
    pub regions: Vec<Region>,
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
    /// Items of those requests, such as the likes of a batch; further requests are refused with OVERLOADED. More takes more
    /// memory and makes whoever is let in wait longer; fewer refuses sooner. The last batch that is let in may go beyond.
    pub items_in_flight_max: usize,
    /// TLS for clients; none speaks to them in the clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
}

/// `[client.tls]`: PEM files, which are read again when they change. A relative path counts from the folder
/// in which the node is started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientTls {
    /// The certificate that clients check against the name of the host, its issuers behind it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who shows a certificate of this authority is an operator, wherever they call from. None is: then
    /// operators call from this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<PathBuf>,
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
    /// TLS between peers, both of which prove who they are; none speaks to them in the clear, on this
    /// machine alone unless `insecure` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<PeerTls>,
    /// How the other nodes are found.
    pub membership: MembershipKind,
    /// Where other nodes reach this one, as `host:port`; they pass it on to all others. Empty for the address
    /// of `listen`; needed with gossip where that stands for all addresses of the machine.
    #[serde(with = "text::optional")]
    pub advertise: Option<PeerAddress>,
    /// Nodes by which this one finds the others, each as `host:port`: one that answers suffices. Names are
    /// resolved again at each dial. Also this node's own address may stand here, so that all nodes may have
    /// the same list.
    #[serde(with = "text::list")]
    pub seeds: Vec<PeerAddress>,
    /// The other regions' nodes that are known beforehand. Where one is listed here, it is dialled at this
    /// address, whatever the gossip says. Names are resolved again at each dial. Empty for a node that is
    /// alone, that is dialled by its peers, or that finds them by seeds.
    #[serde(rename = "static")]
    pub static_peers: Vec<StaticPeer>,
    /// How often this node gossips. More often notices sooner who comes and goes, and costs traffic and
    /// processor time on idle nodes.
    pub gossip_interval_ms: u64,
    /// A node of which nothing was heard for about this long is shown as gone. It is dialled all the same.
    /// At least five times `gossip_interval_ms`, or a few lost messages would do.
    pub dead_after_ms: u64,
    /// A region of which nothing was heard for this long is no longer dialled, unless it is listed in
    /// `static`. Longer than any outage after which the two should find each other without a third.
    /// At least `dead_after_ms`.
    pub forget_after_ms: u64,
}

/// How nodes find one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MembershipKind {
    /// They tell each other of all others.
    Gossip,
    /// By `static` alone.
    Static,
}

/// `[peers.tls]`: PEM files, which are read again when they change. A relative path counts from the folder
/// in which the node is started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerTls {
    /// This node's certificate, its issuers behind it, with the alternative name
    /// `likewise://CLUSTER/REGION`.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority that signs the nodes' certificates of this cluster; it should sign nothing else.
    pub authority: PathBuf,
}

impl Peers {
    /// Whether this node can find anybody to take a state from.
    pub fn are_configured(&self) -> bool {
        !(self.static_peers.is_empty() && self.seeds.is_empty())
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
