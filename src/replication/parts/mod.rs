//! Parts of a snapshot ↔ the peers' protocol, and what is asked for. What a peer sent is checked here for its
//! form; whether it comes in order is the course's part (`engine::snapshot`).

mod asking;
mod reading;
mod writing;

pub use asking::{read_wanted, write_held, write_resume};
pub use reading::read;
pub use writing::write;
