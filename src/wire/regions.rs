//! Questions and orders about regions: clients' and operators' messages → words of the domain.

use std::time::Duration;

use crate::codec::text::NamedSeq;
use crate::ids::{ClusterId, Region};
use crate::limits::WAIT_REGIONS_MAX;
use crate::wire::admin::RetireRegionRequest;
use crate::wire::field::{self, FieldError};
use crate::wire::v1::WaitForRequest;

/// What regions are waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitQuery {
    pub token: Vec<NamedSeq>,
    /// In the order of their names, each once; empty for all known regions.
    pub regions: Vec<Region>,
    /// None leaves the length to the node.
    pub wait: Option<Duration>,
}

pub fn wait_for(cluster: &ClusterId, request: WaitForRequest) -> Result<WaitQuery, FieldError> {
    if request.token.is_empty() {
        let problem = "is empty; give one from an earlier answer";
        return Err(FieldError::invalid("token", problem));
    }
    let token = field::token(cluster, "token", &request.token)?;
    field::at_most("regions", request.regions.len(), WAIT_REGIONS_MAX)?;
    let regions = request.regions.iter().enumerate();
    let regions = regions.map(|(at, name)| field::id(&format!("regions[{at}]"), name));
    let mut regions: Vec<Region> = regions.collect::<Result<_, _>>()?;
    regions.sort();
    regions.dedup();
    Ok(WaitQuery {
        token,
        regions,
        wait: field::wait("wait", request.wait)?,
    })
}

pub fn retire_region(request: &RetireRegionRequest) -> Result<Region, FieldError> {
    field::id("region", &request.region)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::text::encode_token;
    use crate::ids::{Epoch, Replica};

    fn checked(request: WaitForRequest) -> Result<WaitQuery, FieldError> {
        wait_for(&ClusterId::new("c").expect("valid"), request)
    }

    #[test]
    fn a_wait_names_a_token_and_each_region_once() {
        let region = Region::new("eu").expect("valid");
        let replica = Replica {
            region,
            epoch: Epoch(1),
        };
        let cluster = ClusterId::new("c").expect("valid");
        let request = |regions: &[&str]| WaitForRequest {
            token: encode_token(&cluster, [(&replica, 3)].into_iter()),
            regions: regions.iter().map(|name| (*name).to_owned()).collect(),
            wait: None,
        };
        let query = checked(request(&["us", "eu", "us"])).expect("valid");
        let names: Vec<&str> = query.regions.iter().map(Region::as_str).collect();
        assert_eq!(names, ["eu", "us"]);
        assert_eq!(query.token, [(replica.clone(), 3)]);
        let field = |request| checked(request).expect_err("refused").field;
        assert_eq!(field(request(&["eu", "EU"])), "regions[1]");
        assert_eq!(field(request(&["eu"; WAIT_REGIONS_MAX + 1])), "regions");
        assert_eq!(field(WaitForRequest::default()), "token");
    }

    #[test]
    fn a_retired_region_has_a_name() {
        let refused = retire_region(&RetireRegionRequest::default());
        assert_eq!(refused.expect_err("refused").field, "region");
    }
}
