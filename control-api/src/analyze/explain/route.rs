//! Where requests are routed: the virtual host, the route, and the clusters that it chooses from.

use std::collections::BTreeMap;

use prost::Message;
use xds::envoy::config::route::v3::route::Action;
use xds::envoy::config::route::v3::route_action::ClusterSpecifier;
use xds::envoy::config::route::v3::virtual_host::TlsRequirementType;
use xds::envoy::config::route::v3::{Route, RouteAction, RouteConfiguration, VirtualHost};
use xds::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use xds::envoy::extensions::filters::http::fault::v3::HttpFault;
use xds::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;

use super::asked::Asked;
use super::report::{Source, Step};
use super::{matching, origin};
use crate::model::kind::Spec;
use crate::model::object::Object;
use crate::translate::index::Index;
use crate::translate::proxy::{Proxy, Role};
use crate::translate::routes::route::places;
use crate::translate::virtual_services::{self, MESH};

/// What a route does.
pub(super) enum End {
    /// It chooses from clusters by weight; the only one has none.
    Clusters(Vec<(String, Option<u32>)>),
    /// It answers.
    Answer(String),
    /// Nothing is done.
    Nowhere(String),
}

/// The virtual host and the route for a request.
pub(super) fn choose(
    mesh: &Index,
    proxy: &Proxy,
    routes: &RouteConfiguration,
    asked: &Asked,
    steps: &mut Vec<Step>,
) -> End {
    let host = asked.authority();
    let Some(found) = virtual_host(routes, host) else {
        return End::Nowhere(format!("404: no virtual host of {} takes {host}", routes.name));
    };
    let name = if found.name.is_empty() { "the only one" } else { &found.name };
    steps.push(Step::new("virtual host", name).note(format!("of routes {}", routes.name)));
    if found.require_tls == i32::from(TlsRequirementType::All) && !asked.is_tls {
        return End::Answer("301 to https".to_owned());
    }
    let takes = |it: &Route| it.r#match.as_ref().is_none_or(|it| matching::route(it, asked));
    let Some(index) = found.routes.iter().position(takes) else {
        return End::Nowhere(format!("404: no route of {name} takes it"));
    };
    let Some(route) = found.routes.get(index) else {
        return End::Nowhere(String::new());
    };
    steps.push(step(mesh, proxy, found, index, route, asked));
    end(route)
}

/// The one whose domain names the host most closely.
fn virtual_host<'r>(routes: &'r RouteConfiguration, host: &str) -> Option<&'r VirtualHost> {
    let closeness = |it: &VirtualHost| {
        it.domains.iter().filter_map(|domain| matching::domain(domain, host)).max()
    };
    let scored = routes.virtual_hosts.iter().filter_map(|it| Some((closeness(it)?, it)));
    let best = scored.reduce(|best, it| if it.0 > best.0 { it } else { best });
    best.map(|(_, it)| it)
}

fn step(
    mesh: &Index,
    proxy: &Proxy,
    host: &VirtualHost,
    index: usize,
    route: &Route,
    asked: &Asked,
) -> Step {
    let matched = route.r#match.as_ref().map_or_else(String::new, matching::shown);
    let name = if route.name.is_empty() { "without a name" } else { &route.name };
    let mut step = Step::new("route", format!("[{index}] {name}: {matched}"));
    step.notes = notes(route);
    if let Some(object) = origin::named(mesh, route.metadata.as_ref()) {
        // Routes of one object stand in its order.
        let before = host.routes.iter().take(index);
        let earlier = before.filter(|it| {
            origin::named(mesh, it.metadata.as_ref()).is_some_and(|it| std::ptr::eq(it, object))
        });
        step.from.push(place(mesh, proxy, object, earlier.count(), asked.port));
    }
    step
}

