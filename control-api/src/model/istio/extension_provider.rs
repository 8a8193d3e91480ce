//! `extensionProviders` of `MeshConfig`: services for traces, logs, metrics and decisions, by the names that policies
//! use.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::model::duration::Duration;

/// A service for traces, logs or decisions, by the name that policies use.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtensionProvider {
    pub name: String,
    pub envoy_ext_authz_http: Option<ExtAuthzHttp>,
    pub envoy_ext_authz_grpc: Option<ExtAuthzGrpc>,
    pub zipkin: Option<Zipkin>,
    pub opentelemetry: Option<OpenTelemetry>,
    pub prometheus: Option<Value>,
    pub envoy_file_access_log: Option<FileAccessLog>,
    pub envoy_http_als: Option<GrpcAccessLog>,
    pub envoy_tcp_als: Option<GrpcAccessLog>,
    pub envoy_otel_als: Option<OtelAccessLog>,
    pub lightstep: Option<Value>,
    pub datadog: Option<Value>,
    pub stackdriver: Option<Value>,
    pub opencensus: Option<Value>,
    pub skywalking: Option<Value>,
}

/// An authorization service that speaks HTTP.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtAuthzHttp {
    pub service: String,
    pub port: u32,
    pub timeout: Option<Duration>,
    pub path_prefix: String,
    pub fail_open: bool,
    pub status_on_error: String,
    /// Deprecated.
    pub include_headers_in_check: Vec<String>,
    pub include_request_headers_in_check: Vec<String>,
    pub include_additional_headers_in_check: BTreeMap<String, String>,
    pub include_request_body_in_check: Option<RequestBody>,
    pub headers_to_upstream_on_allow: Vec<String>,
    pub headers_to_downstream_on_deny: Vec<String>,
    pub headers_to_downstream_on_allow: Vec<String>,
}

/// An authorization service that speaks Envoy's gRPC protocol.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtAuthzGrpc {
    pub service: String,
    pub port: u32,
    pub timeout: Option<Duration>,
    pub fail_open: bool,
    pub status_on_error: String,
    pub include_request_body_in_check: Option<RequestBody>,
}

/// How much of a request's body an authorization service sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestBody {
    pub max_request_bytes: u32,
    pub allow_partial_message: bool,
    pub pack_as_bytes: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Zipkin {
    pub service: String,
    pub port: u32,
    pub max_tag_length: u32,
    pub enable_64bit_trace_id: bool,
    pub path: String,
    pub trace_context_option: String,
    pub timeout: Option<Duration>,
    pub headers: Vec<HttpHeader>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OpenTelemetry {
    pub service: String,
    pub port: u32,
    pub max_tag_length: u32,
    pub http: Option<OpenTelemetryHttp>,
    pub grpc: Option<OpenTelemetryGrpc>,
    pub resource_detectors: Option<ResourceDetectors>,
    pub dynatrace_sampler: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OpenTelemetryHttp {
    pub path: String,
    pub timeout: Option<Duration>,
    pub headers: Vec<HttpHeader>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OpenTelemetryGrpc {
    pub timeout: Option<Duration>,
    pub initial_metadata: Vec<HttpHeader>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpHeader {
    pub name: String,
    pub value: String,
    pub env_name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceDetectors {
    pub environment: Option<Value>,
    pub dynatrace: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileAccessLog {
    pub path: String,
    pub log_format: Option<LogFormat>,
    pub omit_empty_values: bool,
}

/// Text, or a value for each of some names.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogFormat {
    pub text: Option<String>,
    pub labels: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcAccessLog {
    pub service: String,
    pub port: u32,
    pub log_name: String,
    pub filter_state_objects_to_log: Vec<String>,
    pub additional_request_headers_to_log: Vec<String>,
    pub additional_response_headers_to_log: Vec<String>,
    pub additional_response_trailers_to_log: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OtelAccessLog {
    pub service: String,
    pub port: u32,
    pub log_name: String,
    pub log_format: Option<OtelLogFormat>,
    pub filter_state_objects_to_log: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OtelLogFormat {
    pub text: String,
    pub labels: Option<Value>,
}
