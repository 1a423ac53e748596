//! WatchPosts: the current state, then what changed.
//!
//! The watch begins before the first state is read, so that no change falls between the two. Each
//! message is read from memory when the client is ready for it and leaves after the next sync: it shows
//! nothing that is not durable. There is no queue; a client that is slow gets the newest state.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, Stream};
use tonic::Status;

use crate::api::Api;
use crate::api::answers::{Complete, Namer, post_likes};
use crate::api::error::ApiError;
use crate::engine::read::Detail;
use crate::engine::watch::Watch;
use crate::ids::PostId;
use crate::wire::requests::{self, WatchCall};
use crate::wire::v1::{WatchPostsRequest, WatchPostsResponse};

/// The messages of a watch.
pub type WatchAnswers =
    Pin<Box<dyn Stream<Item = Result<WatchPostsResponse, Status>> + Send + 'static>>;

/// One client's watch.
struct Watching {
    api: Arc<Api>,
    watch: Watch,
    /// All posts, for the first message.
    first: Option<Vec<PostId>>,
}

impl Api {
    pub(super) async fn watch_posts(
        self: &Arc<Self>,
        request: &WatchPostsRequest,
    ) -> Result<WatchAnswers, ApiError> {
        let WatchCall { posts, seen } = requests::watch_posts(self.engine.cluster(), request)?;
        self.check_seen("token", &seen)?;
        self.check_readable()?;
        let watch = self.engine.watch(&posts)?;
        self.cover(&seen, None).await?;
        let watching = Watching {
            api: self.clone(),
            watch,
            first: Some(posts),
        };
        Ok(Box::pin(stream::unfold(Some(watching), |watching| async {
            let mut watching = watching?;
            match watching.next().await {
                Ok(message) => Some((Ok(message), Some(watching))),
                Err(error) => Some((Err(error.into()), None)),
            }
        })))
    }

    /// The posts as they are now, once that is durable.
    async fn watched(&self, posts: &[PostId]) -> Result<WatchPostsResponse, ApiError> {
        let replicas = self.engine.replicas().all();
        let namer = Namer::new(self.engine.cluster(), &replicas);
        let likes = posts.iter().map(|post| {
            let view = self.engine.view_post(post, None, Detail::Figures);
            post_likes(&namer, (post, None), view, &[], &Complete::default())
        });
        let likes = likes.collect();
        // A sync that failed: what was read is durable nowhere, and never will be here.
        let published = self.engine.barrier().await;
        let published = published.map_err(|_| ApiError::LogPoisoned)?;
        let token = self.token(&published, &[]);
        Ok(WatchPostsResponse { likes, token })
    }
}

impl Watching {
    async fn next(&mut self) -> Result<WatchPostsResponse, ApiError> {
        if let Some(posts) = self.first.take() {
            return self.api.watched(&posts).await;
        }
        let changed = tokio::select! {
            // A stopping node tells its watchers to go on elsewhere.
            biased;
            () = self.api.shutdown.cancelled() => return Err(ApiError::Stopping),
            changed = self.watch.changed() => changed,
        };
        self.api.watched(&changed).await
    }
}
