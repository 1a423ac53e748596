//! WaitFor: which regions have made durable what a token names.

use tonic::Status;

use crate::api::Api;
use crate::wire::v1::{WaitForRequest, WaitForResponse};

impl Api {
    pub(super) async fn wait_for(&self, _: WaitForRequest) -> Result<WaitForResponse, Status> {
        Err(Status::unimplemented("WaitFor"))
    }
}
