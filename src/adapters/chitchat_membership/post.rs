//! Between chitchat and the peers' connections: chitchat's transport, which never dials. What it sends goes
//! out where a peer is connected, or nowhere.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::datagram::{Datagram, key_of};
use super::gate::Gate;
use super::mailbox::Mailbox;
use crate::counts::Counts;
use crate::ids::{ClusterId, Replica};
use crate::limits::{GOSSIP_BURST_MAX, GOSSIP_PEERS_MAX, GOSSIP_QUEUE_MAX};
use crate::seams::membership::{Correspondence, Uncorresponding};

/// A peer's connection.
struct Peer {
    replica: Replica,
    outgoing: Arc<Mailbox<Bytes>>,
}

/// All mail, in and out.
pub struct PostOffice {
    /// Messages of peers, with the addresses to answer to.
    incoming: Mailbox<(SocketAddr, Bytes)>,
    /// Guards the peers' connections, by the address under which chitchat knows them.
    peers: Mutex<BTreeMap<SocketAddr, Peer>>,
    /// Told when a peer is connected.
    connected: watch::Sender<()>,
    cluster: ClusterId,
    counts: Arc<Counts>,
    interval: Duration,
    /// Whether the next message ends chitchat's task, as a bug of it would.
    #[cfg(test)]
    pub panic_planted: std::sync::atomic::AtomicBool,
}

impl PostOffice {
    pub fn new(cluster: ClusterId, counts: Arc<Counts>, interval: Duration) -> Arc<Self> {
        Arc::new(Self {
            incoming: Mailbox::new(GOSSIP_QUEUE_MAX),
            peers: Mutex::default(),
            connected: watch::Sender::new(()),
            cluster,
            counts,
            interval,
            #[cfg(test)]
            panic_planted: false.into(),
        })
    }

    /// Opens a way to and from a peer; an earlier one ends.
    pub fn open(
        self: &Arc<Self>,
        peer: &Replica,
    ) -> Result<Box<dyn Correspondence>, Uncorresponding> {
        let key = key_of(peer);
        let outgoing = Arc::new(Mailbox::new(GOSSIP_QUEUE_MAX));
        let mut peers = self.peers.lock();
        if peers.len() >= GOSSIP_PEERS_MAX && !peers.contains_key(&key) {
            return Err(Uncorresponding::TooMany {
                max: GOSSIP_PEERS_MAX,
            });
        }
        let entry = Peer {
            replica: peer.clone(),
            outgoing: outgoing.clone(),
        };
        if let Some(earlier) = peers.insert(key, entry) {
            earlier.outgoing.close();
        }
        drop(peers);
        self.connected.send_replace(());
        Ok(Box::new(Letters {
            office: self.clone(),
            key,
            outgoing,
            burst: Mutex::new((Instant::now(), 0)),
        }))
    }

    pub fn connected(&self) -> watch::Receiver<()> {
        self.connected.subscribe()
    }

    /// The peers that are connected, by chitchat's address.
    pub fn peers(&self) -> Vec<(SocketAddr, Replica)> {
        let peers = self.peers.lock();
        let peer = |(key, peer): (&SocketAddr, &Peer)| (*key, peer.replica.clone());
        peers.iter().map(peer).collect()
    }

    fn speaks(&self, replica: &Replica) -> bool {
        self.peers.lock().contains_key(&key_of(replica))
    }

    fn send(&self, to: SocketAddr, message: &ChitchatMessage) {
        let outgoing = self.peers.lock().get(&to).map(|peer| peer.outgoing.clone());
        if let Some(outgoing) = outgoing {
            let lost = outgoing.put(message.serialize_to_vec().into());
            if lost.is_some() {
                tracing::debug!(%to, "a peer takes its gossip too slowly; the oldest is dropped");
            }
        }
    }
}

/// One peer's way. Its end closes it.
struct Letters {
    office: Arc<PostOffice>,
    key: SocketAddr,
    outgoing: Arc<Mailbox<Bytes>>,
    /// Guards the beginning of the running interval and what came in it.
    burst: Mutex<(Instant, u32)>,
}

impl Letters {
    /// Whether one more may come in this interval.
    fn has_turn(&self) -> bool {
        let mut burst = self.burst.lock();
        if burst.0.elapsed() >= self.office.interval {
            *burst = (Instant::now(), 0);
        }
        burst.1 = burst.1.saturating_add(1);
        burst.1 <= GOSSIP_BURST_MAX
    }
}

impl Correspondence for Letters {
    fn deliver(&self, message: Bytes) {
        if !self.has_turn() {
            self.office.counts.gossip_refused.one_more();
            return;
        }
        if self.office.incoming.put((self.key, message)).is_some() {
            tracing::debug!("gossip comes faster than it is read; the oldest is dropped");
        }
    }

    fn next(&self) -> Pin<Box<dyn Future<Output = Option<Bytes>> + Send + '_>> {
        Box::pin(self.outgoing.next())
    }
}

impl Drop for Letters {
    fn drop(&mut self) {
        let mut peers = self.office.peers.lock();
        let is_newest = |peer: &Peer| Arc::ptr_eq(&peer.outgoing, &self.outgoing);
        if peers.get(&self.key).is_some_and(is_newest) {
            peers.remove(&self.key);
        }
    }
}

/// chitchat's transport for one life of its task.
#[derive(Clone)]
pub struct Counter {
    pub office: Arc<PostOffice>,
    /// Guards what chitchat may learn of; held for one datagram.
    pub gate: Arc<Mutex<Gate>>,
}

#[async_trait]
impl Transport for Counter {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(self.clone()))
    }
}

impl Counter {
    /// The message for chitchat, if anything of it may reach it. Whatever was refused of it is counted.
    fn check(&self, from: SocketAddr, bytes: &[u8]) -> Option<ChitchatMessage> {
        let refused = |error: &dyn std::fmt::Display| {
            self.office.counts.gossip_refused.one_more();
            tracing::debug!(%from, %error, "a message of a peer's gossip is refused");
        };
        let read = Datagram::read(bytes).and_then(|datagram| {
            datagram.check_cluster(&self.office.cluster)?;
            Ok(datagram)
        });
        let mut datagram = match read {
            Ok(datagram) => datagram,
            Err(error) => {
                refused(&error);
                return None;
            }
        };
        let speaks = |replica: &Replica| self.office.speaks(replica);
        let left_out = self.gate.lock().admit(&mut datagram, speaks);
        if left_out > 0 {
            refused(&format_args!("{left_out} nodes are left out of it"));
        }
        match ChitchatMessage::deserialize(&mut datagram.write().as_slice()) {
            Ok(message) => Some(message),
            Err(error) => {
                refused(&error);
                None
            }
        }
    }
}

#[async_trait]
impl Socket for Counter {
    /// Never waits and never fails: chitchat's loop stands still meanwhile.
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        self.office.send(to, &message);
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let Some((from, bytes)) = self.office.incoming.next().await else {
                return std::future::pending().await;
            };
            #[cfg(test)]
            if self
                .office
                .panic_planted
                .swap(false, std::sync::atomic::Ordering::SeqCst)
            {
                panic!("planted");
            }
            if let Some(message) = self.check(from, &bytes) {
                return Ok((from, message));
            }
        }
    }
}
