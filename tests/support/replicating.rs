//! What nodes in one process need to replicate over real connections.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::Arc;

use likewise::adapters::fixed_membership::FixedMembership;
use likewise::adapters::system::SeededRandomness;
use likewise::crdt::fingerprint::Fingerprint;
use likewise::crdt::ranges::RangeSet;
use likewise::engine::Engine;
use likewise::engine::mending::{Checked, Hearsay, Taken};
use likewise::engine::rebuild::RebuiltRange;
use likewise::log::LogReader;
use likewise::replication::audits::Audits;
use likewise::replication::catch_up::SnapshotParts;
use likewise::replication::mending::{Mending, RangeMender};
use likewise::replication::trust::AllowedRegions;
use likewise::replication::{PeerEndpoint, ReplicationOptions, ReplicationParts, links_to_dial};
use likewise::seams::Transport;
use tokio::net::TcpListener;

/// Short times, so that tests wait for nothing.
pub fn options(peers: Vec<PeerEndpoint>) -> ReplicationOptions {
    ReplicationOptions {
        peers,
        seeds: Vec::new(),
        advertise: None,
        announce_ms: 100,
        regions: AllowedRegions::default(),
        relay_after_ms: 300,
        audit_round_ms: 2_000,
        backoff_min_ms: 10,
        backoff_max_ms: 100,
        heartbeat_ms: 300,
        silence_ms: 2_000,
        dial_timeout_ms: 1_000,
        window_bytes: 1 << 20,
        block_bytes: 64 << 10,
        catch_up_bytes_per_second: 0,
    }
}

/// The parts of a node whose peers are those of the options, and in which nothing is to be mended.
pub fn parts(
    (engine, log): (Arc<Engine>, LogReader),
    (listener, transport): (TcpListener, Arc<dyn Transport>),
    snapshots: SnapshotParts,
    options: &ReplicationOptions,
) -> ReplicationParts {
    let port = listener.local_addr().expect("bound").port();
    ReplicationParts {
        log,
        transport,
        membership: Arc::new(FixedMembership::new([])),
        listener: Box::new(listener),
        randomness: Arc::new(SeededRandomness::new(u64::from(port))),
        snapshots,
        links: links_to_dial(&options.peers),
        acks: Arc::default(),
        counts: Arc::default(),
        audits: Audits::new(engine.clone(), Arc::default()),
        mender: Arc::new(Unmended),
        engine,
    }
}

/// Nothing is to be mended here.
struct Unmended;

impl RangeMender for Unmended {
    fn check(&self, range: usize, hearsay: Hearsay) -> Mending<'_, Checked> {
        panic!("range {range} is disputed: {hearsay:?}");
    }

    fn look(&self, _: RangeSet) -> Mending<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn keep(&self, range: usize) -> Mending<'_, Taken> {
        panic!("range {range} is disputed");
    }

    fn take(&self, range: RebuiltRange, _expected: Option<Fingerprint>) -> Mending<'_, Taken> {
        panic!("range {} is disputed", range.range);
    }
}
