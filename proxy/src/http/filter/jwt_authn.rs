//! `jwt_authn`: lets requests through that carry the tokens they need, and tells others what the tokens say.

mod check;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, StatusCode};

use super::passage::Passage;
use super::{Memory, Stopped};
use crate::config::http_filter::FilterRule;
use crate::config::jwt::{JwtAuthn, Requirement, RouteRequirement};
use crate::http::local_reply::LocalReply;
use crate::http::stream::Head;
use crate::jwt::Failure;
use crate::route;
use check::Check;

/// The part of a path that is told who lacks a token, in bytes.
const LONGEST_REALM: usize = 256;

/// Checks the tokens of a request.
///
/// # Errors
/// The answer to a request without the tokens that it needs.
pub(super) async fn request(
    config: &JwtAuthn,
    filter: &str,
    request: &mut Passage<'_>,
) -> Result<Memory, Stopped> {
    let stats = request.stream.connection.worker.filter_stats.jwt_authn(&config.stats);
    if config.bypass_cors_preflight && is_preflight(request.head()) {
        stats.cors_preflight_bypassed.inc();
        stats.allowed.inc();
        return Ok(Memory::Nothing);
    }
    let requirement = match requirement(config, filter, request) {
        Ok(requirement) => requirement,
        Err(unknown) => {
            stats.denied.inc();
            return Err(Stopped::Reply(Box::new(misconfigured(config, &unknown))));
        }
    };
    let verdict = match requirement {
        None | Some(Requirement::Nothing) => Ok(()),
        Some(requirement) => Check::new(config, &stats, request).run(requirement).await,
    };
    match verdict {
        Ok(()) => {
            stats.allowed.inc();
            Ok(Memory::Nothing)
        }
        Err(failure) => {
            stats.denied.inc();
            Err(Stopped::Reply(Box::new(denied(config, failure, request.head()))))
        }
    }
}

fn is_preflight(head: &Head) -> bool {
    let has = |name| head.headers.get(name).is_some_and(|value: &HeaderValue| !value.is_empty());
    head.method == Method::OPTIONS && has(ORIGIN) && has(ACCESS_CONTROL_REQUEST_METHOD)
}

/// What a request needs: as its route says, or the first rule that fits. An error is the name of a requirement that
/// there is not.
fn requirement<'a>(
    config: &'a JwtAuthn,
    filter: &str,
    request: &Passage<'_>,
) -> Result<Option<&'a Requirement>, Box<str>> {
    let said = request.said().to(filter).find_map(|rule| match rule {
        FilterRule::JwtAuthn(requirement) => Some(requirement),
        _ => None,
    });
    match said {
        Some(RouteRequirement::Nothing) => return Ok(None),
        Some(RouteRequirement::Named(name)) => {
            return config.named.get(name).map(Some).ok_or_else(|| name.clone());
        }
        None => {}
    }
    let head = request.head().view();
    let mut rules = config.rules.iter();
    if let Some((_, requirement)) = rules.find(|(conditions, _)| route::holds(conditions, &head)) {
        return Ok(Some(requirement));
    }
    let Some((name, requirements)) = &config.by_filter_state else { return Ok(None) };
    let dynamic = request.stream.dynamic();
    Ok(dynamic.text(name).and_then(|value| requirements.get(value)))
}

fn denied(config: &JwtAuthn, failure: Failure, head: &Head) -> LocalReply {
    let text = failure.text();
    let details = format!("jwt_authn_access_denied{{{}}}", text.replace(' ', "_"));
    let reply = LocalReply::new(failure.status(), details);
    if config.strip_failure_response {
        return reply;
    }
    let Head { scheme, authority, path, .. } = head;
    let path = path.get(..LONGEST_REALM).unwrap_or(path);
    let error = if failure == Failure::Missing { "" } else { ", error=\"invalid_token\"" };
    let challenge = format!("Bearer realm=\"{scheme}://{authority}{path}\"{error}");
    let reply = reply.body(text);
    match HeaderValue::try_from(challenge) {
        Ok(challenge) => reply.header(WWW_AUTHENTICATE, challenge),
        Err(_) => reply,
    }
}

fn misconfigured(config: &JwtAuthn, unknown: &str) -> LocalReply {
    let names: Vec<&str> = config.named.keys().map(AsRef::as_ref).collect();
    let names = names.join(",");
    let reason = format!("Wrong requirement_name: {unknown}. It should be one of [{names}]");
    let details = format!("jwt_authn_access_denied{{{}}}", reason.replace(' ', "_"));
    let reply = LocalReply::new(StatusCode::FORBIDDEN, details);
    match config.strip_failure_response {
        true => reply,
        false => reply.body(format!("Failed JWT authentication: {reason}")),
    }
}
