//! Tests that damage what no test outside can reach.

#[path = "../../../tests/support/mod.rs"]
mod support;

mod audits;
mod mending;
