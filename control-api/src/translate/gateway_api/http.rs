//! `HTTPRoute`: each match of each rule becomes a route of a virtual service.

use std::cell::OnceCell;

use super::backends::Backends;
use super::listeners::Listening;
use super::merge::Made;
use super::parents::{Parent, Route};
use super::{Problems, filters, matches};
use crate::model::gateway_api::http_route::{
    HttpBackendRef, HttpRoute, HttpRouteFilter, HttpRouteMatch, HttpRouteRetry, HttpRouteRule,
    HttpRouteTimeouts,
};
use crate::model::istio::virtual_service::{
    HttpDirectResponse, HttpMatchRequest, HttpRetry, HttpRoute as Routed, HttpRouteDestination,
};
use crate::model::{Found, Mesh};

/// What is retried where retries are asked for: what has not reached the backend, or has not been answered.
const RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,reset";
/// How often, if nothing is said of it.
const ATTEMPTS: u32 = 2;

/// The routes of all `HTTPRoute`s, for each parent and host.
pub(super) fn routes<'m>(
    mesh: &'m Mesh,
    listeners: &[Listening],
    problems: &mut Problems<'m>,
) -> Vec<Made<'m>> {
    let services = OnceCell::new();
    let mut made = Vec::new();
    for found in mesh.all::<HttpRoute>() {
        let Found { object, spec } = found;
        let route = Route { object, parents: &spec.parent_refs, hostnames: &spec.hostnames };
        let attached = route.attached(mesh, listeners, problems);
        made.extend(of_parents(object, &attached, |by_grant| {
            let backends = Backends { mesh, services: &services, route: object, by_grant };
            let rules = spec.rules.iter().enumerate();
            rules.flat_map(|(index, it)| rule(&backends, it, index, problems)).collect()
        }));
    }
    made
}

/// The routes at each parent: made once for gateways and once for the mesh, where no grants are asked for.
pub(super) fn of_parents<'m>(
    object: &'m std::sync::Arc<crate::model::object::Object>,
    attached: &[Parent<'_>],
    mut make: impl FnMut(bool) -> Vec<Routed>,
) -> Vec<Made<'m>> {
    let (mut at_gateways, mut in_mesh) = (None, None);
    let mut made = Vec::new();
    for parent in attached {
        let of_gateway = parent.listening.is_some();
        let routes = if of_gateway { &mut at_gateways } else { &mut in_mesh };
        let mut http: Vec<Routed> = routes.get_or_insert_with(|| make(of_gateway)).clone();
        if let Some(port) = parent.port {
            http.iter_mut().for_each(|it| at_port(it, port.into()));
        }
        for host in parent.hosts.iter().filter(|_| !http.is_empty()) {
            made.push(Made {
                object,
                gateway: parent.gateway.clone(),
                port: parent.port,
                host: host.clone(),
                http: http.clone(),
            });
        }
    }
    made
}

fn at_port(route: &mut Routed, port: u32) {
    if route.r#match.is_empty() {
        route.r#match.push(HttpMatchRequest::default());
    }
    route.r#match.iter_mut().for_each(|it| it.port = port);
}

fn rule<'m>(
    backends: &Backends<'_, 'm>,
    rule: &'m HttpRouteRule,
    index: usize,
    problems: &mut Problems<'m>,
) -> Vec<Routed> {
    let path = format!("spec.rules[{index}]");
    if rule.session_persistence.is_some() {
        let at = format!("{path}.sessionPersistence");
        problems.add(backends.route, &at, "Not applied", "a session's requests go to any endpoint");
    }
    let everything = [HttpRouteMatch::default()];
    let wanted = if rule.matches.is_empty() { &everything[..] } else { &rule.matches };
    let parts = Parts {
        name: name(backends, rule.name.as_deref(), index),
        matches: wanted.iter().map(|it| Some(matches::of_http(it))).collect(),
        filters: &rule.filters,
        backend_refs: &rule.backend_refs,
        path,
    };
    let mut routes = parts.routes(backends, problems);
    for route in &mut routes {
        route.retries = rule.retry.as_ref().map(retries);
        if let Some(timeouts) = &rule.timeouts {
            set_timeouts(timeouts, route);
        }
    }
    routes
}

/// Its own name, or where it stands.
pub(super) fn name(backends: &Backends<'_, '_>, own: Option<&str>, index: usize) -> String {
    let metadata = &backends.route.metadata;
    let place = || format!("{}.{}.{index}", metadata.namespace, metadata.name);
    own.map_or_else(place, ToOwned::to_owned)
}

