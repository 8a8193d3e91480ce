//! Active health checks as configured (Envoy `core.v3.HealthCheck`).

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use http::Method;

use super::HashMap;
use super::format::Operator;
use super::header::HeaderMutations;
use super::matcher::StringMatcher;
use crate::config::header::HeaderToAdd;

/// How the hosts of a cluster are checked.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    /// `timeout`: longest time one check may take.
    pub timeout: Duration,
    /// When the next check is made.
    pub intervals: Intervals,
    /// `unhealthy_threshold`: failures in a row after which a host is unhealthy.
    pub unhealthy_threshold: u32,
    /// `healthy_threshold`: successes in a row after which it is healthy again.
    pub healthy_threshold: u32,
    /// `reuse_connection`: whether a connection serves several checks; true by default.
    pub reuse_connection: bool,
    /// What is asked, and which answers are good.
    pub checker: Checker,
    /// `event_log_path`, or the file sinks of `event_logger`.
    pub event_logs: Vec<PathBuf>,
    /// `always_log_health_check_failures`: not only the first.
    pub log_failures: bool,
    /// `always_log_health_check_success`: not only changes.
    pub log_successes: bool,
    /// `tls_options.alpn_protocols`; empty leaves it to the transport socket.
    pub alpn: Vec<Box<str>>,
    /// `transport_socket_match_criteria`: what chooses the transport socket in place of the endpoint's
    /// metadata.
    pub socket_criteria: Option<HashMap<String, String>>,
}

impl HealthCheck {
    /// Whether `operator` can say something in a header of a check, for which there is no client and no route.
    pub fn has_value(operator: &Operator) -> bool {
        matches!(
            operator,
            Operator::StartTime(_)
                | Operator::EmitTime(_)
                | Operator::Protocol
                | Operator::UpstreamHost
                | Operator::UpstreamHostName
                | Operator::Hostname
                | Operator::UniqueId
        )
    }
}

/// When checks are made. All but the jitters are longer than zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intervals {
    /// `interval`: between checks of a healthy host.
    pub healthy: Duration,
    /// `unhealthy_interval`, by default `interval`.
    pub unhealthy: Duration,
    /// `healthy_edge_interval`: while successes are counted, by default `interval`.
    pub healthy_edge: Duration,
    /// `unhealthy_edge_interval`: while failures are counted, by default `unhealthy_interval`.
    pub unhealthy_edge: Duration,
    /// `no_traffic_interval`: in a cluster nothing was ever sent to; 60 s by default.
    pub no_traffic: Duration,
    /// `no_traffic_healthy_interval`: the same for a healthy host, by default `no_traffic_interval`.
    pub no_traffic_healthy: Duration,
    /// `initial_jitter`: the first check waits for less than this; 0 by default.
    pub initial_jitter: Duration,
    /// `interval_jitter`: less than this is added to an interval; 0 by default.
    pub jitter: Duration,
    /// `interval_jitter_percent`: less than this share of an interval is added to it; 0 by default.
    pub jitter_percent: u32,
}

/// Envoy `HealthCheck.health_checker`.
#[derive(Debug, Clone, PartialEq)]
pub enum Checker {
    /// `http_health_check`
    Http(Box<HttpCheck>),
    /// `tcp_health_check`
    Tcp(TcpCheck),
    /// `grpc_health_check`
    Grpc(GrpcCheck),
}

/// Envoy `HealthCheck.HttpHealthCheck`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpCheck {
    /// `host`; empty for the endpoint's or the cluster's name.
    pub host: Box<str>,
    /// `path`
    pub path: Box<str>,
    /// `method`; GET by default.
    pub method: Method,
    /// `codec_client_type` HTTP2.
    pub http2: bool,
    /// `request_headers_to_add` and `request_headers_to_remove`.
    pub headers: HeaderMutations,
    /// `send`: the request's body.
    pub send: Vec<u8>,
    /// `expected_statuses`; 200 by default.
    pub expected: Vec<Range<u16>>,
    /// `retriable_statuses`: failures that count towards the threshold.
    pub retriable: Vec<Range<u16>>,
    /// `receive`: what the response's body holds, in this order.
    pub receive: Vec<Vec<u8>>,
    /// `response_buffer_size`: bytes of the body that are looked at, 1,024 by default; 0 means all.
    pub body_limit: u64,
    /// `service_name_matcher`: what `x-envoy-upstream-healthchecked-cluster` must be.
    pub service_name: Option<StringMatcher>,
}

/// Envoy `HealthCheck.TcpHealthCheck`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpCheck {
    /// `send`; may be empty.
    pub send: Vec<u8>,
    /// `receive`: what must arrive, in this order; nothing means that a connection suffices.
    pub receive: Vec<Vec<u8>>,
}

/// Envoy `HealthCheck.GrpcHealthCheck`.
#[derive(Debug, Clone, PartialEq)]
pub struct GrpcCheck {
    /// `service_name`; empty asks for the server as a whole.
    pub service: String,
    /// `authority`; empty for the endpoint's or the cluster's name.
    pub authority: Box<str>,
    /// `initial_metadata`
    pub metadata: Vec<HeaderToAdd>,
}
