//! The links between the regions: for each ordered pair a wire, for each unordered pair a switch.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;

use super::Place;
use super::proxy::{Proxy, Switch};

/// How long a byte is on its way between two regions.
fn distance(one: Place, other: Place) -> Duration {
    let millis = match pair(one, other) {
        (Place::Us, Place::Eu) => 20,
        (Place::Us, Place::Ap) => 45,
        _ => 55,
    };
    Duration::from_millis(millis)
}

/// Two regions in a fixed order.
fn pair(one: Place, other: Place) -> (Place, Place) {
    (one.min(other), one.max(other))
}

/// All wires and their switches.
pub struct Links {
    wires: BTreeMap<(Place, Place), Proxy>,
    switches: BTreeMap<(Place, Place), watch::Sender<Switch>>,
}

impl Links {
    /// Lays the wires; they lead nowhere yet.
    pub async fn lay() -> io::Result<Self> {
        let mut links = Self {
            wires: BTreeMap::new(),
            switches: BTreeMap::new(),
        };
        for from in Place::ALL {
            for to in from.others() {
                let switch = links
                    .switches
                    .entry(pair(from, to))
                    .or_insert_with(|| watch::channel(Switch::On).0);
                let wire = Proxy::start(distance(from, to), switch.subscribe()).await?;
                links.wires.insert((from, to), wire);
            }
        }
        Ok(links)
    }

    /// Where `from` dials to reach `to`.
    pub fn address(&self, from: Place, to: Place) -> SocketAddr {
        self.wires[&(from, to)].address
    }

    /// Tells the wires where a region's node listens now.
    pub fn lead_to(&self, to: Place, target: Option<SocketAddr>) {
        for from in to.others() {
            self.wires[&(from, to)].lead_to(target);
        }
    }

    /// Turns the switch between two regions, for both directions.
    pub fn turn(&self, one: Place, other: Place, switch: Switch) {
        if let Some(sender) = self.switches.get(&pair(one, other)) {
            sender.send_replace(switch);
        }
    }

    /// Turns all switches on.
    pub fn heal(&self) {
        for switch in self.switches.values() {
            switch.send_replace(Switch::On);
        }
    }

    /// Whether bytes pass between two regions.
    pub fn between(&self, one: Place, other: Place) -> Switch {
        let switch = self.switches.get(&pair(one, other));
        switch.map_or(Switch::On, |switch| *switch.borrow())
    }
}
