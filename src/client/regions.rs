//! Calls about regions: waiting for them, and retiring one.

use std::time::Duration;

use super::retry::Call;
use super::{Client, ClientError};
use crate::wire::admin::RetireRegionRequest;
use crate::wire::admin::RetireRegionResponse;
use crate::wire::admin::admin_service_client::AdminServiceClient;
use crate::wire::v1;
use crate::wire::v1::cluster_service_client::ClusterServiceClient;

impl Client {
    /// Waits until regions have made durable what a token names: those named, or all known ones. The node's own
    /// default bounds the wait where none is given; zero only looks.
    ///
    /// Regions that are missing in the end are no error.
    pub async fn wait_for(
        &self,
        token: &str,
        regions: &[String],
        wait: Option<Duration>,
    ) -> Result<v1::WaitForResponse, ClientError> {
        let extra = wait.unwrap_or_default();
        let answer = self
            .run(Call::Read, "", extra, |attempt| {
                let mut service = ClusterServiceClient::new(attempt.channel);
                let request = v1::WaitForRequest {
                    token: token.to_owned(),
                    regions: regions.to_vec(),
                    wait: wait.and_then(|wait| prost_types::Duration::try_from(wait).ok()),
                };
                async move { service.wait_for(request).await }
            })
            .await?;
        self.memory.saw(answer.token.clone());
        Ok(answer)
    }

    /// Retires a region: it holds back the cutting of logs no longer. For operators; repeating it does nothing.
    pub async fn retire_region(&self, region: &str) -> Result<RetireRegionResponse, ClientError> {
        let answer = self
            .run(Call::WriteAnywhere, "", Duration::ZERO, |attempt| {
                let mut service = AdminServiceClient::new(attempt.channel);
                let request = RetireRegionRequest {
                    region: region.to_owned(),
                };
                async move { service.retire_region(request).await }
            })
            .await?;
        self.memory.saw(answer.token.clone());
        Ok(answer)
    }
}
