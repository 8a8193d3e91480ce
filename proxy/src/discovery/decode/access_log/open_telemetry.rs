//! The access logger that sends records in OTLP.

use std::sync::Arc;

use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use xds::opentelemetry::proto::common::v1::any_value::Value;
use xds::opentelemetry::proto::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};

use super::grpc::{Common, batches, common, extras};
use crate::config::Name;
use crate::config::access_log::{JsonFormat, LogService, Logger, Record};
use crate::config::format::Format;
use crate::config::service::OtlpCollector;
use crate::discovery::decode::errors::{At, Result, each, optional, refuse, required};
use crate::discovery::decode::service::{grpc_service, http_service};
use crate::discovery::decode::tracing::{Attributes, detect, merge};

/// The logger.
pub(super) fn logger(proto: &OpenTelemetryAccessLogConfig) -> Result<Logger> {
    let OpenTelemetryAccessLogConfig {
        common_config,
        http_service: http,
        grpc_service: grpc,
        disable_builtin_labels,
        resource_attributes,
        resource_detectors,
        body,
        attributes,
        stat_prefix,
        formatters,
        log_name,
        buffer_flush_interval: interval,
        buffer_size_bytes: size,
        filter_state_objects_to_log: objects,
        custom_tags,
    } = proto;
    if !formatters.is_empty() {
        let reason = "METADATA, CEL and TYPED_CEL need no formatter, and others are not supported";
        return refuse("formatters", reason);
    }
    let own = || -> Result<_> {
        Ok((batches(log_name, interval.as_ref(), *size)?, extras(objects, custom_tags)?))
    };
    let (collector, (batches, extras)) = match (common_config, http, grpc) {
        (Some(proto), None, None) => {
            let Common { service, batches, extras } = common(proto).at("common_config")?;
            (OtlpCollector::Grpc(service), (batches, extras))
        }
        (None, Some(proto), None) => {
            (OtlpCollector::Http(http_service(proto).at("http_service")?), own()?)
        }
        (None, None, Some(proto)) => {
            (OtlpCollector::Grpc(grpc_service(proto).at("grpc_service")?), own()?)
        }
        _ => {
            let reason = "exactly one of common_config, grpc_service and http_service is required";
            return refuse("", reason);
        }
    };
    let service = LogService::OpenTelemetry {
        collector,
        resource: resource(resource_detectors, resource_attributes.as_ref())?,
        builtin_labels: !disable_builtin_labels,
        stat_prefix: stat_prefix.as_str().into(),
    };
    let record = Record {
        body: optional("body", body, value)?,
        attributes: optional("attributes", attributes, members)?.unwrap_or_default(),
        extras,
    };
    Ok(Logger::OpenTelemetry { collector: Arc::new(batches.of(service)), record })
}

/// What all records say of the process they come from: what was found, and over that what is said.
fn resource(
    detectors: &[TypedExtensionConfig],
    attributes: Option<&KeyValueList>,
) -> Result<Vec<(Name, Name)>> {
    let mut all = Attributes::new();
    for found in detect(detectors)? {
        merge(&mut all, found);
    }
    if let Some(attributes) = attributes {
        merge(&mut all, constants(attributes).at("resource_attributes")?);
    }
    Ok(all.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
}

/// Attributes that every record has: texts, without command operators.
fn constants(proto: &KeyValueList) -> Result<Attributes> {
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
