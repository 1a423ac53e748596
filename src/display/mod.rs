//! How figures and tables look to people. It knows text only,
//! and the one way to the standard output.

pub mod figures;
pub mod output;
pub mod table;
