//! chitchat's datagrams: read with strict limits before chitchat sees them, and written again from what was
//! read.
//!
//! chitchat trusts what it reads. Its deltas unpack to any size, a delta whose maximum version is below its
//! keys' ends its task, as does a key that does not begin with an ASCII letter where it is told of, and what
//! is known of nodes is never bounded. Nothing of that gets through here: what this module writes has the
//! form that chitchat itself would write. The layout is that of its version 0.11 (`serialize.rs`, `delta.rs`,
//! `message.rs` there): numbers little-endian, texts with their length in two bytes before them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use xxhash_rust::xxh3::xxh3_128;

use crate::ids::{ClusterId, Epoch, Region, Replica};
use crate::limits::{
    GOSSIP_DATAGRAM_BYTES_MAX, GOSSIP_NODES_MAX, GOSSIP_UNPACKED_BYTES_MAX, GOSSIP_VALUE_BYTES_MAX,
    GOSSIP_VALUES_MAX,
};

const MAGIC: u16 = 45_139;
const VERSION: u8 = 0;
const SYN: u8 = 0;
const SYN_ACK: u8 = 1;
const ACK: u8 = 2;
const BAD_CLUSTER: u8 = 3;
const IP_V6: u8 = 6;
const BLOCKS_END: u8 = 0;
const BLOCK_PACKED: u8 = 1;
const BLOCK_PLAIN: u8 = 2;
const NODE: u8 = 0;
const VALUE: u8 = 1;
const MAX_VERSION: u8 = 2;
/// The last of chitchat's marks for values that were deleted.
const STATUS_MAX: u8 = 2;
/// Bytes of one block of a delta.
const BLOCK_BYTES_MAX: usize = u16::MAX as usize;
/// Blocks of a delta. chitchat begins one for each 16 KiB.
const BLOCKS_MAX: usize = 64;
/// Bytes of a key.
const KEY_BYTES_MAX: usize = 32;
/// Versions, heartbeats and generations count what happens; none ever comes near this. chitchat adds one to
/// some of them without looking.
const NUMBER_MAX: u64 = 1 << 48;
/// The port in the addresses that chitchat knows, which stand for nodes and are never dialled.
const PORT: u16 = 1;

/// Why a datagram never reaches chitchat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadDatagram {
    #[error("it has {found} bytes; the limit is {max}")]
    TooLong { found: usize, max: usize },
    #[error("it ends before its {0}")]
    Short(&'static str),
    #[error("its {0} has no valid form")]
    Form(&'static str),
    #[error("its {what} are more than {max}")]
    TooMany { what: &'static str, max: usize },
    #[error("its {0} stand in an order that no node makes")]
    Order(&'static str),
    #[error("it speaks of another cluster")]
    Cluster,
}

/// One run of a node, as chitchat names it. The generation counts the starts of chitchat within the run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeName {
    pub replica: Replica,
    pub generation: u64,
}

impl NodeName {
    /// Region and epoch as text.
    pub fn text(&self) -> String {
        let Replica { region, epoch } = &self.replica;
        format!("{region}/{epoch}")
    }

    pub fn parse(text: &str, generation: u64) -> Option<Self> {
        let (region, epoch) = text.split_once('/')?;
        let digits = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if epoch.len() != 32 || !epoch.chars().all(digits) || generation > NUMBER_MAX {
            return None;
        }
        let replica = Replica {
            region: Region::new(region).ok()?,
            epoch: Epoch(u128::from_str_radix(epoch, 16).ok()?),
        };
        Some(Self {
            replica,
            generation,
        })
    }
}

/// What chitchat takes for a node's address: an opaque key made from its name, so that nobody can give a
/// node another's.
pub fn key_of(replica: &Replica) -> SocketAddr {
    let name = format!("{}/{}", replica.region, replica.epoch);
    let mut octets = xxh3_128(name.as_bytes()).to_be_bytes();
    octets[0] = 0xfd;
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)), PORT)
}

