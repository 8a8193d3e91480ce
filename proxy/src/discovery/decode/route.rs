//! Route tables, virtual hosts and routes.

use std::collections::HashSet;
use std::sync::Arc;

use xds::envoy::config::route::v3::route::Action as ActionKind;
use xds::envoy::config::route::v3::virtual_host::TlsRequirementType;
use xds::envoy::config::route::v3::{Route, RouteConfiguration, VirtualCluster, VirtualHost};

use super::errors::{At, Result, both, each, optional, refuse, required};
use super::header::mutations;
use super::http_filter::per_filter_config;
use super::matcher::header_matcher;
use super::metadata::{self, packed};
use super::mirror::mirrors;
use super::rate_limit::rate_limits;
use super::redirect::{direct_response, redirect};
use super::retry::retry_policy;
use super::route_action::route_action;
use super::route_match::route_match;
use super::tracing::{decorator, route_tracing};
use super::value::{enumeration, header_name, name, unless_empty};
use crate::config::Name;
use crate::config::header::HeaderMutations;
use crate::config::route::{self, Action, RequireTls, RouteConfig};

/// Longest body of a direct response, unless the table says otherwise.
const DIRECT_RESPONSE_BODY: u32 = 4096;

/// A route table.
pub(super) fn route_config(proto: &RouteConfiguration) -> Result<RouteConfig> {
    let RouteConfiguration {
        name,
        virtual_hosts,
        internal_only_headers,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_add,
        request_headers_to_remove,
        most_specific_header_mutations_wins,
        validate_clusters,
        max_direct_response_body_size_bytes,
        ignore_port_in_host_matching,
        ignore_path_parameters_in_path_matching,
        request_mirror_policies,
        typed_per_filter_config,
        metadata: _,
    } = proto;
    let filters = per_filter_config(typed_per_filter_config)?;
    let longest = max_direct_response_body_size_bytes.unwrap_or(DIRECT_RESPONSE_BODY);
    let (virtual_hosts, (request_headers, response_headers)) = both(
        each("virtual_hosts", virtual_hosts, |host| virtual_host(host, longest as usize)),
        both(
            mutations("request", request_headers_to_add, request_headers_to_remove),
            mutations("response", response_headers_to_add, response_headers_to_remove),
        ),
    )?;
    unique_domains(name, &virtual_hosts)?;
    Ok(RouteConfig {
        name: name.as_str().into(),
        filters,
        virtual_hosts,
        request_headers,
        response_headers,
        internal_only_headers: each("internal_only_headers", internal_only_headers, |name| {
            header_name(name)
        })?,
        most_specific_header_mutations_wins: *most_specific_header_mutations_wins,
        ignore_port_in_host_matching: *ignore_port_in_host_matching,
        ignore_path_parameters_in_path_matching: *ignore_path_parameters_in_path_matching,
        validate_clusters: *validate_clusters,
        mirrors: mirrors(request_mirror_policies)?,
    })
}

fn unique_domains(table: &str, hosts: &[route::VirtualHost]) -> Result<()> {
    let mut seen = HashSet::new();
    for (index, host) in hosts.iter().enumerate() {
        for (position, domain) in host.domains.iter().enumerate() {
            if seen.insert(domain.to_ascii_lowercase()) {
                continue;
            }
            let reason = if domain == "*" {
                format!("Only a single wildcard domain is permitted in route {table}")
            } else {
                format!(
                    "Only unique values for domains are permitted. \
                    Duplicate entry of domain {domain} in route {table}"
                )
            };
            return refuse(&format!("virtual_hosts[{index}].domains[{position}]"), reason);
        }
    }
    Ok(())
}

