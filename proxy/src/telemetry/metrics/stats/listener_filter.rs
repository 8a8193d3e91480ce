//! What listener filters count, over all listeners.

use super::super::cell::{Cell, Counter, Histogram};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// One worker's share of `tls_inspector.*`.
    TlsInspectorStats {
        /// Connections that began with TLS.
        tls_found: Counter = "tls_found",
        /// Connections that began with anything else.
        tls_not_found: Counter = "tls_not_found",
        /// ClientHellos that offered application protocols.
        alpn_found: Counter = "alpn_found",
        /// ClientHellos that offered none.
        alpn_not_found: Counter = "alpn_not_found",
        /// ClientHellos that asked for a server name.
        sni_found: Counter = "sni_found",
        /// ClientHellos that asked for none.
        sni_not_found: Counter = "sni_not_found",
        /// Connections refused because their ClientHello was larger than 64 KiB.
        client_hello_too_large: Counter = "client_hello_too_large",
        /// Bytes that had arrived when a connection was understood.
        bytes_processed: Histogram = "bytes_processed",
    }
}

statistics! {
    /// One worker's share of `http_inspector.*`.
    HttpInspectorStats {
        /// Connections that began with a request line of HTTP/1.0.
        http10_found: Counter = "http10_found",
        /// Connections that began with a request line of HTTP/1.1.
        http11_found: Counter = "http11_found",
        /// Connections that began with the preface of HTTP/2.
        http2_found: Counter = "http2_found",
        /// Connections that began with anything else.
        http_not_found: Counter = "http_not_found",
        /// Connections refused because no request line ended within 64 KiB.
        read_error: Counter = "read_error",
    }
}

statistics! {
    /// One worker's share of `proxy_proto.[PREFIX.]*`.
    ProxyProtocolStats {
        /// Connections without a header that were let through.
        not_found_allowed: Counter = "not_found_allowed",
        /// Connections refused because they had no header.
        not_found_disallowed: Counter = "not_found_disallowed",
    }
}

statistics! {
    /// One worker's share of `proxy_proto.[PREFIX.]versions.vN.*`.
    ProxyProtocolVersionStats {
        /// Headers of this version.
        found: Counter = "found",
        /// Connections refused because this version is not allowed.
        disallowed: Counter = "disallowed",
        /// Connections refused because their header was malformed.
        error: Counter = "error",
    }
}
