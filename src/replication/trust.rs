//! Which peers may take part: what they say of themselves against what they proved, and which regions the
//! operator lists.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ids::Region;

/// Why a peer may not take part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    #[error("the peer says that it is of region {claimed}, and its certificate is of {certified}")]
    Impostor { claimed: Region, certified: Region },
    #[error("region {claimed} is not among cluster.regions of this node")]
    Unlisted { claimed: Region },
}

/// The regions whose nodes may be peers. All, by default. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct AllowedRegions(Option<Arc<BTreeSet<Region>>>);

impl AllowedRegions {
    /// These alone; all where there are none.
    pub fn only(regions: impl IntoIterator<Item = Region>) -> Self {
        let regions: BTreeSet<Region> = regions.into_iter().collect();
        Self((!regions.is_empty()).then(|| Arc::new(regions)))
    }

    /// Whether a peer that claims to be of a region may take part, where its certificate is of `certified`;
    /// none where peers prove nothing.
    pub fn check(&self, claimed: &Region, certified: Option<&Region>) -> Result<(), NotAllowed> {
        if let Some(certified) = certified.filter(|certified| *certified != claimed) {
            return Err(NotAllowed::Impostor {
                claimed: claimed.clone(),
                certified: certified.clone(),
            });
        }
        match &self.0 {
            Some(listed) if !listed.contains(claimed) => Err(NotAllowed::Unlisted {
                claimed: claimed.clone(),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> Region {
        Region::new(name).expect("valid")
    }

    #[test]
    fn a_peer_is_who_its_certificate_says() {
        let all = AllowedRegions::default();
        let (eu, us) = (region("eu"), region("us"));
        assert_eq!(all.check(&eu, None), Ok(()));
        assert_eq!(all.check(&eu, Some(&eu)), Ok(()));
        let impostor = all.check(&eu, Some(&us)).expect_err("refused");
        let words = "the peer says that it is of region eu, and its certificate is of us";
        assert_eq!(impostor.to_string(), words);
    }

    #[test]
    fn only_listed_regions_take_part() {
        let (eu, us) = (region("eu"), region("us"));
        let listed = AllowedRegions::only([eu.clone()]);
        assert_eq!(listed.check(&eu, Some(&eu)), Ok(()));
        assert!(listed.check(&us, Some(&us)).is_err());
        assert!(listed.check(&us, None).is_err());
        assert_eq!(AllowedRegions::only([]).check(&us, None), Ok(()));
    }
}
