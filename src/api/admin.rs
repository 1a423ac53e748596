//! AdminService: what operators do.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::api::Api;
use crate::wire::admin::admin_service_server::AdminService;
use crate::wire::admin::{
    RepairRequest, RepairResponse, RetireRegionRequest, RetireRegionResponse,
};

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
    async fn repair(&self, _: RepairRequest) -> Result<RepairResponse, Status> {
        Err(Status::unimplemented("Repair"))
    }
}
