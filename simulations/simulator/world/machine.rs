//! A machine: a disk, a store and a clock, on one power supply, and the node that runs on them, boot after boot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use likewise::adapters::chitchat_membership::Home;
use likewise::adapters::memory_store::MemoryDevice;
use likewise::adapters::power::Power;
use likewise::adapters::simulated_disk::{Latency, Operation, SimulatedDisk};
use likewise::adapters::system::SeededRandomness;
use likewise::adapters::tasks::TaskWorkers;
use likewise::config::Config;
use likewise::counts::Counts;
use likewise::engine::Engine;
use likewise::engine::recovery::EngineSeams;
use likewise::ids::Region;
use likewise::log::LogReader;
use likewise::node::{self, Network, storage};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;

use super::World;
use super::network::{SimulatedListener, SimulatedTransport};
use super::time::MachineClock;
use super::trace::{Kind, Trace};
use super::traced_disk::{Noted, TracedFiles, TracedStore};

/// Where every node listens, for clients and for peers.
pub const CLIENT_PORT: u16 = 7400;
pub const PEER_PORT: u16 = 7401;
/// An operation of a disk takes up to this long; a sync at least some of it.
const DISK_MAX: Duration = Duration::from_millis(4);

/// How nodes are set up, where they differ from what they do by themselves.
#[derive(Debug, Clone, Copy)]
pub struct MachineOptions {
    pub checkpoint_interval_ms: u64,
    pub log_segment_bytes: u64,
    pub log_retain_bytes: u64,
    pub absorb_repeated_likes: bool,
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self {
            checkpoint_interval_ms: 4_000,
            log_segment_bytes: 1 << 20,
            log_retain_bytes: 64 << 20,
            absorb_repeated_likes: false,
        }
    }
}

/// What can be seen of a node while it runs.
#[derive(Clone)]
pub struct Seen {
    pub engine: Arc<Engine>,
    pub counts: Arc<Counts>,
    pub log: LogReader,
}

/// See the module.
pub struct Machine {
    number: usize,
    name: &'static str,
    config: Config,
    pub clock: Arc<MachineClock>,
    trace: Trace,
    seed: u64,
    boots: AtomicU64,
    pub power: Power,
    pub disk: SimulatedDisk,
    device: MemoryDevice,
    /// Guards what is there while a node runs.
    seen: Mutex<Option<Seen>>,
    stop: Notify,
}

impl Machine {
    pub(super) fn new(
        number: usize,
        region: Region,
        seeds: &[Region],
        seed: u64,
        options: MachineOptions,
        world: &World,
    ) -> Self {
        let power = Power::new(seed);
        let disk = SimulatedDisk::with_power(power.clone());
        disk.set_latency(Some(latency(seed)));
        Self {
            number,
            name: region.to_string().leak(),
            config: config(region, seeds, options),
            clock: Arc::new(MachineClock::new(world.time.clone())),
            trace: world.trace.clone(),
            seed,
            boots: AtomicU64::new(0),
            device: MemoryDevice::new(power.clone()),
            disk,
            power,
            seen: Mutex::default(),
            stop: Notify::new(),
        }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The node, if it has started and not ended.
    pub fn seen(&self) -> Option<Seen> {
        self.seen.lock().clone()
    }

    /// Boots the machine: runs a node until it is told to stop.
    pub(super) async fn run(&self) -> anyhow::Result<()> {
        let boot = self.boots.fetch_add(1, Ordering::Relaxed);
        self.note(&format!("boot {boot}"));
        let noted = Noted {
            trace: self.trace.clone(),
            machine: self.number,
        };
        let seams = EngineSeams {
            files: Arc::new(TracedFiles::new(self.disk.files(), noted.clone())),
            store: Arc::new(TracedStore::new(self.device.store(), noted)),
            clock: self.clock.clone(),
            randomness: Arc::new(SeededRandomness::new(self.seed.wrapping_add(boot))),
        };
        let options = node::engine_options(&self.config);
        let log = storage::log_options(&self.config);
        let storage = storage::open_on(seams, options, log).await?;
        let clients = self.listen(CLIENT_PORT).await?;
        let peers = self.listen(PEER_PORT).await?;
        let network = Network {
            clients: Box::new(clients),
            client_address: ([0, 0, 0, 0], CLIENT_PORT).into(),
            peers: Box::new(peers),
            peer_address: ([0, 0, 0, 0], PEER_PORT).into(),
            transport: Arc::new(SimulatedTransport::new(self.trace.clone(), self.number)),
            gossip: Home::Task,
        };
        let node = node::start(&self.config, storage, Arc::new(TaskWorkers), network).await?;
        *self.seen.lock() = Some(Seen {
            engine: node.engine.clone(),
            counts: node.counts.clone(),
            log: node.log.clone(),
        });
        self.note("serves");
        self.stop.notified().await;
        node.stop().await?;
        self.has_ended();
        self.note("stopped");
        Ok(())
    }

    async fn listen(&self, port: u16) -> anyhow::Result<SimulatedListener> {
        let listener = SimulatedListener::bind(port, self.trace.clone(), self.number).await?;
        Ok(listener)
    }

    /// Tells the node to stop in order.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    pub(super) fn cut_power(&self) {
        if self.power.is_on() {
            self.power.cut_now();
        }
    }

    pub(super) fn power_on(&self) {
        self.device.lose_unsynced();
        self.disk.reboot();
    }

    pub(super) fn has_ended(&self) {
        *self.seen.lock() = None;
    }

    fn note(&self, what: &str) {
        self.trace
            .note(Kind::World, self.number, what.as_bytes(), &[]);
    }
}

fn config(region: Region, seeds: &[Region], options: MachineOptions) -> Config {
    let mut config = Config::default();
    let address = |region: &Region| format!("{region}:{PEER_PORT}").parse();
    config.peers.advertise = address(&region).ok();
    config.peers.seeds = seeds.iter().filter_map(|seed| address(seed).ok()).collect();
    config.node.region = region;
    config.checkpoint.interval_ms = options.checkpoint_interval_ms;
    config.log.segment_bytes = options.log_segment_bytes;
    config.log.retain_bytes = options.log_retain_bytes;
    config.log.recent_bytes = 1 << 20;
    config.engine.shards = 4;
    if options.absorb_repeated_likes {
        config.engine.repeated_likes = likewise::config::RepeatedLikes::Absorb;
    }
    config
}

/// Each operation takes its time, so that a crash can fall between a write and its sync.
fn latency(seed: u64) -> Latency {
    let chance = Arc::new(Mutex::new(StdRng::seed_from_u64(seed ^ 0xd15c)));
    Arc::new(move |operation| {
        let most = DISK_MAX.as_millis() as u64;
        let millis = match operation {
            Operation::Sync => chance.lock().random_range(1..=most),
            Operation::Write | Operation::Allocate | Operation::Read | Operation::Name => 0,
        };
        Box::pin(async move {
            match millis {
                0 => tokio::task::yield_now().await,
                millis => tokio::time::sleep(Duration::from_millis(millis)).await,
            }
        })
    })
}
