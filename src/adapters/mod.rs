//! What is plugged into the seams: the operating system, sled, threads; and for tests and the
//! simulator their deterministic counterparts.
//!
//! Adapters do not know each other, but [`tls`], which stands on [`tcp`]. [`power`] is no adapter: it is the one supply that the simulated
//! disk and the store in memory hang on, so that both go dark at the same instant.

pub mod allocator;
pub mod chitchat_membership;
pub mod fixed_membership;
pub mod memory_store;
pub mod os_files;
pub mod power;
pub mod simulated_disk;
pub mod sled_store;
pub mod system;
pub mod tasks;
pub mod tcp;
pub mod threads;
pub mod tls;
