//! What the values must keep to, each by itself and among one another.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;

use super::{Config, MembershipKind};
use crate::ids::Region;
use crate::limits;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
const YEAR_MS: u64 = 365 * DAY_MS;
/// Each is dialled for ever.
const SEEDS_MAX: usize = 16;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;
/// A silent link must be noticed before this.
const SILENCE_MS_END: u64 = 5_000;
/// Heals must not wait longer than this for a dial.
const BACKOFF_MS_MAX: u64 = 1_000;
const COUNT_MAX: u64 = 100_000_000;
const SHARDS_MAX: usize = 256;
/// A segment holds the largest block that a peer may send, beside its own header.
const SEGMENT_BYTES_MIN: u64 = limits::BLOCK_BYTES_MAX as u64 + 4 * MIB;
/// Segments are written in whole pages.
const PAGE_BYTES: u64 = 4 * KIB;

/// A value that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The key, with its section.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What it must be, with the limit.
    pub rule: String,
}

impl Config {
    /// Everything that is wrong with the values, in the order of the sections.
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Findings(Vec::new());
        self.check_listeners(&mut found);
        self.check_regions(&mut found);
        self.check_static_peers(&mut found);
        self.check_membership(&mut found);
        self.check_storage(&mut found);
        self.check_engine(&mut found);
        self.check_reads(&mut found);
        self.check_replication(&mut found);
        self.check_logging(&mut found);
        found.0
    }

    fn check_listeners(&self, found: &mut Findings) {
        let client = &self.client;
        found.count("client.connections_max", client.connections_max);
        let streams = client.streams_per_connection_max as usize;
        found.count("client.streams_per_connection_max", streams);
        let in_flight = client.requests_in_flight_max;
        found.count("client.requests_in_flight_max", in_flight);
        found.count("client.items_in_flight_max", client.items_in_flight_max);
        found.demand(
            in_flight >= streams,
            "client.requests_in_flight_max",
            in_flight,
            || format!("must be at least client.streams_per_connection_max = {streams}"),
        );
        let listen = self.peers.listen;
        found.demand(
            !clash(client.listen, listen),
            "peers.listen",
            listen,
            || {
                format!(
                    "must not be the clients' port; client.listen = {}",
                    client.listen
                )
            },
        );
        let peers = &self.peers;
        let private = listen.ip().is_loopback() || peers.insecure || peers.tls.is_some();
        found.demand(private, "peers.listen", listen, || {
            "must be a loopback address without certificates (peers.tls), for peers are spoken to in \
             the clear; set peers.insecure = true only on a private network"
                .to_owned()
        });
        let insecure = peers.insecure;
        found.demand(
            !insecure || peers.tls.is_none(),
            "peers.insecure",
            insecure,
            || "must be false with peers.tls, for nothing is spoken in the clear then".to_owned(),
        );
    }

    fn check_regions(&self, found: &mut Findings) {
        let listed = &self.cluster.regions;
        let peers = self.peers.static_peers.iter().map(|peer| &peer.region);
        for region in peers.chain([&self.node.region]) {
            found.demand(
                listed.is_empty() || listed.contains(region),
                "cluster.regions",
                listed
                    .iter()
                    .map(Region::as_str)
                    .collect::<Vec<_>>()
                    .join(", "),
                || format!("must list {region}, or be empty for any region"),
            );
        }
    }

    fn check_static_peers(&self, found: &mut Findings) {
        let mut seen = BTreeSet::new();
        for peer in &self.peers.static_peers {
            let region = &peer.region;
            found.demand(*region != self.node.region, "peers.static", region, || {
                format!(
                    "must list the other regions only; node.region = {}",
                    self.node.region
                )
            });
            found.demand(seen.insert(region), "peers.static", region, || {
                "must list each region once".to_owned()
            });
        }
    }

    fn check_membership(&self, found: &mut Findings) {
        let peers = &self.peers;
        let gossips = peers.membership == MembershipKind::Gossip;
        let is_somewhere = peers.advertise.is_some() || !peers.listen.ip().is_unspecified();
        found.demand(is_somewhere || !gossips, "peers.advertise", "", || {
            format!(
                "must say where other nodes reach this one; peers.listen = {} does not",
                peers.listen
            )
        });
        let seeds = peers.seeds.len();
        found.demand(gossips || seeds == 0, "peers.seeds", seeds, || {
            "must be empty with peers.membership = static".to_owned()
        });
        found.demand(seeds <= SEEDS_MAX, "peers.seeds", seeds, || {
            format!("must list at most {SEEDS_MAX}")
        });
        let (interval, dead_after) = (peers.gossip_interval_ms, peers.dead_after_ms);
        found.within("peers.gossip_interval_ms", interval, 50, MINUTE_MS);
        found.within("peers.dead_after_ms", dead_after, 1, HOUR_MS);
        found.demand(
            dead_after >= interval.saturating_mul(5),
            "peers.dead_after_ms",
            dead_after,
            || format!("must be at least five times peers.gossip_interval_ms = {interval}"),
        );
        let forget_after = peers.forget_after_ms;
        found.demand(
            (dead_after..=YEAR_MS).contains(&forget_after),
            "peers.forget_after_ms",
            forget_after,
            || format!("must be from peers.dead_after_ms = {dead_after} to {YEAR_MS}"),
        );
    }

    fn check_storage(&self, found: &mut Findings) {
        let (log, checkpoint) = (&self.log, &self.checkpoint);
        let segment = log.segment_bytes;
        found.within(
            "log.segment_bytes",
            segment,
            SEGMENT_BYTES_MIN,
            4 * KIB * MIB,
        );
        found.demand(
            segment.is_multiple_of(PAGE_BYTES),
            "log.segment_bytes",
            segment,
            || format!("must be a multiple of {PAGE_BYTES}"),
        );
        found.within("log.retain_bytes", log.retain_bytes, MIB, 64 * TIB);
        found.demand(
            log.retain_bytes >= log.segment_bytes.saturating_mul(2),
            "log.retain_bytes",
            log.retain_bytes,
            || {
                format!(
                    "must be at least twice log.segment_bytes = {}",
                    log.segment_bytes
                )
            },
        );
        found.within("log.retain_ms", log.retain_ms, 1_000, 1_000 * DAY_MS);
        let commit = limits::COMMIT_BYTES_MAX as u64;
        found.within("log.recent_bytes", log.recent_bytes, commit, TIB);
        found.within(
            "checkpoint.interval_ms",
            checkpoint.interval_ms,
            100,
            DAY_MS,
        );
        found.demand(
            (log.segment_bytes..=log.retain_bytes).contains(&checkpoint.log_bytes),
            "checkpoint.log_bytes",
            checkpoint.log_bytes,
            || {
                let (least, most) = (log.segment_bytes, log.retain_bytes);
                format!("must be from log.segment_bytes = {least} to log.retain_bytes = {most}")
            },
        );
        found.within(
            "checkpoint.sled_cache_bytes",
            checkpoint.sled_cache_bytes,
            MIB,
            TIB,
        );
    }

    fn check_engine(&self, found: &mut Findings) {
        let engine = &self.engine;
        let shards = engine.shards;
        let sound = shards.is_power_of_two() && shards <= SHARDS_MAX;
        found.demand(sound, "engine.shards", shards, || {
            format!("must be a power of two from 1 to {SHARDS_MAX}")
        });
        found.within(
            "engine.request_window_ms",
            engine.request_window_ms,
            1,
            7 * DAY_MS,
        );
        found.count(
            "engine.request_window_items_max",
            engine.request_window_items_max,
        );
        found.count("engine.orphan_removals_max", engine.orphan_removals_max);
        found.count("engine.watchers_max", engine.watchers_max);
    }

    fn check_reads(&self, found: &mut Findings) {
        let reads = &self.reads;
        found.within("reads.wait_max_ms", reads.wait_max_ms, 1, HOUR_MS);
        let default = reads.wait_default_ms;
        found.demand(
            default <= reads.wait_max_ms,
            "reads.wait_default_ms",
            default,
            || format!("must be at most reads.wait_max_ms = {}", reads.wait_max_ms),
        );
        found.count("reads.waiting_max", reads.waiting_max);
    }

    fn check_replication(&self, found: &mut Findings) {
        self.check_timing(found);
        found.within("audit.round_ms", self.audit.round_ms, 100, DAY_MS);
        found.within("audit.scrub_ms", self.audit.scrub_ms, 100, 30 * DAY_MS);
        let replication = &self.replication;
        let block = replication.block_bytes;
        let block_max = limits::BLOCK_BYTES_MAX as u64;
        found.within("replication.block_bytes", block, KIB, block_max);
        let window = replication.window_bytes;
        found.within("replication.window_bytes", window, 2 * KIB, TIB);
        found.demand(
            window >= block.saturating_mul(2),
            "replication.window_bytes",
            window,
            || format!("must be at least twice replication.block_bytes = {block}"),
        );
        let (kept, segment) = (replication.snapshot_log_bytes_max, self.log.segment_bytes);
        found.demand(
            kept >= segment,
            "replication.snapshot_log_bytes_max",
            kept,
            || format!("must be at least log.segment_bytes = {segment}"),
        );
        let chunk = replication.snapshot_chunk_bytes;
        found.within("replication.snapshot_chunk_bytes", chunk, KIB, block_max);
        let rate = replication.catch_up_bytes_per_second;
        found.demand(
            rate == 0 || rate >= MIB,
            "replication.catch_up_bytes_per_second",
            rate,
            || format!("must be 0, which is no bound, or at least {MIB}"),
        );
    }

    fn check_timing(&self, found: &mut Findings) {
        let replication = &self.replication;
        found.within(
            "replication.relay_after_ms",
            replication.relay_after_ms,
            1,
            MINUTE_MS,
        );
        let (least, most) = (replication.backoff_min_ms, replication.backoff_max_ms);
        found.within("replication.backoff_min_ms", least, 1, BACKOFF_MS_MAX);
        found.within("replication.backoff_max_ms", most, 1, BACKOFF_MS_MAX);
        found.demand(least <= most, "replication.backoff_max_ms", most, || {
            format!("must be at least replication.backoff_min_ms = {least}")
        });
        let (heartbeat, silence) = (replication.heartbeat_ms, replication.silence_ms);
        found.within("replication.heartbeat_ms", heartbeat, 1, SILENCE_MS_END / 2);
        found.demand(
            silence < SILENCE_MS_END,
            "replication.silence_ms",
            silence,
            || format!("must be below {SILENCE_MS_END}"),
        );
        found.demand(
            silence > heartbeat.saturating_mul(2),
            "replication.silence_ms",
            silence,
            || format!("must be above twice replication.heartbeat_ms = {heartbeat}"),
        );
        found.within(
            "replication.dial_timeout_ms",
            replication.dial_timeout_ms,
            1,
            MINUTE_MS,
        );
    }

    fn check_logging(&self, found: &mut Findings) {
        let level = &self.logging.level;
        let parsed = tracing_subscriber::EnvFilter::builder().parse(level);
        found.demand(
            parsed.is_ok() && !level.is_empty(),
            "logging.level",
            level,
            || "must be error, warn, info, debug or trace, or directives by module".to_owned(),
        );
    }
}

