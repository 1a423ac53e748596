//! Whole nodes as processes: clones, lost folders, damaged stores, signals, kills, cuts, bad input.

#[path = "support/process/mod.rs"]
mod process;

mod cluster {
    mod bad_input;
    mod catch_up;
    mod clones;
    mod commands;
    mod damage;
    mod links;
    mod rebuild;
    mod regions;
    mod restarts;
}
