//! An engine with its log in memory, and everything it does on one thread.

use std::sync::Arc;

use bytes::Bytes;
use likewise::adapters::memory_store::MemoryDevice;
use likewise::adapters::power::Power;
use likewise::adapters::simulated_disk::SimulatedDisk;
use likewise::adapters::system::{SeededRandomness, SystemClock};
use likewise::config::Config;
use likewise::engine::Engine;
use likewise::engine::recovery::EngineSeams;
use likewise::engine::remote::Applied;
use likewise::node::{engine_options, storage};
use likewise::seams::Cores;
use likewise::wire::batch;
use likewise::wire::v1::{IntegerColumn, Operation, WriteBatch, write_batch};
use tokio::runtime::{Builder, Runtime};

use super::blocks::{self, Posts};
use super::{ITEMS, scattered};

/// Users whom no block names.
const FIRST_USER: u64 = 1 << 32;

pub struct Node {
    engine: Arc<Engine>,
    runtime: Runtime,
}

impl Node {
    /// An empty node with the default configuration.
    pub fn new() -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let config = Config::default();
        let seams = EngineSeams {
            files: SimulatedDisk::new(1).files(),
            store: MemoryDevice::new(Power::new(1)).store(),
            clock: Arc::new(SystemClock),
            randomness: Arc::new(SeededRandomness::new(1)),
            cores: Cores::one(),
        };
        let (options, log) = (engine_options(&config), storage::log_options(&config));
        let opened = runtime.block_on(storage::open_on(seams, options, log));
        let recovered = opened.expect("an empty disk").recovered;
        runtime.spawn(async {
            recovered
                .committer
                .run()
                .await
                .expect("a disk without faults")
        });
        runtime.spawn(recovered.preparer.run());
        let engine = recovered.engine;
        Self { engine, runtime }
    }

    /// One that has so many of the peer's blocks.
    pub fn with_blocks(blocks: u64, of: Posts) -> Self {
        let node = Self::new();
        node.apply(&peer_blocks(0, blocks, of));
        node
    }

    /// Checks batches as if they had come over the wire, applies them and waits until they are durable, one after the other.
    pub fn write(&self, batches: Vec<WriteBatch>) {
        self.runtime.block_on(async {
            for batch in batches {
                let checked = batch::check(self.engine.cluster(), Some(batch)).expect("valid");
                let written = self.engine.write(&checked.write).await.expect("taken");
                assert_eq!(written.done.len() as u64, ITEMS);
            }
        });
    }

    /// Applies blocks of the peer and waits until they are durable.
    pub fn apply(&self, blocks: &[Bytes]) {
        self.runtime.block_on(async {
            for block in blocks {
                match self.engine.apply_remote(block).expect("valid") {
                    Applied::New(wait) => drop(wait.await.expect("a disk without faults")),
                    Applied::Known | Applied::NotYet => panic!("blocks come in order"),
                }
            }
        });
    }
}

/// Encoded blocks of the peer, from the `first` on.
pub fn peer_blocks(first: u64, count: u64, of: Posts) -> Vec<Bytes> {
    let blocks = first..first + count;
    let encoded = blocks.map(|at| blocks::encode(&blocks::block(at * ITEMS + 1, of)));
    encoded.map(Bytes::from).collect()
}

/// Batches of likes by users who like nothing yet.
pub fn batches(count: u64, of: Posts) -> Vec<WriteBatch> {
    (0..count).map(|at| batch(at * ITEMS, of)).collect()
}

fn batch(first: u64, of: Posts) -> WriteBatch {
    let mut posts: Vec<String> = Vec::new();
    let mut places = Vec::new();
    for number in first..first + ITEMS {
        let name = of.name(number);
        let place = posts.iter().position(|known| *known == name);
        places.push(place.unwrap_or(posts.len()) as u32);
        if place.is_none() {
            posts.push(name);
        }
    }
    let users = first..first + ITEMS;
    let values = users.map(|number| FIRST_USER + scattered(number, FIRST_USER));
    WriteBatch {
        post_indexes: match posts.len() {
            1 => Vec::new(),
            _ => places,
        },
        posts,
        operations: vec![Operation::Like as i32],
        users: Some(write_batch::Users::UserIntegers(IntegerColumn {
            prefix: "u".to_owned(),
            values: values.collect(),
        })),
        ..WriteBatch::default()
    }
}
