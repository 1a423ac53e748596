//! Ends of TLS connections that check nothing and show whatever they are given.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

use crate::certificates::Certified;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn pair(shown: &Certified) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = PrivateKeyDer::try_from(shown.key.clone()).expect("a key");
    (vec![CertificateDer::from(shown.certificate.clone())], key)
}

/// Dials and shows the certificate, whoever answers.
pub async fn dial(
    address: SocketAddr,
    shown: Option<&Certified>,
) -> io::Result<client::TlsStream<TcpStream>> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring speaks them")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believing));
    let mut config = match shown.map(pair) {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("a pair"),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// Dials, and says how the other side took it; it is refused in what is read first.
pub async fn refusal(address: SocketAddr, shown: Option<&Certified>) -> String {
    let mut stream = match dial(address, shown).await {
        Ok(stream) => stream,
        Err(error) => return error.to_string(),
    };
    match stream.read(&mut [0; 1]).await {
        Ok(0) => "ended".to_owned(),
        Ok(_) => panic!("the certificate was taken"),
        Err(error) => error.to_string(),
    }
}

/// The certificate that is shown at an address.
pub async fn shown_at(address: SocketAddr, shown: &Certified) -> Vec<u8> {
    let stream = dial(address, Some(shown)).await.expect("TLS");
    let (_, session) = stream.get_ref();
    session.peer_certificates().expect("one is shown")[0].to_vec()
}

/// Accepts anybody and shows the certificate, until it is dropped.
pub struct Impostor {
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Impostor {
    pub async fn showing(certified: &Certified) -> Self {
        let (chain, key) = pair(certified);
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring speaks them")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a pair");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(mut stream) = acceptor.accept(stream).await {
                        let mut said = Vec::new();
                        drop(stream.read_to_end(&mut said).await);
                    }
                });
            }
        });
        Self { address, accepting }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Believes everybody.
#[derive(Debug)]
struct Believing;

impl ServerCertVerifier for Believing {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
