//! The region in a certificate: an alternative name of the kind URI, `likewise://CLUSTER/REGION`.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::ids::{ClusterId, Region};

const SCHEME: &str = "likewise://";

/// Why a certificate is not that of a node of this cluster. Reads on after "the certificate".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot be read")]
    Unreadable,
    #[error("names no region: likewise://CLUSTER/REGION is not among its alternative names")]
    NoRegion,
    #[error("names more than one region")]
    SeveralRegions,
    #[error("names {uri:?}, which is not likewise://CLUSTER/REGION")]
    Malformed { uri: String },
    #[error("is of cluster {found}, and this node of {own}")]
    OtherCluster { found: ClusterId, own: ClusterId },
    #[error("is of region {found}, and not of {expected}")]
    OtherRegion { found: Region, expected: Region },
}

/// The name that a node's certificate carries.
pub fn uri(cluster: &ClusterId, region: &Region) -> String {
    format!("{SCHEME}{cluster}/{region}")
}

/// The region whose node the certificate is for, if it is one of this cluster. Says nothing of who signed it.
pub fn region(certificate: &CertificateDer<'_>, own: &ClusterId) -> Result<Region, IdentityError> {
    let certificate =
        EndEntityCert::try_from(certificate).map_err(|_| IdentityError::Unreadable)?;
    let mut ours = certificate
        .valid_uri_names()
        .filter(|uri| uri.starts_with(SCHEME));
    let uri = ours.next().ok_or(IdentityError::NoRegion)?;
    if ours.next().is_some() {
        return Err(IdentityError::SeveralRegions);
    }
    let (cluster, region) = parse(uri).ok_or_else(|| IdentityError::Malformed {
        uri: uri.chars().take(128).collect(),
    })?;
    if cluster != *own {
        let (found, own) = (cluster, own.clone());
        return Err(IdentityError::OtherCluster { found, own });
    }
    Ok(region)
}

fn parse(uri: &str) -> Option<(ClusterId, Region)> {
    let (cluster, region) = uri.strip_prefix(SCHEME)?.split_once('/')?;
    Some((ClusterId::new(cluster).ok()?, Region::new(region).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_cluster_and_a_region_and_nothing_else() {
        let cluster = ClusterId::new("likes-prod").expect("valid");
        let region = Region::new("eu-west").expect("valid");
        let uri = uri(&cluster, &region);
        assert_eq!(uri, "likewise://likes-prod/eu-west");
        assert_eq!(parse(&uri), Some((cluster, region)));
        for bad in [
            "likewise://likes-prod",
            "likewise://likes-prod/",
            "likewise:///eu",
            "likewise://likes-prod/eu/west",
            "likewise://likes-prod/EU",
            "likewise://likes-prod:1/eu",
            "likewise://likes-prod/eu?x",
            "https://likes-prod/eu",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
