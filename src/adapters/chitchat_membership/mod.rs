//! Membership by chitchat: each node tells what it knows of all nodes to some of them, again and again.
//!
//! chitchat runs where its panics end nothing but itself: on a thread of its own in production, where the
//! panic hook asks [`is_inside`], or as a task. It is watched over, and started again under the next
//! generation when it ends. It is given no addresses: its messages travel where peers are connected
//! (`post`), and only what is well formed and within bounds reaches it (`datagram`, `gate`). What members say
//! of themselves is read in `roster`.

pub mod datagram;
mod gate;
mod mailbox;
mod post;
mod roster;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, spawn_chitchat};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::counts::Counts;
use crate::ids::{ClusterId, Region, Replica};
use crate::seams::membership::{
    Announcement, Correspondence, Liveness, Members, Membership, Uncorresponding,
};

use datagram::{NodeName, key_of};
use gate::Gate;
use post::{Counter, PostOffice};
use roster::{Roster, values};

/// Intervals between heartbeats of which chitchat takes the mean.
const SAMPLES: usize = 100;
/// A node that is gone stays with chitchat for so many times as long as it took to be thought gone: long
/// enough for everybody to notice, and short, for each restart makes a new one.
const KEPT_GONE: u32 = 12;

/// Where chitchat runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// On a thread of its own, as in production.
    Thread,
    /// As a task of the running runtime, for tests and the simulator.
    Task,
}

/// What the gossip is told at its start. `config` documents the figures.
#[derive(Debug, Clone)]
pub struct GossipOptions {
    pub cluster: ClusterId,
    /// The regions that may join; none where all may.
    pub regions: Option<BTreeSet<Region>>,
    pub interval: Duration,
    /// A node that was silent for about this long is thought gone,
    pub dead_after: Duration,
    /// and its region's address is forgotten after this long.
    pub forget_after: Duration,
}

/// See the module.
pub struct ChitchatMembership {
    shared: Arc<Shared>,
}

struct Shared {
    options: GossipOptions,
    office: Arc<PostOffice>,
    members: watch::Sender<Members>,
    /// Guards what is known of members; held while chitchat is looked at.
    roster: Mutex<Roster>,
    announced: watch::Sender<Option<Announcement>>,
    counts: Arc<Counts>,
    stop: CancellationToken,
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is the thread of the gossip, whose panics are survived.
pub fn is_inside() -> bool {
    INSIDE.get()
}

impl ChitchatMembership {
    /// It begins to speak with the first announcement. An error says that the system gave no thread.
    pub fn start(home: Home, options: GossipOptions, counts: Arc<Counts>) -> io::Result<Self> {
        let shared = Shared::new(options, counts);
        let supervised = supervise(shared.clone());
        match home {
            Home::Task => drop(tokio::spawn(supervised)),
            Home::Thread => {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()?;
                let run = move || {
                    INSIDE.set(true);
                    runtime.block_on(supervised);
                };
                let thread = std::thread::Builder::new().name("gossip".to_owned());
                drop(thread.spawn(run)?);
            }
        }
        Ok(Self { shared })
    }
}

impl Membership for ChitchatMembership {
    fn members(&self) -> watch::Receiver<Members> {
        self.shared.members.subscribe()
    }

    fn announce(&self, announcement: Announcement) {
        self.shared.announced.send_if_modified(|announced| {
            let is_news = announced.as_ref() != Some(&announcement);
            if is_news {
                *announced = Some(announcement);
            }
            is_news
        });
    }

    fn corresponds(&self) -> bool {
        true
    }

    fn correspond(&self, peer: &Replica) -> Result<Box<dyn Correspondence>, Uncorresponding> {
        self.shared.office.open(peer)
    }

    fn stop(&self) {
        self.shared.stop.cancel();
    }
}

impl Drop for ChitchatMembership {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn new(options: GossipOptions, counts: Arc<Counts>) -> Arc<Self> {
        let none: Members = Arc::from([]);
        Arc::new(Self {
            office: PostOffice::new(options.cluster.clone(), counts.clone(), options.interval),
            members: watch::Sender::new(none),
            roster: Mutex::new(Roster::new(options.forget_after)),
            announced: watch::Sender::new(None),
            counts,
            stop: CancellationToken::new(),
            options,
        })
    }

