//! Peers under mutual TLS: one certificate serves for both directions.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, Error, ServerConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use super::connection::{self, Told};
use super::files::{Material, Renewed, TlsFileError, TlsFiles};
use super::identity::{self, IdentityError};
use super::problem::{told_of_handshake, words};
use super::verifier::PeerVerifier;
use super::{ALPN, provider};
use crate::adapters::tcp::{self, TcpTransport};
use crate::ids::{ClusterId, Region};
use crate::seams::IoFuture;
use crate::seams::transport::{Established, Identity, Incoming, Listener, Remote, Transport};

/// Who is at the other end, for messages.
const OTHER: &str = "peer";

/// The certificate of this node, and whom it trusts. Shared by listener and dials.
pub struct PeerTls {
    cluster: ClusterId,
    sides: Renewed<Sides>,
}

/// What both directions need, of one reading of the files.
struct Sides {
    accepting: Arc<ServerConfig>,
    own: Arc<CertifiedKey>,
    verifier: PeerVerifier,
}

impl PeerTls {
    /// Reads the files. The certificate must be this node's: of its cluster and region, by the authority.
    pub fn load(
        files: TlsFiles,
        cluster: ClusterId,
        region: Region,
    ) -> Result<Arc<Self>, TlsFileError> {
        let (own_files, own_cluster) = (files.clone(), cluster.clone());
        let build = move |material| Sides::build(&own_files, material, (&own_cluster, &region));
        let sides = Renewed::load(files, Box::new(build))?;
        Ok(Arc::new(Self { cluster, sides }))
    }

    /// Who shows a certificate that was verified.
    fn identity(&self, shown: &CertificateDer<'_>) -> Option<Identity> {
        let region = identity::region(shown, &self.cluster).ok();
        region.map(Identity::Region)
    }
}

impl Sides {
    fn build(
        files: &TlsFiles,
        material: Material,
        (cluster, region): (&ClusterId, &Region),
    ) -> Result<Self, TlsFileError> {
        let authority = material.authority.clone();
        let authority =
            authority.ok_or_else(|| files.unusable("authority", "is needed between peers"))?;
        let verifier = PeerVerifier::new(cluster.clone(), authority)
            .map_err(|problem| files.unusable("authority", problem))?;
        check_own(files, &material.chain, &verifier, (cluster, region))?;
        let own = Arc::new(material.certified(files)?);
        Ok(Self {
            accepting: Arc::new(accepting(&own, verifier.clone())),
            own,
            verifier,
        })
    }

    /// For one dial.
    fn dialling(&self, expected: Option<&Region>) -> ClientConfig {
        let verifier = self.verifier.expecting(expected.cloned());
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("ring speaks TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.own.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config
    }
}

fn accepting(own: &Arc<CertifiedKey>, verifier: PeerVerifier) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("ring speaks TLS 1.3")
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

/// Peers would refuse what is refused here. Only time is left to them: a node whose certificate has run out
/// must still serve its clients when it is started.
fn check_own(
    files: &TlsFiles,
    chain: &[CertificateDer<'static>],
    verifier: &PeerVerifier,
    (cluster, region): (&ClusterId, &Region),
) -> Result<(), TlsFileError> {
    let unusable = |problem: String| files.unusable("certificate", problem);
    let (certificate, issuers) = chain.split_first().expect("a file has a certificate");
    let found =
        identity::region(certificate, cluster).map_err(|error| unusable(error.to_string()))?;
    if found != *region {
        let expected = region.clone();
        let error = IdentityError::OtherRegion { found, expected };
        return Err(unusable(error.to_string()));
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = UnixTime::since_unix_epoch(now.unwrap_or_default());
    let dialling = verifier.verify_client_cert(certificate, issuers, now);
    let host = server_name("likewise.invalid");
    let both =
        dialling.and_then(|_| verifier.verify_server_cert(certificate, issuers, &host, &[], now));
    match both {
        Ok(_) => Ok(()),
        Err(
            error @ Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ),
        ) => {
            let problem = words(&error, "node");
            tracing::warn!(
                section = files.section,
                problem,
                "no peer will speak to this node"
            );
            Ok(())
        }
        Err(error) => Err(unusable(format!("is refused: {}", words(&error, "node")))),
    }
}

/// Dials peers.
pub struct PeerTlsTransport {
    tcp: TcpTransport,
    tls: Arc<PeerTls>,
}

impl PeerTlsTransport {
    pub fn new(tls: Arc<PeerTls>) -> Self {
        let tcp = TcpTransport::anywhere();
        Self { tcp, tls }
    }
}

impl Transport for PeerTlsTransport {
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        expected: Option<&'a Region>,
    ) -> IoFuture<'a, Established> {
        Box::pin(async move {
            let stream = self.tcp.dial(host, port).await?;
            let config = self.tls.sides.current().dialling(expected);
            let connector = TlsConnector::from(Arc::new(config));
            let stream = connector.connect(server_name(host), stream).await;
            let stream = stream.map_err(|error| told_of_handshake(error, OTHER))?;
            let (tcp, session) = stream.get_ref();
            let shown = session.peer_certificates().and_then(<[_]>::first);
            let remote = Remote {
                address: tcp.peer_addr().ok(),
                identity: shown.and_then(|shown| self.tls.identity(shown)),
            };
            let io = Box::new(Told::new(stream, OTHER));
            proved(Established { io, remote })
        })
    }
}

/// Lets nobody pass as one of whom nothing is known; the handshake has seen to it already.
fn proved(established: Established) -> io::Result<Established> {
    match established.remote.region() {
        Some(_) => Ok(established),
        None => Err(io::Error::other("a peer came through without a region")),
    }
}

/// What the dialled host is told that it is called, for the sake of what may stand before it. Nobody checks
/// it.
fn server_name(host: &str) -> ServerName<'static> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned());
    name.unwrap_or_else(|_| ServerName::try_from("likewise.invalid").expect("a name"))
}

/// Accepts peers.
pub struct PeerTlsListener {
    tcp: TcpListener,
    tls: Arc<PeerTls>,
}

impl PeerTlsListener {
    pub fn new(tcp: TcpListener, tls: Arc<PeerTls>) -> Self {
        Self { tcp, tls }
    }
}

impl Listener for PeerTlsListener {
    fn accept(&self) -> IoFuture<'_, Incoming> {
        Box::pin(async move {
            let (stream, address) = tcp::accept(&self.tcp).await?;
            let tls = self.tls.clone();
            Ok(Incoming {
                address: Some(address),
                handshake: Box::pin(async move {
                    let config = tls.sides.current().accepting.clone();
                    let identity = |shown: &CertificateDer<'_>| tls.identity(shown);
                    let accepted =
                        connection::accept((stream, address), config, OTHER, identity).await;
                    accepted.and_then(proved)
                }),
            })
        })
    }
}
