//! The demo that runs by itself: load, a cut with writes on both sides, a kill, a start, a heal; then
//! every node is held against what was acknowledged.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use super::Place;
use super::check::{self, Agreed};
use super::cluster::Cluster;
use super::load::Load;
use super::proxy::Switch;
use super::record::{Post, User, Write};
use crate::causes;
use crate::display::figures::grouped;
use crate::display::output::{self, OutputError};

/// Users who like on both sides of the cut.
const BOTH_SIDES: u32 = 1_500;
const BATCH_WRITES: usize = 500;
const TELL_EVERY: Duration = Duration::from_secs(2);

/// The region that is cut off, one on the other side, and the one that is killed.
const ALONE: Place = Place::Ap;
const OTHER_SIDE: Place = Place::Us;
const KILLED: Place = Place::Eu;

/// When things happen, in hundredths of the whole.
const CUT_AT: u32 = 20;
const KILL_AT: u32 = 42;
const START_AT: u32 = 52;
const HEAL_AT: u32 = 70;
const STOP_AT: u32 = 85;

struct Teller {
    load: Arc<Load>,
    began: Instant,
    length: Duration,
}

/// What both sides of the cut did.
#[derive(Debug, Default)]
struct BothSides {
    liked: u64,
    unliked: u64,
}

/// Runs the story; the exit code says whether all regions hold what was acknowledged.
pub async fn tell(cluster: &Arc<Cluster>, length: Duration, seed: u64) -> anyhow::Result<ExitCode> {
    let teller = Teller {
        load: Load::new(cluster),
        began: Instant::now(),
        length,
    };
    let outcome = teller.story(seed).await;
    teller.close(outcome)
}

impl Teller {
    async fn story(&self, seed: u64) -> anyhow::Result<(BothSides, Agreed)> {
        let mut writers = self.load.start(seed);
        let both_sides = self.faults().await?;
        self.until(STOP_AT).await?;
        self.load.stop();
        while let Some(ended) = writers.join_next().await {
            ended.context("a writer broke off")?;
        }
        self.say("the writers stop; the regions settle")?;
        Ok((both_sides, self.outcome().await?))
    }

    async fn faults(&self) -> anyhow::Result<BothSides> {
        let cluster = &self.load.cluster;
        self.say("us, eu and ap serve; people like, unlike and view in all three")?;
        self.until(CUT_AT).await?;
        for other in ALONE.others() {
            cluster.links.turn(ALONE, other, Switch::Off);
        }
        self.say(&format!(
            "CUT: {ALONE} is alone; both sides go on taking writes"
        ))?;
        let both_sides = self.both_sides().await?;
        self.until(KILL_AT).await?;
        cluster.kill_node(KILLED).await?;
        self.say(&format!(
            "KILL: {KILLED} ends by SIGKILL, with writes in flight"
        ))?;
        self.until(START_AT).await?;
        let starting = Instant::now();
        cluster.start_node(KILLED).await?;
        self.say(&format!(
            "START: {KILLED} is back on its folder after {} ms; its clients ask again with the same \
             request ids",
            starting.elapsed().as_millis()
        ))?;
        self.until(HEAL_AT).await?;
        cluster.links.heal();
        self.say("HEAL: all links are whole again")?;
        Ok(both_sides)
    }

    /// The same users like the same posts on both sides, and one side unlikes some of it.
    async fn both_sides(&self) -> anyhow::Result<BothSides> {
        let mut done = BothSides::default();
        let (here, there) = tokio::try_join!(
            self.everyone(ALONE, Post::Both, Write::Like),
            self.everyone(OTHER_SIDE, Post::Both, Write::Like)
        )?;
        done.liked = here
            .iter()
            .zip(&there)
            .filter(|(a, b)| distinct(a, b))
            .count() as u64;
        let (here, there) = tokio::try_join!(
            self.everyone(ALONE, Post::BothUnliked, Write::Like),
            self.everyone(OTHER_SIDE, Post::BothUnliked, Write::Like)
        )?;
        let removed = self
            .everyone(ALONE, Post::BothUnliked, Write::Unlike)
            .await?;
        let three = here.iter().zip(&there).zip(&removed);
        let unliked = three.filter(|((a, b), gone)| distinct(a, b) && a == gone);
        done.unliked = unliked.count() as u64;
        let (liked, unliked) = (grouped(done.liked), grouped(done.unliked));
        self.say(&format!(
            "{liked} users like {} in {ALONE} and in {OTHER_SIDE}, neither of which sees the other",
            Post::Both
        ))?;
        self.say(&format!(
            "{unliked} more like {} on both sides and unlike it in {ALONE}: the like in {OTHER_SIDE} \
             must survive",
            Post::BothUnliked
        ))?;
        Ok(done)
    }

