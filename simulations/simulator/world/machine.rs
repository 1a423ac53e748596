//! A machine: a disk, a store and a clock, on one power supply, and the node that runs on them, boot after boot.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use likewise::adapters::chitchat_membership::Home;
use likewise::adapters::memory_store::MemoryDevice;
use likewise::adapters::power::Power;
use likewise::adapters::simulated_disk::{Latency, Operation, SimulatedDisk};
use likewise::adapters::system::SeededRandomness;
use likewise::adapters::tasks::TaskWorkers;
use likewise::config::{Config, RepeatedLikes};
use likewise::counts::Counts;
use likewise::engine::Engine;
use likewise::engine::recovery::EngineSeams;
use likewise::ids::{PostId, Region, Replica};
use likewise::log::{LogOptions, LogReader};
use likewise::node::{self, Network, storage};
use likewise::replication::audits::Audits;
use likewise::seams::Cores;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;

use super::network::{SimulatedListener, SimulatedTransport};
use super::time::{MachineClock, SimTime};
use super::trace::{Kind, Trace};
use super::traced_disk::{Noted, TracedFiles, TracedStore};
use crate::simulator::history::Recorder;
use crate::simulator::scenario::NodePlan;
use crate::simulator::workload::post_name;

/// Where every node listens, for clients and for peers.
pub const CLIENT_PORT: u16 = 7400;
pub const PEER_PORT: u16 = 7401;
/// How long a sync takes, or a read from the device, and how long a sync where the device is busy with something else.
/// What came with a step is often in its sync at the end of it.
const DEVICE_MS: RangeInclusive<u64> = 1..=8;
const SLOW_SYNC_MS: RangeInclusive<u64> = 9..=120;
const SLOW_SYNCS: f64 = 0.1;
/// Reads that the device sees; the others are answered from memory.
const SLOW_READS: f64 = 0.1;
/// A node that could not start is started again after this, and what it could not do is tried again.
const START_AGAIN: Duration = Duration::from_millis(500);

/// What can be seen of a node while it runs.
#[derive(Clone)]
pub struct Seen {
    pub engine: Arc<Engine>,
    pub counts: Arc<Counts>,
    pub log: LogReader,
    pub audits: Arc<Audits>,
}

/// What a node is told from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// To stop in order.
    Stop,
    /// That all replicas of a region that it knows are retired.
    Retire(String),
    /// To take a range from a region.
    Repair(usize, String),
}

/// A folder at one moment.
pub struct Image {
    disk: SimulatedDisk,
    device: MemoryDevice,
    /// What was published then.
    pub vector: BTreeMap<Replica, u64>,
}

/// What a folder lies on.
#[derive(Clone)]
struct Devices {
    disk: SimulatedDisk,
    device: MemoryDevice,
}

/// See the module.
pub struct Machine {
    number: usize,
    name: &'static str,
    config: Config,
    log: LogOptions,
    pub clock: Arc<MachineClock>,
    trace: Trace,
    recorder: Recorder,
    seed: u64,
    boots: AtomicU64,
    devices: Mutex<Devices>,
    /// Syncs that have begun and not ended.
    syncing: Arc<AtomicUsize>,
    /// Guards what is there while a node runs.
    seen: Mutex<Option<Seen>>,
    commands: Mutex<Vec<Command>>,
    commanded: Notify,
}

impl Machine {
    pub(super) fn new(
        (number, name): (usize, &str),
        config: Config,
        plan: &NodePlan,
        seed: u64,
        (time, trace, recorder): (SimTime, Trace, Recorder),
        image: Option<Image>,
    ) -> Self {
        let syncing = Arc::new(AtomicUsize::new(0));
        let devices = match image {
            Some(image) => Devices {
                disk: image.disk,
                device: image.device,
            },
            None => Devices::empty(seed),
        };
        devices
            .disk
            .set_latency(Some(latency(seed, syncing.clone())));
        Self {
            number,
            name: name.to_owned().leak(),
            config,
            log: log_options(plan),
            clock: Arc::new(MachineClock::new(time)),
            trace,
            recorder,
            seed,
            boots: AtomicU64::new(0),
            devices: Mutex::new(devices),
            syncing,
            seen: Mutex::default(),
            commands: Mutex::default(),
            commanded: Notify::new(),
        }
    }

