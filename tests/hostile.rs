//! Peers that are broken or mean, over real connections against real processes: what they say is refused or passed
//! over, counted and logged; no state changes; and the sessions of others go on.

#[path = "support/process/mod.rs"]
mod process;
#[path = "support/raw.rs"]
mod raw;

mod hostile {
    mod events;
    mod frames;
    mod intruder;
    mod scene;
    mod snapshots;
    mod streams;
}
