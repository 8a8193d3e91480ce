//! `buffer`: forwards requests only once they have arrived whole.

use http::header::CONTENT_LENGTH;
use http::{HeaderValue, StatusCode};
use http_body::Body as _;

use super::Stopped;
use super::passage::Passage;
use crate::config::http_filter::FilterRule;
use crate::http::local_reply::LocalReply;
use crate::http::request_body::Kept;

/// Waits for the request's body, of which there may be `own` bytes, unless its route says otherwise.
///
/// # Errors
/// The answer to a request that is too large, or that breaks off.
pub(super) async fn request(
    own: u32,
    filter: &str,
    request: &mut Passage<'_>,
) -> Result<(), Stopped> {
    let rule = request.said().to(filter).find_map(|rule| match rule {
        FilterRule::Buffer(rule) => Some(*rule),
        _ => None,
    });
    let Some(limit) = rule.unwrap_or(Some(own)) else { return Ok(()) };
    if request.body.is_end_stream() {
        return Ok(());
    }
    let stop = |reply: LocalReply| Err(Stopped::Reply(Box::new(reply)));
    match request.body.keep(limit.into()).await {
        Ok(Kept::Whole) => {
            let length = request.body.kept_length();
            if !request.head().headers.contains_key(CONTENT_LENGTH) {
                let length = HeaderValue::from(length);
                request.head_mut().headers.insert(CONTENT_LENGTH, length);
            }
            Ok(())
        }
        Ok(Kept::Beginning) => {
            request.stream.served.stats.downstream_rq_too_large.inc();
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            let reply = LocalReply::new(status, "request_payload_too_large");
            stop(reply.body("Payload Too Large"))
        }
        Err(_) if let Some(bad) = request.stream.bad_body() => stop(bad.reply()),
        Err(error) => {
            tracing::debug!(%error, "a request broke off");
            stop(LocalReply::new(StatusCode::BAD_REQUEST, "http1.codec_error"))
        }
    }
}
