//! Nodes as real processes: `likewise serve` on ports of the system's choice, with a wire between any two
//! that can be cut, and the client library as the caller. Nothing here outlives its test.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod counted;
pub mod load;
pub mod node;
pub mod world;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use likewise::demo::proxy::{Proxy, Switch};
use likewise::wire::v1::GetStatusResponse;
use tokio::sync::watch;
use tokio::time::Instant;

/// How often something that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A directed wire of no length: where one node dials to reach another.
pub struct Wire {
    proxy: Proxy,
    switch: watch::Sender<Switch>,
}

impl Wire {
    /// A wire that leads nowhere yet.
    pub async fn lay() -> Self {
        let (switch, seen) = watch::channel(Switch::On);
        let proxy = Proxy::start(Duration::ZERO, seen).await;
        let proxy = proxy.expect("a port of the system's choice");
        Self { proxy, switch }
    }

    pub fn address(&self) -> SocketAddr {
        self.proxy.address
    }

    pub fn lead_to(&self, target: Option<SocketAddr>) {
        self.proxy.lead_to(target);
    }

    /// Swallows all bytes from now on and closes nothing.
    pub fn cut(&self) {
        self.switch.send_replace(Switch::Off);
    }

    pub fn heal(&self) {
        self.switch.send_replace(Switch::On);
    }
}

/// How often something happened, as a node tells it by this name.
pub fn count(status: &GetStatusResponse, name: &str) -> u64 {
    let mut counts = status.counts.iter();
    let count = counts.find(|count| count.name == name);
    count.unwrap_or_else(|| panic!("{name} is counted")).value
}

/// Looks again and again until there is an answer; `Err` says what there is instead.
pub async fn eventually<T, F>(what: &str, within: Duration, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let until = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(instead) if Instant::now() >= until => {
                panic!("not within {within:?}: {what}; instead {instead}")
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
