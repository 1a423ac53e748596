//! What went wrong with a connection, in words that tell an operator where to look.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// The error in words, where it is one of TLS; else as it is. `other` is who is at the other end.
pub fn told(error: io::Error, other: &str) -> io::Error {
    let words = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(inner) => words(inner, other),
        None => return error,
    };
    io::Error::new(error.kind(), words)
}

/// An error of a handshake. A connection that ends in it is most often one that does not speak TLS.
pub fn told_of_handshake(error: io::Error, other: &str) -> io::Error {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error.kind() {
        kind @ (UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe) => {
            let words =
                format!("the {other} ended the connection before the TLS handshake was over");
            io::Error::new(kind, words)
        }
        _ => told(error, other),
    }
}

/// The error in words.
pub fn words(error: &Error, other: &str) -> String {
    match error {
        Error::InvalidCertificate(problem) => {
            format!("the {other}'s certificate {}", of_certificate(problem))
        }
        Error::NoCertificatesPresented => format!("the {other} shows no certificate"),
        Error::AlertReceived(alert) => of_alert(*alert, other),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            format!("the {other} does not speak TLS; are certificates configured there?")
        }
        error => format!("TLS with the {other} failed: {error}"),
    }
}

/// Reads on after "the certificate".
fn of_certificate(problem: &CertificateError) -> String {
    match problem {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has expired; renew it, or compare the clocks".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet; compare the clocks".to_owned()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "is not of the authority that is configured here".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not for this use: it needs the extended key usages serverAuth and clientAuth"
                .to_owned()
        }
        CertificateError::Other(problem) => problem.to_string(),
        problem => format!("is refused: {problem}"),
    }
}

fn of_alert(alert: AlertDescription, other: &str) -> String {
    let why = match alert {
        AlertDescription::CertificateExpired => "it has expired or is not valid yet",
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "it is not of the authority that is configured there"
        }
        AlertDescription::CertificateRequired => "there is none",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => "its log says why",
        alert => return format!("the {other} ended the connection with the TLS alert {alert:?}"),
    };
    format!("the {other} refuses this node's certificate: {why}")
}