/// What is said of how far a node is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    pub node: NodeName,
    pub heartbeat: u64,
    pub collected: u64,
    pub version: u64,
}

/// A value that a node announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    pub key: String,
    pub text: String,
    pub version: u64,
    pub status: u8,
}

/// What is new of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    pub node: NodeName,
    pub collected: u64,
    pub after: u64,
    /// In the order of their versions.
    pub values: Vec<Value>,
    /// Not below the version of any value.
    pub version: u64,
}

/// A datagram of chitchat's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datagram {
    Syn {
        cluster: String,
        digests: Vec<Digest>,
    },
    SynAck {
        digests: Vec<Digest>,
        deltas: Vec<Delta>,
    },
    Ack {
        deltas: Vec<Delta>,
    },
    BadCluster,
}

impl Datagram {
    /// Reads a datagram of a peer.
    pub fn read(bytes: &[u8]) -> Result<Self, BadDatagram> {
        let (found, max) = (bytes.len(), GOSSIP_DATAGRAM_BYTES_MAX);
        if found > max {
            return Err(BadDatagram::TooLong { found, max });
        }
        let mut cursor = Cursor(bytes);
        if cursor.u16("mark")? != MAGIC || cursor.u8("version")? != VERSION {
            return Err(BadDatagram::Form("mark"));
        }
        let datagram = match cursor.u8("kind")? {
            SYN => Self::Syn {
                digests: cursor.digests()?,
                cluster: cursor.cluster()?,
            },
            SYN_ACK => Self::SynAck {
                digests: cursor.digests()?,
                deltas: cursor.deltas()?,
            },
            ACK => Self::Ack {
                deltas: cursor.deltas()?,
            },
            BAD_CLUSTER => Self::BadCluster,
            _ => return Err(BadDatagram::Form("kind")),
        };
        match cursor.0.is_empty() {
            true => Ok(datagram),
            false => Err(BadDatagram::Form("end")),
        }
    }

    /// The same for chitchat to read, unpacked.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC.to_le_bytes());
        out.push(VERSION);
        match self {
            Self::Syn { cluster, digests } => {
                out.push(SYN);
                put_digests(&mut out, digests);
                put_text(&mut out, cluster);
            }
            Self::SynAck { digests, deltas } => {
                out.push(SYN_ACK);
                put_digests(&mut out, digests);
                put_deltas(&mut out, deltas);
            }
            Self::Ack { deltas } => {
                out.push(ACK);
                put_deltas(&mut out, deltas);
            }
            Self::BadCluster => out.push(BAD_CLUSTER),
        }
        out
    }

    /// Fails for what only a node of another cluster sends. The hello of the call has named the cluster.
    pub fn check_cluster(&self, own: &ClusterId) -> Result<(), BadDatagram> {
        match self {
            Self::Syn { cluster, .. } if cluster != own.as_str() => Err(BadDatagram::Cluster),
            Self::BadCluster => Err(BadDatagram::Cluster),
            Self::Syn { .. } | Self::SynAck { .. } | Self::Ack { .. } => Ok(()),
        }
    }

    /// Keeps what is said of these nodes. Returns how often something was left out.
    pub fn retain(
        &mut self,
        mut digest: impl FnMut(&Digest) -> bool,
        mut delta: impl FnMut(&mut Delta) -> bool,
    ) -> usize {
        let (mut none, mut nothing) = (Vec::new(), Vec::new());
        let (digests, deltas) = match self {
            Self::Syn { digests, .. } => (digests, &mut nothing),
            Self::SynAck { digests, deltas } => (digests, deltas),
            Self::Ack { deltas } => (&mut none, deltas),
            Self::BadCluster => return 0,
        };
        let before = digests.len() + deltas.len();
        digests.retain(|one| digest(one));
        deltas.retain_mut(|one| delta(one));
        before - digests.len() - deltas.len()
    }
}