/// Whether two listeners would want the same port.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let overlap =
        one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && overlap
}

struct Findings(Vec<Violation>);

impl Findings {
    fn demand(
        &mut self,
        holds: bool,
        key: &'static str,
        value: impl Display,
        rule: impl FnOnce() -> String,
    ) {
        if !holds {
            let (value, rule) = (value.to_string(), rule());
            self.0.push(Violation { key, value, rule });
        }
    }

    fn within(&mut self, key: &'static str, value: u64, least: u64, most: u64) {
        self.demand((least..=most).contains(&value), key, value, || {
            format!("must be from {least} to {most}")
        });
    }

    fn count(&mut self, key: &'static str, value: usize) {
        self.within(key, value as u64, 1, COUNT_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StaticPeer;

    fn check(change: impl FnOnce(&mut Config), key: &str) {
        let mut config = Config::default();
        change(&mut config);
        let keys: Vec<_> = config.violations().iter().map(|v| v.key).collect();
        assert_eq!(keys, [key]);
    }

    #[test]
    fn the_defaults_keep_every_rule() {
        assert_eq!(Config::default().violations(), []);
    }

    #[test]
    fn listeners_must_not_clash_nor_be_open() {
        check(|c| c.peers.listen = c.client.listen, "peers.listen");
        check(
            |c| {
                c.peers.listen = "0.0.0.0:7401".parse().unwrap();
                c.peers.advertise = Some("us.example:7401".parse().unwrap());
            },
            "peers.listen",
        );
        check(|c| c.client.connections_max = 0, "client.connections_max");
        check(
            |c| c.client.streams_per_connection_max = 0,
            "client.streams_per_connection_max",
        );
        check(
            |c| c.client.requests_in_flight_max = 127,
            "client.requests_in_flight_max",
        );
        check(
            |c| c.client.items_in_flight_max = 0,
            "client.items_in_flight_max",
        );
        let mut open = Config::default();
        open.peers.listen = "0.0.0.0:7401".parse().unwrap();
        open.peers.insecure = true;
        open.peers.advertise = Some("us.example:7401".parse().unwrap());
        open.client.listen = "127.0.0.1:0".parse().unwrap();
        assert_eq!(open.violations(), []);
    }

    #[test]
    fn certificates_open_the_peers_listener_and_forbid_the_clear() {
        let tls = || {
            let file = std::path::PathBuf::from("peer.pem");
            Some(crate::config::PeerTls {
                certificate: file.clone(),
                key: file.clone(),
                authority: file,
            })
        };
        let mut secure = Config::default();
        secure.peers.listen = "10.1.0.5:7401".parse().unwrap();
        secure.peers.tls = tls();
        assert_eq!(secure.violations(), []);
        secure.peers.insecure = true;
        check(|c| *c = secure, "peers.insecure");
    }

    #[test]
    fn a_list_of_regions_has_the_node_and_its_peers() {
        let listed = |names: [&str; 2]| names.map(|name| name.parse().unwrap()).to_vec();
        check(
            |c| c.cluster.regions = listed(["eu", "us"]),
            "cluster.regions",
        );
        let mut config = Config::default();
        config.cluster.regions = listed(["local", "eu"]);
        assert_eq!(config.violations(), []);
        config.peers.static_peers = vec![StaticPeer {
            region: "us".parse().unwrap(),
            address: "localhost:7401".parse().unwrap(),
        }];
        check(|c| *c = config, "cluster.regions");
    }

    #[test]
    fn static_peers_are_the_other_regions_once_each() {
        let peer = |region: &str| StaticPeer {
            region: region.parse().unwrap(),
            address: "localhost:7401".parse().unwrap(),
        };
        check(
            |c| c.peers.static_peers = vec![peer("local")],
            "peers.static",
        );
        check(
            |c| c.peers.static_peers = vec![peer("eu"), peer("eu")],
            "peers.static",
        );
    }

    #[test]
    fn gossip_knows_where_it_is_and_is_patient() {
        let open = |c: &mut Config| {
            c.peers.listen = "0.0.0.0:7401".parse().unwrap();
            c.peers.insecure = true;
        };
        check(open, "peers.advertise");
        let seed = || "us.example:7401".parse().unwrap();
        let unused = |c: &mut Config| {
            open(c);
            c.peers.membership = MembershipKind::Static;
            c.peers.seeds = vec![seed()];
        };
        check(unused, "peers.seeds");
        check(|c| c.peers.seeds = vec![seed(); 17], "peers.seeds");
        let often = |c: &mut Config| c.peers.gossip_interval_ms = 10;
        check(often, "peers.gossip_interval_ms");
        check(|c| c.peers.dead_after_ms = 4_999, "peers.dead_after_ms");
        check(|c| c.peers.forget_after_ms = 9_999, "peers.forget_after_ms");
    }

    #[test]
    fn storage_values_fit_one_another() {
        check(|c| c.log.segment_bytes = 4096, "log.segment_bytes");
        check(|c| c.log.segment_bytes += 1, "log.segment_bytes");
        check(|c| c.log.recent_bytes = 1, "log.recent_bytes");
        check(|c| c.log.retain_ms = 999, "log.retain_ms");
        check(|c| c.checkpoint.log_bytes = 2 << 30, "checkpoint.log_bytes");
        check(|c| c.checkpoint.log_bytes = 1 << 20, "checkpoint.log_bytes");
        check(|c| c.checkpoint.interval_ms = 0, "checkpoint.interval_ms");
        check(|c| c.audit.round_ms = 0, "audit.round_ms");
        check(|c| c.audit.scrub_ms = 99, "audit.scrub_ms");
        check(
            |c| c.checkpoint.sled_cache_bytes = 0,
            "checkpoint.sled_cache_bytes",
        );
        let narrow = |c: &mut Config| {
            c.log.retain_bytes = c.log.segment_bytes;
            c.checkpoint.log_bytes = c.log.segment_bytes;
        };
        check(narrow, "log.retain_bytes");
    }

    #[test]
    fn the_smallest_segment_holds_the_largest_block_and_the_fullest_commit() {
        let smallest = crate::log::LogOptions::with_segments_of(SEGMENT_BYTES_MIN);
        let largest = limits::BLOCK_BYTES_MAX.max(limits::COMMIT_BYTES_MAX) as u64;
        assert!(smallest.group_bytes_max >= largest + MIB);
        assert!(smallest.segment_record_bytes() >= smallest.group_bytes_max);
    }

    #[test]
    fn engine_values_are_bounded() {
        for shards in [0, 3, 512] {
            check(|c| c.engine.shards = shards, "engine.shards");
        }
        check(
            |c| c.engine.request_window_ms = 0,
            "engine.request_window_ms",
        );
        check(
            |c| c.engine.request_window_items_max = 0,
            "engine.request_window_items_max",
        );
        check(
            |c| c.engine.orphan_removals_max = 0,
            "engine.orphan_removals_max",
        );
        check(|c| c.engine.watchers_max = 0, "engine.watchers_max");
        check(
            |c| c.reads.wait_default_ms = 30_001,
            "reads.wait_default_ms",
        );
        check(|c| c.reads.wait_max_ms = u64::MAX, "reads.wait_max_ms");
        check(|c| c.reads.waiting_max = 0, "reads.waiting_max");
        check(
            |c| c.logging.level = "likewise=loud".to_owned(),
            "logging.level",
        );
    }

    #[test]
    fn replication_notices_silence_in_time_and_heals_within_a_second() {
        check(
            |c| c.replication.silence_ms = 5_000,
            "replication.silence_ms",
        );
        check(
            |c| c.replication.silence_ms = 2_000,
            "replication.silence_ms",
        );
        check(
            |c| c.replication.heartbeat_ms = 0,
            "replication.heartbeat_ms",
        );
        check(
            |c| c.replication.backoff_max_ms = 1_001,
            "replication.backoff_max_ms",
        );
        check(
            |c| c.replication.backoff_max_ms = 49,
            "replication.backoff_max_ms",
        );
        check(
            |c| c.replication.backoff_min_ms = 0,
            "replication.backoff_min_ms",
        );
        check(
            |c| c.replication.relay_after_ms = 0,
            "replication.relay_after_ms",
        );
        check(
            |c| c.replication.dial_timeout_ms = 0,
            "replication.dial_timeout_ms",
        );
        check(|c| c.replication.block_bytes = 0, "replication.block_bytes");
        check(
            |c| c.replication.window_bytes = 256 << 10,
            "replication.window_bytes",
        );
        check(
            |c| c.replication.snapshot_log_bytes_max = 1,
            "replication.snapshot_log_bytes_max",
        );
        check(
            |c| c.replication.snapshot_chunk_bytes = 16 << 20,
            "replication.snapshot_chunk_bytes",
        );
    }
}
