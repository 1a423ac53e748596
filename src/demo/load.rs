//! People who like, unlike and view: in each region one stream of batches and a few who call one by one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Place;
use super::cluster::Cluster;
use super::record::{Post, Record, User, Write};
use crate::client::{Batch, BatchReceiver, BatchSender, Client, ClientError, Reason};
use crate::wire::v1::WriteBatch;

/// Posts that the load writes to.
pub const POSTS: u32 = 24;
/// Users, of which each may like each post.
pub const USERS: u32 = 4_000;
/// The counter of views.
pub const VIEWS: &str = "views";

const BATCH_WRITES: usize = 100;
const BATCHES_IN_FLIGHT: usize = 16;
const BATCH_EVERY: Duration = Duration::from_millis(20);
const CALLERS: u64 = 4;
const CALL_EVERY: Duration = Duration::from_millis(10);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);
/// Likes that callers in other regions may unlike by id, unseen there; the oldest is forgotten.
const RECENT_LIKES_MAX: usize = 1_000;

/// What everyone who writes has in common.
pub struct Load {
    pub cluster: Arc<Cluster>,
    /// Guards the record; held for one answer.
    pub record: Mutex<Record>,
    /// Guards the recent likes; held for one of them.
    recent: Mutex<VecDeque<(Post, User, String)>>,
    stop: CancellationToken,
}

impl Load {
    pub fn new(cluster: &Arc<Cluster>) -> Arc<Self> {
        Arc::new(Self {
            cluster: Arc::clone(cluster),
            record: Mutex::new(Record::default()),
            recent: Mutex::new(VecDeque::new()),
            stop: CancellationToken::new(),
        })
    }

