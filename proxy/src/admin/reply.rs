//! Answers in the forms Envoy gives them.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

/// An answer of the admin API.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    content_type: &'static str,
    body: String,
}

impl Reply {
    /// Plain text.
    pub(super) fn text(body: impl Into<String>) -> Self {
        let content_type = "text/plain; charset=UTF-8";
        Self { status: StatusCode::OK, content_type, body: body.into() }
    }

    /// What POST endpoints say when there is nothing else to say.
    pub(super) fn ok() -> Self {
        Self::text("OK\n")
    }

    /// JSON as it stands.
    pub(super) fn raw_json(body: String) -> Self {
        Self { content_type: "application/json", ..Self::text(body) }
    }

    /// JSON, indented by one space as Envoy does.
    pub(super) fn json(value: &impl Serialize) -> Self {
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
        let mut body = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut body, formatter);
        // Plain data with string keys cannot fail to be written to memory.
        let _ = value.serialize(&mut serializer);
        body.push(b'\n');
        Self::raw_json(String::from_utf8_lossy(&body).into_owned())
    }

    /// HTML.
    pub(super) fn html(body: String) -> Self {
        Self { content_type: "text/html; charset=UTF-8", ..Self::text(body) }
    }

    /// The same with another status.
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The same with another content type.
    pub(super) fn with_content_type(self, content_type: &'static str) -> Self {
        Self { content_type, ..self }
    }

    /// The caller asked for something that cannot be.
    pub(super) fn bad_request(reason: impl Into<String>) -> Self {
        Self::text(reason).with_status(StatusCode::BAD_REQUEST)
    }

    /// The answer could not be made: a fault of the proxy.
    pub(super) fn failed() -> Self {
        Self::text("internal error, see the log\n").with_status(StatusCode::INTERNAL_SERVER_ERROR)
    }

    #[cfg(test)]
    pub(super) fn body(&self) -> &str {
        &self.body
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}
