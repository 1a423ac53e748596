//! The calls that are asked and answered once.

use std::time::Duration;

use rand::RngCore;

use super::gather::{Answered, Item};
use super::retry::{Begin, Call};
use super::{Client, ClientError, RetryElsewhere};
use crate::wire::admin;
use crate::wire::admin::admin_service_client::AdminServiceClient;
use crate::wire::v1;
use crate::wire::v1::cluster_service_client::ClusterServiceClient;
use crate::wire::v1::counter_service_client::CounterServiceClient;
use crate::wire::v1::like_service_client::LikeServiceClient;

/// How a read is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// By default nothing older than what this client has seen.
    pub consistency: v1::Consistency,
    /// How long the node may wait until it covers that; its own default when unset.
    pub wait: Option<Duration>,
    /// Whether the answer lists the entry of each region.
    pub include_regions: bool,
}

impl Default for Read {
    fn default() -> Self {
        Self {
            consistency: v1::Consistency::AtLeast,
            wait: None,
            include_regions: false,
        }
    }
}

impl Read {
    pub(super) fn options(&self, token: String) -> v1::ReadOptions {
        let bound = !token.is_empty();
        let consistency = match self.consistency {
            v1::Consistency::AtLeast if !bound => v1::Consistency::Exact,
            other => other,
        };
        let waits = consistency == v1::Consistency::AtLeast;
        let wait = self.wait.filter(|_| waits);
        v1::ReadOptions {
            consistency: consistency.into(),
            token,
            wait: wait.and_then(|wait| prost_types::Duration::try_from(wait).ok()),
            include_regions: self.include_regions,
        }
    }

    pub(super) fn extra(&self) -> Duration {
        self.wait.unwrap_or_default()
    }
}

/// What an operator repairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepairOf {
    /// The range of this post.
    Post(String),
    /// A range, 0 to 255.
    Range(u32),
}

/// How long a range may take to come from another region.
const REPAIR_MAX: Duration = Duration::from_secs(60);

/// A name that no other request has.
pub fn request_id() -> String {
    let mut bytes = [0; 16];
    rand::rng().fill_bytes(&mut bytes);
    data_encoding::HEXLOWER.encode(&bytes)
}

impl Client {
    /// Makes the user a liker of the post.
    pub async fn like(&self, post: &str, user: &str) -> Result<v1::LikeResponse, ClientError> {
        let item = || Item::Like {
            post: post.to_owned(),
            user: user.to_owned(),
        };
        if let Some(answered) = self.gathered(item).await {
            return answered.map(Answered::into_like);
        }
        let request_id = request_id();
        let answer = self
            .run(self.like_call(), &request_id, Duration::ZERO, |attempt| {
                let mut service = LikeServiceClient::new(attempt.channel);
                let request = v1::LikeRequest {
                    post: post.to_owned(),
                    user: user.to_owned(),
                    request_id: request_id.clone(),
                    token: attempt.token,
                };
                async move { service.like(request).await }
            })
            .await?;
        self.memory.saw(answer.token.clone());
        Ok(answer)
    }

    /// Removes the likes of the user that the node sees.
    pub async fn unlike(&self, post: &str, user: &str) -> Result<v1::UnlikeResponse, ClientError> {
        self.unlike_by_id(post, user, "").await
    }

    /// Removes also the likes that the id names, in whatever region they were made.
    pub async fn unlike_by_id(
        &self,
        post: &str,
        user: &str,
        like_id: &str,
    ) -> Result<v1::UnlikeResponse, ClientError> {
        let request_id = request_id();
        let answer = self
            .run(self.like_call(), &request_id, Duration::ZERO, |attempt| {
                let mut service = LikeServiceClient::new(attempt.channel);
                let request = v1::UnlikeRequest {
                    post: post.to_owned(),
                    user: user.to_owned(),
                    like_id: like_id.to_owned(),
                    request_id: request_id.clone(),
                    token: attempt.token,
                };
                async move { service.unlike(request).await }
            })
            .await?;
        self.memory.saw(answer.token.clone());
        Ok(answer)
    }

    /// Adds to a counter of a post; the delta may be negative.
    pub async fn add(
        &self,
        post: &str,
        counter: &str,
        delta: i64,
    ) -> Result<v1::AddResponse, ClientError> {
        let item = || Item::Add {
            post: post.to_owned(),
            counter: counter.to_owned(),
            delta,
        };
        if let Some(answered) = self.gathered(item).await {
            return answered.map(Answered::into_add);
        }
        let request_id = request_id();
        let answer = self
            .run(self.add_call(), &request_id, Duration::ZERO, |attempt| {
                let mut service = CounterServiceClient::new(attempt.channel);
                let request = v1::AddRequest {
                    post: post.to_owned(),
                    counter: counter.to_owned(),
                    delta,
                    request_id: request_id.clone(),
                    token: attempt.token,
                };
                async move { service.add(request).await }
            })
            .await?;
        self.memory.saw(answer.token.clone());
        Ok(answer)
    }

    /// Applies many writes and waits for one sync. Bad items fail alone: see the result's errors.
    pub async fn batch_write(
        &self,
        batch: impl Into<v1::WriteBatch>,
    ) -> Result<v1::WriteResult, ClientError> {
        self.write_batch_from(self.begin(), batch.into()).await
    }

