//! Faults that are made on purpose (Envoy `filters.http.fault.v3.HTTPFault`).

use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value};

use super::matcher::{Fraction, HeaderMatcher};

/// Envoy `HTTPFault`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fault {
    /// `delay`
    pub delay: Option<(Delay, Fraction)>,
    /// `abort`
    pub abort: Option<(Abort, Fraction)>,
    /// `response_rate_limit`
    pub rate: Option<(Rate, Fraction)>,
    /// `upstream_cluster`: only requests to it; empty means all.
    pub upstream_cluster: Box<str>,
    /// `headers`: only requests that match all.
    pub headers: Vec<HeaderMatcher>,
    /// `downstream_nodes`: only requests of these; empty means all.
    pub downstream_nodes: Vec<Box<str>>,
    /// `max_active_faults`: as many streams may have a fault at a time.
    pub max_active: Option<u32>,
    /// Whether faults are counted for each downstream cluster as well; not with `disable_downstream_cluster_stats`.
    pub counts_clusters: bool,
    /// `filter_metadata`: dynamic metadata of every request that meets a fault.
    pub metadata: Option<Map<String, Value>>,
}

/// How long a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// `fixed_delay`
    Fixed(Duration),
    /// `header_delay`: as its `x-envoy-fault-delay-request` says.
    Header,
}

/// What a request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// `http_status`
    Http(StatusCode),
    /// `grpc_status`; others than gRPC clients see 200.
    Grpc(u32),
    /// `header_abort`: as its `x-envoy-fault-abort-request` or `x-envoy-fault-abort-grpc-request` says.
    Header,
}

/// How fast a response goes, in KiB per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// `fixed_limit`, at least 1
    Fixed(u64),
    /// `header_limit`: as the request's `x-envoy-fault-throughput-response` says.
    Header,
}
