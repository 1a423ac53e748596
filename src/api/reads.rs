//! Reads of posts.
//!
//! EXACT answers from memory at once. Its token is the durable frontier *after* the read, so that it
//! covers all that the answer shows and is durable. Like ids are the exception to "at once": a like id
//! allows an unlike elsewhere, so it leaves the node only when its dot is durable.

use std::sync::Arc;

use crate::api::Api;
use crate::api::answers::{Namer, post_likes};
use crate::api::error::ApiError;
use crate::crdt::dot::Dot;
use crate::engine::read::{Detail, PostView};
use crate::wire::requests::{self, Freshness, PostsQuery, ReadPlan};
use crate::wire::v1::{
    BatchGetPostsRequest, BatchGetPostsResponse, GetPostRequest, GetPostResponse, PostLikes,
};

impl Api {
    pub(super) async fn get_post(
        self: &Arc<Self>,
        request: GetPostRequest,
    ) -> Result<GetPostResponse, ApiError> {
        let query = requests::get_post(self.engine.cluster(), request)?;
        let (mut likes, token) = self.read_posts(&query).await?;
        let likes = likes.pop();
        Ok(GetPostResponse { likes, token })
    }

    pub(super) async fn batch_get_posts(
        self: &Arc<Self>,
        request: BatchGetPostsRequest,
    ) -> Result<BatchGetPostsResponse, ApiError> {
        let query = requests::batch_get_posts(self.engine.cluster(), request)?;
        let (likes, token) = self.read_posts(&query).await?;
        Ok(BatchGetPostsResponse { likes, token })
    }

    /// Whether the read may be answered now; waits until it may where it says so.
    pub(super) async fn prepare_read(&self, plan: &ReadPlan) -> Result<(), ApiError> {
        self.check_seen("options.token", &plan.seen)?;
        self.check_readable()?;
        match plan.freshness {
            Freshness::Fast | Freshness::Exact => Ok(()),
            Freshness::AtLeast(wait) => self.cover(&plan.seen, wait).await,
        }
    }

    async fn read_posts(&self, query: &PostsQuery) -> Result<(Vec<PostLikes>, String), ApiError> {
        self.prepare_read(&query.plan).await?;
        let _work = self.load.enter(1)?;
        let viewer = query.viewer.as_ref();
        let detail = detail(&query.plan);
        let complete = self.complete(&query.plan);
        let views: Vec<PostView> = query
            .posts
            .iter()
            .map(|post| self.engine.view_post(post, viewer, detail))
            .collect();
        let durable = self.durable_dots(&views, query.plan.freshness).await;
        let replicas = self.engine.replicas().all();
        let namer = Namer::new(self.engine.cluster(), &replicas);
        let likes = query.posts.iter().zip(views).zip(&durable);
        let likes = likes
            .map(|((post, view), durable)| {
                post_likes(&namer, (post, viewer), view, durable, &complete)
            })
            .collect();
        Ok((likes, self.token_now(&query.plan.seen)))
    }

    /// Of each view the viewer's dots that may leave the node. Waits for their sync, except for FAST;
    /// where there is none, for the log has failed, the answer goes without their ids.
    async fn durable_dots(&self, views: &[PostView], freshness: Freshness) -> Vec<Vec<Dot>> {
        let all_durable = |view: &PostView| self.engine.dots_are_durable(&view.viewer_dots);
        if freshness != Freshness::Fast && !views.iter().all(all_durable) {
            match self.engine.barrier().await {
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "a read goes without like ids"),
            }
        }
        let durable = |view: &PostView| {
            let dots = view.viewer_dots.iter().copied();
            dots.filter(|dot| self.engine.dots_are_durable(&[*dot]))
                .collect()
        };
        views.iter().map(durable).collect()
    }
}

pub(super) fn detail(plan: &ReadPlan) -> Detail {
    match plan.include_regions {
        true => Detail::Regions,
        false => Detail::Figures,
    }
}