    /// Begins to write in all regions until [`Load::stop`]; the tasks end then, all answers written down.
    pub fn start(self: &Arc<Self>, seed: u64) -> JoinSet<()> {
        let mut writers = JoinSet::new();
        for (number, place) in (0u64..).zip(Place::ALL) {
            let chance = |writer: u64| {
                let of_its_own = number * (CALLERS + 1) + writer;
                StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(of_its_own))
            };
            writers.spawn(Arc::clone(self).stream(place, chance(0)));
            for caller in 1..=CALLERS {
                writers.spawn(Arc::clone(self).call_one_by_one(place, chance(caller)));
            }
        }
        writers
    }

    /// Lets the writers finish.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Writes a batch at once and writes its answer down; what was answered for each write.
    pub async fn write(&self, place: Place, writes: &[Write]) -> anyhow::Result<Vec<String>> {
        let answer = self.cluster.client(place)?.batch_write(batch(writes)).await;
        match answer {
            Ok(result) => {
                self.record.lock().answered(writes, &result);
                Ok(result.like_ids.into_iter().map(first_id).collect())
            }
            Err(error) => {
                self.failed(writes, &error);
                Err(error.into())
            }
        }
    }

    fn failed(&self, writes: &[Write], error: &ClientError) {
        if error.is_outcome_unknown() {
            self.unknown(writes);
        }
    }

    fn unknown(&self, writes: &[Write]) {
        let mut record = self.record.lock();
        writes.iter().for_each(|write| record.unknown(*write));
    }

    async fn stream(self: Arc<Self>, place: Place, mut chance: StdRng) {
        let mut follow = self.cluster.follow(place);
        let mut unanswered = Vec::new();
        while let Some(client) = self.next_client(&mut follow).await {
            self.retry(&client, std::mem::take(&mut unanswered)).await;
            if self.stop.is_cancelled() {
                return;
            }
            match client.stream_writes(BATCHES_IN_FLIGHT).await {
                Ok((sender, receiver)) => {
                    unanswered = self.pump(sender, receiver, &mut chance).await;
                }
                Err(_) => tokio::time::sleep(PAUSE_AFTER_FAILURE).await,
            }
        }
        for (writes, _) in unanswered {
            self.unknown(&writes);
        }
    }

    /// The region's client as soon as there is one; `None` when the load ends before.
    async fn next_client(&self, follow: &mut watch::Receiver<Option<Client>>) -> Option<Client> {
        tokio::select! {
            biased;
            client = follow.wait_for(Option::is_some) => client.ok()?.as_ref().map(Client::session),
            () = self.stop.cancelled() => None,
        }
    }

    /// Sends and receives until the load stops or the stream breaks; what has no answer comes back.
    async fn pump(
        &self,
        sender: BatchSender,
        mut receiver: BatchReceiver,
        chance: &mut StdRng,
    ) -> Vec<(Vec<Write>, WriteBatch)> {
        let sent = Mutex::new(HashMap::new());
        let sending = async {
            let mut ticks = tokio::time::interval(BATCH_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !self.stop.is_cancelled() {
                ticks.tick().await;
                let writes: Vec<Write> = (0..BATCH_WRITES).map(|_| choose(chance)).collect();
                let batch = batch(&writes);
                sent.lock().insert(batch.request_id().to_owned(), writes);
                if sender.send(batch).await.is_err() {
                    break;
                }
            }
            drop(sender);
        };
        let receiving = async {
            while let Some(Ok(answer)) = receiver.next().await {
                let writes = sent
                    .lock()
                    .remove(&answer.batch.request_id)
                    .unwrap_or_default();
                match answer.outcome {
                    Ok(result) => self.record.lock().answered(&writes, &result),
                    Err(error) if error.reason() == Reason::OutcomeUnknown => self.unknown(&writes),
                    Err(_) => {}
                }
            }
        };
        tokio::join!(sending, receiving);
        let mut sent = sent.into_inner();
        let unanswered = receiver.unanswered().into_iter();
        unanswered
            .filter_map(|(_, batch)| Some((sent.remove(&batch.request_id)?, batch)))
            .collect()
    }

    /// Asks again, with the same request ids, what became of batches without an answer.
    async fn retry(&self, client: &Client, unanswered: Vec<(Vec<Write>, WriteBatch)>) {
        for (writes, batch) in unanswered {
            match client.batch_write(batch).await {
                Ok(result) => self.record.lock().answered(&writes, &result),
                // The first try may have happened, whatever became of this one.
                Err(_) => self.unknown(&writes),
            }
        }
    }

    async fn call_one_by_one(self: Arc<Self>, place: Place, mut chance: StdRng) {
        let mut follow = self.cluster.follow(place);
        while let Some(client) = self.next_client(&mut follow).await {
            while !self.stop.is_cancelled() {
                let (write, like_id) = self.choose_call(&mut chance);
                let answered = tokio::select! {
                    biased;
                    // The node is killed: nobody will answer.
                    _ = follow.wait_for(Option::is_none) => false,
                    () = self.call(&client, write, like_id.as_deref()) => true,
                };
                if !answered {
                    self.unknown(&[write]);
                    break;
                }
                tokio::time::sleep(CALL_EVERY).await;
            }
            if self.stop.is_cancelled() {
                return;
            }
        }
    }

    fn choose_call(&self, chance: &mut StdRng) -> (Write, Option<String>) {
        if chance.random_bool(0.1)
            && let Some((post, user, like_id)) = self.recent.lock().pop_front()
        {
            return (Write::Unlike(post, user), Some(like_id));
        }
        (choose(chance), None)
    }

    async fn call(&self, client: &Client, write: Write, like_id: Option<&str>) {
        let failed = match write {
            Write::Like(post, user) => {
                let answer = client.like(&post.to_string(), &user.to_string()).await;
                let answer = answer.map(|answer| {
                    let (id, replaced) = (answer.like_id, answer.replaced_like_ids);
                    self.record.lock().liked(post, user, &id, &replaced);
                    self.remember(post, user, id);
                });
                answer.err()
            }
            Write::Unlike(post, user) => {
                let (post_id, user_id) = (post.to_string(), user.to_string());
                let like_id = like_id.unwrap_or_default();
                let answer = client.unlike_by_id(&post_id, &user_id, like_id).await;
                let answer = answer.map(|answer| {
                    self.record
                        .lock()
                        .unliked(post, user, &answer.removed_like_ids);
                });
                answer.err()
            }
            Write::View(post) => {
                let answer = client.add(&post.to_string(), VIEWS, 1).await;
                answer.map(|_| self.record.lock().viewed(post)).err()
            }
        };
        if let Some(error) = failed {
            self.failed(&[write], &error);
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
        }
    }

    fn remember(&self, post: Post, user: User, like_id: String) {
        let mut recent = self.recent.lock();
        if recent.len() == RECENT_LIKES_MAX {
            recent.pop_front();
        }
        recent.push_back((post, user, like_id));
    }
}

/// Some posts are far more popular than others.
fn choose(chance: &mut StdRng) -> Write {
    let popularity: f64 = chance.random();
    let number = (popularity * popularity * f64::from(POSTS)) as u32;
    let post = Post::Numbered(number.min(POSTS - 1));
    let user = User(chance.random_range(0..USERS));
    match chance.random_range(0..100) {
        0..75 => Write::Like(post, user),
        75..95 => Write::Unlike(post, user),
        _ => Write::View(post),
    }
}

/// The writes as one batch, its answer to name like ids.
pub fn batch(writes: &[Write]) -> Batch {
    let mut batch = Batch::new().include_like_ids();
    for write in writes {
        match write {
            Write::Like(post, user) => batch.like(&post.to_string(), &user.to_string()),
            Write::Unlike(post, user) => batch.unlike(&post.to_string(), &user.to_string()),
            Write::View(post) => batch.add(&post.to_string(), VIEWS, 1),
        }
    }
    batch
}

fn first_id(ids: crate::wire::v1::ItemLikeIds) -> String {
    match ids.like_id.is_empty() {
        false => ids.like_id,
        true => ids.removed_like_ids.into_iter().next().unwrap_or_default(),
    }
}
