//! ClusterService: what the node knows of itself and of its links.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::api::Api;
use crate::api::answers::timestamp;
use crate::engine::commit::Refused;
use crate::engine::{Serving, Settlement};
use crate::ids::{Epoch, Region};
use crate::replication::audits::DisputeView;
use crate::replication::links::LinkView;
use crate::replication::regions::{RegionState, RegionView};
use crate::replication::session::{Agreement, Standing};
use crate::seams::membership::{Liveness, Member};
use crate::wire::v1::cluster_service_server::ClusterService;
use crate::wire::v1::{
    self, DivergedRange, ExplainPostRequest, ExplainPostResponse, GetStatusRequest,
    GetStatusResponse, LinkStatus, NodeState, RegionStatus, ReplicaStatus, WaitForRequest,
    WaitForResponse,
};

/// The service of the cluster's state.
#[derive(Clone)]
pub struct Cluster(pub(super) Arc<Api>);

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(self.0.status()))
    }

    async fn wait_for(
        &self,
        request: Request<WaitForRequest>,
    ) -> Result<Response<WaitForResponse>, Status> {
        Ok(Response::new(self.0.wait_for(request.into_inner()).await?))
    }

    async fn explain_post(
        &self,
        request: Request<ExplainPostRequest>,
    ) -> Result<Response<ExplainPostResponse>, Status> {
        let answer = self.0.explain_post(request.into_inner()).await?;
        Ok(Response::new(answer))
    }
}

impl Api {
    fn status(&self) -> GetStatusResponse {
        let engine = &self.engine;
        let published = engine.board().newest();
        let own = engine.own();
        let settled = engine.settlement() == Settlement::Settled;
        let mut heads: Vec<ReplicaStatus> = published
            .named()
            .map(|(replica, seq)| ReplicaStatus {
                region: replica.region.to_string(),
                epoch: replica.epoch.to_string(),
                seq,
            })
            .collect();
        heads.sort_by(|a, b| (&a.region, &a.epoch).cmp(&(&b.region, &b.epoch)));
        let links = self.links.all();
        GetStatusResponse {
            cluster: engine.cluster().to_string(),
            region: own.region.to_string(),
            epoch: own.epoch.to_string(),
            state: self.state() as i32,
            settled,
            // What is not settled is like nobody else's, and would look like damage.
            fingerprint: match settled {
                true => published.sums.total().to_string(),
                false => String::new(),
            },
            replicas: published.vector.iter().count() as u64,
            warnings: self.warnings(&own.region, &heads, &links),
            heads,
            links: links.into_iter().map(link_status).collect(),
            token: published.token(engine.cluster()).to_string(),
            posts: engine.posts() as u64,
            likers: engine.likers(),
            orphan_removals: engine.orphan_removals() as u64,
            log_bytes: self.gauges.log_bytes(),
            checkpointed_at: timestamp(engine.checkpointed_at_ms()),
            version: format!(
                "{} ({})",
                env!("CARGO_PKG_VERSION"),
                env!("LIKEWISE_COMMIT")
            ),
            started_at: timestamp(self.started_at_ms),
            regions: self.region_statuses(),
            diverged: self.diverged(),
            counts: self.counts(),
        }
    }

    fn region_statuses(&self) -> Vec<RegionStatus> {
        let (links, members) = (self.links.all(), self.links.members());
        let status = |view: RegionView| {
            let name = view.region.to_string();
            let mut at = links.iter().filter(|link| link.region == view.region);
            let mut runs = members.iter().filter(|member| member.region == view.region);
            let is_alive = |member: &Member| member.liveness == Liveness::Alive;
            RegionStatus {
                known: view.state != RegionState::Retired,
                retired: view.state == RegionState::Retired,
                alive: view.state == RegionState::Own
                    || at.clone().any(|link| link.connected)
                    || runs.clone().any(is_alive),
                address: at
                    .next()
                    .map(|link| link.address.clone())
                    .or_else(|| runs.find_map(|run| Some(run.address.as_ref()?.to_string())))
                    .unwrap_or_default(),
                events_behind: view.events_behind,
                complete_until: view.complete_until_ms.and_then(timestamp),
                region: name,
            }
        };
        self.regions.all().into_iter().map(status).collect()
    }

    fn diverged(&self) -> Vec<DivergedRange> {
        let disputes = self.audits.disputes().into_iter();
        let diverged = |dispute: DisputeView| DivergedRange {
            range: dispute.range as u32,
            regions: dispute.regions.iter().map(Region::to_string).collect(),
            since: timestamp(dispute.since_ms),
            state: dispute.state,
        };
        disputes.map(diverged).collect()
    }

    fn counts(&self) -> Vec<v1::Count> {
        let all = self.counts.all().into_iter();
        let count = |(name, value): (&str, u64)| v1::Count {
            name: name.to_owned(),
            value,
        };
        all.map(count).collect()
    }

    fn state(&self) -> NodeState {
        match (self.engine.queue().closed(), self.engine.serving()) {
            _ if self.shutdown.is_cancelled() => NodeState::Stopping,
            (Some(Refused::Stopping), _) => NodeState::Stopping,
            (Some(_), _) => NodeState::Poisoned,
            (None, Serving::Rebuilding) => NodeState::Rebuilding,
            (None, Serving::Ready) => NodeState::Ready,
        }
    }

