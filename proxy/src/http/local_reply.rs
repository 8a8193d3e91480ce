//! Responses the proxy itself makes, with Envoy's statuses, bodies, flags and details.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, Response, StatusCode};

use crate::telemetry::response_flags::ResponseFlags;

/// A response that no upstream made.
#[derive(Debug, Clone)]
pub struct LocalReply {
    /// Its status; gRPC requests see 200 and the status mapped to `grpc-status`.
    pub status: StatusCode,
    /// Its body, plain text unless `headers` say otherwise.
    pub body: Bytes,
    /// What went wrong.
    pub flags: ResponseFlags,
    /// `%RESPONSE_CODE_DETAILS%`
    pub details: Cow<'static, str>,
    /// Headers beside the body's.
    pub headers: HeaderMap,
    /// What gRPC clients see in place of the status mapped.
    pub grpc_status: Option<u32>,
}

impl LocalReply {
    /// An empty response.
    pub fn new(status: StatusCode, details: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            body: Bytes::new(),
            flags: ResponseFlags::default(),
            details: details.into(),
            headers: HeaderMap::new(),
            grpc_status: None,
        }
    }

    /// With a status for gRPC clients.
    #[must_use]
    pub fn grpc_status(mut self, status: u32) -> Self {
        self.grpc_status = Some(status);
        self
    }

    /// With a plain-text body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// With a flag.
    #[must_use]
    pub fn flag(mut self, flags: ResponseFlags) -> Self {
        self.flags.insert(flags);
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// A redirect to `location`; a location that is no header value makes it a 500.
    pub fn redirect(status: StatusCode, location: &str) -> Self {
        match HeaderValue::from_str(location) {
            Ok(location) => Self::new(status, "direct_response").header(LOCATION, location),
            Err(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "direct_response"),
        }
    }

    /// The response, shaped for a gRPC client if `grpc`. A response to HEAD keeps its length and loses its body.
    pub fn into_response(self, grpc: bool, head: bool) -> Response<Bytes> {
        let Self { status, body, mut headers, grpc_status, .. } = self;
        if grpc {
            let status = grpc_status.unwrap_or_else(|| mapped(status));
            return grpc_response(status, &body, headers);
        }
        if !body.is_empty() {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain"));
        } else if !status.is_informational() && status != StatusCode::NO_CONTENT {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut response = Response::new(if head { Bytes::new() } else { body });
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// A trailers-only gRPC response (gRPC over HTTP/2, "Responses").
fn grpc_response(status: u32, body: &[u8], mut headers: HeaderMap) -> Response<Bytes> {
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(status));
    if !body.is_empty()
        && let Ok(message) = HeaderValue::from_str(&percent_encode(body))
    {
        headers.insert("grpc-message", message);
    }
    let mut response = Response::new(Bytes::new());
    *response.headers_mut() = headers;
    response
}

/// The gRPC status for an HTTP status (gRPC, "HTTP to gRPC Status Code Mapping").
pub fn mapped(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// `grpc-message` encoding: printable ASCII but `%` as it is, anything else as `%XX`.
fn percent_encode(text: &[u8]) -> String {
    text.iter().fold(String::with_capacity(text.len()), |mut encoded, &byte| {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_clients_get_the_text_and_its_length() {
        let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "no_healthy_upstream");
        let response = reply.body("no healthy upstream").into_response(false, false);
        assert_eq!(response.headers()[CONTENT_LENGTH], "19");
        assert_eq!(response.headers()[CONTENT_TYPE], "text/plain");
        assert_eq!(&response.body()[..], b"no healthy upstream");
    }

    #[test]
    fn grpc_clients_get_a_status_they_understand() {
        let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "x").body("50% up\n");
        let response = reply.into_response(true, false);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["grpc-message"], "50%25 up%0A");
        assert!(response.body().is_empty());
    }

    #[test]
    fn a_head_request_sees_the_length_but_no_body() {
        let response = LocalReply::new(StatusCode::OK, "x").body("four").into_response(false, true);
        assert_eq!(response.headers()[CONTENT_LENGTH], "4");
        assert!(response.body().is_empty());
    }
}
