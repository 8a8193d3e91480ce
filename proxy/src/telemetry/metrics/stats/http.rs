//! What is counted of connection managers with one stat prefix.

use super::super::cell::{Cell, Counter, Gauge, Histogram, StatusClasses};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// One worker's share of `http.PREFIX.*`.
    HttpStats {
        /// Connections accepted.
        downstream_cx_total: Counter = "downstream_cx_total",
        /// Connections open now.
        downstream_cx_active: Gauge = "downstream_cx_active",
        /// HTTP/1 connections accepted.
        downstream_cx_http1_total: Counter = "downstream_cx_http1_total",
        /// HTTP/1 connections open now.
        downstream_cx_http1_active: Gauge = "downstream_cx_http1_active",
        /// HTTP/2 connections accepted.
        downstream_cx_http2_total: Counter = "downstream_cx_http2_total",
        /// HTTP/2 connections open now.
        downstream_cx_http2_active: Gauge = "downstream_cx_http2_active",
        /// TLS connections accepted.
        downstream_cx_ssl_total: Counter = "downstream_cx_ssl_total",
        /// TLS connections open now.
        downstream_cx_ssl_active: Gauge = "downstream_cx_ssl_active",
        /// Connections closed.
        downstream_cx_destroy: Counter = "downstream_cx_destroy",
        /// Connections closed by the proxy.
        downstream_cx_destroy_local: Counter = "downstream_cx_destroy_local",
        /// Connections closed by the client.
        downstream_cx_destroy_remote: Counter = "downstream_cx_destroy_remote",
        /// Connections closed with a request under way.
        downstream_cx_destroy_active_rq: Counter = "downstream_cx_destroy_active_rq",
        /// Connections closed by the proxy with a request under way.
        downstream_cx_destroy_local_active_rq: Counter = "downstream_cx_destroy_local_active_rq",
        /// Connections closed by the client with a request under way.
        downstream_cx_destroy_remote_active_rq: Counter = "downstream_cx_destroy_remote_active_rq",
        /// Connections closed because of draining.
        downstream_cx_drain_close: Counter = "downstream_cx_drain_close",
        /// Connections closed because they were idle.
        downstream_cx_idle_timeout: Counter = "downstream_cx_idle_timeout",
        /// Connections closed at max_connection_duration.
        downstream_cx_max_duration_reached: Counter = "downstream_cx_max_duration_reached",
        /// Connections closed at max_requests_per_connection.
        downstream_cx_max_requests_reached: Counter = "downstream_cx_max_requests_reached",
        /// Connections on which the client broke the protocol.
        downstream_cx_protocol_error: Counter = "downstream_cx_protocol_error",
        /// Bytes received from clients.
        downstream_cx_rx_bytes_total: Counter = "downstream_cx_rx_bytes_total",
        /// Bytes sent to clients.
        downstream_cx_tx_bytes_total: Counter = "downstream_cx_tx_bytes_total",
        /// Connections that end with the request under way because memory runs out.
        downstream_cx_overload_disable_keepalive: Counter = "downstream_cx_overload_disable_keepalive",
        /// Requests refused because memory runs out.
        downstream_rq_overload_close: Counter = "downstream_rq_overload_close",
        /// Connections upgraded (WebSocket, CONNECT).
        downstream_cx_upgrades_total: Counter = "downstream_cx_upgrades_total",
        /// Upgraded connections open now.
        downstream_cx_upgrades_active: Gauge = "downstream_cx_upgrades_active",
        /// Life of a connection, in milliseconds.
        downstream_cx_length_ms: Histogram = "downstream_cx_length_ms",
        /// Requests received.
        downstream_rq_total: Counter = "downstream_rq_total",
        /// Requests under way.
        downstream_rq_active: Gauge = "downstream_rq_active",
        /// HTTP/1 requests received.
        downstream_rq_http1_total: Counter = "downstream_rq_http1_total",
        /// HTTP/2 requests received.
        downstream_rq_http2_total: Counter = "downstream_rq_http2_total",
        /// Responses by status class.
        responses: StatusClasses = "downstream_rq",
        /// Time from the request's first byte to the response's last, in milliseconds.
        downstream_rq_time: Histogram = "downstream_rq_time",
        /// Requests that did not arrive within request_timeout.
        downstream_rq_timeout: Counter = "downstream_rq_timeout",
        /// Requests whose headers did not arrive within request_headers_timeout.
        downstream_rq_header_timeout: Counter = "downstream_rq_header_timeout",
        /// Requests that were silent for longer than stream_idle_timeout.
        downstream_rq_idle_timeout: Counter = "downstream_rq_idle_timeout",
        /// Requests that took longer than max_stream_duration.
        downstream_rq_max_duration_reached: Counter = "downstream_rq_max_duration_reached",
        /// Requests whose body was too large.
        downstream_rq_too_large: Counter = "downstream_rq_too_large",
        /// Requests reset by the client.
        downstream_rq_rx_reset: Counter = "downstream_rq_rx_reset",
        /// Requests reset by the proxy.
        downstream_rq_tx_reset: Counter = "downstream_rq_tx_reset",
        /// Connections closed because too many streams were reset too early.
        downstream_rq_too_many_premature_resets: Counter = "downstream_rq_too_many_premature_resets",
        /// Requests answered before they had arrived whole.
        downstream_rq_response_before_rq_complete: Counter = "downstream_rq_response_before_rq_complete",
        /// Requests refused because their path could not be normalised.
        downstream_rq_failed_path_normalization: Counter = "downstream_rq_failed_path_normalization",
        /// Requests redirected to their path without escaped slashes.
        downstream_rq_redirected_with_normalized_path: Counter = "downstream_rq_redirected_with_normalized_path",
        /// Requests refused because their path was not relative.
        downstream_rq_non_relative_path: Counter = "downstream_rq_non_relative_path",
        /// Upgrades refused because the route does not allow them.
        downstream_rq_ws_on_non_ws_route: Counter = "downstream_rq_ws_on_non_ws_route",
        /// Responses whose headers were too large.
        rs_too_large: Counter = "rs_too_large",
        /// Requests no route matched.
        no_route: Counter = "no_route",
        /// Requests whose route names an unknown cluster.
        no_cluster: Counter = "no_cluster",
        /// Requests answered by their route: a direct response or a redirect.
        rq_direct_response: Counter = "rq_direct_response",
        /// Redirects passed on because their location is no absolute URL.
        passthrough_internal_redirect_bad_location: Counter = "passthrough_internal_redirect_bad_location",
        /// Redirects passed on because their route may not be redirected to.
        passthrough_internal_redirect_predicate: Counter = "passthrough_internal_redirect_predicate",
        /// Redirects passed on because there is no route for them.
        passthrough_internal_redirect_no_route: Counter = "passthrough_internal_redirect_no_route",
        /// Redirects passed on because enough were followed.
        passthrough_internal_redirect_too_many_redirects: Counter = "passthrough_internal_redirect_too_many_redirects",
        /// Redirects passed on because of the scheme of their location.
        passthrough_internal_redirect_unsafe_scheme: Counter = "passthrough_internal_redirect_unsafe_scheme",
        /// Requests traced by chance.
        tracing_random_sampling: Counter = "tracing.random_sampling",
        /// Requests traced because an internal caller asked for it.
        tracing_service_forced: Counter = "tracing.service_forced",
        /// Requests traced because the client asked for it.
        tracing_client_enabled: Counter = "tracing.client_enabled",
        /// Requests not traced.
        tracing_not_traceable: Counter = "tracing.not_traceable",
        /// Requests that reached the router.
        rq_total: Counter = "rq_total",
        /// Responses to gRPC calls that the upstream cut short.
        rq_reset_after_downstream_response_started: Counter = "rq_reset_after_downstream_response_started",
    }
}

impl HttpStats {
    /// Counts a response: `downstream_rq_completed` and `_Nxx`.
    pub fn response(&self, status: u16) {
        self.responses.record(status);
    }
}
