//! Routes of virtual services, for one port and the gateways that the proxy stands for.

use std::collections::BTreeMap;
use std::sync::Arc;

use xds::envoy::config::core::v3::{DataSource, Metadata, RuntimeFractionalPercent, data_source};
use xds::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use xds::envoy::config::route::v3::route::Action;
use xds::envoy::config::route::v3::route_action::{ClusterSpecifier, RequestMirrorPolicy};
use xds::envoy::config::route::v3::route_match::PathSpecifier;
use xds::envoy::config::route::v3::{
    Decorator, DirectResponseAction, RedirectAction, Route, RouteAction, RouteMatch,
};

use super::action::{self, Replacement};
use super::{filters, headers, matching};
use crate::model::istio::virtual_service::{
    Destination, HttpBody, HttpDirectResponse, HttpMatchRequest, HttpRedirect, HttpRoute, Percent,
    RedirectPortSelection, VirtualService,
};
use crate::model::workloads::selects;
use crate::translate::clusters::outbound_name;
use crate::translate::egress::View;
use crate::translate::proxy::Proxy;
use crate::translate::service::Service;
use crate::translate::values;
use crate::translate::virtual_services::Virtual;

/// What routes are made for.
pub(in crate::translate) struct Context<'a, 'm> {
    /// What the proxy sees.
    pub(in crate::translate) view: &'a View<'m>,
    /// The services of the port, by host, each with this port only.
    pub(in crate::translate) services: &'a BTreeMap<String, Arc<Service>>,
    /// The gateways that the proxy stands for; `mesh` for a sidecar.
    pub(in crate::translate) gateways: &'a [String],
    /// The port that requests come to.
    pub(in crate::translate) port: u32,
    /// Whether they come by TLS that ends here.
    pub(in crate::translate) tls: bool,
}

impl Context<'_, '_> {
    /// The cluster behind a destination.
    pub(super) fn cluster(&self, destination: &Destination) -> String {
        let service = self.services.get(&destination.host).map(|it| &**it);
        outbound_cluster(destination, service, self.port)
    }

    /// What can be settled before any request: the port, the gateway, and the source.
    fn is_for(&self, wanted: &HttpMatchRequest) -> bool {
        is_for(wanted, self.view.proxy, self.gateways, self.port)
    }
}

fn is_for(wanted: &HttpMatchRequest, proxy: &Proxy, gateways: &[String], port: u32) -> bool {
    if wanted.port != 0 && wanted.port != port {
        return false;
    }
    // Gateways go before the source, which is not asked for then.
    if !wanted.gateways.is_empty() {
        return wanted.gateways.iter().any(|it| gateways.contains(it));
    }
    let namespace = wanted.source_namespace.as_str();
    selects(&wanted.source_labels, &proxy.labels)
        && (namespace.is_empty() || namespace == proxy.namespace)
}

/// Where each of the [`routes`] of a virtual service stands in it: the index of its HTTP route, and of the condition.
pub fn places(
    spec: &VirtualService,
    proxy: &Proxy,
    gateways: &[String],
    port: u32,
) -> Vec<(usize, Option<usize>)> {
    let mut places = Vec::new();
    for (index, http) in spec.http.iter().enumerate() {
        if http.r#match.is_empty() {
            places.push((index, None));
            break;
        }
        let conditions = http.r#match.iter().enumerate();
        let own = conditions.filter(|(_, it)| is_for(it, proxy, gateways, port));
        places.extend(own.map(|(condition, _)| (index, Some(condition))));
    }
    places
}

/// The cluster behind a destination. Without a port, it is that of the service's only port, or of the port that the
/// request came to.
pub(in crate::translate) fn outbound_cluster(
    destination: &Destination,
    service: Option<&Service>,
    port: u32,
) -> String {
    if destination.host.is_empty() {
        return "UnknownService".to_owned();
    }
    let host = service.and_then(|it| it.alias_of.as_deref()).unwrap_or(&destination.host);
    let only = service.filter(|it| it.ports.len() == 1).and_then(|it| it.ports.first());
    let named = destination.port.as_ref().map(|it| it.number);
    let port = named.or_else(|| only.map(|it| it.number)).unwrap_or(port);
    outbound_name(port, &destination.subset, host)
}

