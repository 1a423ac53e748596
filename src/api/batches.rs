//! Batches of writes: one a call, or many on a stream.
//!
//! A stream does not wait for one batch's sync before it applies the next, else a stream could do no
//! more than one batch a sync. It does wait until a batch is *applied* before it begins the next: the
//! order in which batches are applied is the order of their effects for each post and user, and applying
//! can pause (for room in the open commit, for an earlier try of the same request, for a node that is not
//! ready). Once both are applied they may become durable, and are answered, in any order.
//!
//! Answers are made as the client takes them: one that takes none is not read from any more, once
//! [`STREAM_BATCHES_IN_FLIGHT_MAX`] batches are unanswered.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, FuturesUnordered, Stream, StreamExt};
use tokio::sync::oneshot;
use tonic::{Status, Streaming};

use crate::api::Api;
use crate::api::answers::Namer;
use crate::api::error::ApiError;
use crate::api::malformed;
use crate::engine::Serving;
use crate::engine::command::{Command, Write};
use crate::engine::requests::{Done, Outcome};
use crate::engine::write::Written;
use crate::limits::STREAM_BATCHES_IN_FLIGHT_MAX;
use crate::wire::batch::{self, CheckedBatch};
use crate::wire::v1::{
    self, ItemError, ItemLikeIds, StreamWritesRequest, StreamWritesResponse, WriteBatch,
    WriteResult, stream_writes_response,
};

/// The answers of a stream of writes.
pub type WriteAnswers =
    Pin<Box<dyn Stream<Item = Result<StreamWritesResponse, Status>> + Send + 'static>>;

type Answer = Pin<Box<dyn Future<Output = StreamWritesResponse> + Send>>;

impl Api {
    /// Applies a batch and waits until it is durable. `applied` runs once all of it is in memory.
    pub(super) async fn write_batch(
        self: &Arc<Self>,
        batch: Option<WriteBatch>,
        applied: impl FnOnce() + Send + 'static,
    ) -> Result<WriteResult, ApiError> {
        if let Some(full) = self.load.full() {
            return Err(self.load.refusal(full));
        }
        let CheckedBatch {
            write,
            places,
            refused,
            items,
            include_like_ids,
            include_figures,
            seen,
        } = batch::check(self.engine.cluster(), batch)?;
        self.check_seen("batch.token", &seen)?;
        let mut result = WriteResult {
            outcomes: vec![v1::Outcome::Refused as i32; items],
            ..WriteResult::default()
        };
        if include_like_ids {
            result.like_ids = vec![ItemLikeIds::default(); items];
        }
        result
            .errors
            .extend(refused.into_iter().map(|(at, error)| item_error(at, error)));
        self.until_applicable(&write).await?;
        let _work = self.load.enter(write.commands.len())?;
        let write = Arc::new(write);
        let written = self.write(write.clone(), applied).await?;
        self.fill_in(&mut result, &write, &places, &written);
        if include_figures && self.engine.serving() == Serving::Ready {
            result.figures = vec![0; items];
            self.fill_in_figures(&mut result.figures, &write, &places);
        }
        result.token = match seen.is_empty() {
            true => written.token.to_string(),
            false => self.token_now(&seen),
        };
        Ok(result)
    }

    /// What became of the good items.
    fn fill_in(&self, result: &mut WriteResult, write: &Write, places: &[u32], written: &Written) {
        let replicas = self.engine.replicas().all();
        let namer = Namer::new(self.engine.cluster(), &replicas);
        let items = places.iter().zip(&write.commands).zip(&written.done);
        for ((place, command), done) in items {
            let at = *place as usize;
            result.outcomes[at] = outcome(done.outcome) as i32;
            if let Some(error) = self.item_error(done.outcome) {
                result.errors.push(item_error(*place, error));
            }
            if let Some(ids) = result.like_ids.get_mut(at) {
                *ids = like_ids(&namer, command, done);
            }
        }
        result.errors.sort_by_key(|error| error.index);
    }

    /// The figures of the good items, each looked up once for items of one thing that follow on one another.
    fn fill_in_figures(&self, figures: &mut [i64], write: &Write, places: &[u32]) {
        let items = write.commands.iter().zip(places);
        let items: Vec<_> = items.collect();
        for run in items.chunk_by(|(a, _), (b, _)| counts_the_same(a, b)) {
            let (command, _) = run[0];
            let figure = match command {
                Command::Add { .. } => self.value(command).unwrap_or_default(),
                Command::Like { post, .. } | Command::Unlike { post, .. } => {
                    self.engine.count(post) as i64
                }
            };
            for (_, place) in run {
                figures[**place as usize] = figure;
            }
        }
    }
}