    fn config(&self, name: &NodeName) -> ChitchatConfig {
        let GossipOptions {
            cluster,
            interval,
            dead_after,
            ..
        } = &self.options;
        // A pair of nodes hears of each other twice in an interval: each begins one exchange and answers one.
        let usual = *interval / 2;
        let detection = FailureDetectorConfig::new(
            dead_after.as_secs_f64() / usual.as_secs_f64(),
            SAMPLES,
            *dead_after,
            usual,
            *dead_after * KEPT_GONE,
        );
        let key = key_of(&name.replica);
        ChitchatConfig {
            chitchat_id: ChitchatId::new(name.text(), name.generation, key),
            cluster_id: cluster.as_str().to_owned(),
            gossip_interval: *interval,
            listen_addr: key,
            seed_nodes: Vec::new(),
            failure_detector_config: detection,
            // Nothing is ever deleted.
            marked_for_deletion_grace_period: *dead_after * KEPT_GONE,
            catchup_callback: None,
            extra_liveness_predicate: None,
        }
    }
}

/// How one life of chitchat ended.
#[derive(Debug)]
enum End {
    /// As it should.
    Stopped,
    /// The node goes on under another name.
    Renewed,
    Failed(String),
}

/// Lives, one after the other, until the node stops.
async fn supervise(shared: Arc<Shared>) {
    let mut generation = 0;
    loop {
        let end = tokio::spawn(live(shared.clone(), generation)).await;
        let why = match end {
            Ok(End::Stopped) => return,
            Ok(End::Renewed) => continue,
            Ok(End::Failed(why)) => why,
            Err(error) => error.to_string(),
        };
        shared.counts.gossip_restarts.one_more();
        generation += 1;
        tracing::warn!(why, generation, "gossip ended and is started again");
        let pause = sleep(shared.options.interval);
        if shared.stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

/// One life of chitchat, under one name.
async fn live(shared: Arc<Shared>, generation: u64) -> End {
    let mut announced = shared.announced.subscribe();
    let first = announced.wait_for(Option::is_some);
    let first = match shared.stop.run_until_cancelled(first).await {
        Some(Ok(first)) => first.clone().expect("waited for"),
        Some(Err(_)) | None => return End::Stopped,
    };
    let name = NodeName {
        replica: first.own.clone(),
        generation,
    };
    let regions = shared.options.regions.clone();
    let gate = Arc::new(Mutex::new(Gate::new(name.clone(), regions)));
    let counter = Counter {
        office: shared.office.clone(),
        gate: gate.clone(),
    };
    let texts = values(&first).map(|(key, text)| (key.to_owned(), text));
    let spawned = spawn_chitchat(shared.config(&name), texts.into(), &counter).await;
    let handle = match spawned {
        Ok(handle) => handle,
        Err(error) => return End::Failed(error.to_string()),
    };
    let life = Life {
        shared,
        handle,
        gate,
        own: name.replica,
    };
    let end = life.run(announced).await;
    if let End::Stopped | End::Renewed = end
        && let Err(error) = life.handle.shutdown().await
    {
        tracing::debug!(%error, "gossip ended while it was stopped");
    }
    end
}

struct Life {
    shared: Arc<Shared>,
    handle: ChitchatHandle,
    gate: Arc<Mutex<Gate>>,
    own: Replica,
}

impl Life {
    async fn run(&self, mut announced: watch::Receiver<Option<Announcement>>) -> End {
        let ended = self.handle.termination_watcher();
        tokio::pin!(ended);
        let mut connected = self.shared.office.connected();
        connected.mark_changed();
        let mut ticks = interval(self.shared.options.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => return End::Stopped,
                ended = &mut ended => {
                    let why = ended.err().map(|error| error.to_string());
                    return End::Failed(why.unwrap_or_else(|| "it ended unasked".to_owned()));
                }
                changed = announced.changed() => {
                    if changed.is_err() {
                        return End::Stopped;
                    }
                    let announcement = announced.borrow_and_update().clone();
                    let announcement = announcement.expect("never taken back");
                    if announcement.own != self.own {
                        return End::Renewed;
                    }
                    self.tell(&announcement).await;
                }
                // The sender is in what `self` shares.
                Ok(()) = connected.changed() => self.greet(),
                _ = ticks.tick() => {
                    self.look().await;
                    self.greet();
                }
            }
        }
    }

    async fn tell(&self, announcement: &Announcement) {
        let values = values(announcement);
        let set = |chitchat: &mut chitchat::Chitchat| {
            let state = chitchat.self_node_state();
            for (key, text) in &values {
                state.set(key, text);
            }
        };
        self.handle.with_chitchat(set).await;
    }

    /// Brings the list of members up to date.
    async fn look(&self) {
        let shared = &self.shared;
        let look = |chitchat: &mut chitchat::Chitchat| {
            let mut roster = shared.roster.lock();
            let known = roster.look(chitchat, &self.own, Instant::now());
            (known, roster.members())
        };
        let (known, members) = self.handle.with_chitchat(look).await;
        self.gate.lock().refresh(known);
        shared.members.send_if_modified(|newest| {
            let is_news = **newest != *members;
            if is_news {
                *newest = members;
            }
            is_news
        });
    }

    /// Speaks to connected peers that chitchat does not know, or thinks gone.
    fn greet(&self) {
        let members = self.shared.members.borrow().clone();
        let is_alive = |peer: &Replica| {
            let mut members = members.iter();
            members.any(|member| {
                member.region == peer.region
                    && member.epoch == Some(peer.epoch)
                    && member.liveness == Liveness::Alive
            })
        };
        for (key, peer) in self.shared.office.peers() {
            if !is_alive(&peer)
                && let Err(error) = self.handle.gossip(key)
            {
                tracing::debug!(%error, "gossip has just ended");
            }
        }
    }
}

#[cfg(test)]
mod tests;
