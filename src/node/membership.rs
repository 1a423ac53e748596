//! How the node learns of others: by gossip, or by the list in the configuration.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::adapters::chitchat_membership::{ChitchatMembership, GossipOptions, Home};
use crate::adapters::fixed_membership::FixedMembership;
use crate::config::{Config, MembershipKind};
use crate::counts::Counts;
use crate::seams::Membership;

pub(super) fn membership(
    config: &Config,
    home: Home,
    counts: Arc<Counts>,
) -> anyhow::Result<Arc<dyn Membership>> {
    let peers = &config.peers;
    if peers.membership == MembershipKind::Static {
        let listed = peers.static_peers.iter();
        let listed = listed.map(|peer| (peer.region.clone(), peer.address.clone()));
        return Ok(Arc::new(FixedMembership::new(listed)));
    }
    let regions = config.cluster.regions.iter().cloned();
    let options = GossipOptions {
        cluster: config.cluster.id.clone(),
        regions: (!config.cluster.regions.is_empty()).then(|| regions.collect()),
        interval: Duration::from_millis(peers.gossip_interval_ms),
        dead_after: Duration::from_millis(peers.dead_after_ms),
        forget_after: Duration::from_millis(peers.forget_after_ms),
    };
    let gossip = ChitchatMembership::start(home, options, counts);
    Ok(Arc::new(gossip.context("a thread for the gossip")?))
}
