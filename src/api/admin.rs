//! AdminService: what operators do.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::api::Api;
use crate::api::error::ApiError;
use crate::wire::admin::admin_service_server::AdminService;
use crate::wire::admin::{
    RepairRequest, RepairResponse, RetireRegionRequest, RetireRegionResponse,
};
use crate::wire::repairs::read_repair;

/// The service for operators.
#[derive(Clone)]
pub struct Admin(pub(super) Arc<Api>);

#[tonic::async_trait]
impl AdminService for Admin {
    async fn retire_region(
        &self,
        request: Request<RetireRegionRequest>,
    ) -> Result<Response<RetireRegionResponse>, Status> {
        let answer = self.0.retire_region(request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn repair(
        &self,
        request: Request<RepairRequest>,
    ) -> Result<Response<RepairResponse>, Status> {
        Ok(Response::new(self.0.repair(request.into_inner()).await?))
    }
}

impl Api {
    async fn retire_region(&self, _: RetireRegionRequest) -> Result<RetireRegionResponse, Status> {
        Err(Status::unimplemented("RetireRegion"))
    }

    /// Takes a range from another region, as an operator decided. Nothing happens if that cannot be done.
    async fn repair(&self, request: RepairRequest) -> Result<RepairResponse, ApiError> {
        let own = self.engine.own().region;
        let (range, from) = read_repair(request, &own)?;
        let taken = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Err(ApiError::Stopping),
            taken = self.audits.repair(range, from) => taken?,
        };
        Ok(RepairResponse {
            range: range as u32,
            removed: taken.difference.removed,
            added: taken.difference.added,
            fingerprint: taken.after.to_string(),
        })
    }
}
