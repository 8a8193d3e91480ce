//! What is counted of a cluster: connections, requests, retries, TLS.

use super::super::cell::{
    Cell, Counter, Gauge, Histogram, SparseCounter, SparseStatusCodes, StatusCodes,
};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

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
        /// TCP connections of clients for which max_connect_attempts did not suffice.
        upstream_cx_connect_attempts_exceeded: Counter = "upstream_cx_connect_attempts_exceeded",
        /// Connections whose own end could not be bound to the configured source address.
        bind_errors: Counter = "bind_errors",
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
        /// Requests whose header named an endpoint by no address (`original_dst_lb_config`).
        original_dst_host_invalid: Counter = "original_dst_host_invalid",
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
        /// Those to requests from within the mesh.
        internal: SparseStatusCodes = "internal.upstream_rq",
        /// Those to other requests.
        external: SparseStatusCodes = "external.upstream_rq",
        /// Those of which a host said that it is a canary.
        canary: SparseStatusCodes = "canary.upstream_rq",
        /// Responses by status that led to another attempt; no others count these.
        retried: SparseStatusCodes = "retry.upstream_rq",
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
        /// Attempts that took longer than per_try_timeout.
        upstream_rq_per_try_timeout: Counter = "upstream_rq_per_try_timeout",
        /// Attempts that were silent for longer than per_try_idle_timeout.
        upstream_rq_per_try_idle_timeout: Counter = "upstream_rq_per_try_idle_timeout",
        /// Requests that lived for longer than the cluster's max_stream_duration.
        upstream_rq_max_duration_reached: Counter = "upstream_rq_max_duration_reached",
        /// Requests reset by the host.
        upstream_rq_rx_reset: Counter = "upstream_rq_rx_reset",
        /// Requests reset by the proxy.
        upstream_rq_tx_reset: Counter = "upstream_rq_tx_reset",
        /// Retries.
        upstream_rq_retry: Counter = "upstream_rq_retry",
        /// Retries after an exponential back-off.
        upstream_rq_retry_backoff_exponential: Counter = "upstream_rq_retry_backoff_exponential",
        /// Retries after an interval that the answer asked for.
        upstream_rq_retry_backoff_ratelimited: Counter = "upstream_rq_retry_backoff_ratelimited",
        /// Requests that failed after the last allowed retry.
        upstream_rq_retry_limit_exceeded: Counter = "upstream_rq_retry_limit_exceeded",
        /// Retries refused by the retry circuit breaker or budget.
        upstream_rq_retry_overflow: Counter = "upstream_rq_retry_overflow",
        /// Requests saved by a retry.
        upstream_rq_retry_success: Counter = "upstream_rq_retry_success",
        /// Redirects of the hosts that were followed for the client.
        upstream_internal_redirect_succeeded_total: Counter = "upstream_internal_redirect_succeeded_total",
        /// Redirects of the hosts that could not be followed for the client.
        upstream_internal_redirect_failed_total: Counter = "upstream_internal_redirect_failed_total",
        /// Requests whose body was too large to keep for a retry.
        retry_or_shadow_abandoned: Counter = "retry_or_shadow_abandoned",
        /// Requests balanced over all hosts because too few were healthy.
        lb_healthy_panic: Counter = "lb_healthy_panic",
        /// Requests for which zones were not heeded because the proxy's own cluster was in no state for it.
        lb_local_cluster_not_ok: Counter = "lb_local_cluster_not_ok",
        /// How often it was figured out how zones are heeded.
        lb_recalculate_zone_structures: Counter = "lb_recalculate_zone_structures",
        /// How often the cluster was found to be too small for zones to be heeded.
        lb_zone_cluster_too_small: Counter = "lb_zone_cluster_too_small",
        /// Requests sent to the proxy's own zone, where all of them go.
        lb_zone_routing_all_directly: Counter = "lb_zone_routing_all_directly",
        /// Requests sent to the proxy's own zone, where some of them go.
        lb_zone_routing_sampled: Counter = "lb_zone_routing_sampled",
        /// Requests sent to another zone.
        lb_zone_routing_cross_zone: Counter = "lb_zone_routing_cross_zone",
        /// Requests sent to any zone because none had capacity left.
        lb_zone_no_capacity_left: Counter = "lb_zone_no_capacity_left",
        /// Subsets of the hosts there are now, by worker.
        lb_subsets_active: Gauge = "lb_subsets_active",
        /// Subsets that came to be.
        lb_subsets_created: Counter = "lb_subsets_created",
        /// Subsets that went with their last host.
        lb_subsets_removed: Counter = "lb_subsets_removed",
        /// Requests balanced over the subset they wanted.
        lb_subsets_selected: Counter = "lb_subsets_selected",
        /// Requests balanced by the fallback policy of subsets.
        lb_subsets_fallback: Counter = "lb_subsets_fallback",
        /// Requests balanced over all hosts because the fallback had none.
        lb_subsets_fallback_panic: Counter = "lb_subsets_fallback_panic",
        /// TLS handshakes completed.
        ssl_handshake: SparseCounter = "ssl.handshake",
        /// TLS handshakes that failed for a reason other than the certificate.
        ssl_connection_error: SparseCounter = "ssl.connection_error",
        /// TLS handshakes in which no trusted authority had signed the certificate.
        ssl_fail_verify_error: SparseCounter = "ssl.fail_verify_error",
    }
}

impl ClusterStats {
    /// Counts a response: `upstream_rq_completed`, `_Nxx` and `_NNN`. `internal` says whether the request came from
    /// within the mesh (`x-envoy-internal`), as all of the proxy's own do.
    pub fn response(&self, status: u16, internal: bool) {
        self.responses.record(status);
        let side = if internal { &self.internal } else { &self.external };
        side.record(status);
    }
}
