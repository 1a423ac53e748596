//! How nodes stand, by what they said of themselves and of one another.

use std::collections::BTreeSet;

use crate::client::ClientError;
use crate::display::figures::{counted, since};
use crate::wire::v1::{Agreement, DivergedRange, GetStatusResponse, LinkStatus, NodeState};

/// How it stands, from best to worst of what an exit code can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Every node that was asked serves and holds the same.
    Converged,
    /// Something is down, behind or being rebuilt, and will pass or needs a look.
    Degraded,
    /// A node that was asked does not answer.
    Unreachable,
    /// Two nodes hold the same events and different state.
    Diverged,
}

impl Verdict {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Converged => 0,
            Self::Unreachable => 1,
            Self::Degraded => 2,
            Self::Diverged => 3,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Converged => "converged",
            Self::Unreachable => "unreachable",
            Self::Degraded => "degraded",
            Self::Diverged => "DIVERGED",
        }
    }
}

/// What one node said, or why it said nothing.
pub type Said = (String, Result<GetStatusResponse, ClientError>);

/// How it stands, and why.
pub fn judge(said: &[Said]) -> (Verdict, Vec<String>) {
    let mut findings = Vec::new();
    for (node, answer) in said {
        match answer {
            Ok(status) => findings.extend(alone(status)),
            Err(error) => findings.push((Verdict::Unreachable, format!("{node}: {error}"))),
        }
    }
    let answers: Vec<_> = said
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().ok())
        .collect();
    for (at, one) in answers.iter().enumerate() {
        findings.extend(
            answers[at + 1..]
                .iter()
                .filter_map(|other| compared(one, other)),
        );
    }
    let worst = findings.iter().map(|(verdict, _)| *verdict).max();
    let remarks = findings.into_iter().map(|(_, remark)| remark).collect();
    (worst.unwrap_or(Verdict::Converged), remarks)
}

fn alone(status: &GetStatusResponse) -> Vec<(Verdict, String)> {
    let region = &status.region;
    let mut findings = Vec::new();
    if status.state() != NodeState::Ready {
        findings.push((Verdict::Degraded, format!("{region} is {}", state(status))));
    } else if !status.settled {
        findings.push((Verdict::Degraded, format!("{region} is merging a snapshot")));
    }
    findings.extend(status.diverged.iter().map(|range| disputed(region, range)));
    let warnings = status.warnings.iter();
    findings.extend(warnings.map(|warning| (Verdict::Degraded, format!("{region}: {warning}"))));
    let links = status.links.iter().filter(|link| counts(status, link));
    findings.extend(links.filter_map(|link| linked(region, link)));
    findings
}

/// A retired region that is down is as it should be.
fn counts(status: &GetStatusResponse, link: &LinkStatus) -> bool {
    let mut regions = status.regions.iter();
    let is_retired = regions.any(|region| region.retired && region.region == link.region);
    link.connected || !is_retired
}

fn disputed(region: &str, disputed: &DivergedRange) -> (Verdict, String) {
    let with = match disputed.regions.as_slice() {
        [] => String::new(),
        regions => format!(" and {}", regions.join(", ")),
    };
    let remark = format!(
        "range {} of {region}{with} differs since {}: {}",
        disputed.range,
        since(disputed.since),
        disputed.state
    );
    (Verdict::Diverged, remark)
}

fn linked(region: &str, link: &LinkStatus) -> Option<(Verdict, String)> {
    let peer = &link.region;
    if link.agreement() == Agreement::Diverged {
        let remark = format!("{region} and {peer} hold the same events and different state");
        return Some((Verdict::Diverged, remark));
    }
    if !link.connected {
        let why = match link.problem.is_empty() {
            true => String::new(),
            false => format!(": {}", link.problem),
        };
        return Some((
            Verdict::Degraded,
            format!("{region} has no link to {peer}{why}"),
        ));
    }
    if !link.problem.is_empty() {
        let remark = format!("{region}, link to {peer}: {}", link.problem);
        return Some((Verdict::Degraded, remark));
    }
    let behind = link.events_behind > 0 || link.agreement() == Agreement::Behind;
    behind.then(|| {
        let events = counted(link.events_behind, "event");
        (
            Verdict::Degraded,
            format!("{peer} is behind {region} by {events}"),
        )
    })
}

fn compared(one: &GetStatusResponse, other: &GetStatusResponse) -> Option<(Verdict, String)> {
    let (a, b) = (&one.region, &other.region);
    if one.cluster != other.cluster {
        let remark = format!(
            "{a} is of cluster {}, {b} of {}",
            one.cluster, other.cluster
        );
        return Some((Verdict::Degraded, remark));
    }
    if heads(one) != heads(other) {
        return Some((
            Verdict::Degraded,
            format!("{a} and {b} have not seen the same events"),
        ));
    }
    let comparable = one.settled && other.settled;
    (comparable && one.fingerprint != other.fingerprint).then(|| {
        let remark = format!("{a} and {b} hold the same events and different state");
        (Verdict::Diverged, remark)
    })
}

