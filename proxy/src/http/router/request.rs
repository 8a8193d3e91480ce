//! The request as the upstream will see it: the route's header changes, the new host and path, the hints for the next hop.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use http::header::{HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Uri};

use super::Plan;
use crate::config::matcher::RequestHead;
use crate::config::route::{ClusterSpecifier, HostRewrite, WeightedCluster};
use crate::config::subset::{LOAD_BALANCING, MetadataMatch};
use crate::http::grpc_timeout::{self, GRPC_TIMEOUT};
use crate::http::names;
use crate::http::overrides::Overrides;
use crate::http::stream::{Head, Stream};
use crate::http::timeout::Timeouts;
use crate::http::trace;
use crate::net::body::RequestBody;
use crate::net::grpc;
use crate::route::rewrite;

/// A request ready to be sent, as often as need be.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Its head. The host is the one it is for before an endpoint's own name takes its place.
    pub head: &'a Head,
    target: Uri,
}

impl<'a> Outgoing<'a> {
    /// What `plan` makes of the request it is for. `overrides` reads and takes what a trusted caller asked for.
    /// None if a rewrite made a target that is no target.
    pub fn new(plan: &Plan<'a>, overrides: &mut Overrides) -> Option<Self> {
        let (stream, head): (&'a Stream, _) = (plan.stream, plan.head);
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
        let host: Rc<str> = rewritten.as_ref().map_or(plan.authority, |host| &host.name).into();
        let replaced = rewritten.as_ref().and_then(|host| host.original);
        let replaced = replaced.or(plan.rewrites_host_later().then_some(plan.authority));
        let replaced = replaced.map(ToOwned::to_owned);
        let path = rewrite::path(&plan.route.matcher, &plan.action.path_rewrite, &view, stream);
        if let Some(original) = replaced {
            keep_host(plan, &mut headers, &original);
        }
        if path.is_some()
            && !plan.suppresses_envoy_headers()
            && let Ok(original) = HeaderValue::from_str(&head.path)
        {
            headers.insert(names::X_ENVOY_ORIGINAL_PATH, original);
        }
        let path = path.map_or_else(|| Rc::clone(&head.path), Rc::from);
        let target = if path.is_empty() { &host } else { &path };
        let target = Uri::try_from(&**target).ok()?;
        let method = head.method.clone();
        let (scheme, version) = (head.scheme, head.version);
        let head = Head { method, scheme, authority: host, path, headers, version };
        Some(Self { head: stream.set_outgoing_head(head), target })
    }

    /// The host that the upstream's certificate is for: what the header called `name` says, if the request has it.
    pub(super) fn certified_host(&self, name: Option<&HeaderName>) -> &str {
        let told = name.and_then(|name| self.header(name)).and_then(|it| it.to_str().ok());
        told.filter(|told| !told.is_empty()).unwrap_or(&self.head.authority)
    }

    /// The first value of header `name`.
    pub fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.head.headers.get(name)
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
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.target.clone();
        let mut headers = self.head.headers.clone();
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
        let told = plan.rewrites_host_later() && !hostname.is_empty();
        let host = if told { hostname } else { &self.head.authority };
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