fn virtual_host(proto: &VirtualHost, longest_body: usize) -> Result<route::VirtualHost> {
    let VirtualHost {
        name: host_name,
        domains,
        routes,
        require_tls,
        virtual_clusters,
        rate_limits: limits,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
        include_request_attempt_count,
        include_attempt_count_in_response,
        retry_policy: retry,
        include_is_timeout_retry_header,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        request_mirror_policies,
        metadata,
    } = proto;
    let filters = per_filter_config(typed_per_filter_config)?;
    if domains.is_empty() {
        return refuse("domains", "at least one is required");
    }
    let (routes, (request_headers, response_headers)) = both(
        each("routes", routes, |proto| decode_route(proto, longest_body).map(Arc::new)),
        both(
            mutations("request", request_headers_to_add, request_headers_to_remove),
            mutations("response", response_headers_to_add, response_headers_to_remove),
        ),
    )?;
    Ok(route::VirtualHost {
        name: name("name", host_name)?,
        filters,
        domains: domains.clone(),
        routes,
        require_tls: tls_requirement(*require_tls)?,
        request_headers,
        response_headers,
        retry_policy: optional("retry_policy", retry, retry_policy)?.map(Arc::new),
        include_request_attempt_count: *include_request_attempt_count,
        include_attempt_count_in_response: *include_attempt_count_in_response,
        include_is_timeout_retry_header: *include_is_timeout_retry_header,
        request_body_buffer_limit: request_body_buffer_limit
            .or(per_request_buffer_limit_bytes.map(u64::from)),
        mirrors: mirrors(request_mirror_policies)?,
        virtual_clusters: each("virtual_clusters", virtual_clusters, virtual_cluster)?,
        rate_limits: rate_limits(limits)?,
        metadata: packed(metadata),
    })
}

fn tls_requirement(proto: i32) -> Result<RequireTls> {
    Ok(match enumeration("require_tls", proto)? {
        TlsRequirementType::None => RequireTls::None,
        TlsRequirementType::ExternalOnly => RequireTls::ExternalOnly,
        TlsRequirementType::All => RequireTls::All,
    })
}

fn virtual_cluster(proto: &VirtualCluster) -> Result<route::VirtualCluster> {
    let VirtualCluster { headers, name: cluster_name } = proto;
    if headers.is_empty() {
        return refuse("headers", "at least one is required");
    }
    Ok(route::VirtualCluster {
        name: name("name", cluster_name)?,
        headers: each("headers", headers, header_matcher)?,
    })
}

fn decode_route(proto: &Route, longest_body: usize) -> Result<route::Route> {
    let Route {
        name,
        r#match,
        metadata: said,
        decorator: span_name,
        tracing,
        stat_prefix,
        typed_per_filter_config,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        action,
    } = proto;
    let filters = per_filter_config(typed_per_filter_config)?;
    let matcher = required("match", r#match).and_then(|proto| route_match(proto).at("match"));
    let action = decode_action(action.as_ref(), longest_body);
    let request = mutations("request", request_headers_to_add, request_headers_to_remove);
    let response = mutations("response", response_headers_to_add, response_headers_to_remove);
    let ((matcher, action), (request_headers, response_headers)): (_, (HeaderMutations, _)) =
        both(both(matcher, action), both(request, response))?;
    Ok(route::Route {
        name: name.as_str().into(),
        filters,
        matcher,
        action,
        request_headers,
        response_headers,
        decorator: optional("decorator", span_name, decorator)?.map(Box::new),
        tracing: optional("tracing", tracing, route_tracing)?.map(Box::new),
        stat_prefix: unless_empty(stat_prefix).map(Name::from),
        request_body_buffer_limit: request_body_buffer_limit
            .or(per_request_buffer_limit_bytes.map(u64::from)),
        metadata: said.as_ref().and_then(metadata::metadata),
    })
}

fn decode_action(proto: Option<&ActionKind>, longest_body: usize) -> Result<Action> {
    Ok(match proto {
        Some(ActionKind::Route(proto)) => {
            Action::Forward(Box::new(route_action(proto).at("route")?))
        }
        Some(ActionKind::Redirect(proto)) => {
            Action::Redirect(Box::new(redirect(proto).at("redirect")?))
        }
        Some(ActionKind::DirectResponse(proto)) => {
            Action::DirectResponse(direct_response(proto, longest_body).at("direct_response")?)
        }
        None => return refuse("", "required: route, redirect or direct_response"),
    })
}
