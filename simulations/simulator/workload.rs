//! Clients: what they ask for, drawn from the seed, and what they make of the answers.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use likewise::client::Failure;
use likewise::codec::text::{NamedSeq, decode_like_id, decode_token};
use likewise::config::Config;
use likewise::ids::{ClusterId, PostId, UserId};
use likewise::wire::v1::{AddRequest, LikeRequest, UnlikeRequest};
use rand::distr::weighted::WeightedIndex;
use rand::prelude::Distribution;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::history::{Action, Operation, Outcome, Recorder};
use super::scenario::WorkloadPlan;
use super::world::caller::Caller;

/// Tries of a write with a request id.
const TRIES_MAX: usize = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(300);
/// After so many answers that its token is not covered, a client gives the token up.
const UNCOVERED_MAX: usize = 3;

pub const COUNTERS: [&str; 2] = ["shares", "views"];

pub fn post_name(post: usize) -> String {
    format!("post-{post}")
}

/// See the module.
pub struct Client {
    number: usize,
    plan: WorkloadPlan,
    until: Duration,
    caller: Caller,
    recorder: Recorder,
    chance: StdRng,
    posts: WeightedIndex<f64>,
    kinds: WeightedIndex<u32>,
    cluster: ClusterId,
    token: String,
    uncovered: usize,
    requests: usize,
    /// What this client knows of the likes of its own users: nobody else writes them.
    known: HashMap<(usize, String), bool>,
    /// Of these it never knows again: something that may have happened may also happen yet, or they were written under
    /// a token that was given up, so that a later unlike may not have seen them.
    unsure: HashSet<(usize, String)>,
    /// What it has written under its token.
    written: HashSet<(usize, String)>,
    /// Likes that it was told of, to remove by their ids.
    likes: Vec<(usize, String, String)>,
    /// How often a folder was lost when `known` began: what was known of it may be gone.
    destroyed: usize,
}

