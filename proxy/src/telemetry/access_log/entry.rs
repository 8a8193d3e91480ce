//! Entries for an `AccessLogService`, made of the same facts as lines are.

mod properties;

use xds::envoy::config::core::v3::RequestMethod;
use xds::envoy::data::accesslog::v3::http_access_log_entry::HttpVersion;
use xds::envoy::data::accesslog::v3::{
    ConnectionProperties, HttpAccessLogEntry, HttpRequestProperties, HttpResponseProperties,
    TcpAccessLogEntry,
};

use super::Event;
use crate::config::access_log::{Entry, ResponseHeader};
use crate::config::format::{Facts as _, Operator};
use crate::config::matcher::{HeaderRef, RequestHead};
use crate::telemetry::custom_tag::text;

/// What is said of `event` as of a request. `nanoseconds` writes a time as nanoseconds since 1970.
pub(super) fn http(entry: &Entry, event: &Event<'_>, nanoseconds: &Operator) -> HttpAccessLogEntry {
    let protocol = match event.text(&Operator::Protocol).as_str() {
        "HTTP/1.0" => HttpVersion::Http10,
        "HTTP/1.1" => HttpVersion::Http11,
        "HTTP/2" => HttpVersion::Http2,
        _ => HttpVersion::ProtocolUnspecified,
    };
    HttpAccessLogEntry {
        common_properties: Some(properties::common(&entry.extras, event, nanoseconds)),
        protocol_version: protocol.into(),
        request: Some(request(entry, event)),
        response: Some(response(entry, event)),
    }
}

/// What is said of `event` as of a connection.
pub(super) fn tcp(entry: &Entry, event: &Event<'_>, nanoseconds: &Operator) -> TcpAccessLogEntry {
    TcpAccessLogEntry {
        common_properties: Some(properties::common(&entry.extras, event, nanoseconds)),
        connection_properties: Some(ConnectionProperties {
            received_bytes: event.number(&Operator::BytesReceived),
            sent_bytes: event.number(&Operator::BytesSent),
        }),
    }
}

fn request(entry: &Entry, event: &Event<'_>) -> HttpRequestProperties {
    let properties = HttpRequestProperties {
        request_body_bytes: event.number(&Operator::BytesReceived),
        request_headers_bytes: event.number(&Operator::RequestHeadersBytes),
        ..HttpRequestProperties::default()
    };
    let Some(head) = event.facts.request() else { return properties };
    let header = |name: &'static str| {
        let value = head.headers.get(name);
        value.map(|value| text(value.as_bytes())).unwrap_or_default()
    };
    let wanted = entry.request_headers.iter();
    let told = |(key, header): &(_, HeaderRef)| told(key, header, &head);
    HttpRequestProperties {
        request_method: RequestMethod::from_str_name(head.method.as_str())
            .unwrap_or_default()
            .into(),
        scheme: head.scheme.to_owned(),
        authority: head.authority.to_owned(),
        path: head.path_and_query.to_owned(),
        user_agent: header("user-agent"),
        referer: header("referer"),
        forwarded_for: header("x-forwarded-for"),
        request_id: header("x-request-id"),
        original_path: header("x-envoy-original-path"),
        request_headers: wanted.filter_map(told).collect(),
        ..properties
    }
}

fn told(
    key: &crate::config::Name,
    header: &HeaderRef,
    head: &RequestHead<'_>,
) -> Option<(String, String)> {
    Some((key.to_string(), text(&header.value(head)?)))
}

fn response(entry: &Entry, event: &Event<'_>) -> HttpResponseProperties {
    let code = event.facts.response_code();
    let headers = entry.response_headers.iter().filter_map(|header| match header {
        ResponseHeader::Status => (code > 0).then(|| (":status".to_owned(), code.to_string())),
        ResponseHeader::Named(name) => {
            Some((name.to_string(), text(&event.facts.response_header(name)?)))
        }
    });
    let trailers = entry.response_trailers.iter();
    let trailer =
        |name| Some((ToString::to_string(name), text(&event.facts.response_trailer(name)?)));
    HttpResponseProperties {
        response_code: (code > 0).then(|| code.into()),
        response_headers_bytes: event.number(&Operator::ResponseHeadersBytes),
        response_body_bytes: event.number(&Operator::BytesSent),
        response_headers: headers.collect(),
        response_trailers: trailers.filter_map(trailer).collect(),
        response_code_details: event.text(&Operator::ResponseCodeDetails),
    }
}

impl Event<'_> {
    /// What `operator` says; empty if nothing.
    fn text(&self, operator: &Operator) -> String {
        let mut out = Vec::new();
        self.write(operator, &mut out);
        text(&out)
    }

    /// What `operator` says, which is a number; 0 if nothing.
    fn number(&self, operator: &Operator) -> u64 {
        self.text(operator).parse().unwrap_or(0)
    }
}
