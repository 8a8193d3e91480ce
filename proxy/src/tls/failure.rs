//! A handshake that failed, in words that say what to look at.

use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError};

/// A peer that was refused, or that refused us.
#[derive(Debug)]
pub struct HandshakeError(Error);

impl HandshakeError {
    pub(super) fn new(error: Error) -> Self {
        Self(error)
    }

    /// What the library reported.
    pub fn cause(&self) -> &Error {
        &self.0
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Error::InvalidCertificate(error) => certificate(error, f),
            Error::NoCertificatesPresented => f.write_str(
                "the client sent no certificates, and require_client_certificate is set",
            ),
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                f.write_str("the peer does not speak TLS; check whether it sends plain text")
            }
            Error::AlertReceived(alert) => {
                write!(f, "the peer refused the handshake ({alert:?}){}", remedy(*alert))
            }
            other => other.fmt(f),
        }
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Puts an error of the library into words; any other stays what it is.
pub(super) fn explained(error: io::Error) -> io::Error {
    match error.downcast::<Error>() {
        Ok(refused) => io::Error::new(io::ErrorKind::InvalidData, HandshakeError(refused)),
        Err(broken) => broken,
    }
}

fn certificate(error: &CertificateError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let reason = match error {
        CertificateError::Other(OtherError(reason)) => return write!(f, "{reason}"),
        CertificateError::UnknownIssuer => {
            "its chain does not lead to a root in trusted_ca; check that both come from one authority"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its extended key usage does not include this use (clientAuth or serverAuth)"
        }
        CertificateError::Revoked => "it is revoked",
        CertificateError::UnknownRevocationStatus => {
            "crl holds no list of one of its issuers; every issuer needs one"
        }
        CertificateError::Expired => "it has expired",
        other => return write!(f, "the peer's certificate is refused: {other}"),
    };
    write!(f, "the peer's certificate is refused: {reason}")
}

fn remedy(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateRequired => ": it wants a certificate of ours",
        AlertDescription::UnknownCA => ": it does not trust the authority that issued ours",
        AlertDescription::CertificateExpired => ": our certificate is out of its time",
        AlertDescription::ProtocolVersion => ": there is no TLS version both sides speak",
        AlertDescription::HandshakeFailure => ": there is no cipher suite both sides have",
        AlertDescription::UnrecognisedName => ": it has no certificate for the server name sent",
        _ => "",
    }
}
