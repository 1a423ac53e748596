//! Likewise: a multi-region store for likes and the counters beside them.
//!
//! The modules stand in reading order; imports go downward only. `docs/architecture.md` says what
//! each layer may not know.

pub mod ids;
pub mod limits;
pub mod versions;

pub mod wire;

pub mod config;

pub mod client;

pub mod node;

pub mod display;

pub mod demo;

pub mod cli;
