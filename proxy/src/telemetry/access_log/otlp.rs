//! Records of access logs in OTLP.

use xds::opentelemetry::proto::collector::logs::v1::ExportLogsServiceRequest;
use xds::opentelemetry::proto::common::v1::any_value::Value;
use xds::opentelemetry::proto::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use xds::opentelemetry::proto::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use xds::opentelemetry::proto::resource::v1::Resource;

use super::Event;
use crate::config::access_log::{Collector, JsonFormat, Record};
use crate::config::bootstrap::Node;
use crate::config::format::{Facts as _, Operator, TimeFormat, write_json};

/// What a record says of `event`. `nanoseconds` writes a time as nanoseconds since 1970.
pub(super) fn record(format: &Record, event: &Event<'_>, nanoseconds: &TimeFormat) -> LogRecord {
    let attributes = format.attributes.iter();
    let mut attributes: Vec<_> =
        attributes.map(|(key, it)| key_value(key, value(it, event))).collect();
    for key in &format.filter_state {
        event.with_filter_state(key, &mut |state| {
            let mut text = Vec::new();
            write_json(state, &mut text);
            attributes.push(key_value(key, text_value(&text)));
        });
    }
    // A trace is told of where a span of it was made here.
    let span_id = bytes(&written(event, &Operator::SpanId));
    let trace_id = match span_id.as_slice() {
        [] => Vec::new(),
        _ => bytes(&written(event, &Operator::TraceId)),
    };
    let start = written(event, &Operator::StartTime(nanoseconds.clone()));
    LogRecord {
        time_unix_nano: start.parse().unwrap_or(0),
        body: format.body.as_ref().map(|body| value(body, event)),
        attributes,
        trace_id,
        span_id,
    }
}

/// One report of `records` to `collector`, by `node`.
pub fn request(
    collector: &Collector,
    node: &Node,
    records: Vec<LogRecord>,
) -> ExportLogsServiceRequest {
    let mut labels: Vec<(&str, &str)> = Vec::new();
    if collector.builtin_labels {
        let (_, zone, _) = &node.locality;
        labels.extend([
            ("log_name", &*collector.log_name),
            ("zone_name", zone.as_str()),
            ("cluster_name", node.cluster.as_str()),
            ("node_name", node.id.as_str()),
        ]);
    }
    labels.extend(collector.resource.iter().map(|(key, value)| (&**key, &**value)));
    let label = |(key, value): (&str, &str)| key_value(key, text_value(value.as_bytes()));
    let resource = Resource { attributes: labels.into_iter().map(label).collect() };
    let scope_logs = vec![ScopeLogs { log_records: records }];
    let logs = ResourceLogs { resource: Some(resource), scope_logs };
    ExportLogsServiceRequest { resource_logs: vec![logs] }
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
