//! Which statistics there are: one struct per scope, each field with its Envoy name and meaning.

use super::cell::{
    Cell, Counter, Gauge, Histogram, SharedCounter, SharedGauge, SparseCounter, StatusClasses,
    StatusCodes,
};
use super::sample::{Name, Samples, Scope};

/// A group of statistics that is counted in shards and summed when read.
pub(super) trait Group: Default + Send + Sync {
    /// Adds what `other` holds; see [`Cell::absorb`].
    fn absorb(&self, other: &Self, alive: bool);

    /// Writes a sample of every field.
    fn sample(&self, scope: &Scope, out: &mut Samples);
}

/// Declares a struct of statistics: `/// meaning`, `field: Cell = "envoy.name"`.
macro_rules! statistics {
    ($(#[$attribute:meta])* $struct:ident {
        $(#[doc = $help:literal] $field:ident: $cell:ident = $name:literal,)*
    }) => {
        $(#[$attribute])*
        #[derive(Debug, Default)]
        pub struct $struct {
            $(#[doc = $help] pub $field: $cell,)*
        }

        impl Group for $struct {
            fn absorb(&self, other: &Self, alive: bool) {
                $(self.$field.absorb(&other.$field, alive);)*
            }

            fn sample(&self, scope: &Scope, out: &mut Samples) {
                $(self.$field.sample(Name { scope, name: $name, help: $help }, out);)*
            }
        }
    };
}

statistics! {
    /// One worker's share of `cluster.NAME.*`.
    ClusterStats {
        /// Connections opened.
        upstream_cx_total: Counter = "upstream_cx_total",
        /// Connections open now.
        upstream_cx_active: Gauge = "upstream_cx_active",
        /// HTTP/1.1 connections opened.
        upstream_cx_http1_total: Counter = "upstream_cx_http1_total",
        /// HTTP/2 connections opened.
        upstream_cx_http2_total: Counter = "upstream_cx_http2_total",
        /// Connections that could not be established.
        upstream_cx_connect_fail: Counter = "upstream_cx_connect_fail",
        /// Connections that were not established within connect_timeout.
        upstream_cx_connect_timeout: Counter = "upstream_cx_connect_timeout",
        /// Connections closed because they were idle.
        upstream_cx_idle_timeout: Counter = "upstream_cx_idle_timeout",
        /// Connections closed at max_connection_duration.
        upstream_cx_max_duration_reached: Counter = "upstream_cx_max_duration_reached",
        /// Connections closed at max_requests_per_connection.
        upstream_cx_max_requests: Counter = "upstream_cx_max_requests",
        /// Times the connection circuit breaker was open.
        upstream_cx_overflow: Counter = "upstream_cx_overflow",
        /// Requests that found no usable host.
        upstream_cx_none_healthy: Counter = "upstream_cx_none_healthy",
        /// Connections closed.
        upstream_cx_destroy: Counter = "upstream_cx_destroy",
        /// Connections closed by the proxy.
        upstream_cx_destroy_local: Counter = "upstream_cx_destroy_local",
        /// Connections closed by the host.
        upstream_cx_destroy_remote: Counter = "upstream_cx_destroy_remote",
        /// Connections closed with a request under way.
        upstream_cx_destroy_with_active_rq: Counter = "upstream_cx_destroy_with_active_rq",
        /// Connections closed by the proxy with a request under way.
        upstream_cx_destroy_local_with_active_rq: Counter = "upstream_cx_destroy_local_with_active_rq",
        /// Connections closed by the host with a request under way.
        upstream_cx_destroy_remote_with_active_rq: Counter = "upstream_cx_destroy_remote_with_active_rq",
        /// Connections the host announced it will close (Connection: close, GOAWAY).
        upstream_cx_close_notify: Counter = "upstream_cx_close_notify",
        /// Connections on which the host broke the protocol.
        upstream_cx_protocol_error: Counter = "upstream_cx_protocol_error",
        /// Bytes received from hosts.
        upstream_cx_rx_bytes_total: Counter = "upstream_cx_rx_bytes_total",
        /// Bytes sent to hosts.
        upstream_cx_tx_bytes_total: Counter = "upstream_cx_tx_bytes_total",
        /// Time to establish a connection, in milliseconds.
        upstream_cx_connect_ms: Histogram = "upstream_cx_connect_ms",
        /// Life of a connection, in milliseconds.
        upstream_cx_length_ms: Histogram = "upstream_cx_length_ms",
        /// Requests per connection.
        upstream_rq_per_cx: Histogram = "upstream_rq_per_cx",
        /// Requests sent, retries included.
        upstream_rq_total: Counter = "upstream_rq_total",
        /// Requests under way.
        upstream_rq_active: Gauge = "upstream_rq_active",
        /// Responses by status.
        responses: StatusCodes = "upstream_rq",
        /// Time from the end of the request to the end of the response, in milliseconds.
        upstream_rq_time: Histogram = "upstream_rq_time",
        /// Requests that waited for a connection.
        upstream_rq_pending_total: Counter = "upstream_rq_pending_total",
        /// Requests waiting for a connection.
        upstream_rq_pending_active: Gauge = "upstream_rq_pending_active",
        /// Requests refused by the connection or pending-request circuit breaker.
        upstream_rq_pending_overflow: Counter = "upstream_rq_pending_overflow",
        /// Requests that failed because the connection they waited for did.
        upstream_rq_pending_failure_eject: Counter = "upstream_rq_pending_failure_eject",
        /// Requests refused by the request circuit breaker.
        upstream_rq_active_overflow: Counter = "upstream_rq_active_overflow",
        /// Requests given up before a connection was there.
        upstream_rq_cancelled: Counter = "upstream_rq_cancelled",
        /// Requests that took longer than the route's timeout.
        upstream_rq_timeout: Counter = "upstream_rq_timeout",
        /// Requests that took longer than max_stream_duration.
        upstream_rq_max_duration_reached: Counter = "upstream_rq_max_duration_reached",
        /// Attempts that took longer than per_try_timeout.
        upstream_rq_per_try_timeout: Counter = "upstream_rq_per_try_timeout",
        /// Attempts that were silent for longer than per_try_idle_timeout.
        upstream_rq_per_try_idle_timeout: Counter = "upstream_rq_per_try_idle_timeout",
        /// Requests reset by the host.
        upstream_rq_rx_reset: Counter = "upstream_rq_rx_reset",
        /// Requests reset by the proxy.
        upstream_rq_tx_reset: Counter = "upstream_rq_tx_reset",
        /// Retries.
        upstream_rq_retry: Counter = "upstream_rq_retry",
        /// Retries after an exponential back-off.
        upstream_rq_retry_backoff_exponential: Counter = "upstream_rq_retry_backoff_exponential",
        /// Retries at the time the host asked for.
        upstream_rq_retry_backoff_ratelimited: Counter = "upstream_rq_retry_backoff_ratelimited",
        /// Requests that failed after the last allowed retry.
        upstream_rq_retry_limit_exceeded: Counter = "upstream_rq_retry_limit_exceeded",
        /// Retries refused by the retry circuit breaker or budget.
        upstream_rq_retry_overflow: Counter = "upstream_rq_retry_overflow",
        /// Requests saved by a retry.
        upstream_rq_retry_success: Counter = "upstream_rq_retry_success",
        /// Requests whose body was too large to keep for a retry.
        retry_or_shadow_abandoned: Counter = "retry_or_shadow_abandoned",
        /// Requests balanced over all hosts because too few were healthy.
        lb_healthy_panic: Counter = "lb_healthy_panic",
        /// TLS handshakes completed.
        ssl_handshake: SparseCounter = "ssl.handshake",
        /// TLS handshakes that failed for a reason other than the certificate.
        ssl_connection_error: SparseCounter = "ssl.connection_error",
        /// TLS handshakes that resumed a session.
        ssl_session_reused: SparseCounter = "ssl.session_reused",
        /// TLS handshakes in which no trusted authority had signed the certificate.
        ssl_fail_verify_error: SparseCounter = "ssl.fail_verify_error",
        /// TLS handshakes in which the certificate had none of the expected names.
        ssl_fail_verify_san: SparseCounter = "ssl.fail_verify_san",
        /// TLS handshakes in which the certificate or key hash was not expected.
        ssl_fail_verify_cert_hash: SparseCounter = "ssl.fail_verify_cert_hash",
    }
}

impl ClusterStats {
    /// Counts a response: `upstream_rq_completed`, `_Nxx` and `_NNN`.
    pub fn response(&self, status: u16) {
        self.responses.record(status);
    }
}

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
        /// Requests answered by a direct response.
        rq_direct_response: Counter = "rq_direct_response",
        /// Requests answered by a redirect.
        rq_redirect: Counter = "rq_redirect",
        /// Requests that reached the router.
        rq_total: Counter = "rq_total",
        /// Responses cut short after they had begun.
        rq_reset_after_downstream_response_started: Counter = "rq_reset_after_downstream_response_started",
    }
}

impl HttpStats {
    /// Counts a response: `downstream_rq_completed` and `_Nxx`.
    pub fn response(&self, status: u16) {
        self.responses.record(status);
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

statistics! {
    /// A configuration subscription, or one watched file of resources.
    SubscriptionStats {
        /// Times the resources were read.
        update_attempt: SharedCounter = "update_attempt",
        /// Times they were taken.
        update_success: SharedCounter = "update_success",
        /// Times they could not be read.
        update_failure: SharedCounter = "update_failure",
        /// Times they were read and refused.
        update_rejected: SharedCounter = "update_rejected",
        /// When they were last taken, in milliseconds since 1970.
        update_time: SharedGauge = "update_time",
        /// A number that stands for the version taken last.
        version: SharedGauge = "version",
    }
}

statistics! {
    /// Rare events and states of the process, written from any thread.
    ServerStats {
        /// Listeners added.
        listener_added: SharedCounter = "listener_manager.listener_added",
        /// Listeners that could not be started.
        listener_create_failure: SharedCounter = "listener_manager.listener_create_failure",
        /// Listeners started.
        listener_create_success: SharedCounter = "listener_manager.listener_create_success",
        /// Listeners changed without closing their socket.
        listener_in_place_updated: SharedCounter = "listener_manager.listener_in_place_updated",
        /// Listeners changed.
        listener_modified: SharedCounter = "listener_manager.listener_modified",
        /// Listeners removed.
        listener_removed: SharedCounter = "listener_manager.listener_removed",
        /// Listeners stopped by draining.
        listener_stopped: SharedCounter = "listener_manager.listener_stopped",
        /// Filter chains that are draining.
        total_filter_chains_draining: SharedGauge = "listener_manager.total_filter_chains_draining",
        /// Listeners serving.
        total_listeners_active: SharedGauge = "listener_manager.total_listeners_active",
        /// Listeners draining.
        total_listeners_draining: SharedGauge = "listener_manager.total_listeners_draining",
        /// Listeners waiting for resources.
        total_listeners_warming: SharedGauge = "listener_manager.total_listeners_warming",
        /// Whether the workers serve (1) or not yet (0).
        workers_started: SharedGauge = "listener_manager.workers_started",
        /// Clusters in use.
        active_clusters: SharedGauge = "cluster_manager.active_clusters",
        /// Clusters waiting for endpoints.
        warming_clusters: SharedGauge = "cluster_manager.warming_clusters",
        /// Clusters added.
        cluster_added: SharedCounter = "cluster_manager.cluster_added",
        /// Clusters changed.
        cluster_modified: SharedCounter = "cluster_manager.cluster_modified",
        /// Clusters removed.
        cluster_removed: SharedCounter = "cluster_manager.cluster_removed",
        /// Headers with an underscore in the name that were dropped.
        http1_dropped_headers: SharedCounter = "http1.dropped_headers_with_underscores",
        /// Requests refused for a header with an underscore in the name.
        http1_rejected_requests: SharedCounter = "http1.requests_rejected_with_underscores_in_headers",
        /// 1 while the server serves, 0 while it drains.
        live: SharedGauge = "server.live",
        /// 0 live, 1 draining, 2 before initialisation, 3 initialising.
        state: SharedGauge = "server.state",
        /// Worker threads.
        concurrency: SharedGauge = "server.concurrency",
        /// Seconds since the start.
        uptime: SharedGauge = "server.uptime",
        /// Bytes of memory in use.
        memory_allocated: SharedGauge = "server.memory_allocated",
        /// Bytes of memory reserved.
        memory_heap_size: SharedGauge = "server.memory_heap_size",
        /// Bytes of resident memory.
        memory_physical_size: SharedGauge = "server.memory_physical_size",
        /// Days until the first certificate expires; 4294967295 without certificates.
        days_until_first_cert_expiring: SharedGauge = "server.days_until_first_cert_expiring",
        /// Connections of clients open now.
        total_connections: SharedGauge = "server.total_connections",
        /// Time from the start to serving, in milliseconds.
        initialization_time: Histogram = "server.initialization_time_ms",
        /// Times the bootstrap file was read again.
        bootstrap_reload_attempt: SharedCounter = "server.bootstrap_reload.attempt",
        /// Times its change was taken.
        bootstrap_reload_success: SharedCounter = "server.bootstrap_reload.success",
        /// Times it was refused and the old configuration kept.
        bootstrap_reload_failure: SharedCounter = "server.bootstrap_reload.failure",
        /// Access-log lines handed to the writer.
        log_write_buffered: SharedCounter = "filesystem.write_buffered",
        /// Access-log blocks written.
        log_write_completed: SharedCounter = "filesystem.write_completed",
        /// Access-log blocks that could not be written.
        log_write_failed: SharedCounter = "filesystem.write_failed",
        /// Access-log lines dropped because the writer was too far behind.
        log_write_dropped: SharedCounter = "filesystem.write_dropped",
        /// Bytes of access log waiting to be written.
        log_write_total_buffered: SharedGauge = "filesystem.write_total_buffered",
        /// Access-log files that could not be opened again.
        log_reopen_failed: SharedCounter = "filesystem.reopen_failed",
    }
}