    /// The same write by each of the users; what like id each was answered.
    async fn everyone(
        &self,
        place: Place,
        post: Post,
        write: fn(Post, User) -> Write,
    ) -> anyhow::Result<Vec<String>> {
        let writes: Vec<Write> = (0..BOTH_SIDES)
            .map(|user| write(post, User(user)))
            .collect();
        let mut ids = Vec::with_capacity(writes.len());
        for part in writes.chunks(BATCH_WRITES) {
            ids.extend(self.load.write(place, part).await?);
        }
        Ok(ids)
    }

    async fn outcome(&self) -> anyhow::Result<Agreed> {
        let waiting = Instant::now();
        let fingerprint = check::wait_for_convergence(&self.load.cluster).await?;
        self.say(&format!(
            "all three hold the same after {} ms; every post is now checked for every user",
            waiting.elapsed().as_millis()
        ))?;
        let answers = check::ask_everything(&self.load.cluster).await?;
        let record = self.load.record.lock();
        let agreed = check::compare(&answers, &record, fingerprint)?;
        self.say(&format!(
            "every answer fits the record; {} writes were left without an outcome",
            record.unknown_writes()
        ))?;
        Ok(agreed)
    }

    fn close(&self, outcome: anyhow::Result<(BothSides, Agreed)>) -> anyhow::Result<ExitCode> {
        let writes = self.load.record.lock().writes();
        match outcome {
            Ok((both_sides, agreed)) => {
                let BothSides { liked, unliked } = both_sides;
                let Agreed {
                    likes,
                    likers,
                    fingerprint,
                } = agreed;
                output::line(format!(
                    "converged: regions=3 writes={writes} both_sides={liked} \
                     both_sides_unliked={unliked} kills=1 likes={likes} likers={likers} \
                     fingerprint={fingerprint}"
                ))?;
                Ok(ExitCode::SUCCESS)
            }
            Err(problem) if output::is_closed(&problem) => Err(problem),
            Err(problem) => {
                self.load.cluster.keep_folder();
                let problem = causes::told(problem.as_ref());
                output::line(format!("NOT converged: {problem} (writes={writes})"))?;
                Ok(ExitCode::FAILURE)
            }
        }
    }

    /// Waits for a part of the whole to be over, and tells how it stands meanwhile.
    async fn until(&self, hundredths: u32) -> Result<(), OutputError> {
        let end = self.began + self.length * hundredths / 100;
        while end - Instant::now() > TELL_EVERY {
            tokio::time::sleep(TELL_EVERY).await;
            let writes = self.load.record.lock().writes();
            self.say(&format!(
                "{} writes acknowledged{}",
                grouped(writes),
                self.likers().await
            ))?;
        }
        tokio::time::sleep_until(end).await;
        Ok(())
    }

    async fn likers(&self) -> String {
        let mut text = String::new();
        for place in Place::ALL {
            let status = match self.load.cluster.client(place) {
                Ok(client) => client.status().await.ok(),
                Err(_) => None,
            };
            match status {
                Some(status) => {
                    text.push_str(&format!(" · {place} {} likers", grouped(status.likers)))
                }
                None => text.push_str(&format!(" · {place} is gone")),
            }
        }
        text
    }

    fn say(&self, text: &str) -> Result<(), OutputError> {
        let seconds = self.began.elapsed().as_secs_f64();
        output::line(format!("[{seconds:5.1}s] {text}"))
    }
}

/// Whether both sides acknowledged a like of their own.
fn distinct(here: &str, there: &str) -> bool {
    !here.is_empty() && !there.is_empty() && here != there
}
