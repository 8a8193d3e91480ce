//! Why no response came from upstream, as Envoy tells it: status, body, flag and details of the local reply.

use std::borrow::Cow;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use crate::http::deadline::Expired;
use crate::http::local_reply::LocalReply;
use crate::net::grpc::Status;
use crate::pool::{Cause, SendError};
use crate::telemetry::response_flags::ResponseFlags;
use crate::upstream::failure::ConnectError;

/// `x-envoy-overloaded`: a circuit breaker answered.
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

/// Why an attempt brought no response.
#[derive(Debug)]
pub enum Failure {
    /// No endpoint may be used.
    NoHost,
    /// The host that the request names is not to be had, for a reason that is Envoy's detail.
    Unresolved(String),
    /// No connection could be had.
    Connect(ConnectError),
    /// The connection brought no response.
    Send(SendError),
    /// A timeout was over first; whether the request had arrived whole by then.
    Expired(Expired, bool),
}

impl Failure {
    /// The flag it leaves.
    pub fn flag(&self) -> ResponseFlags {
        match self {
            Self::NoHost | Self::Unresolved(_) => ResponseFlags::NO_HEALTHY_UPSTREAM,
            Self::Connect(ConnectError::Overflow(_)) => ResponseFlags::UPSTREAM_OVERFLOW,
            Self::Connect(_) => ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
            Self::Send(error) => match error.cause {
                Cause::Closed | Cause::GoAway | Cause::Timeout => {
                    ResponseFlags::UPSTREAM_CONNECTION_TERMINATION
                }
                Cause::Reset | Cause::RefusedStream => ResponseFlags::UPSTREAM_REMOTE_RESET,
                Cause::Protocol => ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
                Cause::RequestBody => ResponseFlags::LOCAL_RESET,
            },
            Self::Expired(expired, _) => match expired {
                Expired::Route | Expired::PerTry => ResponseFlags::UPSTREAM_REQUEST_TIMEOUT,
                Expired::Idle | Expired::PerTryIdle => ResponseFlags::STREAM_IDLE_TIMEOUT,
                Expired::Duration => ResponseFlags::DURATION_TIMEOUT,
                Expired::UpstreamDuration => ResponseFlags::UPSTREAM_MAX_STREAM_DURATION_REACHED,
                Expired::Request => ResponseFlags::default(),
            },
        }
    }

    /// Whether Envoy's router gives the answer to it, and counts it among those of the cluster. Other answers come
    /// from elsewhere, or go to nobody.
    pub fn is_charged(&self) -> bool {
        match self {
            Self::NoHost | Self::Connect(_) => true,
            Self::Unresolved(_) => false,
            Self::Send(error) => error.cause != Cause::RequestBody,
            Self::Expired(expired, _) => {
                matches!(expired, Expired::Route | Expired::PerTry | Expired::PerTryIdle)
            }
        }
    }

