//! Which nodes a client believes, and who it says it is: PEM texts, checked before anything is sent.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::ClientError;

/// What `https` needs.
#[derive(Clone, Default)]
pub struct Trust {
    authority: Option<Vec<u8>>,
    /// Certificate and key.
    own: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Trust {
    /// Shows no key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust")
            .field("has_authority", &self.authority.is_some())
            .field("has_certificate", &self.own.is_some())
            .finish()
    }
}

impl Trust {
    pub fn set_authority(&mut self, pem: Vec<u8>) {
        self.authority = Some(pem);
    }

    pub fn set_certificate(&mut self, pem: Vec<u8>, key_pem: Vec<u8>) {
        self.own = Some((pem, key_pem));
    }

    /// For endpoints with `https`; none where no authority is set.
    pub fn tls(&self) -> Result<Option<ClientTlsConfig>, ClientError> {
        let mut config = ClientTlsConfig::new();
        if let Some((certificate, key)) = &self.own {
            check_certificates("certificate", certificate)?;
            if PrivateKeyDer::from_pem_slice(key).is_err() {
                return Err(bad("key", "holds no private key in the PEM form"));
            }
            config = config.identity(Identity::from_pem(certificate, key));
        }
        let Some(authority) = &self.authority else {
            return Ok(None);
        };
        check_certificates("authority", authority)?;
        let authority = Certificate::from_pem(authority);
        Ok(Some(config.ca_certificate(authority)))
    }
}

fn check_certificates(what: &'static str, pem: &[u8]) -> Result<(), ClientError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(()),
        _ => Err(bad(what, "holds no certificate in the PEM form")),
    }
}

fn bad(what: &'static str, problem: &'static str) -> ClientError {
    ClientError::BadCertificate { what, problem }
}
