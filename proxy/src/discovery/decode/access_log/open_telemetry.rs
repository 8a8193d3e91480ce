//! The access logger that sends records in OTLP.

use std::sync::Arc;
use std::time::Duration;

use xds::envoy::config::core::v3::ApiVersion;
use xds::envoy::extensions::access_loggers::grpc::v3::CommonGrpcAccessLogConfig;
use xds::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use xds::opentelemetry::proto::common::v1::any_value::Value;
use xds::opentelemetry::proto::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};

use crate::config::Name;
use crate::config::access_log::{Collector, JsonFormat, Logger, Record};
use crate::config::format::Format;
use crate::discovery::decode::errors::{At, Result, each, optional, refuse, required};
use crate::discovery::decode::service::grpc_service;
use crate::discovery::decode::value::{enumeration, positive_duration};

/// Envoy's defaults.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
const BUFFER_SIZE: u32 = 16_384;

/// The logger.
pub(super) fn logger(proto: &OpenTelemetryAccessLogConfig) -> Result<Logger> {
    let OpenTelemetryAccessLogConfig {
        common_config,
        disable_builtin_labels,
        resource_attributes,
        body,
        attributes,
        stat_prefix,
        formatters,
    } = proto;
    if !formatters.is_empty() {
        let reason = "METADATA, CEL and TYPED_CEL need no formatter, and others are not supported";
        return refuse("formatters", reason);
    }
    let common = required("common_config", common_config)?;
    let (collector, filter_state) = collector(common).at("common_config")?;
    let collector = Collector {
        resource: optional("resource_attributes", resource_attributes, constants)?
            .unwrap_or_default(),
        builtin_labels: !disable_builtin_labels,
        stat_prefix: stat_prefix.as_str().into(),
        ..collector
    };
    let record = Record {
        body: optional("body", body, value)?,
        attributes: optional("attributes", attributes, members)?.unwrap_or_default(),
        filter_state,
    };
    Ok(Logger::OpenTelemetry { collector: Arc::new(collector), record })
}

/// Where records go, and which filter state they tell.
fn collector(proto: &CommonGrpcAccessLogConfig) -> Result<(Collector, Vec<Name>)> {
    let CommonGrpcAccessLogConfig {
        log_name,
        grpc_service: service,
        transport_api_version: version,
        buffer_flush_interval,
        buffer_size_bytes,
        filter_state_objects_to_log: objects,
    } = proto;
    if enumeration::<ApiVersion>("transport_api_version", *version)? != ApiVersion::V3 {
        return refuse("transport_api_version", "must be V3");
    }
    if log_name.is_empty() {
        return refuse("log_name", "must not be empty");
    }
    let interval = positive_duration("buffer_flush_interval", buffer_flush_interval.as_ref())?;
    let collector = Collector {
        service: grpc_service(required("grpc_service", service)?).at("grpc_service")?,
        log_name: log_name.as_str().into(),
        flush_interval: interval.unwrap_or(FLUSH_INTERVAL),
        buffer_size: buffer_size_bytes.unwrap_or(BUFFER_SIZE) as usize,
        resource: Vec::new(),
        builtin_labels: true,
        stat_prefix: Name::default(),
    };
    Ok((collector, objects.iter().map(|key| key.as_str().into()).collect()))
}

/// Attributes that every record has: texts, without command operators.
fn constants(proto: &KeyValueList) -> Result<Vec<(Name, Name)>> {
    let KeyValueList { values } = proto;
    each("values", values, |KeyValue { key, value }| match value {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => {
            Ok((key.as_str().into(), text.as_str().into()))
        }
        _ => refuse("value", "only string_value is supported here"),
    })
}

fn members(proto: &KeyValueList) -> Result<Vec<(Name, JsonFormat)>> {
    let KeyValueList { values } = proto;
    each("values", values, |KeyValue { key, value: proto }| {
        Ok((key.as_str().into(), value(required("value", proto)?).at("value")?))
    })
}

fn value(proto: &AnyValue) -> Result<JsonFormat> {
    let AnyValue { value: proto } = proto;
    Ok(match proto {
        Some(Value::StringValue(text)) => JsonFormat::Text(Format::parse(text).at("string_value")?),
        Some(Value::KvlistValue(list)) => JsonFormat::Object(members(list).at("kvlist_value")?),
        Some(Value::ArrayValue(ArrayValue { values })) => {
            JsonFormat::List(each("values", values, value).at("array_value")?)
        }
        _ => return refuse("", "must be string_value, kvlist_value or array_value, as in Envoy"),
    })
}
