//! Certificates of every kind, sound and not, made while the tests run: an authority with a fresh key, and
//! what it signs. X.509 is written by hand, for some of it is wrong on purpose.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use data_encoding::BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

/// When a certificate is valid, as UTCTime.
#[derive(Debug, Clone, Copy)]
pub struct Validity(&'static str, &'static str);

pub const VALID: Validity = Validity("200101000000Z", "491231235959Z");
pub const EXPIRED: Validity = Validity("200101000000Z", "210101000000Z");
pub const NOT_YET_VALID: Validity = Validity("480101000000Z", "491231235959Z");

/// Whose name, and for what.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub uris: Vec<String>,
    pub hosts: Vec<String>,
    pub addresses: Vec<[u8; 4]>,
    pub validity: Validity,
}

/// A node of a region of the cluster `test`.
pub fn node(region: &str) -> Wanted {
    Wanted {
        uris: vec![format!("likewise://test/{region}")],
        hosts: vec!["localhost".to_owned()],
        addresses: vec![[127, 0, 0, 1]],
        validity: VALID,
    }
}

impl Wanted {
    pub fn uris<const N: usize>(mut self, uris: [&str; N]) -> Self {
        self.uris = uris.map(str::to_owned).to_vec();
        self
    }

    pub fn valid(mut self, validity: Validity) -> Self {
        self.validity = validity;
        self
    }
}

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Certified {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

impl Certified {
    pub fn pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    pub fn key_pem(&self) -> String {
        pem("PRIVATE KEY", &self.key)
    }

    /// Writes NAME.pem and NAME.key, each whole at once, as those who renew certificates should.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let certificate = folder.join(format!("{name}.pem"));
        let key = folder.join(format!("{name}.key"));
        replace(&certificate, &self.pem());
        replace(&key, &self.key_pem());
        (certificate, key)
    }
}

/// Puts a file in place of another in one step.
pub fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, text).expect("written");
    fs::rename(&fresh, path).expect("renamed");
}

/// Signs certificates.
pub struct Authority {
    name: &'static str,
    own: Certified,
}

static SERIAL: AtomicU64 = AtomicU64::new(1);

impl Authority {
    pub fn new(name: &'static str) -> Self {
        let key = new_key();
        let constraints = extension(&[0x55, 0x1d, 0x13], true, &sequence(&[&tlv(0x01, &[0xff])]));
        let certificate = certificate(name, name, VALID, &public(&key), &[constraints], &key);
        let own = Certified { certificate, key };
        Self { name, own }
    }

    pub fn pem(&self) -> String {
        self.own.pem()
    }

    pub fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(format!("{name}.pem"));
        replace(&path, &self.pem());
        path
    }

    pub fn sign(&self, wanted: &Wanted) -> Certified {
        let key = new_key();
        let extensions = [alternative_names(wanted)];
        let extensions = match wanted.uris.len() + wanted.hosts.len() + wanted.addresses.len() {
            0 => &[][..],
            _ => &extensions[..],
        };
        let (public, validity) = (public(&key), wanted.validity);
        let certificate = certificate(
            self.name,
            "node",
            validity,
            &public,
            extensions,
            &self.own.key,
        );
        Certified { certificate, key }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines = text.as_bytes().chunks(64);
    let lines: Vec<_> = lines.map(String::from_utf8_lossy).collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

fn new_key() -> Vec<u8> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random);
    key.expect("a key").as_ref().to_vec()
}

fn open(key: &[u8]) -> EcdsaKeyPair {
    let random = SystemRandom::new();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key, &random).expect("a key")
}

fn public(key: &[u8]) -> Vec<u8> {
    open(key).public_key().as_ref().to_vec()
}

/// RFC 5280, section 4.1.
fn certificate(
    issuer: &str,
    subject: &str,
    Validity(from, until): Validity,
    public: &[u8],
    extensions: &[Vec<u8>],
    signing_key: &[u8],
) -> Vec<u8> {
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let ecdsa_with_sha256 = sequence(&[&oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2])]);
    let ec_on_p256 = sequence(&[
        &oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]),
        &oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]),
    ]);
    let extensions: Vec<&[u8]> = extensions.iter().map(Vec::as_slice).collect();
    let extensions = match extensions.is_empty() {
        true => Vec::new(),
        false => tlv(0xa3, &sequence(&extensions)),
    };
    let to_sign = sequence(&[
        &tlv(0xa0, &tlv(0x02, &[2])),
        &tlv(0x02, &[&[1], &serial[..]].concat()),
        &ecdsa_with_sha256,
        &name(issuer),
        &sequence(&[&tlv(0x17, from.as_bytes()), &tlv(0x17, until.as_bytes())]),
        &name(subject),
        &sequence(&[&ec_on_p256, &bits(public)]),
        &extensions,
    ]);
    let random = SystemRandom::new();
    let signature = open(signing_key).sign(&random, &to_sign).expect("signed");
    sequence(&[&to_sign, &ecdsa_with_sha256, &bits(signature.as_ref())])
}

fn alternative_names(wanted: &Wanted) -> Vec<u8> {
    let uris = wanted.uris.iter().map(|uri| tlv(0x86, uri.as_bytes()));
    let hosts = wanted.hosts.iter().map(|host| tlv(0x82, host.as_bytes()));
    let addresses = wanted.addresses.iter().map(|address| tlv(0x87, address));
    let names: Vec<_> = uris.chain(hosts).chain(addresses).collect();
    let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    extension(&[0x55, 0x1d, 0x11], false, &sequence(&names))
}

fn extension(id: &[u8], is_critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = match is_critical {
        true => tlv(0x01, &[0xff]),
        false => Vec::new(),
    };
    sequence(&[&oid(id), &critical, &tlv(0x04, value)])
}

fn name(text: &str) -> Vec<u8> {
    let common = sequence(&[&oid(&[0x55, 4, 3]), &tlv(0x0c, text.as_bytes())]);
    sequence(&[&tlv(0x31, &common)])
}

fn oid(bytes: &[u8]) -> Vec<u8> {
    tlv(0x06, bytes)
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], bytes].concat())
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// DER: tag, length, contents.
fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let len = contents.len();
    let len = match len {
        0..0x80 => vec![len as u8],
        0x80..0x100 => vec![0x81, len as u8],
        _ => vec![0x82, (len >> 8) as u8, len as u8],
    };
    [&[tag], &len[..], contents].concat()
}