/// The routes of a virtual service, up to the first that leaves no request for others.
pub(in crate::translate) fn routes(
    context: &Context<'_, '_>,
    virtual_service: &Virtual,
) -> Vec<Route> {
    let mut routes = Vec::new();
    for http in &virtual_service.spec.http {
        if http.r#match.is_empty() {
            routes.push(route(context, virtual_service, http, None));
            break;
        }
        for wanted in http.r#match.iter().filter(|it| context.is_for(it)) {
            let route = route(context, virtual_service, http, Some(wanted));
            let is_last = route.r#match.as_ref().is_some_and(matching::is_everything);
            routes.push(route);
            if is_last {
                return routes;
            }
        }
    }
    routes
}

fn route(
    context: &Context<'_, '_>,
    virtual_service: &Virtual,
    http: &HttpRoute,
    wanted: Option<&HttpMatchRequest>,
) -> Route {
    let matched = matching::translated(wanted, virtual_service.of_gateway_api);
    let changes = headers::changes(http.headers.as_ref());
    let mut name = http.name.clone();
    if let Some(wanted) = wanted.filter(|it| !it.name.is_empty()) {
        name = format!("{name}.{}", wanted.name);
    }
    let mut out = Route {
        name,
        metadata: Some(config(virtual_service)),
        stat_prefix: wanted.map(|it| it.stat_prefix.clone()).unwrap_or_default(),
        request_headers_to_add: changes.request_add,
        request_headers_to_remove: changes.request_remove,
        response_headers_to_add: changes.response_add,
        response_headers_to_remove: changes.response_remove,
        ..Route::default()
    };
    if let Some(redirect) = &http.redirect {
        let segments = virtual_service.of_gateway_api.then_some(&matched);
        out.action = redirection(context, redirect, segments).map(Action::Redirect);
    } else if let Some(response) = &http.direct_response {
        out.action = Some(Action::DirectResponse(direct_response(response)));
    } else {
        let gateway_api = virtual_service.of_gateway_api;
        action::apply(context, http, gateway_api, &matched, changes.authority, &mut out);
    }
    out.decorator = Some(Decorator {
        operation: operation(&out, &matched, virtual_service.name(), context.port),
        propagate: None,
    });
    out.r#match = Some(matched);
    out.typed_per_filter_config = per_filter(http);
    out
}

/// Where the route comes from, for people.
fn config(virtual_service: &Virtual) -> Metadata {
    let fields = values::fields([("config", values::text(virtual_service.path()))]);
    Metadata { filter_metadata: BTreeMap::from([("istio".to_owned(), fields)]) }
}

fn per_filter(http: &HttpRoute) -> BTreeMap<String, prost_types::Any> {
    let mut configs = BTreeMap::new();
    if let Some(fault) = http.fault.as_ref().and_then(filters::fault) {
        configs.insert("envoy.filters.http.fault".to_owned(), values::any(&fault));
    }
    if let Some(cors) = &http.cors_policy {
        configs.insert("envoy.filters.http.cors".to_owned(), values::any(&filters::cors(cors)));
    }
    configs
}

/// What traces call the route: where it goes if that is one place, else the virtual service; and the path.
fn operation(out: &Route, matched: &RouteMatch, name: &str, port: u32) -> String {
    let path = match &matched.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::Path(path)) => path.clone(),
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex.clone(),
        _ => "/*".to_owned(),
    };
    let cluster = match &out.action {
        Some(Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
            ..
        })) => cluster.as_str(),
        _ => "",
    };
    let parts: Vec<&str> = cluster.split('|').collect();
    match parts[..] {
        ["outbound", port, _, host] => format!("{host}:{port}{path}"),
        _ => format!("{name}:{port}{path}"),
    }
}

