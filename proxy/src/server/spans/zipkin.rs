//! Spans in Zipkin's JSON, version 2.

use std::net::IpAddr;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::telemetry::trace::Identity;
use crate::telemetry::trace::span::{Kind, Span};

/// The report of `spans` of the process that is `identity`; `shared` says whether spans of servers may have the id
/// of their client's.
pub(super) fn report(identity: &Identity, spans: &[Span], shared: bool) -> String {
    let spans: Vec<Value> = spans.iter().map(|it| span(identity, it, shared)).collect();
    Value::from(spans).to_string()
}

fn span(identity: &Identity, span: &Span, shared: bool) -> Value {
    let Span { name, kind, context, trace_state: _, start, end, tags, events } = span;
    let (kind, ended) = match kind {
        Kind::Server => ("SERVER", "ss"),
        Kind::Client => ("CLIENT", "cr"),
    };
    let note = |at: SystemTime, value: &str| json!({"timestamp": micros(at), "value": value});
    let mut notes: Vec<Value> = events.iter().map(|(at, value)| note(*at, value)).collect();
    notes.push(note(*end, ended));
    // A tag without a value is none.
    let tags: Map<String, Value> = tags
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    let mut told = json!({
        "traceId": context.short_trace_id(),
        "id": format!("{:016x}", context.span_id),
        "kind": kind,
        "timestamp": micros(*start),
        "duration": end.duration_since(*start).map_or(0, |spent| spent.as_micros() as u64),
        "localEndpoint": endpoint(identity),
        "annotations": notes,
        "tags": tags,
    });
    if let Some(told) = told.as_object_mut() {
        if let Some(parent) = context.parent_id {
            told.insert("parentId".to_owned(), format!("{parent:016x}").into());
        }
        if !name.is_empty() {
            told.insert("name".to_owned(), name.as_str().into());
        }
        if shared && kind == "SERVER" {
            told.insert("shared".to_owned(), true.into());
        }
    }
    told
}

fn endpoint(identity: &Identity) -> Value {
    let mut endpoint = Map::new();
    let family = if matches!(identity.address, IpAddr::V4(_)) { "ipv4" } else { "ipv6" };
    endpoint.insert(family.to_owned(), identity.address.to_string().into());
    endpoint.insert("port".to_owned(), 0.into());
    if !identity.cluster.is_empty() {
        endpoint.insert("serviceName".to_owned(), (*identity.cluster).into());
    }
    endpoint.into()
}

fn micros(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::trace::context::TraceContext;
    use crate::telemetry::trace::span::Tags;

    #[test]
    fn a_span_is_told_whole() {
        let mut tags = Tags::default();
        tags.set("component", "proxy");
        tags.set("zone", "");
        let span = Span {
            name: "a.example".to_owned(),
            kind: Kind::Server,
            context: TraceContext { trace_id: 1, span_id: 2, parent_id: Some(3), sampled: true },
            trace_state: String::new(),
            start: SystemTime::UNIX_EPOCH + Duration::from_micros(7),
            end: SystemTime::UNIX_EPOCH + Duration::from_micros(9),
            tags,
            events: Vec::new(),
        };
        let identity = Identity {
            node: "n".into(),
            cluster: "c".into(),
            zone: "".into(),
            address: IpAddr::from([192, 0, 2, 2]),
        };
        let told: Value = serde_json::from_str(&report(&identity, &[span], true)).unwrap();
        let wanted = json!([{
            "traceId": "0000000000000001",
            "id": "0000000000000002",
            "parentId": "0000000000000003",
            "kind": "SERVER",
            "shared": true,
            "name": "a.example",
            "timestamp": 7,
            "duration": 2,
            "localEndpoint": {"ipv4": "192.0.2.2", "port": 0, "serviceName": "c"},
            "annotations": [{"timestamp": 9, "value": "ss"}],
            "tags": {"component": "proxy"},
        }]);
        assert_eq!(told, wanted);
    }
}