    /// Lives as long as the process: a run has few of them.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn region(&self) -> &str {
        self.config.node.region.as_str()
    }

    /// The node, if it has started and not ended.
    pub fn seen(&self) -> Option<Seen> {
        self.seen.lock().clone()
    }

    /// Boots the machine: runs a node until it is told to stop.
    pub(super) async fn run(&self) -> anyhow::Result<()> {
        self.commands.lock().clear();
        while let Err(error) = self.serve().await {
            self.has_ended();
            self.recorder
                .tell(format!("{} cannot run: {error:#}", self.name));
            tokio::time::sleep(START_AGAIN).await;
        }
        Ok(())
    }

    async fn serve(&self) -> anyhow::Result<()> {
        let boot = self.boots.fetch_add(1, Ordering::Relaxed);
        self.note(&format!("boot {boot}"));
        let noted = Noted {
            trace: self.trace.clone(),
            machine: self.number,
        };
        let devices = self.devices.lock().clone();
        let seams = EngineSeams {
            files: Arc::new(TracedFiles::new(devices.disk.files(), noted.clone())),
            store: Arc::new(TracedStore::new(
                devices.device.store(),
                noted,
                latency(self.seed ^ boot, Arc::default()),
            )),
            clock: self.clock.clone(),
            randomness: Arc::new(SeededRandomness::new(self.seed.wrapping_add(boot))),
            cores: Cores::one(),
        };
        let options = node::engine_options(&self.config);
        let storage = storage::open_on(seams, options, self.log.clone()).await?;
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
            audits: node.audits.clone(),
        });
        self.note("serves");
        loop {
            self.commanded.notified().await;
            let commands = std::mem::take(&mut *self.commands.lock());
            for command in commands {
                match command {
                    Command::Stop => {
                        node.stop().await?;
                        self.has_ended();
                        self.note("stopped");
                        return Ok(());
                    }
                    Command::Retire(region) => {
                        if let Err(error) = self.retire(&node.engine, &region).await {
                            self.recorder
                                .tell(format!("{} cannot retire {region}: {error:#}", self.name));
                            tokio::time::sleep(START_AGAIN).await;
                            self.command(Command::Retire(region));
                        }
                    }
                    Command::Repair(range, from) => self.repair(&node.audits, range, &from).await?,
                }
            }
        }
    }

    async fn retire(&self, engine: &Engine, region: &str) -> anyhow::Result<()> {
        let all = engine.replicas().all();
        let vector = &engine.board().newest().vector;
        let known = vector.iter().map(|(replica, _)| all.id(replica).clone());
        let of_region = known.filter(|replica| replica.region.as_str() == region);
        let retired = engine.retire(&of_region.collect()).await?;
        self.recorder.tell(format!(
            "{} has retired {} replicas of {region}",
            self.name, retired.replicas
        ));
        Ok(())
    }

    async fn repair(&self, audits: &Audits, range: usize, from: &str) -> anyhow::Result<()> {
        let repaired = audits.repair(range, Region::new(from)?).await;
        self.recorder.tell(match repaired {
            Ok(_) => format!("{} has taken range {range} from {from} as told", self.name),
            Err(error) => format!("{} was told to repair: {error}", self.name),
        });
        Ok(())
    }

    async fn listen(&self, port: u16) -> anyhow::Result<SimulatedListener> {
        let listener = SimulatedListener::bind(port, self.trace.clone(), self.number).await?;
        Ok(listener)
    }

    pub fn command(&self, command: Command) {
        self.commands.lock().push(command);
        self.commanded.notify_one();
    }

    pub fn power(&self) -> Power {
        self.devices.lock().disk.power().clone()
    }

    pub fn has_power(&self) -> bool {
        self.power().is_on()
    }

    /// Whether some sync has begun and not ended.
    pub fn is_in_sync(&self) -> bool {
        self.syncing.load(Ordering::Relaxed) > 0
    }

    pub fn disk_used(&self) -> u64 {
        self.devices.lock().disk.used()
    }

    /// Somebody else takes all the room there is, or gives it back.
    pub fn fill_disk(&self, is_full: bool) {
        let capacity = if is_full { 0 } else { u64::MAX };
        self.devices.lock().disk.set_capacity(capacity);
    }

    /// The folder as it is now.
    pub fn image(&self, seed: u64) -> Image {
        let devices = self.devices.lock();
        let disk = devices.disk.copy(seed);
        Image {
            device: devices.device.copy(disk.power().clone()),
            disk,
            vector: BTreeMap::new(),
        }
    }

    /// From the next boot on the folder is this one, or an empty one.
    pub fn replace(&self, image: Option<Image>) {
        let fresh = match image {
            Some(image) => Devices {
                disk: image.disk,
                device: image.device,
            },
            None => Devices::empty(self.seed.rotate_left(7) ^ self.boots.load(Ordering::Relaxed)),
        };
        fresh
            .disk
            .set_latency(Some(latency(self.seed, self.syncing.clone())));
        *self.devices.lock() = fresh;
    }

    /// A liker is lost from memory: of which post, and who. None if there was none, or this build cannot do it.
    pub fn damage(&self, chance: &mut StdRng, posts: usize) -> Option<(String, String)> {
        let seen = self.seen()?;
        let first = chance.random_range(0..posts);
        for post in (first..posts).chain(0..first) {
            let post = PostId::new(&post_name(post)).expect("a valid post");
            let listed = seen.engine.list_likers(&post, None, 1).now_or_never();
            if let Some(user) = listed.and_then(|listed| listed.users.into_iter().next()) {
                #[cfg(feature = "sim")]
                seen.engine.damage_liker(&post, &user, &[]);
                self.note(&format!("damage {post} {user}"));
                let lost = (post.as_str().to_owned(), user.to_string());
                return cfg!(feature = "sim").then_some(lost);
            }
        }
        None
    }

    pub(super) fn cut_power(&self) {
        let power = self.power();
        if power.is_on() {
            power.cut_now();
        }
    }

    /// What was unsynced is lost if the power was off; else the process alone has ended.
    pub(super) fn power_on(&self) {
        let devices = self.devices.lock();
        if devices.disk.power().is_on() {
            devices.disk.kill();
        } else {
            devices.device.lose_unsynced();
            devices.disk.reboot();
        }
        self.syncing.store(0, Ordering::Relaxed);
    }

    pub(super) fn has_ended(&self) {
        *self.seen.lock() = None;
    }

    fn note(&self, what: &str) {
        self.trace
            .note(Kind::World, self.number, what.as_bytes(), &[]);
    }
}