/// The frontier, comparable.
fn heads(status: &GetStatusResponse) -> BTreeSet<(&str, &str, u64)> {
    let heads = status.heads.iter();
    heads
        .map(|head| (head.region.as_str(), head.epoch.as_str(), head.seq))
        .collect()
}

/// A node's state in a word.
pub fn state(status: &GetStatusResponse) -> &'static str {
    match status.state() {
        NodeState::Unspecified => "unknown",
        NodeState::Ready => "ready",
        NodeState::Rebuilding => "rebuilding",
        NodeState::Poisoned => "poisoned",
        NodeState::Stopping => "stopping",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1::{RegionStatus, ReplicaStatus};

    fn node(region: &str, seq: u64, fingerprint: &str) -> GetStatusResponse {
        GetStatusResponse {
            region: region.to_owned(),
            state: NodeState::Ready.into(),
            settled: true,
            fingerprint: fingerprint.to_owned(),
            heads: vec![ReplicaStatus {
                region: "us".to_owned(),
                epoch: "e".to_owned(),
                seq,
            }],
            ..GetStatusResponse::default()
        }
    }

    fn link(connected: bool, agreement: Agreement) -> LinkStatus {
        LinkStatus {
            region: "eu".to_owned(),
            connected,
            agreement: agreement.into(),
            ..LinkStatus::default()
        }
    }

    fn check(answers: Vec<GetStatusResponse>, expected: Verdict) {
        let said: Vec<Said> = answers
            .into_iter()
            .map(|a| (a.region.clone(), Ok(a)))
            .collect();
        let (verdict, remarks) = judge(&said);
        assert_eq!(verdict, expected, "{remarks:?}");
        assert_eq!(remarks.is_empty(), verdict == Verdict::Converged);
    }

    #[test]
    fn equal_nodes_are_converged() {
        check(
            vec![node("us", 1, "f"), node("eu", 1, "f")],
            Verdict::Converged,
        );
        let mut linked = node("us", 1, "f");
        linked.links.push(link(true, Agreement::Equal));
        check(vec![linked], Verdict::Converged);
    }

    #[test]
    fn what_passes_is_degraded() {
        check(
            vec![node("us", 1, "f"), node("eu", 2, "g")],
            Verdict::Degraded,
        );
        for bad in [
            link(false, Agreement::Unknown),
            link(true, Agreement::Behind),
        ] {
            let mut down = node("us", 1, "f");
            down.links.push(bad);
            check(vec![down], Verdict::Degraded);
        }
        let mut warned = node("us", 1, "f");
        warned.warnings.push("the disk is nearly full".to_owned());
        check(vec![warned], Verdict::Degraded);
        let mut rebuilding = node("us", 1, "f");
        rebuilding.state = NodeState::Rebuilding.into();
        check(vec![rebuilding], Verdict::Degraded);
    }

    #[test]
    fn a_retired_region_that_is_down_is_as_it_should_be() {
        let mut status = node("us", 1, "f");
        status.links.push(link(false, Agreement::Unknown));
        check(vec![status.clone()], Verdict::Degraded);
        status.regions.push(RegionStatus {
            region: "eu".to_owned(),
            retired: true,
            ..RegionStatus::default()
        });
        check(vec![status.clone()], Verdict::Converged);
        status.links = vec![link(true, Agreement::Behind)];
        check(vec![status], Verdict::Degraded);
    }

    #[test]
    fn equal_frontiers_with_other_state_are_diverged() {
        check(
            vec![node("us", 1, "f"), node("eu", 1, "g")],
            Verdict::Diverged,
        );
        let mut said = node("us", 1, "f");
        said.links.push(link(true, Agreement::Diverged));
        check(vec![said], Verdict::Diverged);
    }

    #[test]
    fn a_disputed_range_is_diverged_and_says_with_whom() {
        let mut disputed = node("us", 1, "f");
        disputed.diverged.push(DivergedRange {
            range: 7,
            regions: vec!["eu".to_owned()],
            state: "no majority decides".to_owned(),
            ..DivergedRange::default()
        });
        let (verdict, remarks) = judge(&[("us".to_owned(), Ok(disputed))]);
        assert_eq!(verdict.code(), 3);
        let remark = &remarks[0];
        assert!(
            remark.starts_with("range 7 of us and eu differs since"),
            "{remark}"
        );
        assert!(remark.ends_with("no majority decides"), "{remark}");
    }

    #[test]
    fn a_silent_node_is_unreachable_unless_others_diverged() {
        let silent = ("x".to_owned(), Err(ClientError::NoEndpoint));
        let said = vec![silent.clone(), ("us".to_owned(), Ok(node("us", 1, "f")))];
        assert_eq!(judge(&said).0.code(), 1);
        let mut said = vec![silent];
        for (region, fingerprint) in [("us", "f"), ("eu", "g")] {
            said.push((region.to_owned(), Ok(node(region, 1, fingerprint))));
        }
        assert_eq!(judge(&said).0.code(), 3);
    }
}
