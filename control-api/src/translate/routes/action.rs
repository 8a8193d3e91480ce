//! Where a route's requests go, and what happens to them on the way.

use xds::envoy::config::route::v3::route::Action;
use xds::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HashPolicy, HostRewriteSpecifier,
};
use xds::envoy::config::route::v3::route_match::PathSpecifier;
use xds::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use xds::envoy::config::route::v3::weighted_cluster::cluster_weight::HostRewriteSpecifier as OfWeight;
use xds::envoy::config::route::v3::{Route, RouteAction, RouteMatch, WeightedCluster};
use xds::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use super::route::Context;
use super::{hash, headers, matching, retry, route};
use crate::model::duration::Duration;
use crate::model::istio::virtual_service::{HttpRewrite, HttpRoute, HttpRouteDestination};
use crate::translate::{manager, policy, values};

/// Adds the action, and to the route the changes of headers that a single destination asks for.
pub(super) fn apply(
    context: &Context<'_, '_>,
    http: &HttpRoute,
    gateway_api: bool,
    matched: &RouteMatch,
    authority: Option<String>,
    out: &mut Route,
) {
    let mut action = RouteAction::default();
    set_timeout(&mut action, http.timeout);
    if gateway_api {
        let code = ClusterNotFoundResponseCode::InternalServerError;
        action.cluster_not_found_response_code = code.into();
    }
    let mut authority = authority;
    if let Some(rewrite) = &http.rewrite {
        apply_rewrite(&mut action, rewrite, gateway_api, matched);
        action.append_x_forwarded_host = manager::tells_host(&context.view.settings);
        if !rewrite.authority.is_empty() {
            authority = Some(rewrite.authority.clone());
        }
    }
    action.host_rewrite_specifier = authority.map(HostRewriteSpecifier::HostRewriteLiteral);
    action.request_mirror_policies = route::mirrors(context, http);
    let mut sticky = false;
    if let [only] = &http.route[..] {
        single(context, only, &mut action, out);
        sticky = !action.hash_policy.is_empty();
    } else {
        // Of several, those without weight get nothing.
        let weighted = http.route.iter().filter(|it| it.weight > 0);
        let clusters = weighted.map(|it| weight(context, it, &mut action)).collect();
        let clusters = WeightedCluster { clusters, ..WeightedCluster::default() };
        action.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(clusters));
    }
    action.retry_policy = retry::policy(http.retries.as_ref(), sticky);
    out.action = Some(Action::Route(action));
}

/// Nothing ends a request where no time is given, not even what gRPC's client asks for.
pub(super) fn set_timeout(action: &mut RouteAction, timeout: Option<Duration>) {
    let timeout = values::duration(timeout.unwrap_or_default());
    action.timeout = Some(timeout);
    action.max_grpc_timeout = Some(timeout);
}

fn apply_rewrite(
    action: &mut RouteAction,
    rewrite: &HttpRewrite,
    gateway_api: bool,
    matched: &RouteMatch,
) {
    if let Some(by_regex) = &rewrite.uri_regex_rewrite {
        action.regex_rewrite = Some(substitution(&by_regex.r#match, &by_regex.rewrite));
    } else if gateway_api && !rewrite.uri.is_empty() {
        match replacement(&rewrite.uri, matched) {
            None => {}
            Some(Replacement::Prefix(prefix)) => action.prefix_rewrite = prefix,
            Some(Replacement::Regex(regex)) => action.regex_rewrite = Some(regex),
        }
    } else {
        action.prefix_rewrite.clone_from(&rewrite.uri);
    }
}

/// How whole segments of a path are replaced.
pub(super) enum Replacement {
    /// What was matched, by this.
    Prefix(String),
    /// What Envoy's prefixes do not do.
    Regex(RegexMatchAndSubstitute),
}

/// What was matched gives way to `wanted`, `/` for nothing. None if nothing changes.
pub(super) fn replacement(wanted: &str, matched: &RouteMatch) -> Option<Replacement> {
    let prefix = match &matched.path_specifier {
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => prefix.as_str(),
        _ => "",
    };
    match (prefix, wanted) {
        ("", "/") => None,
        // Something is put before the whole path.
        ("", _) => Some(Replacement::Regex(substitution("^/", &format!("{wanted}/")))),
        // The prefix goes, with the slash after it.
        (_, "/") => {
            let pattern = format!("^{}(/?)(.*)", regex::escape(prefix));
            Some(Replacement::Regex(substitution(&pattern, "/\\2")))
        }
        _ => Some(Replacement::Prefix(wanted.to_owned())),
    }
}

fn substitution(pattern: &str, substitution: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute {
        pattern: Some(matching::regex(pattern)),
        substitution: substitution.to_owned(),
    }
}

fn single(
    context: &Context<'_, '_>,
    wanted: &HttpRouteDestination,
    action: &mut RouteAction,
    out: &mut Route,
) {
    action.cluster_specifier = Some(ClusterSpecifier::Cluster(cluster(context, wanted)));
    let changes = headers::changes(wanted.headers.as_ref());
    out.request_headers_to_add.extend(changes.request_add);
    out.request_headers_to_remove.extend(changes.request_remove);
    out.response_headers_to_add.extend(changes.response_add);
    out.response_headers_to_remove.extend(changes.response_remove);
    if action.host_rewrite_specifier.is_none() {
        action.host_rewrite_specifier =
            changes.authority.map(HostRewriteSpecifier::HostRewriteLiteral);
    }
    action.hash_policy.extend(hash_policy(context, wanted));
}

fn weight(
    context: &Context<'_, '_>,
    wanted: &HttpRouteDestination,
    action: &mut RouteAction,
) -> ClusterWeight {
    let changes = headers::changes(wanted.headers.as_ref());
    action.hash_policy.extend(hash_policy(context, wanted));
    ClusterWeight {
        name: cluster(context, wanted),
        weight: Some(u32::try_from(wanted.weight).unwrap_or(0)),
        request_headers_to_add: changes.request_add,
        request_headers_to_remove: changes.request_remove,
        response_headers_to_add: changes.response_add,
        response_headers_to_remove: changes.response_remove,
        host_rewrite_specifier: changes.authority.map(OfWeight::HostRewriteLiteral),
        ..ClusterWeight::default()
    }
}

fn cluster(context: &Context<'_, '_>, wanted: &HttpRouteDestination) -> String {
    wanted.destination.as_ref().map(|it| context.cluster(it)).unwrap_or_default()
}

fn hash_policy(context: &Context<'_, '_>, wanted: &HttpRouteDestination) -> Option<HashPolicy> {
    let destination = wanted.destination.as_ref()?;
    let service = context.view.service(&destination.host)?;
    let rule = policy::rule(context.view.mesh, context.view.proxy, service)?;
    hash::policy(hash::for_destination(rule.spec, destination)?)
}
