//! Three nodes and the links between them, in a folder that is gone afterwards.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Place;
use super::children::Node;
use super::links::Links;
use crate::client::{Client, RetryElsewhere};
use crate::display::output;

/// How long a call to a node is tried; a node that was killed will not answer at all.
const CALL_DEADLINE: Duration = Duration::from_secs(5);

/// The cluster of a demo. Dropping it kills the nodes and removes the folder, unless it is kept.
pub struct Cluster {
    /// Guards the processes; a node is taken out to be killed or put in after it has started.
    nodes: Mutex<BTreeMap<Place, Node>>,
    pub links: Links,
    folder: Folder,
    /// Who speaks to a region hears here when its node goes and comes.
    clients: BTreeMap<Place, watch::Sender<Option<Client>>>,
}

impl Cluster {
    /// Lays the links and starts all nodes.
    pub async fn start() -> anyhow::Result<Self> {
        let cluster = Self {
            links: Links::lay().await.context("cannot lay the links")?,
            folder: Folder::make()?,
            nodes: Mutex::new(BTreeMap::new()),
            clients: Place::ALL
                .map(|place| (place, watch::channel(None).0))
                .into(),
        };
        let [us, eu, ap] = Place::ALL;
        let started = tokio::try_join!(
            cluster.start_node(us),
            cluster.start_node(eu),
            cluster.start_node(ap)
        );
        match started {
            Ok(_) => Ok(cluster),
            Err(error) => {
                cluster.keep_folder();
                Err(error)
            }
        }
    }

    /// Starts a region's node on what its folder holds.
    pub async fn start_node(&self, place: Place) -> anyhow::Result<()> {
        if self.runs(place) {
            bail!("{place} runs already");
        }
        let node = Node::start(place, self.folder(), &self.links).await?;
        self.links.lead_to(place, Some(node.peers));
        let client = Client::builder()
            .endpoints([format!("http://{}", node.client)])
            .retry_elsewhere(RetryElsewhere::Never)
            .deadline(CALL_DEADLINE)
            .connect_lazy()?;
        self.nodes.lock().insert(place, node);
        self.clients[&place].send_replace(Some(client));
        Ok(())
    }

    /// Ends a region's node by SIGKILL.
    pub async fn kill_node(&self, place: Place) -> anyhow::Result<()> {
        let node = self.nodes.lock().remove(&place);
        let Some(node) = node else {
            bail!("{place} does not run");
        };
        self.clients[&place].send_replace(None);
        self.links.lead_to(place, None);
        node.kill().await
    }

    /// Ends all nodes and waits until they are gone, so that the folder can go too.
    pub async fn stop(&self) -> anyhow::Result<()> {
        for place in Place::ALL {
            let node = self.nodes.lock().remove(&place);
            if let Some(node) = node {
                node.kill().await?;
            }
        }
        Ok(())
    }

    /// Whether a region's node is there.
    pub fn runs(&self, place: Place) -> bool {
        self.nodes.lock().get_mut(&place).is_some_and(Node::runs)
    }

    /// A client of a region's node, while that runs.
    pub fn client(&self, place: Place) -> anyhow::Result<Client> {
        let client = self.clients[&place].borrow().as_ref().map(Client::session);
        client.with_context(|| format!("{place} does not run"))
    }

    /// Follows the client of a region's node through kills and starts.
    pub fn follow(&self, place: Place) -> watch::Receiver<Option<Client>> {
        self.clients[&place].subscribe()
    }

    /// Where data and logs are.
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// Leaves data and logs where they are.
    pub fn keep_folder(&self) {
        *self.folder.kept.lock() = true;
    }
}

struct Folder {
    path: PathBuf,
    /// Guards the mark alone.
    kept: Mutex<bool>,
}

impl Folder {
    fn make() -> anyhow::Result<Self> {
        let name = format!("likewise-demo-{:016x}", rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Self {
            path,
            kept: Mutex::new(false),
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if *self.kept.lock() {
            output::complain(format!("data and logs are kept in {}", self.path.display()));
        } else if let Err(error) = std::fs::remove_dir_all(&self.path) {
            output::complain(format!("cannot remove {}: {error}", self.path.display()));
        }
    }
}
