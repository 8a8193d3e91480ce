//! Redirects of upstreams that are followed for the client, who sees the last answer only. What they lead to is a
//! request of its own, made of the one that was forwarded.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, LOCATION};
use http::{HeaderValue, Method, StatusCode, Uri};

use super::attempt::Answer;
use super::exchange::Exchange;
use crate::config::Name;
use crate::config::internal_redirect::{InternalRedirectPolicy, RedirectPredicate};
use crate::http::filter::forwarded_proto;
use crate::http::path::{self, Canonical};
use crate::http::request_body::ClientBody;
use crate::http::stream::Head;
use crate::http::way::{Destination, Way};
use crate::http::{host, names};
use crate::telemetry::metrics::HttpStats;

/// What a redirect that is followed leads to.
#[derive(Debug)]
pub struct Followed {
    /// The status of the redirect.
    pub status: StatusCode,
    /// The head of the request that it leads to.
    pub head: Head,
    /// The body of that request.
    pub body: ClientBody,
    /// The redirects that led there.
    pub trail: Trail,
}

/// The redirects that have led to a request.
#[derive(Debug, Clone, Default)]
pub struct Trail(Vec<Step>);

/// The names of the routes that a redirect came from and led to.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    from: Name,
    to: Name,
}

/// Why a redirect is passed on.
#[derive(Debug, Clone, Copy)]
enum Passed {
    NoLocation,
    BadLocation,
    UnsafeScheme,
    TooMany,
    NoRoute,
    Predicate,
    BodyNotKept,
}

impl Exchange<'_> {
    /// The request that `answer` leads to, if it is a redirect to be followed that can be.
    pub(super) fn follow(&self, answer: &Answer) -> Option<Box<Followed>> {
        let policy = self.plan.action.internal_redirect.as_deref()?;
        let status = answer.response.status();
        if !policy.statuses.contains(&status) {
            return None;
        }
        match self.followed(policy, status, answer.response.headers()) {
            Ok(followed) => {
                self.cluster.stats.upstream_internal_redirect_succeeded_total.inc();
                Some(Box::new(followed))
            }
            Err(passed) => {
                self.cluster.stats.upstream_internal_redirect_failed_total.inc();
                passed.count(&self.plan.stream.served.stats);
                None
            }
        }
    }

    fn followed(
        &self,
        policy: &InternalRedirectPolicy,
        status: StatusCode,
        answered: &HeaderMap,
    ) -> Result<Followed, Passed> {
        let (plan, stream) = (&self.plan, self.plan.stream);
        let mut body = self.whole_body().ok_or(Passed::BodyNotKept)?;
        let (location, scheme, authority) = location(answered)?;
        let plain = plan.head.scheme == "http" || stream.connection.downstream.tls.is_none();
        if plain != (scheme == "http") && !policy.cross_scheme {
            return Err(Passed::UnsafeScheme);
        }
        let mut trail = stream.trail().cloned().unwrap_or_default();
        if trail.0.len() >= policy.max as usize {
            return Err(Passed::TooMany);
        }
        let before = self.outgoing.head;
        let config = stream.served.config();
        let strip_dot = config.strip_trailing_host_dot;
        let port = stream.connection.downstream.local.port();
        let mut head = Head {
            scheme,
            authority: host::stripped(&authority, config.strip_port, strip_dot, port).into(),
            path: target(&location, &config.path).ok_or(Passed::BadLocation)?,
            ..before.clone()
        };
        copy(policy, answered, &mut head.headers);
        let way = Way::find(stream, &head, forwarded_proto(&head)).ok_or(Passed::NoRoute)?;
        if matches!(way.to, Destination::Nowhere) {
            return Err(Passed::NoRoute);
        }
        let name = way.table.route(way.found).map(|route| route.name.clone());
        let step = Step { from: plan.route.name.clone(), to: name.unwrap_or_default() };
        let agrees = |it: &RedirectPredicate| it.agrees(&step, &trail, plain, scheme);
        if !policy.predicates.iter().all(agrees) {
            return Err(Passed::Predicate);
        }
        stream.set_route(Some(way.found));
        if status == StatusCode::SEE_OTHER && !matches!(head.method, Method::GET | Method::HEAD) {
            head.method = Method::GET;
            head.headers.remove(CONTENT_LENGTH);
            body = ClientBody::whole(Vec::new(), None);
        }
        let scheme = if plain { "http" } else { "https" };
        let url = format!("{scheme}://{}{}", before.authority, before.path);
        if let Ok(url) = HeaderValue::from_maybe_shared(Bytes::from(url)) {
            head.headers.insert(names::X_ENVOY_ORIGINAL_URL, url);
        }
        trail.0.push(step);
        Ok(Followed { status, head, body, trail })
    }
}

/// Where an answer leads to, with its scheme and its authority.
fn location(answered: &HeaderMap) -> Result<(Uri, &'static str, Box<str>), Passed> {
    let location = answered.get(LOCATION).ok_or(Passed::NoLocation)?;
    let location = Uri::try_from(location.as_bytes()).map_err(|_| Passed::BadLocation)?;
    let (scheme, authority) =
        location.scheme_str().zip(location.authority()).ok_or(Passed::BadLocation)?;
    let scheme = match scheme {
        "http" => "http",
        "https" => "https",
        _ => return Err(Passed::UnsafeScheme),
    };
    if authority.as_str().contains('@') {
        return Err(Passed::BadLocation);
    }
    let authority = authority.as_str().into();
    Ok((location, scheme, authority))
}

/// Path and query of `location` in canonical form; none if they have none.
fn target(location: &Uri, options: &crate::config::http::PathNormalisation) -> Option<Rc<str>> {
    let target = location.path_and_query().map_or("/", |target| target.as_str());
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    match path::canonical(&target, options) {
        Canonical::Unchanged => Some(target.into()),
        Canonical::Rewritten(path) => Some(path.into()),
        Canonical::Redirect(_) | Canonical::Reject(_) => None,
    }
}

/// Puts the answer's values of some headers in place of the request's.
fn copy(policy: &InternalRedirectPolicy, answered: &HeaderMap, headers: &mut HeaderMap) {
    for name in &policy.copied_headers {
        headers.remove(name);
        for value in answered.get_all(name) {
            headers.append(name, value.clone());
        }
    }
}

impl RedirectPredicate {
    fn agrees(&self, step: &Step, trail: &Trail, plain: bool, scheme: &str) -> bool {
        match self {
            Self::PreviousRoutes => !trail.0.contains(step),
            Self::AllowListed(names) => names.iter().any(|name| **name == *step.to),
            Self::SafeCrossScheme => !plain || scheme != "https",
        }
    }
}

impl Passed {
    fn count(self, stats: &HttpStats) {
        match self {
            Self::NoLocation | Self::BodyNotKept => {}
            Self::BadLocation => stats.passthrough_internal_redirect_bad_location.inc(),
            Self::UnsafeScheme => stats.passthrough_internal_redirect_unsafe_scheme.inc(),
            Self::TooMany => stats.passthrough_internal_redirect_too_many_redirects.inc(),
            Self::NoRoute => stats.passthrough_internal_redirect_no_route.inc(),
            Self::Predicate => stats.passthrough_internal_redirect_predicate.inc(),
        }
    }
}
