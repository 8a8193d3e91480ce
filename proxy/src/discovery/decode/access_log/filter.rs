//! Which requests an access log takes.

use xds::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use xds::envoy::config::accesslog::v3::comparison_filter::Op;
use xds::envoy::config::accesslog::v3::extension_filter::ConfigType as ExtensionConfig;
use xds::envoy::config::accesslog::v3::grpc_status_filter::Status;
use xds::envoy::config::accesslog::v3::{
    AccessLogFilter, AndFilter, ComparisonFilter, DurationFilter, ExtensionFilter,
    GrpcStatusFilter, HeaderFilter, LogTypeFilter, MetadataFilter, NotHealthCheckFilter, OrFilter,
    ResponseFlagFilter, RuntimeFilter, StatusCodeFilter, TraceableFilter,
};
use xds::envoy::config::core::v3::RuntimeUInt32;
use xds::envoy::data::accesslog::v3::AccessLogType;
use xds::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;

use crate::config::access_log::{Comparison, ComparisonOp, LogFilter, LogKind};
use crate::config::expression::Expression;
use crate::config::matcher::Fraction;
use crate::discovery::decode::errors::{At, Result, each, optional, refuse, required};
use crate::discovery::decode::extension::{unpack, unsupported};
use crate::discovery::decode::matcher::header_matcher;
use crate::discovery::decode::metadata::metadata_matcher;
use crate::discovery::decode::value::{enumeration, fraction};
use crate::telemetry::response_flags::ResponseFlags;

/// A filter.
pub(super) fn log_filter(proto: &AccessLogFilter) -> Result<LogFilter> {
    let AccessLogFilter { filter_specifier } = proto;
    Ok(match required("", filter_specifier)? {
        FilterSpecifier::StatusCodeFilter(StatusCodeFilter { comparison: proto }) => {
            LogFilter::Status(comparison(proto.as_ref()).at("status_code_filter")?)
        }
        FilterSpecifier::DurationFilter(DurationFilter { comparison: proto }) => {
            LogFilter::Duration(comparison(proto.as_ref()).at("duration_filter")?)
        }
        FilterSpecifier::NotHealthCheckFilter(NotHealthCheckFilter {}) => LogFilter::NotHealthCheck,
        FilterSpecifier::TraceableFilter(TraceableFilter {}) => LogFilter::Traceable,
        FilterSpecifier::RuntimeFilter(proto) => {
            LogFilter::Fraction(runtime_filter(proto).at("runtime_filter")?)
        }
        FilterSpecifier::AndFilter(AndFilter { filters }) => {
            LogFilter::And(filter_list(filters).at("and_filter")?)
        }
        FilterSpecifier::OrFilter(OrFilter { filters }) => {
            LogFilter::Or(filter_list(filters).at("or_filter")?)
        }
        FilterSpecifier::HeaderFilter(HeaderFilter { header }) => {
            let header = required("header_filter.header", header)?;
            LogFilter::Header(header_matcher(header).at("header_filter.header")?)
        }
        FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter { flags }) => {
            LogFilter::ResponseFlag(each("response_flag_filter.flags", flags, |it| flag(it))?)
        }
        FilterSpecifier::GrpcStatusFilter(proto) => grpc_status(proto).at("grpc_status_filter")?,
        FilterSpecifier::MetadataFilter(proto) => metadata(proto).at("metadata_filter")?,
        FilterSpecifier::LogTypeFilter(proto) => log_type(proto).at("log_type_filter")?,
        FilterSpecifier::ExtensionFilter(proto) => extension(proto).at("extension_filter")?,
    })
}

fn metadata(proto: &MetadataFilter) -> Result<LogFilter> {
    let MetadataFilter { matcher, match_if_key_not_found } = proto;
    Ok(LogFilter::Metadata {
        matcher: optional("matcher", matcher, metadata_matcher)?,
        if_absent: *match_if_key_not_found != Some(false),
    })
}

