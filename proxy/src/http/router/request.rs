//! The request as the upstream will see it: the route's header changes, the new host and path, the hints for the next hop.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use http::header::{HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Uri};

use super::Plan;
use crate::config::matcher::RequestHead;
use crate::config::route::{ClusterSpecifier, HostRewrite, WeightedCluster};
use crate::config::subset::{LOAD_BALANCING, MetadataMatch};
use crate::http::grpc_timeout::{self, GRPC_TIMEOUT};
use crate::http::names;
use crate::http::overrides::Overrides;
use crate::http::stream::Head;
use crate::http::timeout::Timeouts;
use crate::http::trace;
use crate::net::body::RequestBody;
use crate::net::grpc;
use crate::route::rewrite;

/// A request ready to be sent, as often as need be.
#[derive(Debug)]
pub struct Outgoing {
    method: Method,
    target: Uri,
    headers: HeaderMap,
    /// The host it is for, before an endpoint's own name takes its place.
    pub host: Box<str>,
}

impl Outgoing {
    /// What `plan` makes of the request it is for. `overrides` reads and takes what a trusted caller asked for.
    /// None if a rewrite made a target that is no target.
    pub fn new(plan: &Plan<'_>, overrides: &mut Overrides) -> Option<Self> {
        let (stream, head) = (&**plan.stream, plan.head);
        let mut headers = head.headers.clone();
        *overrides = Overrides::take(&mut headers);
        trace::decorate_request(stream, plan.route, &mut headers);
        let weighted = plan.target.weighted;
        if plan.action.stream_duration.is_some()
            && head.is_grpc()
            && let Some(limit) = plan.stream_limit()
        {
            headers.insert(GRPC_TIMEOUT, grpc::timeout(limit));
        }
        plan.table.mutate_request(plan.found, weighted, &mut headers, stream);
        let view = RequestHead { headers: &headers, ..head.view() };
        let rewritten = rewrite::host(plan.action, plan.weighted(), &view, stream);
        let host: Box<str> = rewritten.as_ref().map_or(plan.authority, |host| &host.name).into();
        let replaced = rewritten.as_ref().and_then(|host| host.original);
        let replaced = replaced.or(plan.rewrites_host_later().then_some(plan.authority));
        let replaced = replaced.map(ToOwned::to_owned);
        let path = rewrite::path(&plan.route.matcher, &plan.action.path_rewrite, &view, stream);
        if let Some(original) = replaced {
            keep_host(plan, &mut headers, &original);
        }
        if path.is_some() {
            stream.set_original_path(&head.path);
            if !plan.suppresses_envoy_headers()
                && let Ok(original) = HeaderValue::from_str(&head.path)
            {
                headers.insert(names::X_ENVOY_ORIGINAL_PATH, original);
            }
        }
        let target = path.as_deref().unwrap_or(&head.path);
        let target = if target.is_empty() { &host } else { target };
        let target = Uri::try_from(target).ok()?;
        Some(Self { method: head.method.clone(), target, headers, host })
    }

    /// The host that the upstream's certificate is for: what the header called `name` says, if the request has it.
    pub(super) fn certified_host(&self, name: Option<&HeaderName>) -> &str {
        let told = name.and_then(|name| self.headers.get(name)).and_then(|it| it.to_str().ok());
        told.filter(|told| !told.is_empty()).unwrap_or(&self.host)
    }

