//! Calls that are made at the same time go out together: as batches on a stream, by themselves.
//!
//! A call that finds fewer than [`UNDER_WAY_MAX`] batches under way leaves at once, with those that came at the same moment.
//! Else it waits, and leaves with all that came meanwhile when one of these is answered. So the wait is bounded by what a
//! batch takes, nothing is timed, and the batches are the larger the more there is to do.
//!
//! Each call is promised what it is alone: an answer once it is durable, a retry that does nothing twice (the batch is
//! tried again with its request id, at the node that may have it), a bad item that fails alone. Likes and adds have
//! streams of their own, for they are not retried at the same places.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::error::Refusal;
use super::retry::{Begin, may_pass};
use super::stream::{BatchAnswer, BatchReceiver, BatchSender, StreamError};
use super::{Batch, Client, ClientError, Reason};
use crate::wire::v1;

/// Batches of one stream that are not answered. With two the node has one to work on while the other is on its way.
const UNDER_WAY_MAX: usize = 2;
/// Calls of one batch.
const BATCH_CALLS_MAX: usize = 1_000;
/// Calls that wait for a batch; more wait for a place.
const WAITING_MAX: usize = 4 * BATCH_CALLS_MAX;

/// What is called.
pub(super) enum Item {
    Like {
        post: String,
        user: String,
    },
    Add {
        post: String,
        counter: String,
        delta: i64,
    },
}

/// What became of it.
pub(super) struct Answered {
    outcome: i32,
    ids: v1::ItemLikeIds,
    figure: Option<i64>,
    token: String,
}

impl Answered {
    pub fn into_like(self) -> v1::LikeResponse {
        v1::LikeResponse {
            changed: self.outcome == i32::from(v1::Outcome::Liked),
            like_id: self.ids.like_id,
            replaced_like_ids: self.ids.removed_like_ids,
            count: self.figure.map(|count| count as u64),
            token: self.token,
        }
    }

    pub fn into_add(self) -> v1::AddResponse {
        v1::AddResponse {
            value: self.figure,
            token: self.token,
        }
    }
}

type Answer = oneshot::Sender<Result<Answered, ClientError>>;

struct Ask {
    item: Item,
    answer: Answer,
}

/// Where calls are gathered: a task for likes and one for adds, each begun by the first call.
#[derive(Default)]
pub(super) struct Gathering {
    likes: OnceLock<mpsc::Sender<Ask>>,
    adds: OnceLock<mpsc::Sender<Ask>>,
}

impl Client {
    /// None where this client does not gather, or its task is gone with the runtime that it ran on.
    pub(super) async fn gathered(
        &self,
        item: impl FnOnce() -> Item,
    ) -> Option<Result<Answered, ClientError>> {
        let gathering = self.gathering.as_ref()?;
        let item = item();
        let asks = match &item {
            Item::Like { .. } => &gathering.likes,
            Item::Add { .. } => &gathering.adds,
        };
        let asks = asks.get_or_init(|| Gatherer::begin(self));
        let (answer, answered) = oneshot::channel();
        asks.send(Ask { item, answer }).await.ok()?;
        match answered.await {
            Ok(answered) => Some(answered),
            // The runtime of its task ends: whether the call was sent is not known.
            Err(_) => Some(Err(self.ended())),
        }
    }

    fn ended(&self) -> ClientError {
        ClientError::OutcomeUnknown {
            endpoint: self.endpoints.name(self.begin().at).to_owned(),
            request_id: String::new(),
            attempts: 1,
            problem: "the runtime ended that gathers calls".to_owned(),
        }
    }
}

/// A stream, and who waits for the answers to its batches.
struct Line {
    sender: BatchSender,
    receiver: BatchReceiver,
    /// The node's place among the endpoints.
    at: usize,
    /// By number of the batch, when it was sent.
    under_way: BTreeMap<u64, (Instant, Vec<Answer>)>,
}

struct Gatherer {
    /// It gathers nothing, or this task would never end.
    client: Client,
    asks: mpsc::Receiver<Ask>,
    line: Option<Line>,
}

impl Gatherer {
    fn begin(client: &Client) -> mpsc::Sender<Ask> {
        let (sender, asks) = mpsc::channel(WAITING_MAX);
        let client = Client {
            gathering: None,
            ..client.clone()
        };
        let line = None;
        tokio::spawn(Self { client, asks, line }.run());
        sender
    }

    /// Until the last handle on the client is dropped.
    async fn run(mut self) {
        let mut is_open = true;
        loop {
            let under_way = self.line.as_ref().map_or(0, |line| line.under_way.len());
            if !is_open && under_way == 0 {
                return;
            }
            let limit = self.client.settings.attempt_timeout;
            tokio::select! {
                // Answers first, for they make room.
                biased;
                answer = next_answer(&mut self.line, limit), if under_way > 0 => self.handle(answer),
                ask = self.asks.recv(), if is_open && under_way < UNDER_WAY_MAX => match ask {
                    Some(first) => self.send(first).await,
                    None => is_open = false,
                }
            }
        }
    }

