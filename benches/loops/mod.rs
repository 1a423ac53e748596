//! The inner loops of a node, prepared once for two harnesses: one tells their times, one counts their instructions.
//!
//! Everything runs on the caller's thread and in memory, and follows from fixed seeds.

#![allow(dead_code, reason = "each harness uses its own part")]

pub mod blocks;
pub mod node;

/// Items of a batch and events of a block.
pub const ITEMS: u64 = 1_000;

/// Numbers that are as good as random, the same in each run.
pub fn scattered(number: u64, below: u64) -> u64 {
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed ^ mixed >> 32) % below
}
