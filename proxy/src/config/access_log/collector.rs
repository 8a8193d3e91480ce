//! Services that take access logs (Envoy `CommonGrpcAccessLogConfig`, `OpenTelemetryAccessLogConfig`).

use std::time::Duration;

use super::JsonFormat;
use crate::config::Name;
use crate::config::service::GrpcService;

/// Where records go.
#[derive(Debug, Clone, PartialEq)]
pub struct Collector {
    /// `grpc_service`
    pub service: GrpcService,
    /// `log_name`
    pub log_name: Name,
    /// `buffer_flush_interval`; 1 s by default.
    pub flush_interval: Duration,
    /// `buffer_size_bytes`; 16 KiB by default. A batch is sent when it has grown to this.
    pub buffer_size: usize,
    /// `resource_attributes`, texts by name.
    pub resource: Vec<(Name, Name)>,
    /// Whether the resource tells of the node as well: not `disable_builtin_labels`.
    pub builtin_labels: bool,
    /// `stat_prefix` of its statistics; may be empty.
    pub stat_prefix: Name,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// `body`
    pub body: Option<JsonFormat>,
    /// `attributes`, in their order.
    pub attributes: Vec<(Name, JsonFormat)>,
    /// `filter_state_objects_to_log`: those that are there become attributes.
    pub filter_state: Vec<Name>,
}