/// What is left to read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], BadDatagram> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(BadDatagram::Short(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], BadDatagram> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(BadDatagram::Short(what))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, BadDatagram> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, BadDatagram> {
        self.array(what).map(u16::from_le_bytes)
    }

    /// A number that counts something.
    fn number(&mut self, what: &'static str) -> Result<u64, BadDatagram> {
        match u64::from_le_bytes(self.array(what)?) {
            number if number <= NUMBER_MAX => Ok(number),
            _ => Err(BadDatagram::Form(what)),
        }
    }

    fn text(&mut self, max: usize, what: &'static str) -> Result<&'a str, BadDatagram> {
        let len = usize::from(self.u16(what)?);
        if len > max {
            return Err(BadDatagram::TooMany { what, max });
        }
        let bytes = self.bytes(len, what)?;
        std::str::from_utf8(bytes).map_err(|_| BadDatagram::Form(what))
    }

    fn cluster(&mut self) -> Result<String, BadDatagram> {
        let cluster = self.text(crate::limits::CLUSTER_ID_BYTES_MAX, "cluster")?;
        let cluster = ClusterId::new(cluster).map_err(|_| BadDatagram::Form("cluster"))?;
        Ok(cluster.as_str().to_owned())
    }

    fn node(&mut self) -> Result<NodeName, BadDatagram> {
        let text = self.text(GOSSIP_VALUE_BYTES_MAX, "node")?;
        let generation = self.number("generation")?;
        let node = NodeName::parse(text, generation).ok_or(BadDatagram::Form("node"))?;
        let version = self.u8("address")?;
        let octets: [u8; 16] = match version {
            IP_V6 => self.array("address")?,
            _ => return Err(BadDatagram::Form("address")),
        };
        let port = self.u16("address")?;
        let address = SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)), port);
        match address == key_of(&node.replica) {
            true => Ok(node),
            false => Err(BadDatagram::Form("address")),
        }
    }

    fn digests(&mut self) -> Result<Vec<Digest>, BadDatagram> {
        let count = usize::from(self.u16("nodes")?);
        bounded("nodes", count, GOSSIP_NODES_MAX)?;
        let mut digests: Vec<Digest> = Vec::new();
        let mut seen = BTreeSet::new();
        for _ in 0..count {
            let digest = Digest {
                node: self.node()?,
                heartbeat: self.number("heartbeat")?,
                collected: self.number("version")?,
                version: self.number("version")?,
            };
            if !seen.insert(digest.node.clone()) {
                return Err(BadDatagram::Order("nodes"));
            }
            digests.push(digest);
        }
        Ok(digests)
    }

    fn deltas(&mut self) -> Result<Vec<Delta>, BadDatagram> {
        let unpacked = self.unpack()?;
        let mut cursor = Cursor(&unpacked);
        let mut deltas: Vec<Delta> = Vec::new();
        let mut seen = BTreeSet::new();
        while !cursor.0.is_empty() {
            match cursor.u8("news")? {
                NODE => {
                    let delta = Delta {
                        node: cursor.node()?,
                        collected: cursor.number("version")?,
                        after: cursor.number("version")?,
                        values: Vec::new(),
                        version: 0,
                    };
                    if !seen.insert(delta.node.clone()) {
                        return Err(BadDatagram::Order("nodes"));
                    }
                    bounded("nodes", seen.len(), GOSSIP_NODES_MAX)?;
                    deltas.push(delta);
                }
                VALUE => {
                    let value = cursor.value()?;
                    let delta = deltas.last_mut().ok_or(BadDatagram::Order("values"))?;
                    delta.push(value)?;
                }
                MAX_VERSION => {
                    let version = cursor.number("version")?;
                    let delta = deltas.last_mut().ok_or(BadDatagram::Order("versions"))?;
                    // Below the values' versions it would end chitchat's task.
                    if version < delta.version {
                        return Err(BadDatagram::Order("versions"));
                    }
                    delta.version = version;
                }
                _ => return Err(BadDatagram::Form("news")),
            }
        }
        Ok(deltas)
    }

    fn value(&mut self) -> Result<Value, BadDatagram> {
        let key = self.text(KEY_BYTES_MAX, "key")?;
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadDatagram::Form("key"));
        }
        let value = Value {
            key: key.to_owned(),
            text: self.text(GOSSIP_VALUE_BYTES_MAX, "value")?.to_owned(),
            version: self.number("version")?,
            status: self.u8("status")?,
        };
        match value.status <= STATUS_MAX {
            true => Ok(value),
            false => Err(BadDatagram::Form("status")),
        }
    }

    fn unpack(&mut self) -> Result<Vec<u8>, BadDatagram> {
        let mut unpacked = Vec::new();
        for _ in 0..=BLOCKS_MAX {
            let kind = self.u8("block")?;
            if kind == BLOCKS_END {
                return Ok(unpacked);
            }
            let len = usize::from(self.u16("block")?);
            let block = self.bytes(len, "block")?;
            match kind {
                BLOCK_PLAIN => unpacked.extend_from_slice(block),
                BLOCK_PACKED => {
                    let block = zstd::bulk::decompress(block, BLOCK_BYTES_MAX)
                        .map_err(|_| BadDatagram::Form("block"))?;
                    unpacked.extend(block);
                }
                _ => return Err(BadDatagram::Form("block")),
            }
            bounded("bytes", unpacked.len(), GOSSIP_UNPACKED_BYTES_MAX)?;
        }
        let (what, max) = ("blocks", BLOCKS_MAX);
        Err(BadDatagram::TooMany { what, max })
    }
}