impl Devices {
    fn empty(seed: u64) -> Self {
        let power = Power::new(seed);
        Self {
            disk: SimulatedDisk::with_power(power.clone()),
            device: MemoryDevice::new(power),
        }
    }
}

/// How the node of a machine is configured.
pub(super) fn config((name, region): (&str, &str), seeds: &[&str], plan: &NodePlan) -> Config {
    let mut config = Config::default();
    let address = |name: &str| format!("{name}:{PEER_PORT}").parse();
    config.peers.advertise = address(name).ok();
    config.peers.seeds = seeds.iter().filter_map(|seed| address(seed).ok()).collect();
    config.node.region = Region::new(region).expect("checked by the scenario");
    config.checkpoint.interval_ms = plan.checkpoint_interval.as_millis() as u64;
    config.replication.relay_after_ms = plan.relay_after.as_millis() as u64;
    config.log.retain_bytes = plan.log_retain_bytes;
    config.log.recent_bytes = 16 << 10;
    config.engine.shards = 4;
    // A run is short: what takes an hour elsewhere happens within it, and snapshots of little state take their time.
    config.audit.scrub_ms = 10_000;
    config.audit.round_ms = 10_000;
    config.replication.snapshot_chunk_bytes = 512;
    config.replication.catch_up_bytes_per_second = 16 << 10;
    if plan.absorb_repeated_likes {
        config.engine.repeated_likes = RepeatedLikes::Absorb;
    }
    config
}

/// Segments far smaller than a node's configuration may ask for, so that a short run fills, cuts and leaves behind
/// many of them. What clients of a run write at once fits into them.
fn log_options(plan: &NodePlan) -> LogOptions {
    let mut options = LogOptions {
        segment_bytes: plan.log_segment_bytes,
        context_bytes_max: 4 << 10,
        recent_bytes: 16 << 10,
        ..LogOptions::default()
    };
    options.group_bytes_max = options.segment_record_bytes();
    options
}

/// Syncs take their time, so that a crash can fall between a write and its sync; so do some reads, so that others go
/// on in the middle of a merge.
fn latency(seed: u64, syncing: Arc<AtomicUsize>) -> Latency {
    let chance = Arc::new(Mutex::new(StdRng::seed_from_u64(seed ^ 0xd15c)));
    Arc::new(move |operation| {
        let is_sync = operation == Operation::Sync;
        let mut chance = chance.lock();
        let is_slow = match operation {
            Operation::Sync => chance.random_bool(SLOW_SYNCS),
            Operation::Read => chance.random_bool(SLOW_READS),
            _ => false,
        };
        let millis = match (is_sync, is_slow) {
            (false, false) => 0,
            (false, true) | (true, false) => chance.random_range(DEVICE_MS),
            (true, true) => chance.random_range(SLOW_SYNC_MS),
        };
        let syncing = syncing.clone();
        if is_sync {
            syncing.fetch_add(1, Ordering::Relaxed);
        }
        Box::pin(async move {
            match millis {
                0 => tokio::task::yield_now().await,
                millis => tokio::time::sleep(Duration::from_millis(millis)).await,
            }
            if is_sync {
                syncing.fetch_sub(1, Ordering::Relaxed);
            }
        })
    })
}
