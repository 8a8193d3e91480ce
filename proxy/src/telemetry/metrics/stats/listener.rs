//! What is counted of a listener, before HTTP.

use super::super::cell::{Cell, Counter, Gauge, Histogram, SparseCounter};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// `listener.ADDRESS.worker_N.*`.
    ListenerWorkerStats {
        /// Connections this worker has served.
        downstream_cx_total: Counter = "downstream_cx_total",
        /// Connections open on this worker now.
        downstream_cx_active: Gauge = "downstream_cx_active",
    }
}

statistics! {
    /// One worker's share of `listener.ADDRESS.*`.
    ListenerStats {
        /// Connections accepted.
        downstream_cx_total: Counter = "downstream_cx_total",
        /// Connections open now.
        downstream_cx_active: Gauge = "downstream_cx_active",
        /// Connections closed.
        downstream_cx_destroy: Counter = "downstream_cx_destroy",
        /// Connections refused because of the listener's limit.
        downstream_cx_overflow: Counter = "downstream_cx_overflow",
        /// Connections refused because of the limit for all listeners.
        downstream_global_cx_overflow: Counter = "downstream_global_cx_overflow",
        /// Connections refused because memory runs out.
        downstream_cx_overload_reject: Counter = "downstream_cx_overload_reject",
        /// Connections whose TLS handshake took too long.
        downstream_cx_transport_socket_connect_timeout: Counter = "downstream_cx_transport_socket_connect_timeout",
        /// Connections still being inspected.
        downstream_pre_cx_active: Gauge = "downstream_pre_cx_active",
        /// Connections that said nothing within listener_filters_timeout.
        downstream_pre_cx_timeout: Counter = "downstream_pre_cx_timeout",
        /// Connections closed by the client while being inspected.
        downstream_listener_filter_remote_close: Counter = "downstream_listener_filter_remote_close",
        /// Connections that failed while being inspected.
        downstream_listener_filter_error: Counter = "downstream_listener_filter_error",
        /// Connections no filter chain matched.
        no_filter_chain_match: Counter = "no_filter_chain_match",
        /// Life of a connection, in milliseconds.
        downstream_cx_length_ms: Histogram = "downstream_cx_length_ms",
        /// TLS handshakes completed.
        ssl_handshake: SparseCounter = "ssl.handshake",
        /// TLS handshakes that failed for a reason other than the certificate.
        ssl_connection_error: SparseCounter = "ssl.connection_error",
        /// TLS handshakes that resumed a session.
        ssl_session_reused: SparseCounter = "ssl.session_reused",
        /// TLS handshakes without a client certificate.
        ssl_no_certificate: SparseCounter = "ssl.no_certificate",
        /// TLS handshakes refused because the client had no certificate.
        ssl_fail_verify_no_cert: SparseCounter = "ssl.fail_verify_no_cert",
        /// TLS handshakes in which no trusted authority had signed the certificate.
        ssl_fail_verify_error: SparseCounter = "ssl.fail_verify_error",
        /// TLS handshakes in which the certificate had none of the expected names.
        ssl_fail_verify_san: SparseCounter = "ssl.fail_verify_san",
        /// TLS handshakes in which the certificate or key hash was not expected.
        ssl_fail_verify_cert_hash: SparseCounter = "ssl.fail_verify_cert_hash",
    }
}
