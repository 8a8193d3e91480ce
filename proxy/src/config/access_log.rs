//! Access logs as configured (Envoy `config.accesslog.v3.AccessLog` with file and stream loggers).

use std::path::PathBuf;

use http::HeaderMap;
use http::header::HeaderName;

use super::Name;
use super::format::{Format, HeaderChoice, Operator, Piece};
use super::matcher::{Fraction, HeaderMatcher, HeaderRef};

/// One access log of a connection manager or a listener.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// Where lines go.
    pub sink: LogSink,
    /// What a line says.
    pub format: LogFormat,
    /// Which requests are logged; none means all.
    pub filter: Option<LogFilter>,
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

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

impl AccessLog {
    /// Collects the response headers that lines print or the filter reads: only these need to be kept
    /// until a line is written.
    pub fn response_headers(&self, wanted: &mut HeaderMap<()>) {
        match &self.format {
            LogFormat::Text { line, .. } => of_format(line, wanted),
            LogFormat::Json { object, .. } => of_json(object, wanted),
        }
        if self.filter.as_ref().is_some_and(reads_grpc_status) {
            wanted.insert(GRPC_STATUS, ());
        }
    }
}

fn of_format(format: &Format, wanted: &mut HeaderMap<()>) {
    for piece in &format.pieces {
        match piece {
            Piece::Operator(Operator::Resp(HeaderChoice { first, second }), _) => {
                for header in std::iter::once(first).chain(second) {
                    if let HeaderRef::Named(name) = header {
                        wanted.insert(name.clone(), ());
                    }
                }
            }
            Piece::Operator(Operator::GrpcStatus(_), _) => {
                wanted.insert(GRPC_STATUS, ());
            }
            _ => {}
        }
    }
}

fn of_json(format: &JsonFormat, wanted: &mut HeaderMap<()>) {
    match format {
        JsonFormat::Text(format) => of_format(format, wanted),
        JsonFormat::Constant(_) => {}
        JsonFormat::Object(members) => {
            members.iter().for_each(|(_, member)| of_json(member, wanted));
        }
        JsonFormat::List(items) => items.iter().for_each(|item| of_json(item, wanted)),
    }
}

fn reads_grpc_status(filter: &LogFilter) -> bool {
    match filter {
        LogFilter::GrpcStatus { .. } => true,
        LogFilter::And(parts) | LogFilter::Or(parts) => parts.iter().any(reads_grpc_status),
        _ => false,
    }
}
