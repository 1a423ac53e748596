//! A run: its phases one after the other, and the check in the end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::check;
use super::crowd::{Crowd, Taste};
use super::latency::{self, Latencies};
use super::meters::Meters;
use super::nodes::{Met, Nodes};
use super::pace::{Pace, Rhythm, Schedule};
use super::phases::{self, Likes, Phase, Reads};
use super::queues::{self, Depths};
use super::reader::Reader;
use super::report::{PhaseReport, Report, Times};
use super::settings::Settings;
use super::writer::Writer;
use crate::client::Client;
use crate::display::figures::{grouped, precise};
use crate::display::progress::Progress;

/// Seeds of the clients of one phase lie so far from those of the next.
const SEEDS_OF_PHASE: u64 = 1 << 32;

struct Run {
    settings: Settings,
    nodes: Nodes,
    met: Vec<Met>,
    crowd: Arc<Crowd>,
    stop: CancellationToken,
}

/// The clients of a phase.
struct Connected {
    likers: Vec<Client>,
    readers: Vec<Client>,
}

/// What a phase works with.
struct Stage {
    meters: Arc<Meters>,
    likes: Option<(Likes, Arc<Pace>)>,
    reads: Option<(Reads, Arc<Pace>)>,
}

/// Runs all phases, or those until `stop`, and then compares the counts.
pub async fn run(
    settings: Settings,
    nodes: Nodes,
    stop: CancellationToken,
) -> anyhow::Result<Report> {
    let met = nodes.meet().await?;
    let name = settings.name.clone().unwrap_or_else(own_name);
    let run = Run {
        crowd: Arc::new(Crowd::new(&settings, name)),
        settings,
        nodes,
        met,
        stop,
    };
    if run.settings.name.is_some() {
        check::untouched(&run.met, &run.crowd).await?;
    }
    let mut progress = Progress::on_stderr();
    let mut reports = Vec::new();
    for (number, phase) in (0..).zip(phases::of(&run.settings)) {
        if run.stop.is_cancelled() {
            break;
        }
        reports.push(run.phase(number, phase, &mut progress).await?);
    }
    progress.say("every count is compared with what was acknowledged");
    let accuracy = check::compare(&run.met, &run.crowd).await;
    progress.close();
    Ok(Report {
        regions: run.met.iter().map(|met| met.region.clone()).collect(),
        name: run.crowd.name.clone(),
        interrupted: run.stop.is_cancelled(),
        settings: run.settings,
        phases: reports,
        accuracy: accuracy.context("the counts were not compared")?,
    })
}

/// One that no other run has, so that its posts are new.
fn own_name() -> String {
    format!("bench-{:08x}", rand::rng().random::<u32>())
}

impl Run {
    async fn phase(
        &self,
        number: u64,
        phase: Phase,
        progress: &mut Progress,
    ) -> anyhow::Result<PhaseReport> {
        let connected = Connected {
            likers: self.connect(phase.likes.map(|likes| likes.clients)).await?,
            readers: self.connect(phase.reads.map(|reads| reads.clients)).await?,
        };
        let began = Instant::now();
        let stage = self.stage(&phase);
        let mut clients = self.clients(number, &phase, &stage, connected);
        let done = CancellationToken::new();
        let working = async {
            while let Some(ended) = clients.join_next().await {
                ended.context("a client broke off")?;
            }
            let elapsed = began.elapsed();
            done.cancel();
            anyhow::Ok(elapsed)
        };
        let likes = stage.likes.as_ref();
        let paced = likes.map(|(likes, pace)| (&**pace, likes.sending.batch() as u64));
        let pace = (
            paced.map(|(pace, _)| pace),
            paced.map_or(1, |(_, batch)| batch),
        );
        let watching = queues::watch(&self.met, &stage.meters, pace, &done);
        let showing = show(&phase, &stage.meters, began, progress, &done);
        let (elapsed, depths, ()) = tokio::join!(working, watching, showing);
        Ok(stage.report(&phase, elapsed?, depths))
    }

    fn stage(&self, phase: &Phase) -> Stage {
        let begin = |rhythm| Pace::begin(rhythm, phase.length, self.stop.clone());
        let paced = |rate: f64, batch: usize| {
            Rhythm::Paced(Schedule::new(rate / batch as f64, phase.length))
        };
        let likes = phase.likes.map(|likes| {
            let batch = likes.sending.batch();
            let rhythm = match (likes.rate, likes.most) {
                (Some(rate), _) => paced(rate, batch),
                (None, Some(most)) => Rhythm::Few(most.div_ceil(batch as u64)),
                (None, None) => Rhythm::Free,
            };
            (likes, begin(rhythm))
        });
        let reads = phase.reads.map(|reads| {
            let rhythm = reads.rate.map_or(Rhythm::Free, |rate| paced(rate, 1));
            (reads, begin(rhythm))
        });
        Stage {
            meters: Arc::default(),
            likes,
            reads,
        }
    }

