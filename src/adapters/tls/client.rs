//! Clients under TLS. Who shows a certificate of the operators' authority is an operator.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpListener;

use super::files::{Material, Renewed, TlsFileError, TlsFiles};
use super::{ALPN, connection, provider};
use crate::adapters::tcp;
use crate::seams::IoFuture;
use crate::seams::transport::{Identity, Incoming, Listener};

/// Who is at the other end, for messages.
const OTHER: &str = "client";

/// Accepts clients.
pub struct ClientTlsListener {
    tcp: TcpListener,
    config: Arc<Renewed<Arc<ServerConfig>>>,
}

impl ClientTlsListener {
    /// Reads the files.
    pub fn load(tcp: TcpListener, files: TlsFiles) -> Result<Self, TlsFileError> {
        let own_files = files.clone();
        let build = move |material| build(&own_files, material).map(Arc::new);
        let config = Arc::new(Renewed::load(files, Box::new(build))?);
        Ok(Self { tcp, config })
    }
}

fn build(files: &TlsFiles, material: Material) -> Result<ServerConfig, TlsFileError> {
    let authority = material.authority.clone();
    let own = material.certified(files)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3");
    let builder = match authority {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(authority, provider())
                .allow_unauthenticated()
                .build();
            let verifier = verifier.map_err(|error| files.unusable("authority", error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

impl Listener for ClientTlsListener {
    fn accept(&self) -> IoFuture<'_, Incoming> {
        Box::pin(async move {
            let (stream, address) = tcp::accept(&self.tcp).await?;
            let config = self.config.clone();
            Ok(Incoming {
                address: Some(address),
                handshake: Box::pin(async move {
                    let config = config.current().as_ref().clone();
                    // Whatever is shown was verified: nothing else is let through.
                    let identity = |_: &CertificateDer<'_>| Some(Identity::Operator);
                    connection::accept((stream, address), config, OTHER, identity).await
                }),
            })
        })
    }
}
