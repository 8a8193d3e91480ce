//! Expressions as Envoy 1.40 evaluates them.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::format::{Facts, GrpcStatusStyle, Operator};
use crate::config::matcher::HeaderRef;
use crate::config::metadata::{Metadata, MetadataOf};

/// A request that was answered with 503 in 1.5 ms.
struct Request;

impl Facts for Request {
    fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        let text = match operator {
            Operator::Req(choice) => match &choice.first {
                HeaderRef::Path => "/p/q?a=b",
                HeaderRef::Method => "GET",
                HeaderRef::Named(name) if name == "x-debug" => "yes",
                HeaderRef::Named(name) if name == "content-length" => "7",
                _ => return false,
            },
            Operator::Resp(choice) => match &choice.first {
                HeaderRef::Named(name) if name == "x-answer" => "42",
                _ => return false,
            },
            Operator::ResponseCode => "503",
            Operator::ResponseFlagsNumber => "8",
            Operator::GrpcStatus(GrpcStatusStyle::Number) => "14",
            Operator::StartTime(format) => {
                let start = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_500);
                format.write(start, out);
                return true;
            }
            Operator::CommonDuration { .. } => "1500000",
            Operator::DownstreamRemoteAddress => "10.0.0.1:80",
            Operator::UpstreamHost => "[::1]:8080",
            Operator::ConnectionId => "3",
            _ => return false,
        };
        out.extend_from_slice(text.as_bytes());
        true
    }

    fn with_filter_state(&self, key: &str, read: &mut dyn FnMut(&serde_json::Value)) {
        if key == "k" {
            read(&json!("state"));
        }
    }

    fn with_metadata(&self, of: MetadataOf, read: &mut dyn FnMut(&Metadata)) {
        if of == MetadataOf::Route {
            let mut metadata = Metadata::default();
            let values = json!({"x": "route", "n": 1.5, "l": [1, "a"]});
            metadata.set("a.b", values.as_object().cloned().unwrap());
            read(&metadata);
        }
    }
}

fn holds(text: &str) -> bool {
    Expression::parse(text).unwrap().holds(&Request)
}

#[test]
fn attributes_are_read_in_their_types() {
    for text in [
        "response.code >= 400 || 'x-debug' in request.headers",
        "response.code == 503",
        "request.headers['X-Debug'] == 'yes'",
        "'X-DEBUG' in request.headers",
        "request['path'].startsWith('/p')",
        "request.path.matches('^/p.*b$') && size(request.method) == 3",
        "has(request.path) && !has(request.referer)",
        "request.size == 7",
        "response.headers['x-answer'] == '42' && !('x-none' in response.headers)",
        "response.flags == 8 && response.grpc_status == 14",
        "request.duration > duration('1ms') && request.duration < duration('1s')",
        "request.time == timestamp('1970-01-01T00:00:01.500Z')",
        "source.address == '10.0.0.1:80' && upstream.port == 8080",
        "connection.id == 3u && connection.mtls == false",
        "connection.requested_server_name == ''",
        "xds.route_metadata.filter_metadata['a.b']['x'] == 'route'",
        "xds.route_metadata.filter_metadata['a.b'].n > 1.0",
        "xds.route_metadata.filter_metadata['a.b'].l[1] == 'a'",
        "filter_state['k'] == b'state'",
        "!('a' in metadata.filter_metadata)",
        // One side that cannot be evaluated does not matter where the other decides.
        "request.referer == 'x' || true",
        "!(false && request.referer == 'x')",
    ] {
        assert!(holds(text), "{text}");
    }
}

#[test]
fn what_is_absent_or_no_truth_value_does_not_hold() {
    for text in [
        "request.referer == 'x'",
        "request.referer != 'x'",
        "request.headers['x-none'] == ''",
        "xds.cluster_metadata.filter_metadata['a'].x == 'a'",
        "response.code",
        "request.path > 3",
        "response.code / 0 == 1",
    ] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn what_cannot_be_read_or_called_is_refused() {
    for (text, reason) in [
        ("request.nope == 1", "there is no attribute `request.nope`"),
        ("nope", "there is no attribute `nope`"),
        ("size(request) > 0", "`request` is not readable as a whole"),
        ("size(request.headers) > 0", "`request.headers` is readable only by names"),
        ("request.headers[request.path] == ''", "`request.headers` is readable only by names"),
        ("[1].exists(it, it == 1)", "comprehensions are not supported"),
        ("f(1)", "there is no function f"),
        ("request.path.f()", "there is no function f"),
        ("request.headers['x y'] == ''", "`x y` is no header name"),
        ("1 +", "is no CEL expression"),
        ("", "is no CEL expression"),
    ] {
        let said = Expression::parse(text).unwrap_err();
        assert!(said.contains(reason), "{text}: {said}");
    }
}

#[test]
fn values_are_printed_as_envoy_does() {
    for (text, printed, json) in [
        ("request.path", Some("/p/q?a=b"), Some(json!("/p/q?a=b"))),
        ("response.code", Some("503"), Some(json!(503))),
        ("response.code > 3", Some("true"), Some(json!(true))),
        ("request.time", Some("1970-01-01T00:00:01.500+00:00"), None),
        ("request.duration", Some("1.5ms"), Some(json!("1.5ms"))),
        ("1.5", Some("1.5"), Some(json!(1.5))),
        ("[1]", Some("CelList value"), None),
        ("request.referer", None, None),
        ("null", None, None),
    ] {
        let expression = Expression::parse(text).unwrap();
        let mut out = Vec::new();
        let present = expression.write(&Request, &mut out);
        assert_eq!(present.then(|| String::from_utf8(out).unwrap()).as_deref(), printed, "{text}");
        if json.is_some() || printed.is_none() {
            assert_eq!(expression.json(&Request), json, "{text}");
        }
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "[a-z.'\\[\\]()<>=!&|0-9 +*?:-]{0,40}") {
        if let Ok(expression) = Expression::parse(&text) {
            let _ = expression.holds(&Request);
        }
    }
}