impl Delta {
    fn push(&mut self, value: Value) -> Result<(), BadDatagram> {
        if value.version <= self.version {
            return Err(BadDatagram::Order("versions"));
        }
        if self.values.iter().any(|known| known.key == value.key) {
            return Err(BadDatagram::Order("keys"));
        }
        self.version = value.version;
        self.values.push(value);
        bounded("values", self.values.len(), GOSSIP_VALUES_MAX)
    }
}

fn bounded(what: &'static str, found: usize, max: usize) -> Result<(), BadDatagram> {
    match found > max {
        true => Err(BadDatagram::TooMany { what, max }),
        false => Ok(()),
    }
}

/// Texts were read from two bytes of length, or are as short.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("texts are bounded");
    out.extend(len.to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_node(out: &mut Vec<u8>, node: &NodeName) {
    put_text(out, &node.text());
    out.extend(node.generation.to_le_bytes());
    let IpAddr::V6(key) = key_of(&node.replica).ip() else {
        unreachable!("keys are made as such");
    };
    out.push(IP_V6);
    out.extend(key.octets());
    out.extend(PORT.to_le_bytes());
}

fn put_digests(out: &mut Vec<u8>, digests: &[Digest]) {
    let count = u16::try_from(digests.len()).expect("nodes are bounded");
    out.extend(count.to_le_bytes());
    for digest in digests {
        put_node(out, &digest.node);
        for number in [digest.heartbeat, digest.collected, digest.version] {
            out.extend(number.to_le_bytes());
        }
    }
}

fn put_deltas(out: &mut Vec<u8>, deltas: &[Delta]) {
    let mut news = Vec::new();
    for delta in deltas {
        news.push(NODE);
        put_node(&mut news, &delta.node);
        news.extend(delta.collected.to_le_bytes());
        news.extend(delta.after.to_le_bytes());
        for value in &delta.values {
            news.push(VALUE);
            put_text(&mut news, &value.key);
            put_text(&mut news, &value.text);
            news.extend(value.version.to_le_bytes());
            news.push(value.status);
        }
        // What was left out counts as known, or it would be sent for ever.
        if delta.version > 0 {
            news.push(MAX_VERSION);
            news.extend(delta.version.to_le_bytes());
        }
    }
    for block in news.chunks(BLOCK_BYTES_MAX) {
        let len = u16::try_from(block.len()).expect("chunks are that short");
        out.push(BLOCK_PLAIN);
        out.extend(len.to_le_bytes());
        out.extend(block);
    }
    out.push(BLOCKS_END);
}

#[cfg(test)]
mod tests;