    /// Envoy's reason for the reset, if there was one.
    pub fn reset_reason(&self) -> Option<&'static str> {
        match self {
            Self::Connect(error) => Some(error.reset_reason()),
            Self::Send(error) => Some(error.cause.reset_reason()),
            Self::NoHost | Self::Unresolved(_) | Self::Expired(..) => None,
        }
    }

    /// The answer to the client. `retried` says whether this was not the first attempt.
    pub fn reply(&self, retried: bool) -> LocalReply {
        let reply = match self {
            Self::NoHost => LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "no_healthy_upstream")
                .body("no healthy upstream"),
            Self::Unresolved(details) => {
                LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, details.clone())
                    .body("no healthy upstream")
            }
            Self::Connect(error) => {
                reset(error.reset_reason(), error.transport_failure().as_deref(), retried)
            }
            Self::Send(error) => {
                reset(error.cause.reset_reason(), error.transport_failure().as_deref(), retried)
            }
            Self::Expired(expired, arrived) => expiry(*expired, *arrived),
        };
        let flag = self.flag();
        let reply = reply.flag(flag);
        if flag == ResponseFlags::UPSTREAM_OVERFLOW {
            reply.header(OVERLOADED, HeaderValue::from_static("true"))
        } else {
            reply
        }
    }

    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`, if the transport failed.
    pub fn transport(&self) -> Option<String> {
        match self {
            Self::Connect(error) => error.transport_failure(),
            Self::Send(error) => error.transport_failure(),
            _ => None,
        }
    }
}

fn reset(reason: &str, transport: Option<&str>, retried: bool) -> LocalReply {
    let again = if retried { "retried and the latest " } else { "" };
    let body = format!(
        "upstream connect error or disconnect/reset before headers. {again}reset reason: {reason}"
    );
    let because = transport.map(|text| format!("|{text}")).unwrap_or_default();
    let details = format!("upstream_reset_before_response_started{{{reason}{because}}}");
    let status = match reason {
        "protocol error" => StatusCode::BAD_GATEWAY,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    LocalReply::new(status, details.replace(char::is_whitespace, "_")).body(body)
}

fn expiry(expired: Expired, arrived: bool) -> LocalReply {
    // A client that was still sending is the slow one.
    let blamed = if arrived { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::REQUEST_TIMEOUT };
    let (status, body, details): (_, _, Cow<'static, str>) = match expired {
        Expired::Route => {
            (StatusCode::GATEWAY_TIMEOUT, "upstream request timeout", "response_timeout".into())
        }
        Expired::PerTry => (
            StatusCode::GATEWAY_TIMEOUT,
            "upstream request timeout",
            "upstream_per_try_timeout".into(),
        ),
        Expired::PerTryIdle => (
            StatusCode::GATEWAY_TIMEOUT,
            "upstream request timeout",
            "upstream_per_try_idle_timeout".into(),
        ),
        Expired::Idle => (blamed, "stream timeout", "stream_idle_timeout".into()),
        Expired::Request => {
            (StatusCode::REQUEST_TIMEOUT, "request timeout", "request_overall_timeout".into())
        }
        Expired::Duration => (blamed, "downstream duration timeout", "max_duration_timeout".into()),
        Expired::UpstreamDuration => (
            blamed,
            "upstream max stream duration reached",
            "upstream_max_stream_duration_reached".into(),
        ),
    };
    let reply = LocalReply::new(status, details).body(body);
    match expired {
        // The client's own limit, as far as it knows.
        Expired::Duration => reply.grpc_status(Status::DEADLINE_EXCEEDED),
        _ => reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::failure::Limit;

    #[test]
    fn a_refused_connection_reads_as_envoys() {
        let failure = Failure::Connect(ConnectError::Unreachable("Connection refused".to_owned()));
        let reply = failure.reply(false);
        assert_eq!(reply.status, 503);
        assert_eq!(
            reply.body,
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection \
             failure"
        );
        assert_eq!(
            reply.details,
            "upstream_reset_before_response_started{remote_connection_failure|\
             delayed_connect_error:_Connection_refused}"
        );
        assert!(failure.reply(true).body.starts_with(
            b"upstream connect error or disconnect/reset before headers. retried and the latest reset"
        ));
    }

    #[test]
    fn an_open_breaker_says_so_in_a_header() {
        let failure = Failure::Connect(ConnectError::Overflow(Limit::Requests));
        let reply = failure.reply(false);
        assert_eq!(reply.headers[OVERLOADED], "true");
        assert!(reply.flags.contains(ResponseFlags::UPSTREAM_OVERFLOW));
    }

    #[test]
    fn a_client_that_is_still_sending_is_told_that_it_is_slow() {
        assert_eq!(Failure::Expired(Expired::Idle, false).reply(false).status, 408);
        assert_eq!(Failure::Expired(Expired::Idle, true).reply(false).status, 504);
    }
}
