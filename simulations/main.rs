//! The simulator's binary.

mod simulator;

fn main() {}
