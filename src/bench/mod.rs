//! `bench`: load for running nodes, and whether they count what they acknowledged.
//!
//! It knows nodes as any client does. Every like is written down when it is acknowledged; in the end the count of
//! every post at every node is held against that.

mod audience;
mod check;
mod crowd;
mod json;
mod latency;
mod ledger;
mod meters;
mod nodes;
mod pace;
mod phases;
mod queues;
mod reader;
mod report;
mod run;
mod settings;
mod writer;
mod zipf;

pub use nodes::Nodes;
pub use report::Report;
pub use run::run;
pub use settings::{Kind, Settings, SettingsError, Wanted};

/// The id of a post of a run.
fn post_id(name: &str, post: u32) -> String {
    format!("{name}-{post}")
}