    fn warnings(&self, own: &Region, heads: &[ReplicaStatus], links: &[LinkView]) -> Vec<String> {
        let mut warnings = Vec::new();
        match self.state() {
            NodeState::Poisoned => warnings.push(
                "a sync of the log failed: no writes are taken until the node is restarted"
                    .to_owned(),
            ),
            NodeState::Rebuilding => warnings.push(
                "the data folder was empty: reads wait until a peer has given its state".to_owned(),
            ),
            NodeState::Ready | NodeState::Stopping | NodeState::Unspecified => {}
        }
        if self.engine.settlement() == Settlement::Merging {
            warnings.push("a peer's snapshot is being merged".to_owned());
        }
        warnings.extend(several_heads(heads));
        warnings.extend(several_nodes(own, links));
        warnings.extend(self.links.seed_problems());
        warnings.extend(self.gauges.warnings());
        warnings
    }
}

/// Regions in which replicas went on beside one another.
fn several_heads(heads: &[ReplicaStatus]) -> Vec<String> {
    let mut by_region: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for head in heads {
        let short = head.epoch.get(..8).unwrap_or(&head.epoch);
        by_region.entry(&head.region).or_default().push(short);
    }
    let several = by_region.iter().filter(|(_, epochs)| epochs.len() > 1);
    let warning = |(region, epochs): (&&str, &Vec<&str>)| {
        format!(
            "region {region} has {} replicas that do not continue one another (epochs {}): its data \
             folder was copied, restored from a backup, or lost; see that only one node runs under \
             this name",
            epochs.len(),
            epochs.join(", "),
        )
    };
    several.map(warning).collect()
}

/// Regions under whose name several nodes run at this moment.
fn several_nodes(own: &Region, links: &[LinkView]) -> Vec<String> {
    let mut running: BTreeMap<&Region, Vec<Epoch>> = BTreeMap::new();
    for link in links.iter().filter(|link| link.connected) {
        if let Some(epoch) = link.epoch {
            let epochs = running.entry(&link.region).or_default();
            if !epochs.contains(&epoch) {
                epochs.push(epoch);
            }
        }
    }
    let nodes = |region: &Region, epochs: &[Epoch]| epochs.len() + usize::from(region == own);
    running
        .iter()
        .map(|(region, epochs)| (region, nodes(region, epochs)))
        .filter(|(_, nodes)| *nodes > 1)
        .map(|(region, nodes)| {
            format!("region {region} has {nodes} running replicas: stop all nodes of it but one")
        })
        .collect()
}

fn link_status(link: LinkView) -> LinkStatus {
    let Standing {
        events_behind,
        lag_ms,
        agreement,
        fingerprint,
        problem,
        traffic,
    } = link.standing;
    let lag = Duration::from_millis(lag_ms);
    let agreement = match agreement {
        Agreement::Equal => v1::Agreement::Equal,
        Agreement::Behind => v1::Agreement::Behind,
        Agreement::Diverged => v1::Agreement::Diverged,
        Agreement::Unknown => v1::Agreement::Unknown,
    };
    LinkStatus {
        region: link.region.to_string(),
        address: link.address,
        connected: link.connected,
        epoch: link
            .epoch
            .map(|epoch| epoch.to_string())
            .unwrap_or_default(),
        events_behind,
        lag: Some(prost_types::Duration {
            seconds: i64::try_from(lag.as_secs()).unwrap_or(i64::MAX),
            nanos: lag.subsec_nanos() as i32,
        }),
        agreement: agreement as i32,
        problem,
        fingerprint: fingerprint
            .map(|fingerprint| fingerprint.to_string())
            .unwrap_or_default(),
        sent_bytes: traffic.sent_bytes,
        received_bytes: traffic.received_bytes,
        sent_events: traffic.sent_events,
        received_events: traffic.received_events,
        ..LinkStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> Region {
        Region::new(name).expect("valid")
    }

    fn head(region: &str, epoch: u128) -> ReplicaStatus {
        ReplicaStatus {
            region: region.to_owned(),
            epoch: Epoch(epoch).to_string(),
            seq: 1,
        }
    }

    fn link(name: &str, epoch: u128) -> LinkView {
        LinkView {
            region: region(name),
            address: String::new(),
            connected: true,
            epoch: Some(Epoch(epoch)),
            standing: Standing {
                lag_ms: 1_500,
                agreement: Agreement::Equal,
                ..Standing::default()
            },
        }
    }

    #[test]
    fn replicas_beside_one_another_are_told() {
        assert!(several_heads(&[head("eu", 1), head("us", 2)]).is_empty());
        let told = several_heads(&[head("eu", 1), head("eu", 2), head("us", 2)]);
        assert_eq!(told.len(), 1);
        assert!(
            told[0].starts_with("region eu has 2 replicas"),
            "{}",
            told[0]
        );
    }

    #[test]
    fn two_running_nodes_of_one_region_are_told() {
        let own = region("eu");
        assert!(several_nodes(&own, &[link("us", 1), link("us", 1)]).is_empty());
        let told = several_nodes(&own, &[link("us", 1), link("us", 2), link("eu", 3)]);
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("region eu has 2 running replicas"));
        let mut down = link("eu", 3);
        down.connected = false;
        assert!(several_nodes(&own, &[down]).is_empty());
    }

    #[test]
    fn a_lag_keeps_its_milliseconds() {
        let lag = link_status(link("us", 1)).lag.expect("always there");
        assert_eq!((lag.seconds, lag.nanos), (1, 500_000_000));
    }
}
