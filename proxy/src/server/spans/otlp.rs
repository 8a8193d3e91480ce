//! Spans in OTLP.

use std::time::SystemTime;

use xds::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use xds::opentelemetry::proto::common::v1::any_value::Value;
use xds::opentelemetry::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use xds::opentelemetry::proto::resource::v1::Resource;
use xds::opentelemetry::proto::trace::v1::span::{Event, SpanKind};
use xds::opentelemetry::proto::trace::v1::status::StatusCode;
use xds::opentelemetry::proto::trace::v1::{self as proto, ResourceSpans, ScopeSpans};

use crate::telemetry::trace::span::{Kind, Span, tag};

/// The method that takes spans.
pub(super) const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// That it is known whether the parent is of another process.
const HAS_IS_REMOTE: u32 = 0x100;

/// A request that reports `spans` of a process that `resource` describes.
pub(super) fn request(
    resource: &[(Box<str>, Box<str>)],
    spans: &[Span],
) -> ExportTraceServiceRequest {
    let attributes = resource.iter().map(|(key, value)| attribute(key, value)).collect();
    let scope = InstrumentationScope {
        name: "outrigger".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let spans = spans.iter().map(span).collect();
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans }],
        }],
    }
}

fn span(span: &Span) -> proto::Span {
    let Span { name, kind, context, trace_state, start, end, tags, events } = span;
    let parent = context.parent_id.map(|id| id.to_be_bytes().to_vec());
    proto::Span {
        trace_id: context.trace_id.to_be_bytes().to_vec(),
        span_id: context.span_id.to_be_bytes().to_vec(),
        trace_state: trace_state.clone(),
        parent_span_id: parent.unwrap_or_default(),
        name: name.clone(),
        kind: match kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
        }
        .into(),
        start_time_unix_nano: nanos(*start),
        end_time_unix_nano: nanos(*end),
        attributes: tags.iter().map(|(key, value)| attribute(key, value)).collect(),
        events: events
            .iter()
            .map(|(at, name)| Event { time_unix_nano: nanos(*at), name: (*name).to_owned() })
            .collect(),
        status: Some(proto::Status {
            code: if failed(span) { StatusCode::Error } else { StatusCode::Unset }.into(),
        }),
        flags: u32::from(context.sampled) | HAS_IS_REMOTE,
    }
}

/// Whether a span counts as failed (OpenTelemetry's semantic conventions for HTTP and gRPC): what is no fault of a
/// server is one of its client.
fn failed(span: &Span) -> bool {
    let code = |name| span.tags.get(name).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    let (http, grpc) = (code(tag::STATUS), code(tag::GRPC_STATUS));
    match span.kind {
        Kind::Server => http >= 500 || matches!(grpc, 2 | 4 | 12..=15),
        Kind::Client => http >= 400 || grpc != 0,
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value) }
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::trace::context::TraceContext;
    use crate::telemetry::trace::span::Tags;

    fn example(kind: Kind, tags: &[(&'static str, &'static str)]) -> Span {
        let mut all = Tags::default();
        tags.iter().for_each(|(name, value)| all.set(*name, *value));
        Span {
            name: "ingress".to_owned(),
            kind,
            context: TraceContext { trace_id: 1, span_id: 2, parent_id: Some(3), sampled: true },
            trace_state: "a=b".to_owned(),
            start: SystemTime::UNIX_EPOCH + Duration::from_nanos(7),
            end: SystemTime::UNIX_EPOCH + Duration::from_nanos(9),
            tags: all,
            events: vec![(SystemTime::UNIX_EPOCH, "first")],
        }
    }

    #[test]
    fn a_span_is_told_whole() {
        let resource = [("service.name".into(), "svc".into())];
        let request = request(&resource, &[example(Kind::Server, &[("component", "proxy")])]);
        let ResourceSpans { resource, scope_spans } = &request.resource_spans[0];
        assert_eq!(resource.as_ref().unwrap().attributes, [attribute("service.name", "svc")]);
        let span = &scope_spans[0].spans[0];
        assert_eq!(span.trace_id, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(span.span_id, [0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(span.parent_span_id, [0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (7, 9));
        assert_eq!((span.kind, span.flags, &*span.trace_state), (2, 0x101, "a=b"));
        assert_eq!(span.attributes, [attribute("component", "proxy")]);
        assert_eq!(span.events[0].name, "first");
    }

    /// As Envoy 1.40 judges.
    #[test]
    fn clients_fail_where_servers_only_refuse() {
        let failed = |kind, name, value| failed(&example(kind, &[(name, value)]));
        for (name, value, server, client) in [
            (tag::STATUS, "200", false, false),
            (tag::STATUS, "0", false, false),
            (tag::STATUS, "404", false, true),
            (tag::STATUS, "503", true, true),
            (tag::GRPC_STATUS, "0", false, false),
            (tag::GRPC_STATUS, "7", false, true),
            (tag::GRPC_STATUS, "8", false, true),
            (tag::GRPC_STATUS, "14", true, true),
        ] {
            assert_eq!(failed(Kind::Server, name, value), server, "{name} {value}");
            assert_eq!(failed(Kind::Client, name, value), client, "{name} {value}");
        }
    }
}