/// Whether two commands change the same figure.
fn counts_the_same(a: &Command, b: &Command) -> bool {
    let is_same_kind = match (a, b) {
        (Command::Add { counter: a, .. }, Command::Add { counter: b, .. }) => a == b,
        (Command::Add { .. }, _) | (_, Command::Add { .. }) => false,
        _ => true,
    };
    is_same_kind && a.post() == b.post()
}

fn item_error(index: u32, error: impl Into<ApiError>) -> ItemError {
    let error = error.into();
    ItemError {
        index,
        reason: error.reason() as i32,
        message: error.to_string(),
    }
}

fn outcome(outcome: Outcome) -> v1::Outcome {
    match outcome {
        Outcome::Liked => v1::Outcome::Liked,
        Outcome::LikedAgain => v1::Outcome::LikedAgain,
        Outcome::Unliked => v1::Outcome::Unliked,
        Outcome::NotLiked => v1::Outcome::NotLiked,
        Outcome::Added => v1::Outcome::Added,
        Outcome::BeyondBound | Outcome::OrphanRemovalsFull => v1::Outcome::Refused,
    }
}

fn like_ids(namer: &Namer<'_>, command: &Command, done: &Done) -> ItemLikeIds {
    let (Command::Like { post, user } | Command::Unlike { post, user, .. }) = command else {
        return ItemLikeIds::default();
    };
    ItemLikeIds {
        like_id: namer.together((post, user), done.dot.as_slice()),
        removed_like_ids: namer.each((post, user), &done.removed),
    }
}

/// One client's stream of batches.
struct Batches {
    api: Arc<Api>,
    input: Streaming<StreamWritesRequest>,
    /// At most [`STREAM_BATCHES_IN_FLIGHT_MAX`].
    in_flight: FuturesUnordered<Answer>,
    /// Resolves when the newest batch is applied or refused.
    applying: Option<oneshot::Receiver<()>>,
    /// How the stream ends once all that is in flight is answered.
    ending: Option<Ending>,
}

enum Ending {
    /// The client has sent all it wanted.
    Complete,
    Broken(Status),
}

/// Answers every batch of the stream, each as soon as it is durable.
pub(super) fn answer_all(api: Arc<Api>, input: Streaming<StreamWritesRequest>) -> WriteAnswers {
    let batches = Batches {
        api,
        input,
        in_flight: FuturesUnordered::new(),
        applying: None,
        ending: None,
    };
    Box::pin(stream::unfold(Some(batches), |batches| async {
        let mut batches = batches?;
        match batches.next().await {
            Ok(Some(answer)) => Some((Ok(answer), Some(batches))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    }))
}

impl Batches {
    /// The next answer; none when the stream is over.
    async fn next(&mut self) -> Result<Option<StreamWritesResponse>, Status> {
        loop {
            if self.in_flight.is_empty() {
                match self.ending.take() {
                    Some(Ending::Complete) => return Ok(None),
                    Some(Ending::Broken(status)) => return Err(status),
                    None => {}
                }
            }
            let in_order = self.applying.is_none();
            let open = self.ending.is_none();
            let room = self.in_flight.len() < STREAM_BATCHES_IN_FLIGHT_MAX;
            tokio::select! {
                // Answers first, for they make room; then the order of batches, then new ones.
                biased;
                Some(answer) = self.in_flight.next() => return Ok(Some(answer)),
                () = applied(&mut self.applying), if !in_order => self.applying = None,
                () = self.api.shutdown.cancelled(), if open => {
                    self.ending = Some(Ending::Broken(ApiError::Stopping.into()));
                }
                message = self.input.message(), if open && room && in_order => {
                    self.take(message);
                }
            }
        }
    }

    fn take(&mut self, message: Result<Option<StreamWritesRequest>, Status>) {
        match message {
            Ok(Some(request)) => self.begin(request),
            Ok(None) => self.ending = Some(Ending::Complete),
            Err(status) => {
                self.ending = Some(Ending::Broken(malformed::explain_status(status)));
            }
        }
    }

    fn begin(&mut self, request: StreamWritesRequest) {
        let (applied, applying) = oneshot::channel();
        self.applying = Some(applying);
        let api = self.api.clone();
        self.in_flight.push(Box::pin(async move {
            // Nobody listens any more where the stream has ended.
            let applied = move || applied.send(()).unwrap_or_default();
            let outcome = match api.write_batch(request.batch, applied).await {
                Ok(result) => stream_writes_response::Outcome::Result(result),
                Err(error) => stream_writes_response::Outcome::Error(error.into()),
            };
            StreamWritesResponse {
                batch_id: request.batch_id,
                outcome: Some(outcome),
            }
        }));
    }
}

/// Whether the batch was applied, or refused and its sender dropped, is all the same for the order.
async fn applied(applying: &mut Option<oneshot::Receiver<()>>) {
    if let Some(applying) = applying {
        match applying.await {
            Ok(()) | Err(_) => {}
        }
    }
}
