//! A body that a filter can make nothing of.

use http::StatusCode;

use super::local_reply::LocalReply;

/// What is wrong with a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadBody {
    /// `%RESPONSE_CODE_DETAILS%`
    pub details: &'static str,
    /// What the client is told.
    pub answer: &'static str,
}

impl BadBody {
    /// The answer, if there is none yet.
    pub fn reply(self) -> LocalReply {
        LocalReply::new(StatusCode::BAD_REQUEST, self.details).body(self.answer)
    }

    /// The error of the body that a filter makes of it.
    pub fn error(self) -> Broken {
        Broken { body: self, reset: h2::Reason::CANCEL.into() }
    }
}

/// The error of a body that a filter makes of a bad one. It is nobody's fault who gets it: an upstream over HTTP/2
/// sees the stream cancelled.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.body.details)]
pub struct Broken {
    /// What is wrong with it.
    pub body: BadBody,
    #[source]
    reset: h2::Error,
}
