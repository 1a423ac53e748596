//! Following posts, over as many streams and nodes as it takes.

use std::time::Duration;

use tonic::Streaming;

use super::error::Failure;
use super::retry::Call;
use super::{Client, ClientError};
use crate::wire::v1;
use crate::wire::v1::like_service_client::LikeServiceClient;

/// Posts that are followed. A stream that breaks is opened again, at the next node if need be, and
/// never shows older state than was shown.
pub struct Watch {
    client: Client,
    posts: Vec<String>,
    stream: Option<Streaming<v1::WatchPostsResponse>>,
}

impl Client {
    /// Follows posts: first all of them as they are, then those that changed.
    pub fn watch(&self, posts: Vec<String>) -> Watch {
        Watch {
            client: self.session(),
            posts,
            stream: None,
        }
    }
}

impl Watch {
    /// The next state of the posts that changed; all of them whenever a stream begins. An error is final
    /// for this call only: the next call tries again.
    pub async fn next(&mut self) -> Result<Vec<v1::PostLikes>, ClientError> {
        loop {
            let mut stream = match self.stream.take() {
                Some(stream) => stream,
                None => self.open().await?,
            };
            match stream.message().await {
                Ok(Some(change)) => {
                    self.client.memory.saw(change.token);
                    self.stream = Some(stream);
                    return Ok(change.likes);
                }
                Ok(None) => {}
                Err(status) => {
                    if let Failure::Refused(refusal) = Failure::of(&status)
                        && refusal.retry_after.is_none()
                    {
                        return Err(ClientError::Refused(refusal));
                    }
                }
            }
            tokio::time::sleep(super::retry::backoff(1)).await;
        }
    }

    /// What has been shown, to go on from elsewhere.
    pub fn token(&self) -> String {
        self.client.token()
    }

    async fn open(&self) -> Result<Streaming<v1::WatchPostsResponse>, ClientError> {
        let request = |token| v1::WatchPostsRequest {
            posts: self.posts.clone(),
            token,
        };
        let client = &self.client;
        client
            .run(Call::Read, "", Duration::ZERO, |attempt| {
                let request = request(attempt.token);
                async move {
                    LikeServiceClient::new(attempt.channel)
                        .watch_posts(request)
                        .await
                }
            })
            .await
    }
}