/// Where in its object the route of this number stands; delegates are put together from several objects.
fn place(mesh: &Index, proxy: &Proxy, object: &Object, number: usize, port: u32) -> Source {
    let all = virtual_services::visible(mesh, proxy);
    let found = all.iter().find(|it| std::ptr::eq(&raw const *it.object, object));
    let Spec::VirtualService(written) = &object.spec else { return origin::source(object, "") };
    let is_whole = written.http.iter().all(|it| it.delegate.is_none());
    let path = found.filter(|_| is_whole).and_then(|it| {
        let gateways = match proxy.role {
            Role::Sidecar => vec![MESH.to_owned()],
            Role::Router => it.spec.gateways.clone(),
        };
        let (http, condition) = *places(&it.spec, proxy, &gateways, port).get(number)?;
        Some(match condition {
            Some(condition) => format!("spec.http[{http}].match[{condition}]"),
            None => format!("spec.http[{http}]"),
        })
    });
    origin::source(object, &path.unwrap_or_default())
}

/// What happens to a request on the way.
fn notes(route: &Route) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(any) = route.typed_per_filter_config.get("envoy.filters.http.fault")
        && let Ok(fault) = HttpFault::decode(&*any.value)
    {
        notes.extend(faults(&fault));
    }
    let Some(Action::Route(action)) = &route.action else { return notes };
    if let Some(timeout) = action.timeout.filter(|it| it.seconds != 0 || it.nanos != 0) {
        notes.push(format!("timeout {timeout}"));
    }
    if let Some(retry) = &action.retry_policy {
        notes.push(format!("{} retries on {}", retry.num_retries.unwrap_or(1), retry.retry_on));
    }
    if !action.prefix_rewrite.is_empty() {
        notes.push(format!("the path's beginning becomes {}", action.prefix_rewrite));
    }
    if action.regex_rewrite.is_some() {
        notes.push("the path is rewritten by an expression".to_owned());
    }
    for mirror in &action.request_mirror_policies {
        notes.push(format!("copied to {}", mirror.cluster));
    }
    notes
}

fn faults(fault: &HttpFault) -> Vec<String> {
    let share = |percentage: Option<&xds::envoy::r#type::v3::FractionalPercent>| {
        let Some(it) = percentage else { return "none".to_owned() };
        let of = match it.denominator {
            0 => "100",
            1 => "10000",
            _ => "1000000",
        };
        format!("{} of {of}", it.numerator)
    };
    let mut notes = Vec::new();
    if let Some(delay) = &fault.delay
        && let Some(FaultDelaySecifier::FixedDelay(time)) = &delay.fault_delay_secifier
    {
        notes.push(format!("{} are delayed by {time}", share(delay.percentage.as_ref())));
    }
    if let Some(abort) = &fault.abort {
        let how = match abort.error_type {
            Some(ErrorType::HttpStatus(status)) => format!("status {status}"),
            Some(ErrorType::GrpcStatus(status)) => format!("gRPC's status {status}"),
            _ => "an error".to_owned(),
        };
        notes.push(format!("{} are answered with {how}", share(abort.percentage.as_ref())));
    }
    notes
}

fn end(route: &Route) -> End {
    match &route.action {
        Some(Action::Route(action)) => End::Clusters(clusters(action)),
        Some(Action::Redirect(redirect)) => {
            let host = Some(redirect.host_redirect.as_str()).filter(|it| !it.is_empty());
            End::Answer(format!("redirected to {}", host.unwrap_or("the same host")))
        }
        Some(Action::DirectResponse(answer)) => {
            let said = format!("{} by the proxy itself", answer.status);
            if route.name == "block_all" {
                End::Nowhere(format!("{said}: nothing but known services is let out"))
            } else {
                End::Answer(said)
            }
        }
        _ => End::Nowhere("the route does nothing".to_owned()),
    }
}

fn clusters(action: &RouteAction) -> Vec<(String, Option<u32>)> {
    match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => vec![(name.clone(), None)],
        Some(ClusterSpecifier::WeightedClusters(all)) => {
            // A cluster may be named twice.
            let mut weights: BTreeMap<&str, u32> = BTreeMap::new();
            for cluster in &all.clusters {
                *weights.entry(&cluster.name).or_default() += cluster.weight.unwrap_or(0);
            }
            weights.into_iter().map(|(name, weight)| (name.to_owned(), Some(weight))).collect()
        }
        _ => Vec::new(),
    }
}
