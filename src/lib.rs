//! Likewise: a multi-region store for likes and the counters beside them.
//!
//! The modules stand in reading order; imports go downward only. `docs/architecture.md` says what
//! each layer may not know.

pub mod address;
pub mod causes;
pub mod counts;
pub mod ids;
pub mod limits;
pub mod planted;
pub mod versions;

pub mod crdt;

pub mod codec;

pub mod seams;

pub mod wire;

pub mod adapters;

pub mod log;

pub mod engine;

pub mod replication;

pub mod api;

pub mod config;

pub mod client;

pub mod logging;

pub mod node;

mod digits;
pub mod display;

pub mod demo;

pub mod bench;

pub mod cli;

/// The examples of the README, compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Tests inside the library use the same support as those beside it, which names it so.
#[cfg(test)]
extern crate self as likewise;
