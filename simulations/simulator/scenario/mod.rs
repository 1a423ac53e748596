//! What a run is made of: a scenario file, and with a seed a plan in which nothing is left to chance.

mod chaos;
mod error;
mod file;
mod plan;
mod reading;
#[cfg(test)]
mod tests;

pub use plan::{Fault, NodePlan, Plan, Site, WorkloadPlan};
pub use reading::Scenario;
