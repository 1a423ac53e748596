//! Replication: sessions with peers, snapshots, and what is known of the links.
//!
//! `docs/protocol.md` describes the exchange. The session machine knows no task, socket, file or clock.

pub mod frame;
pub mod links;
pub mod session;
