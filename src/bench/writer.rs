//! One client that likes: by a stream of batches, or call by call.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::crowd::{Crowd, Like, Taste};
use super::meters::Meters;
use super::pace::Pace;
use super::phases::Sending;
use crate::client::{BatchAnswer, BatchReceiver, BatchSender, Client, Reason};
use crate::wire::v1::{Outcome, WriteResult};

/// Who was refused, or found nobody, does not ask again at once.
const PAUSE: Duration = Duration::from_millis(10);

pub struct Writer {
    pub crowd: Arc<Crowd>,
    pub meters: Arc<Meters>,
    pub pace: Arc<Pace>,
    pub taste: Taste,
    pub client: Client,
    pub chance: SmallRng,
}

/// A batch that waits for its answer.
struct Sent {
    likes: Vec<Like>,
    due: Instant,
    /// Its place among those under way; free when this is dropped.
    _place: OwnedSemaphorePermit,
}

/// A stream and what is under way on it.
struct Flow {
    /// Guards the batches by their request ids; held for a look.
    sent: Mutex<HashMap<String, Sent>>,
    places: Arc<Semaphore>,
    /// Set when a batch was refused, until the next one waits for it.
    refused: AtomicBool,
    broken: CancellationToken,
}

impl Writer {
    /// Likes until the phase is over and all is answered.
    pub async fn run(mut self, sending: Sending) {
        match sending {
            Sending::Calls => self.call().await,
            Sending::Stream { batch, in_flight } => self.stream(batch, in_flight).await,
        }
    }

