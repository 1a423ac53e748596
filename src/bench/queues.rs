//! How deep queues are, looked at again and again while a phase runs.

use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::meters::Meters;
use super::nodes::Met;
use super::pace::Pace;
use crate::wire::v1::GetStatusResponse;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A status counts for more than one look, so it is asked for less often.
const LOOKS_OF_STATUS: u64 = 5;

/// The figures of a queue over a phase.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Depth {
    sum: u64,
    looks: u64,
    pub max: u64,
}

/// All queues that can be seen from here.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Depths {
    /// Likes that are sent and not answered: here, on the way, and at the nodes.
    pub under_way: Depth,
    /// Likes that are due and not sent.
    pub late: Depth,
    /// Events that a node has and a peer has not acknowledged, at the link where it is most.
    pub behind: Depth,
    /// How long the oldest of them waits, in milliseconds.
    pub lag_ms: Depth,
}

impl Depth {
    fn see(&mut self, depth: u64) {
        self.sum += depth;
        self.looks += 1;
        self.max = self.max.max(depth);
    }

    /// None before the first look.
    pub fn mean(&self) -> Option<u64> {
        self.sum.checked_div(self.looks)
    }
}

/// Looks until it is told to stop, and at least once.
pub async fn watch(
    nodes: &[Met],
    meters: &Meters,
    (pace, batch): (Option<&Pace>, u64),
    stop: &CancellationToken,
) -> Depths {
    let mut depths = Depths::default();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    for look in 0_u64.. {
        tokio::select! {
            biased;
            () = stop.cancelled(), if look > 0 => break,
            _ = ticks.tick() => {}
        }
        depths.under_way.see(meters.under_way.get());
        if let Some(pace) = pace {
            depths.late.see(pace.late_turns() * batch);
        }
        if look % LOOKS_OF_STATUS == 0 {
            let statuses = join_all(nodes.iter().map(|node| node.client.status())).await;
            let statuses: Vec<GetStatusResponse> = statuses.into_iter().flatten().collect();
            depths.see_links(&statuses);
        }
    }
    depths
}

impl Depths {
    /// Single nodes have no links, and so no depth.
    fn see_links(&mut self, statuses: &[GetStatusResponse]) {
        let links = || statuses.iter().flat_map(|status| &status.links);
        if let Some(behind) = links().map(|link| link.events_behind).max() {
            self.behind.see(behind);
            let lags = links().filter_map(|link| Duration::try_from(link.lag?).ok());
            let lag = lags.max().unwrap_or_default();
            self.lag_ms
                .see(u64::try_from(lag.as_millis()).unwrap_or(u64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1::LinkStatus;

    #[test]
    fn the_deepest_link_counts() {
        let link = |events_behind, millis| LinkStatus {
            events_behind,
            lag: prost_types::Duration::try_from(Duration::from_millis(millis)).ok(),
            ..LinkStatus::default()
        };
        let status = |links| GetStatusResponse {
            links,
            ..GetStatusResponse::default()
        };
        let mut depths = Depths::default();
        depths.see_links(&[status(vec![link(3, 5), link(9, 1)]), status(Vec::new())]);
        depths.see_links(&[status(vec![link(1, 1)])]);
        assert_eq!((depths.behind.max, depths.behind.mean()), (9, Some(5)));
        assert_eq!((depths.lag_ms.max, depths.lag_ms.mean()), (5, Some(3)));
    }

    #[test]
    fn a_single_node_has_no_links() {
        let mut depths = Depths::default();
        depths.see_links(&[GetStatusResponse::default()]);
        assert_eq!(depths.behind.mean(), None);
    }
}
