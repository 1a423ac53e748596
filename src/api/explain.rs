//! ExplainPost: how the figures of a post come about.

use tonic::Status;

use crate::api::Api;
use crate::wire::v1::{ExplainPostRequest, ExplainPostResponse};

impl Api {
    pub(super) async fn explain_post(
        &self,
        _: ExplainPostRequest,
    ) -> Result<ExplainPostResponse, Status> {
        Err(Status::unimplemented("ExplainPost"))
    }
}
