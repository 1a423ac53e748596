//! How figures and tables look to people. It knows text only,
//! and the one way to the standard output and the standard error stream.

pub mod figures;
pub mod output;
pub mod progress;
pub mod table;