    async fn call(&mut self) {
        while let Some(due) = self.pace.turn().await {
            let like = self.next_like();
            let (post, user) = (self.crowd.post_id(like.post), self.crowd.user_id(like));
            self.meters.under_way.add(1);
            let answer = self.client.like(&post, &user).await;
            self.meters.under_way.take(1);
            match answer {
                Ok(answer) => {
                    self.meters.like_took(due);
                    let outcome = match answer.changed {
                        true => Outcome::Liked,
                        false => Outcome::LikedAgain,
                    };
                    self.came_of(like, outcome);
                }
                Err(error) => {
                    self.meters.trouble(&error);
                    match error.is_outcome_unknown() {
                        true => self.unknown(&[like]),
                        false => self.meters.refused.add(1),
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// A stream that breaks is opened again.
    async fn stream(&mut self, batch: usize, in_flight: usize) {
        loop {
            let opened = tokio::select! {
                biased;
                opened = self.client.stream_writes(in_flight) => opened,
                () = self.pace.over() => return,
            };
            match opened {
                Ok((sender, receiver)) => {
                    if self.pump(sender, receiver, batch, in_flight).await {
                        return;
                    }
                }
                Err(error) => self.meters.trouble(&error),
            }
            self.meters.streams_broken.add(1);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends and receives; whether the phase is over, and not the stream.
    async fn pump(
        &mut self,
        sender: BatchSender,
        mut receiver: BatchReceiver,
        batch: usize,
        in_flight: usize,
    ) -> bool {
        let flow = Flow {
            sent: Mutex::default(),
            places: Arc::new(Semaphore::new(in_flight)),
            refused: AtomicBool::new(false),
            broken: CancellationToken::new(),
        };
        let mut chance = self.chance.clone();
        let sending = self.send(&flow, sender, batch, &mut chance);
        let (is_over, is_whole) = tokio::join!(sending, self.receive(&flow, &mut receiver));
        self.chance = chance;
        for (_, batch) in receiver.unanswered() {
            let sent = flow.sent.lock().remove(&batch.request_id);
            let Some(sent) = sent else { continue };
            // The node may know the first try by its request id, and answers as it would have then.
            match self.client.batch_write(batch).await {
                Ok(result) => self.answered(&sent, &result),
                Err(error) => {
                    self.meters.trouble(&error);
                    self.unknown(&sent.likes);
                }
            }
            self.meters.under_way.take(sent.likes.len() as u64);
        }
        is_over && is_whole
    }

    /// Whether it went on until the phase was over.
    async fn send(
        &self,
        flow: &Flow,
        sender: BatchSender,
        batch: usize,
        chance: &mut SmallRng,
    ) -> bool {
        loop {
            let place = Arc::clone(&flow.places).acquire_owned();
            let turn = async {
                let place = place.await.expect("places are not closed");
                (place, self.pace.turn().await)
            };
            let (place, due) = tokio::select! {
                biased;
                () = flow.broken.cancelled() => return false,
                turn = turn => turn,
            };
            let Some(due) = due else { return true };
            if flow.refused.swap(false, Ordering::Relaxed) {
                tokio::time::sleep(PAUSE).await;
            }
            let likes: Vec<Like> = (0..batch).map(|_| self.like(chance)).collect();
            let wire = self.crowd.batch(&likes);
            let (request_id, count) = (wire.request_id.clone(), likes.len() as u64);
            let sent = Sent {
                likes,
                due,
                _place: place,
            };
            flow.sent.lock().insert(request_id.clone(), sent);
            self.meters.under_way.add(count);
            if sender.send(wire).await.is_err() {
                // It was not sent: nothing happened.
                flow.sent.lock().remove(&request_id);
                self.meters.under_way.take(count);
                self.meters.refused.add(count);
                return false;
            }
        }
    }

    /// Whether all was answered.
    async fn receive(&self, flow: &Flow, receiver: &mut BatchReceiver) -> bool {
        while let Some(answer) = receiver.next().await {
            match answer {
                Ok(answer) => self.settle(flow, answer),
                Err(error) => {
                    self.meters.trouble(&error);
                    flow.broken.cancel();
                    return false;
                }
            }
        }
        flow.broken.cancel();
        true
    }

    fn settle(&self, flow: &Flow, answer: BatchAnswer) {
        let sent = flow.sent.lock().remove(&answer.batch.request_id);
        let Some(sent) = sent else {
            self.meters
                .trouble("a batch was answered that was not sent");
            return;
        };
        self.meters.under_way.take(sent.likes.len() as u64);
        match answer.outcome {
            Ok(result) => self.answered(&sent, &result),
            Err(error) => {
                self.meters.trouble(&error.message);
                match error.reason() == Reason::OutcomeUnknown {
                    true => self.unknown(&sent.likes),
                    false => self.meters.refused.add(sent.likes.len() as u64),
                }
                flow.refused.store(true, Ordering::Relaxed);
            }
        }
    }

    fn answered(&self, sent: &Sent, result: &WriteResult) {
        if result.outcomes.len() != sent.likes.len() {
            self.meters
                .trouble("an answer has another length than its batch");
            self.unknown(&sent.likes);
            return;
        }
        self.meters.like_took(sent.due);
        if let Some(refused) = result.errors.first() {
            self.meters.trouble(&refused.message);
        }
        for (like, outcome) in sent.likes.iter().zip(result.outcomes()) {
            self.came_of(*like, outcome);
        }
    }

    fn came_of(&self, like: Like, outcome: Outcome) {
        if self.meters.count(outcome) {
            self.crowd.ledger.acknowledged(like.post, like.turn);
        }
    }

    fn unknown(&self, likes: &[Like]) {
        self.meters.unknown.add(likes.len() as u64);
        for like in likes {
            self.crowd.ledger.unknown(like.post, like.turn);
        }
    }

    fn next_like(&mut self) -> Like {
        let mut chance = self.chance.clone();
        let like = self.like(&mut chance);
        self.chance = chance;
        like
    }

    fn like(&self, chance: &mut SmallRng) -> Like {
        let like = self.crowd.like(self.taste, chance);
        self.meters.repeats_sent.add(u64::from(like.repeats));
        like
    }
}
