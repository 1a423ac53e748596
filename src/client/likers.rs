//! The likers of a post, page by page, from whichever node answers.

use super::retry::Call;
use super::{Client, ClientError, Read};
use crate::wire::v1;
use crate::wire::v1::like_service_client::LikeServiceClient;

/// Pages of likers. Who likes the post all the while is in exactly one of them, also where they come from different
/// nodes.
pub struct Likers {
    client: Client,
    post: String,
    read: Read,
    page_size: Option<u32>,
    /// Where the next page begins; none after the last.
    next: Option<String>,
}

impl Client {
    /// The likers of a post from the first on. Nothing is asked for before [`Likers::next_page`].
    pub fn list_likers(&self, post: &str, read: Read) -> Likers {
        Likers {
            client: self.clone(),
            post: post.to_owned(),
            read,
            page_size: None,
            next: Some(String::new()),
        }
    }
}

impl Likers {
    /// Likers of a page at most, 1 to 10,000; the node's default of 1,000 otherwise.
    pub fn page_size(mut self, likers: u32) -> Self {
        self.page_size = Some(likers);
        self
    }

    /// Begins where an earlier page of the same post ended, from any node.
    pub fn from_page(mut self, page_token: impl Into<String>) -> Self {
        self.next = Some(page_token.into());
        self
    }

    /// The next page; none after the last. After an error the same page is asked for again.
    pub async fn next_page(&mut self) -> Result<Option<v1::ListLikersResponse>, ClientError> {
        let Some(page_token) = &self.next else {
            return Ok(None);
        };
        let extra = self.read.extra();
        let call = self.client.run(Call::Read, "", extra, |attempt| {
            let mut service = LikeServiceClient::new(attempt.channel);
            let request = v1::ListLikersRequest {
                post: self.post.clone(),
                page_size: self.page_size,
                page_token: page_token.clone(),
                options: Some(self.read.options(attempt.token)),
            };
            async move { service.list_likers(request).await }
        });
        let page = call.await?;
        self.client.memory.saw(page.token.clone());
        let next = page.next_page_token.clone();
        self.next = Some(next).filter(|next| !next.is_empty());
        Ok(Some(page))
    }
}
