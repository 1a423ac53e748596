//! Several regions in one folder, with a wire each way between any two.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use likewise::wire::v1::GetStatusResponse;
use tempfile::TempDir;

use super::node::{Node, Setup};
use super::{Wire, eventually};

/// How long nodes may take until they are equal.
const CONVERGE_WITHIN: Duration = Duration::from_secs(60);

pub struct World {
    regions: Vec<&'static str>,
    wires: BTreeMap<(&'static str, &'static str), Wire>,
    nodes: BTreeMap<&'static str, Node>,
    change: Box<dyn Fn(Setup) -> Setup>,
    folder: TempDir,
}

impl World {
    /// Starts the regions, each with what `change` makes of the usual setup.
    pub async fn start(
        regions: &[&'static str],
        change: impl Fn(Setup) -> Setup + 'static,
    ) -> Self {
        let mut world = Self {
            regions: regions.to_vec(),
            wires: BTreeMap::new(),
            nodes: BTreeMap::new(),
            change: Box::new(change),
            folder: tempfile::tempdir().expect("a folder"),
        };
        for from in regions {
            for to in regions.iter().filter(|to| *to != from) {
                world.wires.insert((from, to), Wire::lay().await);
            }
        }
        for region in regions {
            world.start_node(region).await;
        }
        world
    }

    /// A path beside the nodes' folders.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn setup(&self, region: &'static str) -> Setup {
        let mut setup = Setup::new(region, self.path(region));
        for ((_, to), wire) in self.wires.iter().filter(|((from, _), _)| *from == region) {
            setup = setup.peer(to, wire.address());
        }
        (self.change)(setup)
    }

    pub async fn start_node(&mut self, region: &'static str) {
        let node = self.setup(region).start().await;
        self.adopt(region, node);
    }

    /// Puts a node in that was started by the test; the wires lead to it.
    pub fn adopt(&mut self, region: &'static str, node: Node) {
        self.lead_to(region, &node);
        self.nodes.insert(region, node);
    }

    fn lead_to(&self, region: &'static str, node: &Node) {
        for (_, wire) in self.wires.iter().filter(|((_, to), _)| *to == region) {
            wire.lead_to(Some(node.peer_address));
        }
    }

    pub fn node(&self, region: &'static str) -> &Node {
        &self.nodes[region]
    }

    /// Takes the node out; the wires to it lead nowhere.
    pub fn take(&mut self, region: &'static str) -> Node {
        for (_, wire) in self.wires.iter().filter(|((_, to), _)| *to == region) {
            wire.lead_to(None);
        }
        self.nodes.remove(region).expect("it runs")
    }

    pub fn cut(&self, one: &'static str, other: &'static str) {
        self.wires[&(one, other)].cut();
        self.wires[&(other, one)].cut();
    }

    pub fn heal(&self) {
        self.wires.values().for_each(Wire::heal);
    }

    pub async fn converge(&self) -> GetStatusResponse {
        let nodes: Vec<&Node> = self
            .regions
            .iter()
            .filter_map(|region| self.nodes.get(region))
            .collect();
        converge(&nodes).await
    }
}

/// Waits until all hold the same events and the same state, and returns what the first says.
pub async fn converge(nodes: &[&Node]) -> GetStatusResponse {
    eventually("all nodes are equal", CONVERGE_WITHIN, || async {
        let mut statuses = Vec::new();
        for node in nodes {
            statuses.push(node.status().await);
        }
        let says = |status: &GetStatusResponse| {
            let heads = status.heads.iter();
            let mut heads: Vec<_> = heads
                .map(|head| (head.region.clone(), head.epoch.clone(), head.seq))
                .collect();
            heads.sort();
            (
                heads,
                status.fingerprint.clone(),
                status.likers,
                status.posts,
            )
        };
        let first = says(&statuses[0]);
        let equal = statuses
            .iter()
            .all(|status| status.settled && says(status) == first);
        match equal && !first.1.is_empty() {
            true => Ok(statuses.swap_remove(0)),
            false => Err(format!("{statuses:#?}")),
        }
    })
    .await
}
