//! Records of access logs in OTLP.

use xds::opentelemetry::proto::collector::logs::v1::ExportLogsServiceRequest;
use xds::opentelemetry::proto::common::v1::any_value::Value;
use xds::opentelemetry::proto::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use xds::opentelemetry::proto::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use xds::opentelemetry::proto::resource::v1::Resource;

use super::Event;
use crate::config::Name;
use crate::config::access_log::{Collector, JsonFormat, LogService, Record};
use crate::config::bootstrap::Node;
use crate::config::format::{Facts as _, Operator, write_json};
use crate::telemetry::custom_tag;

/// What a record says of `event`. `nanoseconds` writes a time as nanoseconds since 1970.
pub(super) fn record(format: &Record, event: &Event<'_>, nanoseconds: &Operator) -> LogRecord {
    let attributes = format.attributes.iter();
    let mut attributes: Vec<_> =
        attributes.map(|(key, it)| key_value(key, value(it, event))).collect();
    for key in &format.extras.filter_state {
        event.with_filter_state(key, &mut |state| {
            let mut text = Vec::new();
            write_json(state, &mut text);
            attributes.push(key_value(key, text_value(&text)));
        });
    }
    for tag in &format.extras.custom_tags {
        if let Some(value) = custom_tag::value(event.facts, &tag.value) {
            attributes.push(key_value(&tag.name, text_value(value.as_bytes())));
        }
    }
    // A trace is told of where a span of it was made here.
    let span_id = bytes(&written(event, &Operator::SpanId));
    let trace_id = match span_id.as_slice() {
        [] => Vec::new(),
        _ => bytes(&written(event, &Operator::TraceId)),
    };
    let start = written(event, nanoseconds);
    LogRecord {
        time_unix_nano: start.parse().unwrap_or(0),
        body: format.body.as_ref().map(|body| value(body, event)),
        attributes,
        trace_id,
        span_id,
    }
}

/// One report of `records` to `collector`, by `node`. Nothing is said of the process but to a collector that speaks OTLP.
pub fn request(
    collector: &Collector,
    node: &Node,
    records: Vec<LogRecord>,
) -> ExportLogsServiceRequest {
    let attributes = match &collector.service {
        LogService::OpenTelemetry { resource, builtin_labels, .. } => {
            labels(collector, node, *builtin_labels, resource)
        }
        LogService::AccessLog(..) => Vec::new(),
    };
    let scope_logs = vec![ScopeLogs { log_records: records }];
    let logs = ResourceLogs { resource: Some(Resource { attributes }), scope_logs };
    ExportLogsServiceRequest { resource_logs: vec![logs] }
}

fn labels(
    collector: &Collector,
    node: &Node,
    builtin: bool,
    resource: &[(Name, Name)],
) -> Vec<KeyValue> {
    let (_, zone, _) = &node.locality;
    let own = [
        ("log_name", &*collector.log_name),
        ("zone_name", zone.as_str()),
        ("cluster_name", node.cluster.as_str()),
        ("node_name", node.id.as_str()),
    ];
    let replaced = |name: &str| resource.iter().any(|(key, _)| **key == *name);
    let own = own.into_iter().filter(|(name, _)| builtin && !replaced(name));
    let said = resource.iter().map(|(key, value)| (&**key, &**value));
    let label = |(key, value): (&str, &str)| key_value(key, text_value(value.as_bytes()));
    own.chain(said).map(label).collect()
}

fn key_value(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value) }
}

fn text_value(text: &[u8]) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(String::from_utf8_lossy(text).into_owned())) }
}

fn value(format: &JsonFormat, event: &Event<'_>) -> AnyValue {
    let value = match format {
        JsonFormat::Text(format) => {
            let mut text = Vec::new();
            format.render(event, "-", &mut text);
            return text_value(&text);
        }
        JsonFormat::Constant(constant) => return text_value(constant.to_string().as_bytes()),
        JsonFormat::Object(members) => Value::KvlistValue(KeyValueList {
            values: members
                .iter()
                .map(|(key, it)| key_value(key, self::value(it, event)))
                .collect(),
        }),
        JsonFormat::List(items) => Value::ArrayValue(ArrayValue {
            values: items.iter().map(|it| self::value(it, event)).collect(),
        }),
    };
    AnyValue { value: Some(value) }
}

fn written(event: &Event<'_>, operator: &Operator) -> String {
    let mut out = Vec::new();
    operator.write(event, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// What `text` says in hexadecimal digits.
fn bytes(text: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_are_read_in_pairs() {
        assert_eq!(bytes("00ff1a"), [0, 255, 26]);
        assert_eq!(bytes(""), [0; 0]);
    }
}