/// A machine, by number and name.
type Called = (usize, &'static str);

/// A write, to be tried once or more often.
struct Write {
    post: usize,
    user: String,
    action: Action,
    like_id: String,
}

impl Client {
    pub fn new(
        number: usize,
        plan: WorkloadPlan,
        until: Duration,
        seed: u64,
        caller: Caller,
        recorder: Recorder,
    ) -> Self {
        let weights = (1..=plan.posts).map(|rank| (rank as f64).powf(-plan.zipf));
        let mix = plan.mix;
        let kinds = [mix.like, mix.unlike, mix.unlike_by_id, mix.add, mix.read];
        Self {
            number,
            until,
            caller,
            recorder,
            chance: StdRng::seed_from_u64(seed),
            posts: WeightedIndex::new(weights).expect("there are posts"),
            kinds: WeightedIndex::new(kinds).expect("likes have a weight"),
            cluster: Config::default().cluster.id,
            token: String::new(),
            uncovered: 0,
            requests: 0,
            known: HashMap::new(),
            unsure: HashSet::new(),
            written: HashSet::new(),
            likes: Vec::new(),
            destroyed: 0,
            plan,
        }
    }

    pub async fn run(mut self) {
        let pause = self.plan.clients as f64 / self.plan.operations_per_second;
        loop {
            let share: f64 = self.chance.random_range(0.0..1.0);
            let wait = -(1.0 - share).ln() * pause;
            tokio::time::sleep(Duration::from_secs_f64(wait.clamp(0.001, 30.0))).await;
            if self.recorder.now() >= self.until {
                return;
            }
            self.forget_what_may_be_lost();
            self.one().await;
        }
    }

    fn forget_what_may_be_lost(&mut self) {
        let destroyed = self.recorder.lock().history.destroyed.len();
        if destroyed > self.destroyed {
            self.destroyed = destroyed;
            self.known.clear();
        }
    }

    async fn one(&mut self) {
        let kind = self.kinds.sample(&mut self.chance);
        let post = self.posts.sample(&mut self.chance);
        let user = self.user();
        let machine = self.machine();
        match kind {
            0 => {
                let (post, user) = self.liked_already().unwrap_or((post, user));
                self.write(machine, (post, user, Action::Like)).await;
            }
            1 => {
                let (post, user) = self.liked().unwrap_or((post, user));
                self.write(machine, (post, user, Action::Unlike)).await;
            }
            2 => self.unlike_by_id(machine).await,
            3 => {
                let counter = COUNTERS[self.chance.random_range(0..COUNTERS.len())];
                // Nothing is never added.
                let delta = [-3, -1, 1, 2, 9][self.chance.random_range(0..5)];
                let action = Action::Add { counter, delta };
                self.write(machine, (post, String::new(), action)).await;
            }
            _ => {
                let (post, user) = self.liked().unwrap_or((post, user));
                self.read(machine, post, user).await;
            }
        }
    }

    fn user(&mut self) -> String {
        match self.chance.random_bool(self.plan.shared) {
            true => format!("s-{}", self.chance.random_range(0..self.plan.shared_users)),
            false => {
                let own = self.chance.random_range(0..self.plan.own_users);
                format!("c{}-{own}", self.number)
            }
        }
    }

    /// The client's own region, or where it travels.
    fn machine(&mut self) -> Called {
        let inner = self.recorder.lock();
        let machines = &inner.machines;
        let at = match self.chance.random_bool(self.plan.travel) {
            true => self.chance.random_range(0..machines.len()),
            false => self.number % machines.len(),
        };
        machines[at]
    }

    fn liked(&mut self) -> Option<(usize, String)> {
        let len = self.likes.len();
        if len == 0 || self.chance.random_bool(0.2) {
            return None;
        }
        let (post, user, _) = &self.likes[self.chance.random_range(0..len)];
        Some((*post, user.clone()))
    }

    fn liked_already(&mut self) -> Option<(usize, String)> {
        self.chance
            .random_bool(self.plan.repeated)
            .then(|| self.liked())?
    }

    async fn unlike_by_id(&mut self, (machine, name): Called) {
        let len = self.likes.len();
        if len == 0 {
            return;
        }
        let (post, user, like_id) = self.likes.swap_remove(self.chance.random_range(0..len));
        let dots = self.dots(post, &user, &like_id);
        let write = Write {
            post,
            user,
            action: Action::UnlikeById(dots),
            like_id,
        };
        self.write_with((machine, name), write).await;
    }

    async fn write(
        &mut self,
        (machine, name): Called,
        (post, user, action): (usize, String, Action),
    ) {
        let write = Write {
            post,
            user,
            action,
            like_id: String::new(),
        };
        self.write_with((machine, name), write).await;
    }

    /// Tries a write, with a request id again and again while its outcome is unknown.
    async fn write_with(&mut self, (machine, name): Called, write: Write) {
        let has_id = self.chance.random_bool(self.plan.request_ids);
        self.requests += 1;
        let request_id = match has_id {
            true => format!("c{}-{}", self.number, self.requests),
            false => String::new(),
        };
        let mut retries = None;
        for _ in 0..TRIES_MAX {
            let index = self.recorder.begin(Operation {
                client: self.number,
                machine,
                at: self.recorder.now(),
                ended: Duration::MAX,
                post: post_name(write.post),
                user: write.user.clone(),
                action: write.action.clone(),
                retries,
                outcome: Outcome::Pending,
                through: Vec::new(),
            });
            let answer = self.call(name, &write, &request_id).await;
            let outcome = match answer {
                Ok((outcome, token)) => {
                    let through = self.saw(token, name);
                    self.learn(&write, &outcome);
                    self.recorder.end(index, outcome, through);
                    return;
                }
                Err(failure) => self.outcome_of(failure),
            };
            let is_unknown = outcome == Outcome::Unknown;
            if is_unknown {
                let key = (write.post, write.user.clone());
                self.known.remove(&key);
                self.unsure.insert(key);
            }
            self.recorder.end(index, outcome, Vec::new());
            if request_id.is_empty() || !(is_unknown || retries.is_some()) {
                return;
            }
            retries = Some(index);
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn call(
        &mut self,
        name: &'static str,
        write: &Write,
        request_id: &str,
    ) -> Result<(Outcome, String), Failure> {
        let (post, user) = (post_name(write.post), write.user.clone());
        let (request_id, token) = (request_id.to_owned(), self.token.clone());
        match &write.action {
            Action::Like => {
                let like = LikeRequest {
                    post,
                    user,
                    request_id,
                    token,
                };
                let answer = self.caller.like(name, like).await?;
                let dots = self.dots(write.post, &write.user, &answer.like_id);
                let replaced = answer.replaced_like_ids.iter();
                let replaced = replaced.flat_map(|id| self.dots(write.post, &write.user, id));
                let outcome = Outcome::Liked {
                    dots,
                    replaced: replaced.collect(),
                };
                self.likes
                    .push((write.post, write.user.clone(), answer.like_id));
                Ok((outcome, answer.token))
            }
            Action::Unlike | Action::UnlikeById(_) => {
                let unlike = UnlikeRequest {
                    post,
                    user,
                    like_id: write.like_id.clone(),
                    request_id,
                    token,
                };
                let answer = self.caller.unlike(name, unlike).await?;
                let removed = answer.removed_like_ids.iter();
                let removed = removed.flat_map(|id| self.dots(write.post, &write.user, id));
                let outcome = Outcome::Unliked {
                    removed: removed.collect(),
                };
                Ok((outcome, answer.token))
            }
            Action::Add { counter, delta } => {
                let add = AddRequest {
                    post,
                    counter: (*counter).to_owned(),
                    delta: *delta,
                    request_id,
                    token,
                };
                let answer = self.caller.add(name, add).await?;
                Ok((Outcome::Added, answer.token))
            }
            Action::Read { .. } => unreachable!("reads are not written"),
        }
    }

    async fn read(&mut self, (machine, name): Called, post: usize, user: String) {
        let key = (post, user.clone());
        let expected = self.known.get(&key).copied();
        let index = self.recorder.begin(Operation {
            client: self.number,
            machine,
            at: self.recorder.now(),
            ended: Duration::MAX,
            post: post_name(post),
            user: user.clone(),
            action: Action::Read { expected },
            retries: None,
            outcome: Outcome::Pending,
            through: Vec::new(),
        });
        let token = self.token.clone();
        let answer = self.caller.read(name, &post_name(post), &user, token).await;
        let (outcome, through) = match answer {
            Ok((likes, token)) => {
                let shown = Outcome::Shown {
                    likes: likes.viewer_likes,
                    count: likes.count,
                };
                (shown, self.saw(token, name))
            }
            Err(failure) => (self.outcome_of(failure), Vec::new()),
        };
        self.recorder.end(index, outcome, through);
    }

    fn outcome_of(&mut self, failure: Failure) -> Outcome {
        match failure {
            Failure::Refused(refusal) => {
                let reason = format!("{:?}", refusal.reason);
                if matches!(reason.as_str(), "TokenNotCovered" | "FromTheFuture") {
                    self.uncovered += 1;
                    if self.uncovered >= UNCOVERED_MAX {
                        self.token.clear();
                        self.unsure.extend(self.written.drain());
                        self.known.clear();
                        self.uncovered = 0;
                    }
                }
                Outcome::Refused(reason)
            }
            Failure::NotReached(_) => Outcome::NotReached,
            Failure::Unknown { .. } => Outcome::Unknown,
            Failure::Unexpected { code, message } => {
                self.recorder
                    .fail(format!("an unexpected answer: {code}: {message}"));
                Outcome::Unknown
            }
        }
    }

    /// Goes on from what an answer showed; tells what of it is of the answering region.
    fn saw(&mut self, token: String, machine: &str) -> Vec<NamedSeq> {
        self.uncovered = 0;
        let region = machine.split('-').next().unwrap_or(machine);
        let entries = decode_token(&self.cluster, &token);
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => {
                self.recorder
                    .fail(format!("a token that cannot be read: {error}"));
                Vec::new()
            }
        };
        self.token = token;
        entries
            .into_iter()
            .filter(|(replica, _)| replica.region.as_str() == region)
            .collect()
    }

    fn learn(&mut self, write: &Write, outcome: &Outcome) {
        // Others write shared users, too.
        if write.user.is_empty() || write.user.starts_with('s') {
            return;
        }
        let key = (write.post, write.user.clone());
        self.written.insert(key.clone());
        if self.unsure.contains(&key) {
            return;
        }
        match (&write.action, outcome) {
            (Action::Like, _) => self.known.insert(key, true),
            (Action::Unlike, _) => self.known.insert(key, false),
            // Other likes of the user may stay.
            _ => self.known.remove(&key),
        };
    }

    fn dots(&self, post: usize, user: &str, like_id: &str) -> Vec<NamedSeq> {
        let post = PostId::new(&post_name(post)).expect("a valid post");
        let user = UserId::new(user).expect("a valid user");
        match decode_like_id(&self.cluster, (&post, &user), like_id) {
            Ok(dots) => dots,
            Err(error) => {
                self.recorder
                    .fail(format!("a like id that cannot be read: {error}"));
                Vec::new()
            }
        }
    }
}