    /// Before the phase begins, so that no handshake is timed.
    async fn connect(&self, clients: Option<usize>) -> anyhow::Result<Vec<Client>> {
        match clients {
            Some(clients) => self.nodes.clients(clients).await,
            None => Ok(Vec::new()),
        }
    }

    fn clients(
        &self,
        number: u64,
        phase: &Phase,
        stage: &Stage,
        connected: Connected,
    ) -> JoinSet<()> {
        let first_seed = self.settings.seed.wrapping_add(number * SEEDS_OF_PHASE);
        let mut seeds = first_seed..;
        let mut chance = || SmallRng::seed_from_u64(seeds.next().unwrap_or_default());
        let mut clients = JoinSet::new();
        if let Some((likes, pace)) = &stage.likes {
            let taste = Taste {
                hot_share: phase.hot_share,
                dup_ratio: likes.dup_ratio,
            };
            for client in connected.likers {
                let writer = Writer {
                    crowd: Arc::clone(&self.crowd),
                    meters: Arc::clone(&stage.meters),
                    pace: Arc::clone(pace),
                    taste,
                    client,
                    chance: chance(),
                };
                clients.spawn(writer.run(likes.sending));
            }
        }
        if let Some((reads, pace)) = &stage.reads {
            for client in connected.readers {
                let reader = Reader {
                    crowd: Arc::clone(&self.crowd),
                    meters: Arc::clone(&stage.meters),
                    pace: Arc::clone(pace),
                    hot_share: phase.hot_share,
                    client,
                    chance: chance(),
                };
                clients.spawn(reader.run(reads.posts));
            }
        }
        clients
    }
}

impl Stage {
    fn report(&self, phase: &Phase, elapsed: Duration, depths: Depths) -> PhaseReport {
        let meters = &self.meters;
        let late = |pace: &Pace| pace.late();
        let (mut like_times, mut read_times, mut never_sent) = (None, None, 0);
        if let Some((likes, pace)) = &self.likes {
            let late = late(pace);
            never_sent = late.len() as u64 * likes.sending.batch() as u64;
            Meters::never_sent(&meters.like_times, &late);
            let places = likes.clients * likes.sending.in_flight();
            like_times = Some(times(&meters.like_times.lock(), pace, elapsed, places));
        }
        if let Some((reads, pace)) = &self.reads {
            Meters::never_sent(&meters.read_times, &late(pace));
            read_times = Some(times(
                &meters.read_times.lock(),
                pace,
                elapsed,
                reads.clients,
            ));
        }
        PhaseReport {
            name: phase.name,
            elapsed,
            liked: meters.liked.get(),
            liked_again: meters.liked_again.get(),
            repeats_sent: meters.repeats_sent.get(),
            refused: meters.refused.get(),
            unknown: meters.unknown.get(),
            never_sent,
            reads: meters.reads.get(),
            reads_failed: meters.reads_failed.get(),
            streams_broken: meters.streams_broken.get(),
            trouble: meters.first_trouble(),
            depths,
            like_times,
            read_times,
        }
    }
}

/// With a schedule times are from when requests were due; without one what was left out is added.
fn times(times: &Latencies, pace: &Pace, elapsed: Duration, places: usize) -> Times {
    if pace.has_schedule() {
        return Times::SinceDue(times.percentiles());
    }
    let pace = latency::pace(elapsed, places, times.samples());
    Times::Corrected(times.corrected(pace).percentiles())
}

async fn show(
    phase: &Phase,
    meters: &Meters,
    began: Instant,
    progress: &mut Progress,
    done: &CancellationToken,
) {
    let every = progress.every();
    let mut ticks = tokio::time::interval_at(began + every, every);
    let (mut likes_before, mut reads_before, mut then) = (0, 0, began);
    loop {
        tokio::select! {
            biased;
            () = done.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let span = then.elapsed().as_secs_f64();
        then = Instant::now();
        let rate = |more: u64| grouped((more as f64 / span) as u64);
        let mut words = Vec::new();
        if phase.likes.is_some() {
            let likes = meters.acknowledged();
            words.push(format!("{} likes/s", rate(likes - likes_before)));
            words.extend(p99(&meters.like_times.lock()));
            likes_before = likes;
        }
        if phase.reads.is_some() {
            let reads = meters.reads.get();
            words.push(format!("{} reads/s", rate(reads - reads_before)));
            words.extend(p99(&meters.read_times.lock()));
            reads_before = reads;
        }
        let whole = match phase.likes.and_then(|likes| likes.most) {
            Some(most) => meters.acknowledged() as f64 / most as f64,
            None => began.elapsed().as_secs_f64() / phase.length.as_secs_f64(),
        };
        progress.show(phase.name, whole, &words.join("  "));
    }
}

fn p99(times: &Latencies) -> Option<String> {
    let found = times.percentiles()?;
    Some(format!("p99 {}", precise(found.p99)))
}
