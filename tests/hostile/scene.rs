//! Two honest regions, one of which is attacked.

use std::time::Duration;

use likewise::ids::{Epoch, Region, Replica};
use likewise::wire::v1::GetStatusResponse;

use crate::process::node::{Node, PATIENCE, Setup};
use crate::process::world::World;

use super::intruder::Intruder;

pub struct Scene {
    pub world: World,
    written: usize,
}

/// What no bad frame may change.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    fingerprint: String,
    token: String,
    likers: u64,
    posts: u64,
    orphan_removals: u64,
    replicas: u64,
}

pub fn state(status: &GetStatusResponse) -> State {
    State {
        fingerprint: status.fingerprint.clone(),
        token: status.token.clone(),
        likers: status.likers,
        posts: status.posts,
        orphan_removals: status.orphan_removals,
        replicas: status.replicas,
    }
}

pub fn counted(status: &GetStatusResponse, name: &str) -> u64 {
    let mut counts = status.counts.iter();
    let count = counts.find(|count| count.name == name);
    count.unwrap_or_else(|| panic!("{name} is counted")).value
}

fn quick(setup: Setup) -> Setup {
    setup
        .set("REPLICATION__HEARTBEAT_MS", 300)
        .set("REPLICATION__SILENCE_MS", 2_000)
        .set("REPLICATION__RELAY_AFTER_MS", 300)
        // A node that meets itself says so at debug: its own address may be among its seeds.
        .set("LOGGING__LEVEL", "info,likewise::replication=debug")
}

impl Scene {
    pub async fn start() -> Self {
        let world = World::start(&["eu", "us"], quick).await;
        let mut scene = Self { world, written: 0 };
        scene.others_go_on().await;
        scene
    }

    /// The node that is attacked.
    pub fn eu(&self) -> &Node {
        self.world.node("eu")
    }

    pub fn own(&self) -> Replica {
        let epoch = u128::from_str_radix(&self.eu().epoch, 16).expect("hexadecimal");
        Replica {
            region: Region::new("eu").expect("valid"),
            epoch: Epoch(epoch),
        }
    }

    /// A write at the third node arrives, and one here arrives there.
    pub async fn others_go_on(&mut self) {
        for region in ["us", "eu"] {
            self.written += 1;
            let user = format!("honest{}", self.written);
            let liked = self.world.node(region).client.like("honest", &user).await;
            liked.expect("taken");
        }
        let all = self.world.converge().await;
        let counts = [
            self.eu().count("honest").await,
            self.world.node("us").count("honest").await,
        ];
        assert_eq!(counts, [self.written as u64; 2], "{all:?}");
    }

    /// A megabyte of likers with long names: more than a connection takes from a node before it is read.
    pub async fn write_much(&self) {
        let long = "x".repeat(230);
        for round in 0..20 {
            let users = (0..200).map(|number| format!("u{round}-{number}-{long}"));
            let users: Vec<String> = users.collect();
            let writes = users.iter().map(|user| self.eu().client.like("much", user));
            for written in futures_util::future::join_all(writes).await {
                written.expect("taken");
            }
        }
    }

    pub async fn state(&self) -> State {
        state(&self.eu().status().await)
    }

    /// Waits until something has been counted this often.
    pub async fn counted(&self, name: &str, times: u64) {
        let is_counted = |status: &GetStatusResponse| counted(status, name) == times;
        let what = format!("{name} = {times}");
        self.eu().status_where(&what, PATIENCE, is_counted).await;
    }

    /// The frames end the session for the reason; nothing changes, it is counted and logged, and others go on.
    pub async fn refuses(
        &mut self,
        what: &str,
        mut session: Intruder,
        reason: likewise::wire::replication::CloseReason,
        words: &str,
    ) {
        let (found, message) = session.closed().await;
        println!("{what}: {found:?}: {message}");
        assert_eq!(found, reason, "{what}: {message}");
        assert!(message.contains(words), "{what}: {message}");
        let logged = self.eu().setup.stderr();
        let start: String = message.chars().take(40).collect();
        let start = start.replace('"', "\\\"");
        assert!(logged.contains(&start), "{what} is logged");
        drop(session);
    }

    /// Lets a moment pass in which something wrong would show.
    pub async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