/// None for a status code that is no redirection. With `segments`, a prefix is of whole segments of the path that this
/// matches.
fn redirection(
    context: &Context<'_, '_>,
    wanted: &HttpRedirect,
    segments: Option<&RouteMatch>,
) -> Option<RedirectAction> {
    let code = match wanted.redirect_code {
        0 | 301 => RedirectResponseCode::MovedPermanently,
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => return None,
    };
    let path = match (wanted.prefix_rewrite.as_str(), segments) {
        ("", _) => Some(PathRewriteSpecifier::PathRedirect(wanted.uri.clone())),
        (prefix, None) => Some(PathRewriteSpecifier::PrefixRewrite(prefix.to_owned())),
        (prefix, Some(matched)) => action::replacement(prefix, matched).map(|it| match it {
            Replacement::Prefix(prefix) => PathRewriteSpecifier::PrefixRewrite(prefix),
            Replacement::Regex(regex) => PathRewriteSpecifier::RegexRewrite(regex),
        }),
    };
    let scheme = Some(wanted.scheme.clone()).filter(|it| !it.is_empty());
    let from_request = wanted.derive_port == Some(RedirectPortSelection::FromRequestPort);
    let port = wanted.port.unwrap_or(if from_request { context.port } else { 0 });
    let default_scheme = if context.tls { "https" } else { "http" };
    // The scheme's own port is not named.
    let own = match scheme.as_deref().unwrap_or(default_scheme) {
        "http" => 80,
        "https" => 443,
        _ => 0,
    };
    Some(RedirectAction {
        host_redirect: wanted.authority.clone(),
        port_redirect: if port == own { 0 } else { port },
        response_code: code.into(),
        strip_query: false,
        scheme_rewrite_specifier: scheme.map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: path,
    })
}

fn direct_response(wanted: &HttpDirectResponse) -> DirectResponseAction {
    let body = wanted.body.as_ref().map(|body| match body {
        HttpBody::String(text) => data_source::Specifier::InlineString(text.clone()),
        HttpBody::Bytes(base64) => {
            data_source::Specifier::InlineBytes(values::from_base64(base64).unwrap_or_default())
        }
    });
    DirectResponseAction {
        status: wanted.status,
        body: body.map(|it| DataSource { specifier: Some(it), ..DataSource::default() }),
    }
}

/// Where copies of requests go; nowhere for a share of zero.
pub(super) fn mirrors(context: &Context<'_, '_>, http: &HttpRoute) -> Vec<RequestMirrorPolicy> {
    let whole = |percent: u32| (percent > 0).then(|| filters::whole_percent(percent));
    let share = |percent: Percent| (percent.value > 0.0).then(|| filters::percent(percent));
    let of_first = match (http.mirror_percentage, http.mirror_percent) {
        (Some(percentage), _) => share(percentage),
        (None, Some(percent)) => whole(percent),
        (None, None) => whole(100),
    };
    let first = http.mirror.iter().map(|mirror| (mirror, of_first));
    let others = http.mirrors.iter().filter_map(|mirror| {
        let of_this = mirror.percentage.map_or_else(|| whole(100), share);
        Some((mirror.destination.as_ref()?, of_this))
    });
    let policy = |(destination, fraction)| {
        let fraction: Option<_> = fraction;
        Some(RequestMirrorPolicy {
            cluster: context.cluster(destination),
            runtime_fraction: Some(RuntimeFractionalPercent {
                default_value: Some(fraction?),
                ..RuntimeFractionalPercent::default()
            }),
            trace_sampled: Some(false),
            disable_shadow_host_suffix_append: true,
            ..RequestMirrorPolicy::default()
        })
    };
    first.chain(others).filter_map(policy).collect()
}
