//! ListLikers: pages in the order of a frozen hash of the user.

use tonic::Status;

use crate::api::Api;
use crate::wire::v1::{ListLikersRequest, ListLikersResponse};

impl Api {
    pub(super) async fn list_likers(
        &self,
        _: ListLikersRequest,
    ) -> Result<ListLikersResponse, Status> {
        Err(Status::unimplemented("ListLikers"))
    }
}
