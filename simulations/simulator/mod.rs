//! Runs a whole cluster from one seed: the node's own code on a simulated network, disk and clock.
//!
//! Shared by the binary and by the tests. What makes a run repeatable to the bit replaces the process's clock and
//! chance, so it is in the binary alone.

pub mod checkers;
pub mod faults;
pub mod history;
pub mod operator;
pub mod probe;
pub mod run;
pub mod scenario;
pub mod story;
pub mod summary;
pub mod workload;
pub mod world;