    /// As [`Self::batch_write`], from where an earlier try has ended.
    pub(super) async fn write_batch_from(
        &self,
        begin: Begin,
        wire: v1::WriteBatch,
    ) -> Result<v1::WriteResult, ClientError> {
        let call = match wire.deltas.is_empty() {
            true => self.like_call(),
            false => self.add_call(),
        };
        let request_id = wire.request_id.clone();
        let (answer, _) = self
            .run_from(begin, call, &request_id, Duration::ZERO, |attempt| {
                let batch = v1::WriteBatch {
                    token: attempt.token,
                    ..wire.clone()
                };
                async move {
                    let request = v1::BatchWriteRequest { batch: Some(batch) };
                    LikeServiceClient::new(attempt.channel)
                        .batch_write(request)
                        .await
                }
            })
            .await?;
        let result = answer.result.unwrap_or_default();
        self.memory.saw(result.token.clone());
        Ok(result)
    }

    /// The likes of one post, and whether the viewer likes it.
    pub async fn get_post(
        &self,
        post: &str,
        viewer: Option<&str>,
        read: Read,
    ) -> Result<v1::PostLikes, ClientError> {
        let answer = self
            .run(Call::Read, "", read.extra(), |attempt| {
                let mut service = LikeServiceClient::new(attempt.channel);
                let request = v1::GetPostRequest {
                    post: post.to_owned(),
                    viewer: viewer.unwrap_or_default().to_owned(),
                    options: Some(read.options(attempt.token)),
                };
                async move { service.get_post(request).await }
            })
            .await?;
        self.memory.saw(answer.token);
        Ok(answer.likes.unwrap_or_default())
    }

    /// The likes of many posts in the order given, and which of them the viewer likes.
    pub async fn batch_get_posts(
        &self,
        posts: &[String],
        viewer: Option<&str>,
        read: Read,
    ) -> Result<Vec<v1::PostLikes>, ClientError> {
        let answer = self
            .run(Call::Read, "", read.extra(), |attempt| {
                let mut service = LikeServiceClient::new(attempt.channel);
                let request = v1::BatchGetPostsRequest {
                    posts: posts.to_vec(),
                    viewer: viewer.unwrap_or_default().to_owned(),
                    options: Some(read.options(attempt.token)),
                };
                async move { service.batch_get_posts(request).await }
            })
            .await?;
        self.memory.saw(answer.token);
        Ok(answer.likes)
    }

    /// Counters of a post: those named, or all.
    pub async fn get_counters(
        &self,
        post: &str,
        counters: &[String],
        read: Read,
    ) -> Result<Vec<v1::CounterValue>, ClientError> {
        let answer = self
            .run(Call::Read, "", read.extra(), |attempt| {
                let mut service = CounterServiceClient::new(attempt.channel);
                let request = v1::GetCountersRequest {
                    post: post.to_owned(),
                    counters: counters.to_vec(),
                    options: Some(read.options(attempt.token)),
                };
                async move { service.get_counters(request).await }
            })
            .await?;
        self.memory.saw(answer.token);
        Ok(answer.counters)
    }

    /// How the figures of a post come about, and the live dots of a user.
    pub async fn explain_post(
        &self,
        post: &str,
        user: Option<&str>,
        read: Read,
    ) -> Result<v1::ExplainPostResponse, ClientError> {
        let answer = self
            .run(Call::Read, "", read.extra(), |attempt| {
                let mut service = ClusterServiceClient::new(attempt.channel);
                let request = v1::ExplainPostRequest {
                    post: post.to_owned(),
                    user: user.unwrap_or_default().to_owned(),
                    options: Some(read.options(attempt.token)),
                };
                async move { service.explain_post(request).await }
            })
            .await?;
        self.memory.saw(answer.token.clone());
        Ok(answer)
    }

    /// What the node that answers knows of itself and its links. It is not remembered as seen.
    pub async fn status(&self) -> Result<v1::GetStatusResponse, ClientError> {
        self.run(Call::Read, "", Duration::ZERO, |attempt| async move {
            let mut service = ClusterServiceClient::new(attempt.channel);
            service.get_status(v1::GetStatusRequest {}).await
        })
        .await
    }

    /// Lets the node take a range of posts whole from another region, in place of what it holds. For operators:
    /// where two regions hold the same events and different state, and no majority decides.
    pub async fn repair(
        &self,
        what: RepairOf,
        from: &str,
    ) -> Result<admin::RepairResponse, ClientError> {
        let what = match what {
            RepairOf::Post(post) => admin::repair_request::What::Post(post),
            RepairOf::Range(range) => admin::repair_request::What::Range(range),
        };
        self.run(Call::WriteHere, "", REPAIR_MAX, |attempt| {
            let mut service = AdminServiceClient::new(attempt.channel);
            let request = admin::RepairRequest {
                what: Some(what.clone()),
                from: from.to_owned(),
            };
            async move { service.repair(request).await }
        })
        .await
    }

    fn like_call(&self) -> Call {
        match self.settings.retry_elsewhere {
            RetryElsewhere::Never => Call::WriteHere,
            RetryElsewhere::LikesOnly | RetryElsewhere::Always => Call::WriteAnywhere,
        }
    }

    fn add_call(&self) -> Call {
        match self.settings.retry_elsewhere {
            RetryElsewhere::Never | RetryElsewhere::LikesOnly => Call::WriteHere,
            RetryElsewhere::Always => Call::WriteAnywhere,
        }
    }
}
