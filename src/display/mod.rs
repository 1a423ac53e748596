//! How figures and tables look to people. It knows text only.

pub mod figures;
pub mod table;