fn log_type(proto: &LogTypeFilter) -> Result<LogFilter> {
    let LogTypeFilter { types, exclude } = proto;
    let kinds = each("types", types, |kind| Ok(log_kind(enumeration("", *kind)?)))?;
    Ok(LogFilter::Kind { kinds, exclude: *exclude })
}

fn log_kind(proto: AccessLogType) -> LogKind {
    match proto {
        AccessLogType::NotSet => LogKind::NotSet,
        AccessLogType::TcpUpstreamConnected => LogKind::TcpUpstreamConnected,
        AccessLogType::TcpPeriodic => LogKind::TcpPeriodic,
        AccessLogType::TcpConnectionEnd => LogKind::TcpConnectionEnd,
        AccessLogType::DownstreamStart => LogKind::DownstreamStart,
        AccessLogType::DownstreamPeriodic => LogKind::DownstreamPeriodic,
        AccessLogType::DownstreamEnd => LogKind::DownstreamEnd,
        AccessLogType::UpstreamPoolReady => LogKind::UpstreamPoolReady,
        AccessLogType::UpstreamPeriodic => LogKind::UpstreamPeriodic,
        AccessLogType::UpstreamEnd => LogKind::UpstreamEnd,
        AccessLogType::DownstreamTunnelSuccessfullyEstablished => LogKind::TunnelEstablished,
        AccessLogType::UdpTunnelUpstreamConnected => LogKind::UdpTunnelUpstreamConnected,
        AccessLogType::UdpPeriodic => LogKind::UdpPeriodic,
        AccessLogType::UdpSessionEnd => LogKind::UdpSessionEnd,
    }
}

fn extension(proto: &ExtensionFilter) -> Result<LogFilter> {
    let ExtensionFilter { name: _, config_type } = proto;
    let ExtensionConfig::TypedConfig(any) = required("typed_config", config_type)?;
    match unpack(any).at("typed_config")? {
        Some(ExpressionFilter { expression }) => {
            let expression = Expression::parse(&expression).at("typed_config.expression")?;
            Ok(LogFilter::Expression(expression))
        }
        None => unsupported(any).at("typed_config"),
    }
}

fn flag(name: &str) -> Result<Box<str>> {
    match ResponseFlags::from_short(name) {
        Some(_) => Ok(name.into()),
        None => refuse("", format!("{name:?} is no response flag")),
    }
}

fn filter_list(protos: &[AccessLogFilter]) -> Result<Vec<LogFilter>> {
    if protos.len() < 2 {
        return refuse("filters", "at least two are required");
    }
    each("filters", protos, log_filter)
}

fn comparison(proto: Option<&ComparisonFilter>) -> Result<Comparison> {
    let Some(ComparisonFilter { op, value }) = proto else {
        return refuse("comparison", "required");
    };
    let op = match enumeration("comparison.op", *op)? {
        Op::Eq => ComparisonOp::Equal,
        Op::Ge => ComparisonOp::AtLeast,
        Op::Le => ComparisonOp::AtMost,
        Op::Ne => ComparisonOp::NotEqual,
    };
    let RuntimeUInt32 { default_value, runtime_key: _ } = required("comparison.value", value)?;
    Ok(Comparison { op, value: u64::from(*default_value) })
}

/// Without a fraction the runtime key decides alone, and there is none: nothing is logged, as in Envoy.
fn runtime_filter(proto: &RuntimeFilter) -> Result<Fraction> {
    let RuntimeFilter { runtime_key: _, percent_sampled, use_independent_randomness: _ } = proto;
    match percent_sampled {
        Some(proto) => fraction(proto).at("percent_sampled"),
        None => Ok(Fraction { numerator: 0, denominator: 100 }),
    }
}

fn grpc_status(proto: &GrpcStatusFilter) -> Result<LogFilter> {
    let GrpcStatusFilter { statuses, exclude } = proto;
    let codes = each("statuses", statuses, |status| {
        let status: Status = enumeration("", *status)?;
        u16::try_from(i32::from(status)).map_err(|_| String::from("is no gRPC status")).at("")
    })?;
    Ok(LogFilter::GrpcStatus { codes, exclude: *exclude })
}
