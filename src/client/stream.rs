//! Batches on one stream: sent ahead up to a bound, answered in any order.
//!
//! A stream belongs to one node and is not opened again by itself: which batches were carried out when
//! it broke is unknown, and the caller is given them back, each with its request id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::error::Failure;
use super::memory::Memory;
use super::retry::Call;
use super::{Client, ClientError};
use crate::limits::STREAM_BATCHES_IN_FLIGHT_MAX;
use crate::wire::v1;
use crate::wire::v1::like_service_client::LikeServiceClient;
use crate::wire::v1::stream_writes_response::Outcome;

/// What became of one batch.
#[derive(Debug)]
pub struct BatchAnswer {
    /// As [`BatchSender::send`] returned it.
    pub batch_id: u64,
    /// The batch as it was sent, with its request id. Where it was refused, [`Client::batch_write`] may try it again.
    pub batch: v1::WriteBatch,
    /// The result, or the refusal of the whole batch, which changed nothing unless its reason is
    /// OUTCOME_UNKNOWN.
    pub outcome: Result<v1::WriteResult, v1::BatchError>,
}

/// Why a stream ended before its time.
#[derive(Debug, thiserror::Error)]
#[error("the stream ended: {problem}")]
pub struct StreamError {
    pub problem: String,
}

/// The batches that are under way.
#[derive(Default)]
struct InFlight {
    next_id: u64,
    batches: BTreeMap<u64, (v1::WriteBatch, OwnedSemaphorePermit)>,
}

/// Where batches go in.
pub struct BatchSender {
    memory: Arc<Memory>,
    /// Never full: as long as [`InFlight`] may be, so sending never waits here.
    requests: mpsc::Sender<v1::StreamWritesRequest>,
    /// One permit a batch under way; sending waits when there is none.
    permits: Arc<Semaphore>,
    /// Guards the batches under way; held for a look.
    in_flight: Arc<Mutex<InFlight>>,
}

/// Where answers come out.
pub struct BatchReceiver {
    answers: Streaming<v1::StreamWritesResponse>,
    permits: Arc<Semaphore>,
    in_flight: Arc<Mutex<InFlight>>,
    memory: Arc<Memory>,
}

impl Client {
    /// Opens a stream for batches, of which at most `in_flight_max` are under way at once (from 1 to
    /// the protocol's limit).
    pub async fn stream_writes(
        &self,
        in_flight_max: usize,
    ) -> Result<(BatchSender, BatchReceiver), ClientError> {
        let (sender, receiver, _) = self.open_stream(in_flight_max).await?;
        Ok((sender, receiver))
    }

    /// Also says where the stream's node stands.
    pub(super) async fn open_stream(
        &self,
        in_flight_max: usize,
    ) -> Result<(BatchSender, BatchReceiver, usize), ClientError> {
        let bound = in_flight_max.clamp(1, STREAM_BATCHES_IN_FLIGHT_MAX);
        let begin = self.begin();
        let ((requests, answers), at) = self
            .run_from(begin, Call::Read, "", Duration::ZERO, |attempt| {
                let (requests, outgoing) = mpsc::channel(bound);
                async move {
                    let mut service = LikeServiceClient::new(attempt.channel);
                    let answers = service.stream_writes(ReceiverStream::new(outgoing)).await?;
                    Ok(answers.map(|answers| (requests, answers)))
                }
            })
            .await?;
        let permits = Arc::new(Semaphore::new(bound));
        let in_flight = Arc::new(Mutex::new(InFlight::default()));
        let sender = BatchSender {
            memory: Arc::clone(&self.memory),
            requests,
            permits: Arc::clone(&permits),
            in_flight: Arc::clone(&in_flight),
        };
        let receiver = BatchReceiver {
            answers,
            permits,
            in_flight,
            memory: Arc::clone(&self.memory),
        };
        Ok((sender, receiver, at))
    }
}

impl BatchSender {
    /// Sends a batch, after waiting until one more may be under way. The number returned comes back with
    /// its answer. Dropping the sender ends the stream once all is answered.
    pub async fn send(&self, batch: impl Into<v1::WriteBatch>) -> Result<u64, StreamError> {
        let ended = |problem: &str| StreamError {
            problem: problem.to_owned(),
        };
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| ended("it was closed"))?;
        let batch = v1::WriteBatch {
            token: self.memory.token(),
            ..batch.into()
        };
        let batch_id = {
            let mut in_flight = self.in_flight.lock();
            let batch_id = in_flight.next_id;
            in_flight.next_id += 1;
            in_flight.batches.insert(batch_id, (batch.clone(), permit));
            batch_id
        };
        let request = v1::StreamWritesRequest {
            batch_id,
            batch: Some(batch),
        };
        match self.requests.send(request).await {
            Ok(()) => Ok(batch_id),
            Err(_) => {
                self.in_flight.lock().batches.remove(&batch_id);
                Err(ended("the node takes no more"))
            }
        }
    }
}

impl BatchReceiver {
    /// The next answer; `None` after the sender was dropped and all is answered.
    pub async fn next(&mut self) -> Option<Result<BatchAnswer, StreamError>> {
        match self.answers.message().await {
            Ok(Some(answer)) => Some(self.take(answer)),
            Ok(None) => {
                self.permits.close();
                let left = self.in_flight.lock().batches.len();
                (left > 0).then(|| Err(self.broken(format!("{left} batches without an answer"))))
            }
            Err(status) => Some(Err(self.broken(problem_of(&status)))),
        }
    }

    /// The batches without an answer, with their numbers: after an error these may or may not have been
    /// carried out. [`Client::batch_write`] of the same batch is safe at the same node.
    pub fn unanswered(&self) -> Vec<(u64, v1::WriteBatch)> {
        let in_flight = self.in_flight.lock();
        let batches = in_flight.batches.iter();
        batches
            .map(|(id, (batch, _))| (*id, batch.clone()))
            .collect()
    }

    fn take(&mut self, answer: v1::StreamWritesResponse) -> Result<BatchAnswer, StreamError> {
        let batch_id = answer.batch_id;
        let outcome = match answer.outcome {
            Some(Outcome::Result(result)) => Ok(result),
            Some(Outcome::Error(error)) => Err(error),
            // The batch stays without an answer.
            None => return Err(self.broken(format!("an empty answer to batch {batch_id}"))),
        };
        let sent = self.in_flight.lock().batches.remove(&batch_id);
        let Some((batch, _)) = sent else {
            return Err(self.broken(format!("an answer to batch {batch_id}, which was not sent")));
        };
        if let Ok(result) = &outcome {
            self.memory.saw(result.token.clone());
        }
        Ok(BatchAnswer {
            batch_id,
            batch,
            outcome,
        })
    }

    fn broken(&self, problem: String) -> StreamError {
        self.permits.close();
        StreamError { problem }
    }
}

fn problem_of(status: &tonic::Status) -> String {
    match Failure::of(status) {
        Failure::Refused(refusal) => refusal.to_string(),
        Failure::NotReached(problem) | Failure::Unknown { problem, .. } => problem,
        Failure::Unexpected { code, message } => format!("{code:?}: {message}"),
    }
}