/// A rule of either kind.
pub(super) struct Parts<'m> {
    pub(super) name: String,
    /// None for every request.
    pub(super) matches: Vec<Option<HttpMatchRequest>>,
    pub(super) filters: &'m [HttpRouteFilter],
    pub(super) backend_refs: &'m [HttpBackendRef],
    pub(super) path: String,
}

impl<'m> Parts<'m> {
    /// A route for each match. What cannot be applied as it is written answers with 500.
    pub(super) fn routes(
        self,
        backends: &Backends<'_, 'm>,
        problems: &mut Problems<'m>,
    ) -> Vec<Routed> {
        let mut route = Routed { name: self.name.clone(), ..Routed::default() };
        if let Err(unsupported) = self.fill(backends, &mut route, problems) {
            filters::failing(backends, unsupported, &mut route, problems);
        }
        let with = |wanted| Routed { r#match: Vec::from_iter(wanted), ..route.clone() };
        self.matches.into_iter().map(with).collect()
    }

    fn fill(
        &self,
        backends: &Backends<'_, 'm>,
        out: &mut Routed,
        problems: &mut Problems<'m>,
    ) -> Result<(), filters::Unsupported> {
        out.headers = filters::headers(self.filters);
        filters::apply(backends, self.filters, &self.path, out, problems)?;
        let used: Vec<_> =
            self.backend_refs.iter().enumerate().filter(|(_, it)| it.weight > 0).collect();
        for (index, backend) in &used {
            let path = format!("{}.backendRefs[{index}]", self.path);
            if used.len() == 1 {
                // What is done for the only backend is done for the rule.
                filters::apply(backends, &backend.filters, &path, out, problems)?;
            } else {
                filters::only_headers(&backend.filters, &path)?;
            }
            out.route.push(HttpRouteDestination {
                destination: Some(backends.destination((*backend).into(), &path, problems)),
                weight: if used.len() == 1 { 0 } else { weight(backend.weight) },
                headers: filters::headers(&backend.filters),
            });
        }
        self.check_prefixes(out)?;
        if out.redirect.is_some() {
            out.route.clear();
        } else if used.is_empty() {
            out.direct_response = Some(error());
        }
        Ok(())
    }

    /// Only what was matched as a prefix can be replaced as one.
    fn check_prefixes(&self, out: &Routed) -> Result<(), filters::Unsupported> {
        use crate::model::istio::virtual_service::StringMatch;
        let rewrites = out.rewrite.as_ref().is_some_and(|it| !it.uri.is_empty());
        let redirects = out.redirect.as_ref().is_some_and(|it| !it.prefix_rewrite.is_empty());
        let is_prefix = |it: &Option<HttpMatchRequest>| {
            it.as_ref().is_some_and(|it| matches!(it.uri, Some(StringMatch::Prefix(_))))
        };
        if (rewrites || redirects) && !self.matches.iter().all(is_prefix) {
            let why = "ReplacePrefixMatch is for matches by PathPrefix".to_owned();
            return Err((self.path.clone(), why));
        }
        Ok(())
    }
}

fn weight(wanted: u32) -> i32 {
    i32::try_from(wanted).unwrap_or(i32::MAX)
}

/// What rules answer that lead nowhere.
pub(super) fn error() -> HttpDirectResponse {
    HttpDirectResponse { status: 500, body: None }
}

fn retries(wanted: &HttpRouteRetry) -> HttpRetry {
    let attempts = wanted.attempts.unwrap_or(ATTEMPTS);
    let codes = wanted.codes.iter().map(|code| format!(",{code}"));
    HttpRetry {
        attempts: i32::try_from(attempts).unwrap_or(i32::MAX),
        retry_on: format!("{RETRY_ON}{}", codes.collect::<String>()),
        backoff: wanted.backoff,
        ..HttpRetry::default()
    }
}

/// No time at all means no limit.
fn set_timeouts(wanted: &HttpRouteTimeouts, out: &mut Routed) {
    out.timeout = wanted.request.filter(|it| !it.is_zero());
    let Some(backend) = wanted.backend_request.filter(|it| !it.is_zero()) else { return };
    match &mut out.retries {
        Some(retries) => retries.per_try_timeout = Some(backend),
        None => out.timeout = Some(backend),
    }
}
