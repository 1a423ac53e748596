//! Certificates and keys in PEM files, read again when the files change.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, RootCertStore};

use super::provider;
use crate::causes;
use crate::limits::PEM_FILE_BYTES_MAX;

/// The files of one listener.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The section of the configuration that names them, for errors.
    pub section: &'static str,
    /// The certificate, its issuers behind it where there are any between it and the authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Whose certificates the other side may show; several certificates where one is to replace another.
    pub authority: Option<PathBuf>,
}

/// Why files cannot be used. Names the key of the configuration and the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    #[error("{key} = {} cannot be read", path.display())]
    Unreadable {
        key: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{key} = {} {problem}", path.display())]
    Unusable {
        key: String,
        path: PathBuf,
        problem: String,
    },
}

/// What stands in the files.
pub struct Material {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub authority: Option<Arc<RootCertStore>>,
}

impl Material {
    /// Certificate and key, which must belong together.
    pub fn certified(self, files: &TlsFiles) -> Result<CertifiedKey, TlsFileError> {
        let certified = CertifiedKey::from_der(self.chain, self.key, &provider());
        certified.map_err(|error| match error {
            Error::InvalidCertificate(_) => files.unusable("certificate", "cannot be read"),
            Error::InconsistentKeys(_) => {
                files.unusable("key", "is not the key of the certificate")
            }
            // Not a word of what the key is like.
            _ => files.unusable("key", "is no RSA, ECDSA or Ed25519 key that can be used"),
        })
    }
}

impl TlsFiles {
    /// An error about one of the files.
    pub fn unusable(&self, field: &str, problem: impl ToString) -> TlsFileError {
        let path = match field {
            "certificate" => &self.certificate,
            "key" => &self.key,
            _ => self.authority.as_ref().unwrap_or(&self.certificate),
        };
        TlsFileError::Unusable {
            key: self.field(field),
            path: path.clone(),
            problem: problem.to_string(),
        }
    }

    fn field(&self, field: &str) -> String {
        format!("{}.{field}", self.section)
    }

    fn read(&self) -> Result<Material, TlsFileError> {
        let chain = self.certificates("certificate", &self.certificate)?;
        let text = self.text("key", &self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&text);
        let key = key.map_err(|error| self.unusable("key", of_pem(&error, "private key")))?;
        let authority = match &self.authority {
            None => None,
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in self.certificates("authority", path)? {
                    let added = roots.add(certificate);
                    added.map_err(|error| self.unusable("authority", error))?;
                }
                Some(Arc::new(roots))
            }
        };
        Ok(Material {
            chain,
            key,
            authority,
        })
    }

    fn certificates(
        &self,
        field: &str,
        path: &Path,
    ) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
        let text = self.text(field, path)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let found = match found {
            Ok(found) if found.is_empty() => Err(pem::Error::NoItemsFound),
            found => found,
        };
        found.map_err(|error| self.unusable(field, of_pem(&error, "certificate")))
    }

    fn text(&self, field: &str, path: &Path) -> Result<Vec<u8>, TlsFileError> {
        let unreadable = |source| TlsFileError::Unreadable {
            key: self.field(field),
            path: path.to_owned(),
            source,
        };
        if fs::metadata(path).map_err(unreadable)?.len() > PEM_FILE_BYTES_MAX {
            let problem = format!("is no PEM file: it has more than {PEM_FILE_BYTES_MAX} bytes");
            return Err(self.unusable(field, problem));
        }
        fs::read(path).map_err(unreadable)
    }

    fn stamps(&self) -> Stamps {
        let paths = [
            Some(&self.certificate),
            Some(&self.key),
            self.authority.as_ref(),
        ];
        paths.map(|path| path.and_then(|path| Stamp::of(path)))
    }
}

/// What the file lacks, without a word of what it holds.
fn of_pem(error: &pem::Error, wanted: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("holds no {wanted} in the PEM form"),
        _ => "is no sound PEM file".to_owned(),
    }
}

/// Tells whether a file is still the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    len: u64,
    modified: (i64, i64),
    /// Moves with the rights to the file too.
    changed: (i64, i64),
}

/// Of certificate, key and authority; none for a file that is not there.
type Stamps = [Option<Stamp>; 3];

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            inode: found.ino(),
            len: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

type Build<T> = Box<dyn Fn(Material) -> Result<T, TlsFileError> + Send + Sync>;

/// What is made of the files, made anew when they change.
pub struct Renewed<T> {
    files: TlsFiles,
    build: Build<T>,
    /// What is in use, and the files that were last looked at. Held while they are read, which happens once
    /// a renewal.
    kept: Mutex<(Arc<T>, Stamps)>,
}

impl<T> Renewed<T> {
    pub fn load(files: TlsFiles, build: Build<T>) -> Result<Self, TlsFileError> {
        // The stamps first: what changes while it is read is read again.
        let stamps = files.stamps();
        let first = build(files.read()?)?;
        Ok(Self {
            files,
            build,
            kept: Mutex::new((Arc::new(first), stamps)),
        })
    }

    /// What the files say now. New files that cannot be used change nothing, and are said to be so once;
    /// such as a certificate whose key is still to be written.
    pub fn current(&self) -> Arc<T> {
        let stamps = self.files.stamps();
        let mut kept = self.kept.lock();
        if kept.1 != stamps {
            let section = self.files.section;
            match self.files.read().and_then(&self.build) {
                Ok(renewed) => {
                    tracing::info!(section, "renewed certificates are in use");
                    kept.0 = Arc::new(renewed);
                }
                Err(error) => {
                    let problem = causes::told(&error);
                    tracing::warn!(
                        section,
                        problem,
                        "the changed certificates are not used; the former stay"
                    );
                }
            }
            kept.1 = stamps;
        }
        kept.0.clone()
    }
}
