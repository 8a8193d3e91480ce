//! Access logs as configured (Envoy `config.accesslog.v3.AccessLog` with file and stream loggers).

mod collector;
mod wanted;

use std::path::PathBuf;
use std::sync::Arc;

use super::Name;
use super::expression::Expression;
use super::format::Format;
use super::matcher::{Fraction, HeaderMatcher};
use super::metadata::MetadataMatcher;

pub use collector::{Collector, Entry, EntryKind, Extras, LogService, Record, ResponseHeader};
pub use wanted::{LoggedHeaders, Wanted};

/// One access log of a connection manager or a listener.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// What is written, and where to.
    pub logger: Logger,
    /// Which requests are logged; none means all.
    pub filter: Option<LogFilter>,
}

/// What is written, and where to.
#[derive(Debug, Clone, PartialEq)]
pub enum Logger {
    /// Lines of text.
    Lines {
        /// Where lines go.
        sink: LogSink,
        /// What a line says.
        format: LogFormat,
    },
    /// `OpenTelemetryAccessLogConfig`: records.
    OpenTelemetry {
        /// Where records go.
        collector: Arc<Collector>,
        /// What a record says.
        record: Record,
    },
    /// `HttpGrpcAccessLogConfig` or `TcpGrpcAccessLogConfig`: entries.
    Grpc {
        /// Where entries go.
        collector: Arc<Collector>,
        /// What an entry says.
        entry: Entry,
    },
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LogSink {
    /// `FileAccessLog.path`, opened for appending.
    File(PathBuf),
    /// `StdoutAccessLog`
    Stdout,
    /// `StderrAccessLog`
    Stderr,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
pub enum LogFormat {
    /// `text_format_source` and `text_format`; the line ends where the format says.
    Text {
        /// The line.
        line: Format,
        /// `omit_empty_values`: absent values become empty instead of `-`.
        omit_empty: bool,
    },
    /// `json_format`: one object per line.
    Json {
        /// The object.
        object: JsonFormat,
        /// `omit_empty_values`: absent values are left out instead of null.
        omit_empty: bool,
    },
}

/// A JSON value with format strings as leaves.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonFormat {
    /// A formatted string; a single operator keeps its JSON type (numbers stay numbers).
    Text(Format),
    /// A constant that is no string.
    Constant(serde_json::Value),
    /// An object; keys are written in sorted order, as Envoy does.
    Object(Vec<(Name, JsonFormat)>),
    /// A list.
    List(Vec<JsonFormat>),
}

/// Which requests are logged (Envoy `AccessLogFilter`).
#[derive(Debug, Clone, PartialEq)]
pub enum LogFilter {
    /// `status_code_filter`
    Status(Comparison),
    /// `duration_filter`, in milliseconds
    Duration(Comparison),
    /// `not_health_check_filter`
    NotHealthCheck,
    /// `traceable_filter`
    Traceable,
    /// `runtime_filter` without run time: its default fraction
    Fraction(Fraction),
    /// `header_filter`
    Header(HeaderMatcher),
    /// `response_flag_filter`: short flags; empty means any flag at all
    ResponseFlag(Vec<Box<str>>),
    /// `metadata_filter`, of dynamic metadata
    Metadata {
        /// The condition; none is never met.
        matcher: Option<MetadataMatcher>,
        /// `match_if_key_not_found`: what holds if there is no such value; true by default.
        if_absent: bool,
    },
    /// `log_type_filter`
    Kind {
        /// Kinds that match.
        kinds: Vec<LogKind>,
        /// Whether the list excludes.
        exclude: bool,
    },
    /// `extension_filter` with `ExpressionFilter`
    Expression(Expression),
    /// `grpc_status_filter`
    GrpcStatus {
        /// Codes that match.
        codes: Vec<u16>,
        /// Whether the list excludes.
        exclude: bool,
    },
    /// `and_filter`
    And(Vec<LogFilter>),
    /// `or_filter`
    Or(Vec<LogFilter>),
}

/// Why a line is written (Envoy `AccessLogType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKind {
    /// `NotSet`
    NotSet,
    /// `TcpUpstreamConnected`: the endpoint of a TCP session is reached.
    TcpUpstreamConnected,
    /// `TcpPeriodic`: a TCP session goes on.
    TcpPeriodic,
    /// `TcpConnectionEnd`: a TCP connection has ended.
    TcpConnectionEnd,
    /// `DownstreamStart`: a request has come.
    DownstreamStart,
    /// `DownstreamPeriodic`: a request goes on.
    DownstreamPeriodic,
    /// `DownstreamEnd`: a request has ended.
    DownstreamEnd,
    /// `UpstreamPoolReady`; not written here.
    UpstreamPoolReady,
    /// `UpstreamPeriodic`; not written here.
    UpstreamPeriodic,
    /// `UpstreamEnd`; not written here.
    UpstreamEnd,
    /// `DownstreamTunnelSuccessfullyEstablished`: an upgrade was taken up.
    TunnelEstablished,
    /// `UdpTunnelUpstreamConnected`; not written here.
    UdpTunnelUpstreamConnected,
    /// `UdpPeriodic`; not written here.
    UdpPeriodic,
    /// `UdpSessionEnd`; not written here.
    UdpSessionEnd,
}

impl LogKind {
    /// Envoy's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotSet => "NotSet",
            Self::TcpUpstreamConnected => "TcpUpstreamConnected",
            Self::TcpPeriodic => "TcpPeriodic",
            Self::TcpConnectionEnd => "TcpConnectionEnd",
            Self::DownstreamStart => "DownstreamStart",
            Self::DownstreamPeriodic => "DownstreamPeriodic",
            Self::DownstreamEnd => "DownstreamEnd",
            Self::UpstreamPoolReady => "UpstreamPoolReady",
            Self::UpstreamPeriodic => "UpstreamPeriodic",
            Self::UpstreamEnd => "UpstreamEnd",
            Self::TunnelEstablished => "DownstreamTunnelSuccessfullyEstablished",
            Self::UdpTunnelUpstreamConnected => "UdpTunnelUpstreamConnected",
            Self::UdpPeriodic => "UdpPeriodic",
            Self::UdpSessionEnd => "UdpSessionEnd",
        }
    }
}

/// Envoy `ComparisonFilter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// How to compare.
    pub op: ComparisonOp,
    /// With what.
    pub value: u64,
}

/// Envoy `ComparisonFilter.Op`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComparisonOp {
    /// EQ
    Equal,
    /// GE
    AtLeast,
    /// LE
    AtMost,
    /// NE
    NotEqual,
}

impl AccessLog {
    /// Where its lines go; none if it writes none.
    pub fn sink(&self) -> Option<&LogSink> {
        match &self.logger {
            Logger::Lines { sink, .. } => Some(sink),
            Logger::OpenTelemetry { .. } | Logger::Grpc { .. } => None,
        }
    }

    /// Collects what lines print, or the filter reads, of response headers.
    pub fn response_headers(&self, wanted: &mut Wanted) {
        match &self.logger {
            Logger::Lines { format: LogFormat::Text { line, .. }, .. } => wanted.format(line),
            Logger::Lines { format: LogFormat::Json { object, .. }, .. } => wanted.json(object),
            Logger::OpenTelemetry { record, .. } => {
                record.body.iter().for_each(|body| wanted.json(body));
                record.attributes.iter().for_each(|(_, value)| wanted.json(value));
                wanted.extras(&record.extras);
            }
            Logger::Grpc { entry, .. } => wanted.entry(entry),
        }
        if let Some(filter) = &self.filter {
            wanted.filter(filter);
        }
    }
}
