//! The nodes that a run speaks to.

use std::time::Duration;

use anyhow::{bail, ensure};
use futures_util::future::{join_all, try_join_all};

use crate::client::{Client, ClientBuilder, ClientError, RetryElsewhere};
use crate::wire::v1::{GetStatusResponse, NodeState};

/// How long a call may be tried: what is unknown by then stays unknown.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a node may take to say who it is: someone waits for the run to begin.
const MEETING_DEADLINE: Duration = Duration::from_secs(3);
/// Clients that share a connection. Well below the streams that a node takes on one, and few enough that a
/// connection is no bottleneck.
const CLIENTS_OF_CONNECTION_MAX: usize = 32;

/// The nodes, each by its address, and how to speak to them.
pub struct Nodes {
    addresses: Vec<String>,
    builder: ClientBuilder,
}

/// A node that has told who it is.
pub struct Met {
    pub region: String,
    /// For questions beside the load, which do not wait behind it.
    pub client: Client,
}

impl Nodes {
    /// `builder` knows no endpoint yet.
    pub fn new(addresses: Vec<String>, builder: ClientBuilder) -> Self {
        Self { addresses, builder }
    }

    /// Asks all nodes who they are. An error if one does not serve, or they do not belong together.
    pub async fn meet(&self) -> anyhow::Result<Vec<Met>> {
        let asked = self.addresses.iter().map(|address| async move {
            let asked = self.connect(address, MEETING_DEADLINE)?;
            let status = asked.status().await.map_err(advised)?;
            anyhow::Ok((self.connect(address, DEADLINE)?, status))
        });
        let met = try_join_all(asked).await?;
        let statuses: Vec<&GetStatusResponse> = met.iter().map(|(_, status)| status).collect();
        belong_together(&statuses)?;
        let met = met.into_iter().map(|(client, status)| Met {
            region: status.region,
            client,
        });
        Ok(met.collect())
    }

    /// Clients spread evenly over the nodes, some of them on one connection, which is open by then where the node
    /// can be reached.
    pub async fn clients(&self, clients: usize) -> anyhow::Result<Vec<Client>> {
        let connections = connections(clients, self.addresses.len());
        let addresses = self.addresses.iter().cycle().take(connections);
        let connected: Result<Vec<Client>, ClientError> = addresses
            .map(|address| self.connect(address, DEADLINE))
            .collect();
        let connected = connected?;
        // A node that does not answer shows in what the clients meet.
        drop(join_all(connected.iter().map(Client::status)).await);
        let clients = connected.iter().cycle().take(clients);
        Ok(clients.map(Client::session).collect())
    }

    fn connect(&self, address: &str, deadline: Duration) -> Result<Client, ClientError> {
        let builder = self.builder.clone().endpoints([address]);
        builder
            // Each client is held to its node, so that figures are those of that node.
            .retry_elsewhere(RetryElsewhere::Never)
            .deadline(deadline)
            .connect_lazy()
    }
}

/// The same number to each node.
fn connections(clients: usize, nodes: usize) -> usize {
    clients.div_ceil(CLIENTS_OF_CONNECTION_MAX * nodes) * nodes
}

fn belong_together(statuses: &[&GetStatusResponse]) -> anyhow::Result<()> {
    let [first, rest @ ..] = statuses else {
        bail!("no node is named");
    };
    for status in statuses {
        let region = &status.region;
        ensure!(
            status.state() == NodeState::Ready && status.settled,
            "the node of {region} is not ready; look with `likewise status`"
        );
    }
    for (at, other) in rest.iter().enumerate() {
        ensure!(
            other.cluster == first.cluster,
            "{} belongs to the cluster {}, and {} to {}: their counts have nothing in common",
            first.region,
            first.cluster,
            other.region,
            other.cluster
        );
        let same = statuses[..=at].iter().any(|one| one.epoch == other.epoch);
        ensure!(!same, "the node of {} is named twice", other.region);
    }
    Ok(())
}

fn advised(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Unreachable { .. } => anyhow::anyhow!(
            "{error}; start a node with `likewise serve`, or name others with --node"
        ),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(cluster: &str, region: &str, epoch: &str) -> GetStatusResponse {
        GetStatusResponse {
            cluster: cluster.to_owned(),
            region: region.to_owned(),
            epoch: epoch.to_owned(),
            state: NodeState::Ready.into(),
            settled: true,
            ..GetStatusResponse::default()
        }
    }

    fn problem(statuses: &[GetStatusResponse]) -> String {
        let statuses: Vec<_> = statuses.iter().collect();
        belong_together(&statuses).unwrap_err().to_string()
    }

    #[test]
    fn nodes_of_one_cluster_belong_together() {
        let both = [status("c", "us", "1"), status("c", "eu", "2")];
        assert!(belong_together(&both.iter().collect::<Vec<_>>()).is_ok());
        let strange = problem(&[status("c", "us", "1"), status("d", "eu", "2")]);
        assert!(strange.contains("eu to d"), "{strange}");
        let twice = problem(&[status("c", "us", "1"), status("c", "us", "1")]);
        assert!(twice.contains("named twice"), "{twice}");
        let mut rebuilding = status("c", "us", "1");
        rebuilding.set_state(NodeState::Rebuilding);
        assert!(problem(&[rebuilding]).contains("not ready"));
    }

    #[test]
    fn each_node_has_as_many_connections_as_the_others() {
        for (clients, nodes, expected) in
            [(1, 1, 1), (1, 3, 3), (32, 1, 1), (33, 1, 2), (200, 3, 9)]
        {
            assert_eq!(connections(clients, nodes), expected);
        }
    }
}
