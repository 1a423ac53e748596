//! Connections that are encrypted, and prove who is at their ends: by rustls, from PEM files.
//!
//! Between peers both sides show a certificate of the cluster's authority, which names cluster and region
//! (see [`identity`]); what host it was found at does not matter. Clients check the node's certificate
//! against the host's name, as usual, and may show one of the operators' authority. Sessions of TLS are
//! never resumed, so each connection is judged by the certificates and the clock of its beginning.

mod client;
mod connection;
mod files;
pub mod identity;
mod peer;
mod problem;
mod verifier;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

pub use client::ClientTlsListener;
pub use files::{TlsFileError, TlsFiles};
pub use peer::{PeerTls, PeerTlsListener, PeerTlsTransport};

/// HTTP/2, the only thing that is spoken here.
const ALPN: &[u8] = b"h2";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
