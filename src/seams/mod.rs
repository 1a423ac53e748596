//! What the node asks of the world, nearly all as traits: files, a checkpoint store, workers, cores, connections, the
//! other nodes, a clock, chance.
//!
//! The same node runs in production and in the simulator; they differ in what is plugged in here.
//! This layer knows no library and no operating system.

pub mod admission;
pub mod checkpoint_store;
pub mod cores;
pub mod environment;
pub mod files;
pub mod membership;
pub mod preface;
pub mod transport;
pub mod workers;

pub use checkpoint_store::CheckpointStore;
pub use cores::Cores;
pub use environment::{Clock, Randomness};
pub use files::{File, Files, IoFuture};
pub use membership::Membership;
pub use transport::{Connection, Established, Identity, Incoming, Listener, Remote, Transport};
pub use workers::{Worker, WorkerHandle, WorkerLost, Workers};
