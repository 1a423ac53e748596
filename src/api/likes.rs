//! LikeService: the calls, and single likes and unlikes. The other calls' work stands in files of their
//! own.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

use crate::api::Api;
use crate::api::answers::Namer;
use crate::api::batches::{self, WriteAnswers};
use crate::api::error::ApiError;
use crate::api::watch::WatchAnswers;
use crate::engine::command::{Command, Write};
use crate::engine::requests::{Done, Outcome};
use crate::wire::requests::{self, WriteCall};
use crate::wire::v1::like_service_server::LikeService;
use crate::wire::v1::{
    BatchGetPostsRequest, BatchGetPostsResponse, BatchWriteRequest, BatchWriteResponse,
    GetPostRequest, GetPostResponse, LikeRequest, LikeResponse, ListLikersRequest,
    ListLikersResponse, StreamWritesRequest, UnlikeRequest, UnlikeResponse, WatchPostsRequest,
};

/// The service of likes.
#[derive(Clone)]
pub struct Likes(pub(super) Arc<Api>);

#[tonic::async_trait]
impl LikeService for Likes {
    async fn like(&self, request: Request<LikeRequest>) -> Result<Response<LikeResponse>, Status> {
        Ok(Response::new(self.0.like(request.into_inner()).await?))
    }

    async fn unlike(
        &self,
        request: Request<UnlikeRequest>,
    ) -> Result<Response<UnlikeResponse>, Status> {
        Ok(Response::new(self.0.unlike(request.into_inner()).await?))
    }

    async fn batch_write(
        &self,
        request: Request<BatchWriteRequest>,
    ) -> Result<Response<BatchWriteResponse>, Status> {
        let batch = request.into_inner().batch;
        let result = Some(self.0.write_batch(batch, || ()).await?);
        Ok(Response::new(BatchWriteResponse { result }))
    }

    type StreamWritesStream = WriteAnswers;

    async fn stream_writes(
        &self,
        request: Request<Streaming<StreamWritesRequest>>,
    ) -> Result<Response<WriteAnswers>, Status> {
        let answers = batches::answer_all(self.0.clone(), request.into_inner());
        Ok(Response::new(answers))
    }

    async fn get_post(
        &self,
        request: Request<GetPostRequest>,
    ) -> Result<Response<GetPostResponse>, Status> {
        Ok(Response::new(self.0.get_post(request.into_inner()).await?))
    }

    async fn batch_get_posts(
        &self,
        request: Request<BatchGetPostsRequest>,
    ) -> Result<Response<BatchGetPostsResponse>, Status> {
        let answer = self.0.batch_get_posts(request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn list_likers(
        &self,
        request: Request<ListLikersRequest>,
    ) -> Result<Response<ListLikersResponse>, Status> {
        let answer = self.0.list_likers(request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    type WatchPostsStream = WatchAnswers;

    async fn watch_posts(
        &self,
        request: Request<WatchPostsRequest>,
    ) -> Result<Response<WatchAnswers>, Status> {
        let answers = self.0.watch_posts(&request.into_inner()).await?;
        Ok(Response::new(answers))
    }
}

impl Api {
    async fn like(self: &Arc<Self>, request: LikeRequest) -> Result<LikeResponse, ApiError> {
        let WriteCall { write, seen } = requests::like(self.engine.cluster(), &request)?;
        self.check_seen("token", &seen)?;
        let _work = self.load.enter(1)?;
        let (write, done) = self.write_one(write).await?;
        let Command::Like { post, user } = &write.commands[0] else {
            unreachable!("a like was asked for");
        };
        let replicas = self.engine.replicas().all();
        let namer = Namer::new(self.engine.cluster(), &replicas);
        let made: Vec<_> = done.dot.into_iter().collect();
        Ok(LikeResponse {
            changed: done.outcome == Outcome::Liked,
            like_id: namer.together((post, user), &made),
            replaced_like_ids: namer.each((post, user), &done.removed),
            count: self.count(post),
            token: self.token_now(&seen),
        })
    }

    async fn unlike(self: &Arc<Self>, request: UnlikeRequest) -> Result<UnlikeResponse, ApiError> {
        let WriteCall { write, seen } = requests::unlike(self.engine.cluster(), &request)?;
        self.check_seen("token", &seen)?;
        self.until_applicable(&write).await?;
        // Else the caller's own like, not here yet, would survive.
        self.cover(&seen, None).await?;
        let _work = self.load.enter(1)?;
        let (write, done) = self.write_one(write).await?;
        let Command::Unlike { post, user, .. } = &write.commands[0] else {
            unreachable!("an unlike was asked for");
        };
        let replicas = self.engine.replicas().all();
        let namer = Namer::new(self.engine.cluster(), &replicas);
        Ok(UnlikeResponse {
            changed: done.outcome == Outcome::Unliked,
            removed_like_ids: namer.each((post, user), &done.removed),
            count: self.count(post),
            token: self.token_now(&seen),
        })
    }

    /// Writes a single command. What the engine refuses of an item is a refusal of the call.
    pub(super) async fn write_one(
        self: &Arc<Self>,
        write: Write,
    ) -> Result<(Arc<Write>, Done), ApiError> {
        let write = Arc::new(write);
        let mut written = self.write(write.clone(), || ()).await?;
        let done = written.done.pop().ok_or(ApiError::OutcomeUnknown)?;
        match self.item_error(done.outcome) {
            Some(error) => Err(error),
            None => Ok((write, done)),
        }
    }

    /// Why the engine did not do what a command says, where it did not.
    pub(super) fn item_error(&self, outcome: Outcome) -> Option<ApiError> {
        match outcome {
            Outcome::BeyondBound => Some(ApiError::CounterBound),
            Outcome::OrphanRemovalsFull => Some(ApiError::OrphanRemovalsFull {
                max: self.engine.options().orphan_removals_max,
            }),
            Outcome::Liked
            | Outcome::LikedAgain
            | Outcome::Unliked
            | Outcome::NotLiked
            | Outcome::Added => None,
        }
    }
}
