//! By which part of a request its endpoint is chosen, where a `DestinationRule` asks for it.

use xds::envoy::config::route::v3::route_action::HashPolicy;
use xds::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
};

use crate::model::istio::destination_rule::{
    ConsistentHash, DestinationRule, PortTrafficPolicy, TrafficPolicy,
};
use crate::model::istio::virtual_service::Destination;
use crate::translate::values;

/// What a rule asks for at this port of a service that no virtual service routes.
pub(super) fn for_port(rule: &DestinationRule, port: u32) -> Option<&ConsistentHash> {
    let policy = rule.traffic_policy.as_ref();
    at_port(policy, port).or_else(|| of_policy(policy))
}

/// What a rule asks for at the destination of a route: a port's settings count only if the route names the port.
pub(super) fn for_destination<'r>(
    rule: &'r DestinationRule,
    destination: &Destination,
) -> Option<&'r ConsistentHash> {
    let port = destination.port.as_ref().map(|it| it.number);
    let at_port = |policy| port.and_then(|port| at_port(policy, port));
    let subset = rule.subsets.iter().find(|subset| subset.name == destination.subset);
    let of_subset = subset.and_then(|it| it.traffic_policy.as_ref());
    let of_rule = rule.traffic_policy.as_ref();
    at_port(of_subset)
        .or_else(|| of_policy(of_subset))
        .or_else(|| at_port(of_rule))
        .or_else(|| of_policy(of_rule))
}

fn of_policy(policy: Option<&TrafficPolicy>) -> Option<&ConsistentHash> {
    policy?.load_balancer.as_ref()?.consistent_hash.as_ref()
}

fn at_port(policy: Option<&TrafficPolicy>, port: u32) -> Option<&ConsistentHash> {
    let is_for = |it: &&PortTrafficPolicy| it.port.as_ref().is_some_and(|it| it.number == port);
    let settings = policy?.port_level_settings.iter().find(is_for)?;
    settings.load_balancer.as_ref()?.consistent_hash.as_ref()
}

/// The same for Envoy.
pub(super) fn policy(wanted: &ConsistentHash) -> Option<HashPolicy> {
    let specifier = if let Some(name) = &wanted.http_header_name {
        PolicySpecifier::Header(Header { header_name: name.clone(), ..Header::default() })
    } else if let Some(cookie) = &wanted.http_cookie {
        let attributes = cookie
            .attributes
            .iter()
            .map(|it| CookieAttribute { name: it.name.clone(), value: it.value.clone() });
        PolicySpecifier::Cookie(Cookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl.map(values::duration),
            path: cookie.path.clone(),
            attributes: attributes.collect(),
        })
    } else if let Some(source_ip) = wanted.use_source_ip {
        PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip })
    } else {
        let name = wanted.http_query_parameter_name.clone()?;
        PolicySpecifier::QueryParameter(QueryParameter { name })
    };
    Some(HashPolicy { terminal: false, policy_specifier: Some(specifier) })
}
