//! Who is dialled: the configured peers, the seeds, and whoever the membership tells of. Follows its list,
//! and tells it of this node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;
use xxhash_rust::xxh3::xxh3_64;

use crate::address::PeerAddress;
use crate::codec::reader::{put_replica, put_varint};
use crate::engine::Settlement;
use crate::engine::published::Published;
use crate::ids::{Region, Replica};
use crate::replication::dialer::{self, Target};
use crate::replication::{Exchange, PeerEndpoint};
use crate::seams::membership::{Announcement, Liveness, Member};

/// The regions that are dialled because the membership told of them.
#[derive(Default)]
pub(crate) struct Company {
    /// Guards their addresses; each dialer follows its own.
    dialled: Mutex<BTreeMap<Region, watch::Sender<Option<PeerAddress>>>>,
}

impl Company {
    /// Where the node of a region is, by hearsay.
    pub fn endpoint(&self, region: &Region) -> Option<PeerEndpoint> {
        let dialled = self.dialled.lock();
        let address = dialled.get(region)?.borrow().clone()?;
        Some(PeerEndpoint::new(region.clone(), &address))
    }
}

/// Dials whom the membership tells of, until the node stops.
pub(super) async fn follow(exchange: Arc<Exchange>) {
    let mut members = exchange.membership.members();
    loop {
        let newest = members.borrow_and_update().clone();
        update(&exchange, wanted(&exchange, &newest));
        exchange.links.hear(newest);
        match exchange.stop.run_until_cancelled(members.changed()).await {
            Some(Ok(())) => {}
            // Nobody tells any more.
            Some(Err(_)) => return,
            None => return exchange.membership.stop(),
        }
    }
}

/// Of each region that is not configured the address of its newest run that is alive, or else of the newest
/// that was.
fn wanted(exchange: &Exchange, members: &[Member]) -> BTreeMap<Region, PeerAddress> {
    let own = exchange.engine.own().region;
    let options = &exchange.options;
    let is_dialled = |region: &Region| {
        let mut configured = options.peers.iter();
        *region != own
            && configured.all(|peer| peer.region != *region)
            && options.regions.check(region, None).is_ok()
    };
    let is_alive = |member: &&Member| member.liveness != Liveness::Gone;
    let (alive, gone): (Vec<_>, Vec<_>) = members.iter().partition(is_alive);
    let mut wanted = BTreeMap::new();
    for member in alive.into_iter().chain(gone) {
        if let Some(address) = &member.address
            && is_dialled(&member.region)
        {
            let address = || address.clone();
            wanted.entry(member.region.clone()).or_insert_with(address);
        }
    }
    wanted
}

/// Starts and stops dialers so that these are dialled.
fn update(exchange: &Arc<Exchange>, wanted: BTreeMap<Region, PeerAddress>) {
    let mut dialled = exchange.company.dialled.lock();
    dialled.retain(|region, dialer| {
        let stays = wanted.contains_key(region);
        if !stays {
            tracing::info!(%region, "nobody has heard of a region for long; it is no longer dialled");
            dialer.send_replace(None);
            exchange.links.forget(region);
        }
        stays
    });
    for (region, address) in wanted {
        let text = address.to_string();
        if let Some(dialer) = dialled.get(&region) {
            let is_news = dialer.send_if_modified(|known| {
                let is_news = known.as_ref() != Some(&address);
                *known = Some(address);
                is_news
            });
            if is_news {
                tracing::info!(%region, address = text, "a region is elsewhere now");
                exchange.links.learn(&region, text);
            }
            continue;
        }
        tracing::info!(%region, address = text, "the membership tells of a region");
        exchange.links.learn(&region, text);
        let (addresses, followed) = watch::channel(Some(address));
        let target = Target::Learned(region.clone(), followed);
        exchange.tasks.spawn(dialer::run(exchange.clone(), target));
        dialled.insert(region, addresses);
    }
}

/// Tells the membership of this node, as often as is configured at most, until the node stops.
pub(super) async fn announce(exchange: Arc<Exchange>) {
    let pause = Duration::from_millis(exchange.options.announce_ms);
    loop {
        exchange.membership.announce(announcement(&exchange));
        let pause = sleep(pause);
        if exchange.stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

fn announcement(exchange: &Exchange) -> Announcement {
    let engine = &exchange.engine;
    let before = engine.settlement();
    let published = engine.board().newest();
    let protocol = &engine.options().dialect.protocol;
    let is_settled = before == Settlement::Settled && engine.settlement() == Settlement::Settled;
    Announcement {
        own: engine.own(),
        address: exchange.options.advertise.clone(),
        frontier: frontier_hash(&published),
        fingerprint: is_settled.then(|| published.sums.total().to_bytes()),
        protocol: (*protocol.start(), *protocol.end()),
    }
}

/// A frozen hash of the frontier: its heads and exceptions in the order of their names.
fn frontier_hash(published: &Published) -> u64 {
    let mut named: Vec<(&Replica, u64)> = published.named().collect();
    named.sort();
    let mut bytes = Vec::new();
    for (replica, seq) in named {
        put_replica(&mut bytes, replica);
        put_varint(&mut bytes, seq);
    }
    xxh3_64(&bytes)
}
