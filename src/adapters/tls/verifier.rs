//! What a peer must prove: a certificate of the cluster's authority, in its time, for a node of this
//! cluster; and its key. The name of the host is none of it.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::identity::{self, IdentityError};
use super::provider;
use crate::ids::{ClusterId, Region};

/// Judges peers' certificates, on either side.
#[derive(Debug, Clone)]
pub struct PeerVerifier {
    cluster: ClusterId,
    authority: Arc<RootCertStore>,
    /// Judges chains of those who dial.
    dialling: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
    /// Who must be found where this node dials.
    expected: Option<Region>,
}

impl PeerVerifier {
    /// The error says what is wrong with the authority.
    pub fn new(cluster: ClusterId, authority: Arc<RootCertStore>) -> Result<Self, String> {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let dialling =
            WebPkiClientVerifier::builder_with_provider(authority.clone(), provider).build();
        Ok(Self {
            dialling: dialling.map_err(|error| error.to_string())?,
            cluster,
            authority,
            algorithms,
            expected: None,
        })
    }

    /// The same for a dial to the node of a region.
    pub fn expecting(&self, expected: Option<Region>) -> Self {
        Self {
            expected,
            ..self.clone()
        }
    }

    fn check_identity(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let found = identity::region(certificate, &self.cluster).map_err(refused)?;
        match &self.expected {
            Some(expected) if *expected != found => Err(refused(IdentityError::OtherRegion {
                found,
                expected: expected.clone(),
            })),
            _ => Ok(()),
        }
    }
}

fn refused(error: IdentityError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(certificate)?,
            &self.authority,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        self.check_identity(certificate)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    /// None: a peer has one certificate and shows it, so that a wrong one is told as such.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .dialling
            .verify_client_cert(certificate, intermediates, now)?;
        self.check_identity(certificate)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
