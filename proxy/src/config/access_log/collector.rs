//! Services that take access logs (Envoy `CommonGrpcAccessLogConfig`, `OpenTelemetryAccessLogConfig`), and what they are
//! told.

use std::time::Duration;

use http::HeaderName;

use super::JsonFormat;
use crate::config::Name;
use crate::config::matcher::HeaderRef;
use crate::config::service::{GrpcService, OtlpCollector};
use crate::config::tracing::CustomTag;

/// Where records go.
#[derive(Debug, Clone, PartialEq)]
pub struct Collector {
    /// Who takes them, and in which form.
    pub service: LogService,
    /// `log_name`
    pub log_name: Name,
    /// `buffer_flush_interval`; 1 s by default.
    pub flush_interval: Duration,
    /// `buffer_size_bytes`; 16 KiB by default. A batch is sent when it has grown to this.
    pub buffer_size: usize,
}

/// Who takes records.
#[derive(Debug, Clone, PartialEq)]
pub enum LogService {
    /// A collector that speaks OTLP.
    OpenTelemetry {
        /// How it is reached.
        collector: OtlpCollector,
        /// `resource_attributes`, and before them what `resource_detectors` found.
        resource: Vec<(Name, Name)>,
        /// Whether the resource tells of the node as well: not `disable_builtin_labels`.
        builtin_labels: bool,
        /// `stat_prefix` of its statistics; may be empty.
        stat_prefix: Name,
    },
    /// An `AccessLogService`, by `grpc_service`. Requests and connections go to it in streams of their own.
    AccessLog(GrpcService, EntryKind),
}

/// What an `AccessLogService` is told of in one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// `HttpGrpcAccessLogConfig`
    Http,
    /// `TcpGrpcAccessLogConfig`
    Tcp,
}

/// What a record in OTLP says.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// `body`
    pub body: Option<JsonFormat>,
    /// `attributes`, in their order.
    pub attributes: Vec<(Name, JsonFormat)>,
    /// What else becomes attributes.
    pub extras: Extras,
}

/// What an entry for an `AccessLogService` says beside what all say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry {
    /// `additional_request_headers_to_log`
    pub request_headers: Vec<(Name, HeaderRef)>,
    /// `additional_response_headers_to_log`
    pub response_headers: Vec<ResponseHeader>,
    /// `additional_response_trailers_to_log`
    pub response_trailers: Vec<HeaderName>,
    /// What else it says.
    pub extras: Extras,
}

/// A header of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseHeader {
    /// `:status`
    Status,
    /// Any other.
    Named(HeaderName),
}

/// What every record may say beside its format.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extras {
    /// `filter_state_objects_to_log`: those that are there are told.
    pub filter_state: Vec<Name>,
    /// `custom_tags`
    pub custom_tags: Vec<CustomTag>,
}
