//! Why a request found no connection, in Envoy's words.

use std::net::SocketAddr;
use std::{fmt, io};

use crate::tls;

/// Why a request found no connection. Cloned for every request that waited for the same one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// A circuit breaker is open.
    #[error("circuit breaker: the cluster's {0} is reached")]
    Overflow(Limit),
    /// The endpoint did not answer within `connect_timeout`, or not finish the TLS handshake.
    #[error(
        "no connection within connect_timeout; check that the endpoint is up and that nothing drops packets"
    )]
    Timeout,
    /// Our end could not be bound to the configured source address.
    #[error("{0}")]
    Bind(String),
    /// The system could not connect.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// The TLS handshake failed, for another reason than the endpoint's certificate.
    #[error("TLS: {0}")]
    Tls(String),
    /// The endpoint's certificate was refused.
    #[error("TLS: {0}")]
    Certificate(String),
    /// The connection was lost before HTTP could be spoken on it.
    #[error("connection lost before it could be used: {0}")]
    Http(String),
}

/// The circuit-breaker limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `max_pending_requests`
    PendingRequests,
    /// `max_requests`
    Requests,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PendingRequests => "max_pending_requests",
            Self::Requests => "max_requests",
        })
    }
}

impl ConnectError {
    /// Why a handshake failed.
    pub(super) fn tls(error: &tls::client::ConnectError) -> Self {
        use tls::client::ConnectError::Handshake;
        let text = error.to_string();
        match error {
            Handshake(error) if matches!(error.cause(), rustls::Error::InvalidCertificate(_)) => {
                Self::Certificate(text)
            }
            _ => Self::Tls(text),
        }
    }

    /// The system's refusal in the system's words.
    pub(super) fn unreachable(error: &io::Error) -> Self {
        Self::Unreachable(words(error))
    }

    /// The system's refusal of `source` as our end.
    pub(super) fn bind(source: SocketAddr, error: &io::Error) -> Self {
        Self::Bind(format!("failed to bind to {source}: {}", words(error)))
    }

    /// Envoy's reset reason, for example `remote connection failure`. Local replies print it as it is,
    /// response code details with underscores.
    pub fn reset_reason(&self) -> &'static str {
        match self {
            Self::Overflow(_) => "overflow",
            Self::Timeout => "connection timeout",
            Self::Bind(_) => "local connection failure",
            Self::Unreachable(_) | Self::Tls(_) | Self::Certificate(_) | Self::Http(_) => {
                "remote connection failure"
            }
        }
    }

    /// Envoy's `%UPSTREAM_TRANSPORT_FAILURE_REASON%`, without spaces; none if the transport did not fail.
    pub fn transport_failure(&self) -> Option<String> {
        let text = match self {
            Self::Overflow(_) | Self::Timeout => return None,
            Self::Unreachable(text) | Self::Http(text) => format!("delayed connect error: {text}"),
            Self::Bind(text) => text.clone(),
            Self::Tls(text) | Self::Certificate(text) => return Some(tls_failure(text)),
        };
        Some(text.replace(char::is_whitespace, "_"))
    }
}

/// What the system says, without the number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// A TLS error in Envoy's frame, without spaces.
pub fn tls_failure(text: &dyn fmt::Display) -> String {
    format!("TLS_error:|{text}:TLS_error_end").replace(char::is_whitespace, "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_as_envoys() {
        let refused = io::Error::from_raw_os_error(111);
        let error = ConnectError::unreachable(&refused);
        assert_eq!(error.reset_reason(), "remote connection failure");
        assert_eq!(
            error.transport_failure().as_deref(),
            Some("delayed_connect_error:_Connection_refused")
        );
    }

    #[test]
    fn a_failed_handshake_is_framed_as_envoys() {
        let error = ConnectError::Tls("invalid peer certificate: Expired".to_owned());
        assert_eq!(
            error.transport_failure().as_deref(),
            Some("TLS_error:|invalid_peer_certificate:_Expired:TLS_error_end")
        );
    }

    #[test]
    fn only_the_transport_has_a_transport_failure() {
        assert_eq!(ConnectError::Timeout.transport_failure(), None);
        assert_eq!(ConnectError::Overflow(Limit::Requests).transport_failure(), None);
        assert_eq!(ConnectError::Overflow(Limit::Requests).reset_reason(), "overflow");
    }
}
