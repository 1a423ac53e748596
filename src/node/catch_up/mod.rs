//! Snapshots between the engine and the peers' protocol: the stream that is served, and the staging of
//! one that is received.

mod receiving;
mod serving;

pub use receiving::Receiver;
pub use serving::Server;
