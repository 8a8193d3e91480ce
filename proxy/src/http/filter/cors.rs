//! `cors`: answers a browser's question whether a page of another origin may make a request, and tells it whether the
//! page may see the response.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::passage::Passage;
use super::{Memory, Stopped};
use crate::config::http_filter::{CorsPolicy, FilterRule};
use crate::config::matcher::Fraction;
use crate::http::local_reply::LocalReply;
use crate::route::Said;

const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// Everything that is said to one filter. Of each thing that several levels say the most specific counts.
struct Policies<'a> {
    filter: &'a str,
    said: Said<'a>,
}

impl<'a> Policies<'a> {
    fn all(&self) -> impl Iterator<Item = &'a CorsPolicy> {
        self.said.to(self.filter).filter_map(|rule| match rule {
            FilterRule::Cors(policy) => Some(policy),
            _ => None,
        })
    }

    fn text(&self, field: fn(&CorsPolicy) -> Option<&HeaderValue>) -> Option<&'a HeaderValue> {
        self.all().find_map(field)
    }

    fn flag(&self, field: fn(&CorsPolicy) -> Option<bool>) -> Option<bool> {
        self.all().find_map(field)
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let mut all = self.all().map(|policy| &policy.allow_origins);
        let origins = all.find(|origins| !origins.is_empty());
        let matches =
            |value: &[u8]| origins.is_some_and(|it| it.iter().any(|it| it.matches(value)));
        matches(b"*") || matches(origin.as_bytes())
    }
}

/// Looks at a request's origin, and answers a preflight.
///
/// # Errors
/// The answer to a preflight.
pub(super) fn request(filter: &str, request: &Passage<'_>) -> Result<Memory, Stopped> {
    let (stream, head) = (request.stream, request.head());
    let policies = Policies { filter, said: request.said() };
    let Some(policy) = policies.all().next().filter(|_| request.cluster().is_some()) else {
        return Ok(Memory::Nothing);
    };
    let worker = &stream.connection.worker;
    let takes = |share: &Fraction| share.takes(worker.random());
    let enabled = policy.enabled.as_ref().is_none_or(takes);
    if !enabled && !policy.shadow_enabled.as_ref().is_some_and(takes) {
        return Ok(Memory::Nothing);
    }
    let Some(origin) = head.headers.get(ORIGIN).filter(|origin| !origin.is_empty()) else {
        return Ok(Memory::Nothing);
    };
    let allowed = policies.allows(origin);
    let stats = worker.filter_stats.cors(&stream.served.config().stat_prefix);
    let counter = if allowed { &stats.origin_valid } else { &stats.origin_invalid };
    counter.inc();
    if !enabled {
        return Ok(Memory::Nothing);
    }
    let wanted = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|it| !it.is_empty());
    let forwards = || policies.flag(|it| it.forward_not_matching_preflights).unwrap_or(true);
    match wanted.filter(|_| head.method == Method::OPTIONS) {
        Some(method) if allowed || !forwards() => {
            let origin = Some(origin).filter(|_| allowed);
            Err(Stopped::Response(Box::new(preflight(&policies, origin, method, &head.headers))))
        }
        _ => Ok(Memory::Cors(Some(origin.clone()).filter(|_| allowed))),
    }
}

/// The answer to the preflight of a request with `method`, from `origin` if that is allowed.
fn preflight(
    policies: &Policies<'_>,
    origin: Option<&HeaderValue>,
    method: &HeaderValue,
    asked: &HeaderMap,
) -> LocalReply {
    let mut reply = LocalReply::new(StatusCode::OK, "cors_response");
    let headers = &mut reply.headers;
    if let Some(origin) = origin {
        allow(policies, origin, headers);
    }
    if policies.flag(|it| it.allow_credentials).unwrap_or(false) {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    }
    if let Some(methods) = policies.text(|it| it.allow_methods.as_ref()) {
        let methods = if methods == "*" { method } else { methods };
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
    }
    if let Some(allowed) = policies.text(|it| it.allow_headers.as_ref()) {
        let none = HeaderValue::from_static("");
        let wanted = asked.get(ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or(&none);
        let allowed = if allowed == "*" { wanted } else { allowed };
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed.clone());
    }
    if let Some(age) = policies.text(|it| it.max_age.as_ref()) {
        headers.insert(ACCESS_CONTROL_MAX_AGE, age.clone());
    }
    let private = asked.get(REQUEST_PRIVATE_NETWORK).is_some_and(|value| value == "true");
    if private && policies.flag(|it| it.allow_private_network_access).unwrap_or(false) {
        headers.insert(ALLOW_PRIVATE_NETWORK, TRUE);
    }
    reply
}

/// Tells the browser that a page of `origin` may see the response.
pub(super) fn response(
    filter: &str,
    said: Said<'_>,
    origin: Option<&HeaderValue>,
    headers: &mut HeaderMap,
) {
    if let Some(origin) = origin {
        allow(&Policies { filter, said }, origin, headers);
    }
}

fn allow(policies: &Policies<'_>, origin: &HeaderValue, headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if policies.flag(|it| it.allow_credentials).unwrap_or(false) {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    }
    if let Some(exposed) = policies.text(|it| it.expose_headers.as_ref()) {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
    }
}
