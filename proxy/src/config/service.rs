//! Services that the proxy itself asks: which cluster they are at, and how they are asked.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::Name;
use super::header::HeaderToAdd;

/// A gRPC service (Envoy `core.v3.GrpcService` with `envoy_grpc`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrpcService {
    /// `cluster_name`
    pub cluster: Name,
    /// `:authority`: `authority`, or the cluster's name.
    pub authority: HeaderValue,
    /// `timeout`; none means no limit.
    pub timeout: Option<Duration>,
    /// `initial_metadata`
    pub metadata: Vec<(HeaderName, HeaderValue)>,
}

/// Where an HTTP service is (Envoy `core.v3.HttpUri`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpUri {
    /// The host in `uri`.
    pub host: HeaderValue,
    /// The path in `uri`, with its query; at least `/`.
    pub path: Box<str>,
    /// `cluster`
    pub cluster: Name,
    /// `timeout`
    pub timeout: Duration,
}

/// An HTTP service (Envoy `core.v3.HttpService`).
#[derive(Debug, Clone, PartialEq)]
pub struct HttpService {
    /// `http_uri`
    pub uri: HttpUri,
    /// `request_headers_to_add`
    pub headers: Vec<HeaderToAdd>,
}

/// How something is sent in OTLP.
#[derive(Debug, Clone, PartialEq)]
pub enum OtlpCollector {
    /// `grpc_service`
    Grpc(GrpcService),
    /// `http_service`, in protobuf.
    Http(HttpService),
}