    /// The first value of header `name`.
    pub fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.headers.get(name)
    }

    /// Its head, with what else it has from the head that came.
    pub(super) fn head(&self, came: &Head) -> Head {
        Head {
            method: self.method.clone(),
            scheme: came.scheme,
            authority: self.host.clone(),
            path: self.target.path_and_query().map_or("/", |target| target.as_str()).into(),
            headers: self.headers.clone(),
            version: came.version,
        }
    }

    /// Its head as matchers see it.
    pub(super) fn view<'a>(&'a self, scheme: &'a str) -> RequestHead<'a> {
        RequestHead {
            method: &self.method,
            scheme,
            authority: &self.host,
            path_and_query: self.target.path_and_query().map_or("", |path| path.as_str()),
            headers: &self.headers,
        }
    }

    /// The request for attempt number `attempt`, with `body`, to the endpoint called `hostname`. `timed_out` is
    /// whether the attempt before took too long.
    pub fn request(
        &self,
        plan: &Plan<'_>,
        timeouts: &Timeouts,
        attempt: u32,
        hostname: &str,
        timed_out: bool,
        body: RequestBody,
    ) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        let mut headers = self.headers.clone();
        // The first attempt has the whole time, as Envoy says it: only retries have less.
        let elapsed = if attempt == 1 { Duration::ZERO } else { plan.stream.waited() };
        timeouts.announce(&mut headers, elapsed, !plan.suppresses_envoy_headers());
        if attempt > 1 && plan.tells_of_timeouts() {
            let told = if timed_out { "true" } else { "false" };
            headers.insert(names::X_ENVOY_IS_TIMEOUT_RETRY, HeaderValue::from_static(told));
        }
        if plan.counts_attempts() {
            headers.insert(names::X_ENVOY_ATTEMPT_COUNT, attempt.into());
        }
        let host =
            if plan.rewrites_host_later() && !hostname.is_empty() { hostname } else { &self.host };
        if let Ok(host) = HeaderValue::from_str(host) {
            headers.insert(HOST, host);
        }
        *request.headers_mut() = headers;
        request
    }
}

impl<'a> Plan<'a> {
    /// The weighted cluster chosen, if the route has weights.
    pub fn weighted(&self) -> Option<&'a WeightedCluster> {
        match &self.action.cluster {
            ClusterSpecifier::Weighted(weighted) => weighted.clusters.get(self.target.weighted?),
            ClusterSpecifier::Name(_) | ClusterSpecifier::Header(_) => None,
        }
    }

    /// What is wanted of the endpoint's metadata: by the route, and over that by filters.
    pub(super) fn metadata_match(&self) -> Option<Cow<'a, MetadataMatch>> {
        let own = self.weighted().and_then(|weighted| weighted.metadata_match.as_deref());
        let routes = own.or(self.action.metadata_match.as_deref());
        let dynamic = self.stream.dynamic();
        match dynamic.metadata().and_then(|metadata| metadata.namespace(LOAD_BALANCING)) {
            Some(values) => Some(Cow::Owned(MetadataMatch::new(values).over(routes))),
            None => routes.map(Cow::Borrowed),
        }
    }

    /// Whether the host becomes the endpoint's name, which is known only once it is chosen.
    fn rewrites_host_later(&self) -> bool {
        matches!(self.action.host_rewrite, HostRewrite::Auto)
    }

    /// How long the request's stream may live; none is no limit.
    pub(super) fn stream_limit(&self) -> Option<Duration> {
        let manager = self.stream.served.config().limits.max_stream_duration;
        grpc_timeout::of_stream(self.action, manager, self.head)
    }

    pub(super) fn suppresses_envoy_headers(&self) -> bool {
        self.stream.served.config().suppress_envoy_headers
    }

    fn tells_of_timeouts(&self) -> bool {
        let host = self.table.virtual_host(self.found);
        host.is_some_and(|host| host.include_is_timeout_retry_header)
    }

    fn counts_attempts(&self) -> bool {
        let host = self.table.virtual_host(self.found);
        host.is_some_and(|host| host.include_request_attempt_count)
    }
}

/// Tells the upstream which host was replaced.
fn keep_host(plan: &Plan<'_>, headers: &mut HeaderMap, original: &str) {
    if !plan.suppresses_envoy_headers()
        && let Ok(original) = HeaderValue::from_str(original)
    {
        headers.insert(names::X_ENVOY_ORIGINAL_HOST, original);
    }
    if plan.action.append_x_forwarded_host {
        append_forwarded_host(headers, original);
    }
}

fn append_forwarded_host(headers: &mut HeaderMap, authority: &str) {
    let mut value = String::new();
    for known in headers.get_all(names::X_FORWARDED_HOST) {
        let _ = write!(value, "{},", String::from_utf8_lossy(known.as_bytes()));
    }
    value.push_str(authority);
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(names::X_FORWARDED_HOST, value);
    }
}
