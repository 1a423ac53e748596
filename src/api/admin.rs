//! AdminService: what operators do, and who is one.

use std::net::SocketAddr;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::api::Api;
use crate::api::error::ApiError;
use crate::seams::{Identity, Remote};
use crate::wire::admin::admin_service_server::AdminService;
use crate::wire::admin::{
    RepairRequest, RepairResponse, RetireRegionRequest, RetireRegionResponse,
};
use crate::wire::connections::remote;
use crate::wire::repairs::read_repair;

/// Lets operators pass: who calls from this machine, where whoever could do so can stop the node as well,
/// or proved to be one.
pub(super) fn check_operator(request: Request<()>) -> Result<Request<()>, Status> {
    match is_operator(&remote(&request)) {
        true => Ok(request),
        false => Err(ApiError::NotAllowed.into()),
    }
}

fn is_operator(remote: &Remote) -> bool {
    let is_here = |address: SocketAddr| address.ip().to_canonical().is_loopback();
    remote.identity == Some(Identity::Operator) || remote.address.is_some_and(is_here)
}

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
    /// Takes a range from another region, or keeps its own, as an operator decided. Nothing happens if that cannot be
    /// done.
    async fn repair(&self, request: RepairRequest) -> Result<RepairResponse, ApiError> {
        let (range, from) = read_repair(request)?;
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

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::ids::Region;

    fn check(address: Option<&str>, identity: Option<Identity>) -> Result<(), Code> {
        let mut request = Request::new(());
        let address = address.map(|text| text.parse().expect("an address"));
        request
            .extensions_mut()
            .insert(Remote { address, identity });
        let checked = check_operator(request);
        checked.map(drop).map_err(|status| status.code())
    }

    #[test]
    fn operators_are_here_or_prove_it() {
        let refused = Err(Code::PermissionDenied);
        for here in [
            "127.0.0.1:5",
            "127.8.0.1:5",
            "[::1]:5",
            "[::ffff:127.0.0.1]:5",
        ] {
            assert_eq!(check(Some(here), None), Ok(()), "{here}");
        }
        for elsewhere in [
            "10.0.0.1:5",
            "[2001:db8::1]:5",
            "0.0.0.0:5",
            "[::ffff:10.0.0.1]:5",
        ] {
            assert_eq!(check(Some(elsewhere), None), refused, "{elsewhere}");
            assert_eq!(check(Some(elsewhere), Some(Identity::Operator)), Ok(()));
            let peer = Identity::Region(Region::new("eu").expect("valid"));
            assert_eq!(check(Some(elsewhere), Some(peer)), refused);
        }
        assert_eq!(check(None, None), refused);
        assert!(check_operator(Request::new(())).is_err());
    }
}
