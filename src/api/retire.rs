//! RetireRegion: a region that is gone for good, or for long, holds back nothing any more.

use crate::api::Api;
use crate::api::error::ApiError;
use crate::replication::regions::CannotRetire;
use crate::wire::admin::{RetireRegionRequest, RetireRegionResponse};
use crate::wire::field::FieldError;
use crate::wire::regions;

impl Api {
    pub(super) async fn retire_region(
        &self,
        request: RetireRegionRequest,
    ) -> Result<RetireRegionResponse, ApiError> {
        let region = regions::retire_region(&request)?;
        // Without state the node does not know the replicas to name.
        self.check_readable()?;
        let replicas = self.regions.to_retire(&region).map_err(|why| match why {
            CannotRetire::Own => FieldError::invalid("region", why).into(),
            why => ApiError::CannotRetire(why),
        })?;
        let retired = self.engine.retire(&replicas).await?;
        tracing::info!(%region, replicas = retired.replicas, "the region is retired");
        Ok(RetireRegionResponse {
            replicas: retired.replicas as u64,
            token: retired.token.to_string(),
        })
    }
}
