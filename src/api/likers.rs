//! ListLikers: pages in the order of a frozen hash of the user.
//!
//! A page token names the last user of its page, so any node can go on from it, whatever happened to the post
//! meanwhile. Like counts, pages answer from memory; their token is the durable frontier after the reading.

use std::sync::Arc;

use crate::api::Api;
use crate::api::error::ApiError;
use crate::codec::text::encode_page_token;
use crate::wire::requests;
use crate::wire::v1::{ListLikersRequest, ListLikersResponse};

impl Api {
    pub(super) async fn list_likers(
        self: &Arc<Self>,
        request: ListLikersRequest,
    ) -> Result<ListLikersResponse, ApiError> {
        let query = requests::list_likers(self.engine.cluster(), request)?;
        self.prepare_read(&query.plan).await?;
        let _work = self.load.enter(1)?;
        let (post, after) = (&query.post, query.after.as_ref());
        let page = self.engine.list_likers(post, after, query.page_size).await;
        let last = page.users.last().filter(|_| page.has_more);
        let next = last.map(|last| encode_page_token(self.engine.cluster(), post, last));
        Ok(ListLikersResponse {
            users: page.users.iter().map(ToString::to_string).collect(),
            next_page_token: next.unwrap_or_default(),
            count: page.count,
            token: self.token_now(&query.plan.seen),
        })
    }
}