    async fn send(&mut self, first: Ask) {
        // Whoever is about to call does so before the batch leaves.
        tokio::task::yield_now().await;
        let mut batch = Batch::new().include_like_ids().include_figures();
        let waiting = (self.asks.len() + 1).min(BATCH_CALLS_MAX);
        batch.reserve(waiting);
        let mut answers = Vec::with_capacity(waiting);
        let mut next = Some(first);
        while let Some(Ask { item, answer }) = next {
            match item {
                Item::Like { post, user } => batch.like(&post, &user),
                Item::Add {
                    post,
                    counter,
                    delta,
                } => batch.add(&post, &counter, delta),
            }
            answers.push(answer);
            let has_room = answers.len() < BATCH_CALLS_MAX;
            next = has_room.then(|| self.asks.try_recv().ok()).flatten();
        }
        let line = match self.line.take() {
            Some(line) => line,
            None => match self.client.open_stream(UNDER_WAY_MAX).await {
                Ok((sender, receiver, at)) => Line {
                    sender,
                    receiver,
                    at,
                    under_way: BTreeMap::new(),
                },
                Err(error) => return deliver(answers, Err(error)),
            },
        };
        let line = self.line.insert(line);
        let batch = v1::WriteBatch::from(batch);
        match line.sender.send(batch.clone()).await {
            Ok(id) => drop(line.under_way.insert(id, (Instant::now(), answers))),
            // The stream takes no more; this batch has not left, and the next one opens another.
            Err(_) => {
                self.retry(self.client.begin(), batch, answers);
                self.break_line();
            }
        }
    }

    fn handle(&mut self, answer: Option<Result<BatchAnswer, StreamError>>) {
        let Some(line) = &mut self.line else { return };
        let Some(Ok(answer)) = answer else {
            return self.break_line();
        };
        let Some((_, answers)) = line.under_way.remove(&answer.batch_id) else {
            return;
        };
        match answer.outcome {
            Ok(result) => deliver(answers, Ok(result)),
            Err(error) => {
                let is_unknown = error.reason() == Reason::OutcomeUnknown;
                let at = line.at;
                if is_unknown || may_pass(error.reason()) {
                    return self.retry(Begin { at, is_unknown }, answer.batch, answers);
                }
                deliver(answers, Err(ClientError::Refused(Refusal::of_batch(error))));
            }
        }
    }

    /// What is not answered may have been carried out: it is tried again where it was.
    fn break_line(&mut self) {
        let Some(mut line) = self.line.take() else {
            return;
        };
        let begin = Begin {
            at: line.at,
            is_unknown: true,
        };
        for (id, batch) in line.receiver.unanswered() {
            if let Some((_, answers)) = line.under_way.remove(&id) {
                self.retry(begin, batch, answers);
            }
        }
    }

    fn retry(&self, begin: Begin, batch: v1::WriteBatch, answers: Vec<Answer>) {
        let client = self.client.clone();
        tokio::spawn(async move {
            deliver(answers, client.write_batch_from(begin, batch).await);
        });
    }
}

/// The next answer of a stream with a batch under way; an error too where the oldest is not answered in time.
async fn next_answer(
    line: &mut Option<Line>,
    limit: Duration,
) -> Option<Result<BatchAnswer, StreamError>> {
    let line = line.as_mut()?;
    let oldest = line.under_way.values().map(|(sent, _)| *sent).min()?;
    let answer = tokio::time::timeout_at(oldest + limit, line.receiver.next());
    answer.await.unwrap_or_else(|_| {
        let problem = format!("no answer within {limit:?}");
        Some(Err(StreamError { problem }))
    })
}

/// Each call is given its own part of the batch's result. Who has left is not answered.
fn deliver(answers: Vec<Answer>, result: Result<v1::WriteResult, ClientError>) {
    let mut result = match result {
        Ok(result) => result,
        Err(error) => {
            let refuse = |answer: Answer| drop(answer.send(Err(error.clone())));
            return answers.into_iter().for_each(refuse);
        }
    };
    for (at, answer) in answers.into_iter().enumerate() {
        let error = result
            .errors
            .iter()
            .position(|error| error.index as usize == at);
        let outcome = result.outcomes.get(at).copied();
        let answered = match (error, outcome) {
            (Some(error), _) => {
                let refusal = Refusal::of_item(result.errors.swap_remove(error));
                Err(ClientError::Refused(refusal))
            }
            (None, Some(outcome)) => Ok(Answered {
                outcome,
                ids: result
                    .like_ids
                    .get_mut(at)
                    .map(std::mem::take)
                    .unwrap_or_default(),
                figure: result.figures.get(at).copied(),
                token: result.token.clone(),
            }),
            (None, None) => Err(ClientError::Unexpected {
                endpoint: String::new(),
                code: tonic::Code::Internal,
                message: format!("{} outcomes", result.outcomes.len()),
            }),
        };
        drop(answer.send(answered));
    }
}
