//! The generated types of the two protocols, as the proto files describe them, and the one place where
//! clients' messages are checked and put into the words of the domain.

pub mod batch;
pub mod codec;
pub mod connections;
pub mod field;
pub mod regions;
pub mod repairs;
pub mod requests;

pub mod frames;
pub mod gossip;
pub mod scan;

/// The public interface.
pub mod v1 {
    tonic::include_proto!("likewise.v1");
}

/// The interface for operators.
pub mod admin {
    tonic::include_proto!("likewise.admin.v1");
}

/// The interface between peers.
pub mod replication {
    tonic::include_proto!("likewise.replication.v1");
}

/// The descriptors of what clients are served, for reflection on their port.
pub const CLIENT_DESCRIPTORS: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/client_descriptors.bin"));
