//! What a scripted backend does with one request.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::body::{Body, Step, scripted};

/// An answer under construction.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    headers: HeaderMap,
    head_after: Duration,
    content: Content,
    abort: bool,
}

#[derive(Debug, Clone)]
enum Content {
    Echo,
    Steps(Vec<Step>),
}

/// What an answer comes to.
pub(super) enum Outcome {
    Response(Response<Body>),
    Abort,
}

impl Answer {
    /// 200 with the request as JSON.
    pub fn echo() -> Self {
        Self { content: Content::Echo, ..Self::status(200) }
    }

    /// An empty response with this status.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            head_after: Duration::ZERO,
            content: Content::Steps(Vec::new()),
            abort: false,
        }
    }

    /// Never answers within any test's patience.
    pub fn hang() -> Self {
        Self::status(200).after(Duration::from_secs(3600))
    }

    /// Closes the connection (HTTP/1.1) or resets the stream (HTTP/2) without a response.
    pub fn abort() -> Self {
        Self { abort: true, ..Self::status(200) }
    }

    /// Waits this long before the head.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.head_after = delay;
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    /// The whole body.
    #[must_use]
    pub fn body(self, bytes: impl Into<Bytes>) -> Self {
        self.body_after(Duration::ZERO, bytes)
    }

    /// One more piece of body, `delay` after the one before.
    #[must_use]
    pub fn body_after(self, delay: Duration, bytes: impl Into<Bytes>) -> Self {
        self.step(Step::data(delay, bytes.into()))
    }

    /// Ends the body with a trailer.
    #[must_use]
    pub fn trailer(self, name: &'static str, value: &'static str) -> Self {
        self.step(Step::trailer(name, value))
    }

    /// Breaks off in the middle of the body.
    #[must_use]
    pub fn cut(self) -> Self {
        // Late enough for what came before to be on its way.
        self.step(Step::abort(Duration::from_millis(50)))
    }

    fn step(mut self, step: Step) -> Self {
        match &mut self.content {
            Content::Steps(steps) => steps.push(step),
            Content::Echo => self.content = Content::Steps(vec![step]),
        }
        self
    }

    pub(super) async fn into_outcome(self, name: &str, echo: impl FnOnce() -> String) -> Outcome {
        if !self.head_after.is_zero() {
            tokio::time::sleep(self.head_after).await;
        }
        if self.abort {
            return Outcome::Abort;
        }
        let body = match self.content {
            Content::Echo => scripted(vec![Step::data(Duration::ZERO, echo().into())]),
            Content::Steps(steps) => scripted(steps),
        };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap();
        *response.headers_mut() = self.headers;
        response.headers_mut().insert("x-backend", name.parse().unwrap());
        Outcome::Response(response)
    }
}
