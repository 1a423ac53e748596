//! A cluster whose nodes have certificates of one authority.

use std::path::PathBuf;

use likewise::wire::v1::GetStatusResponse;
use tempfile::TempDir;

use crate::certificates::{Authority, Certified, Wanted, node};
use crate::process::node::{Node, PATIENCE, Setup};

pub struct Realm {
    pub authority: Authority,
    folder: TempDir,
}

impl Realm {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new("likewise test");
        authority.write(folder.path(), "authority");
        Self { authority, folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A node without certificates.
    pub fn plain(&self, region: &str) -> Setup {
        Setup::new(region, self.path(region))
    }

    /// A node with a sound certificate.
    pub fn setup(&self, region: &str) -> Setup {
        self.setup_with(region, &self.authority.sign(&node(region)))
    }

    /// A node with this certificate, in REGION.pem and REGION.key.
    pub fn setup_with(&self, region: &str, certified: &Certified) -> Setup {
        let (certificate, key) = certified.write(self.folder.path(), region);
        self.plain(region)
            .set("PEERS__TLS__CERTIFICATE", certificate.display())
            .set("PEERS__TLS__KEY", key.display())
            .set(
                "PEERS__TLS__AUTHORITY",
                self.path("authority.pem").display(),
            )
    }

    /// Puts another certificate in place of the one that the region's node has.
    pub fn renew(&self, region: &str, wanted: &Wanted) -> Certified {
        let certified = self.authority.sign(wanted);
        certified.write(self.folder.path(), region);
        certified
    }
}

/// Waits until the link to a region has a problem with these words.
pub async fn problem(node: &Node, region: &str, words: &str) {
    let has = |status: &GetStatusResponse| {
        let mut links = status.links.iter();
        links.any(|link| link.region == region && !link.connected && link.problem.contains(words))
    };
    let what = format!("the link to {region} says {words:?}");
    node.status_where(&what, PATIENCE, has).await;
}

/// Waits until there is a session with the region.
pub async fn linked(node: &Node, region: &str) -> GetStatusResponse {
    let has = |status: &GetStatusResponse| {
        let mut links = status.links.iter();
        links.any(|link| link.region == region && link.connected)
    };
    let what = format!("a session with {region}");
    node.status_where(&what, PATIENCE, has).await
}
