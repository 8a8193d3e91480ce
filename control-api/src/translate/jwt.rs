//! `RequestAuthentication`: which tokens are believed.
//!
//! A request with a token that is not valid is refused, one without any passes. Keys are those written in the policy,
//! or fetched by the proxies themselves from `jwksUri`, through the mesh's cluster of that host; where the mesh knows
//! no such host, or a policy has neither, there are no keys and no token is valid.

use std::collections::BTreeSet;

use xds::envoy::config::core::v3::data_source::Specifier;
use xds::envoy::config::core::v3::http_uri::HttpUpstreamType;
use xds::envoy::config::core::v3::{DataSource, HttpUri};
use xds::envoy::config::route::v3::RouteMatch;
use xds::envoy::config::route::v3::route_match::PathSpecifier;
use xds::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::{
    JwksSourceSpecifier, NormalizePayload,
};
use xds::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use xds::envoy::extensions::filters::http::jwt_authn::v3::requirement_rule::RequirementType;
use xds::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider, JwtRequirement,
    JwtRequirementAndList, JwtRequirementOrList, RemoteJwks, RequirementRule,
};
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

use super::proxy::{Proxy, Role};
use super::{attachment, providers, values};
use crate::model::duration::Duration;
use crate::model::istio::request_authentication::{JwtRule, RequestAuthentication};
use crate::model::{Found, Mesh};

/// How long fetching keys may take unless a rule says so.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long fetched keys are used.
const KEPT: Duration = Duration::from_secs(300);
/// A cluster that nothing is ever fetched from.
const NOWHERE: &str = "BlackHoleCluster";

/// The filter that reads tokens; none if no policy asks for one.
pub(super) fn filter(mesh: &Mesh, proxy: &Proxy) -> Option<HttpFilter> {
    let policies: Vec<Found<'_, RequestAuthentication>> = attachment::policies(mesh, proxy);
    let mut rules: Vec<&JwtRule> = policies.iter().flat_map(|it| &it.spec.jwt_rules).collect();
    if rules.is_empty() {
        return None;
    }
    rules.sort_by(|one, other| one.issuer.cmp(&other.issuer));
    let named: Vec<(String, &JwtRule)> = rules
        .into_iter()
        .enumerate()
        .map(|(index, rule)| (format!("origins-{index}"), rule))
        .collect();
    let requirement = requirement(named.iter().map(|(name, _)| name.as_str()));
    // Routes of gateways may ask for claims.
    let clears = proxy.role == Role::Router;
    let filter = JwtAuthentication {
        providers: named
            .into_iter()
            .map(|(name, rule)| (name, provider(mesh, rule, clears)))
            .collect(),
        rules: vec![RequirementRule {
            r#match: Some(RouteMatch {
                path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
                ..RouteMatch::default()
            }),
            requirement_type: Some(RequirementType::Requires(requirement)),
        }],
        bypass_cors_preflight: true,
        ..JwtAuthentication::default()
    };
    Some(values::http_filter("envoy.filters.http.jwt_authn", &filter))
}

/// A valid token of any of the providers, or of each of them a valid one or none.
fn requirement<'a>(names: impl Iterator<Item = &'a str>) -> JwtRequirement {
    let of = |requires| JwtRequirement { requires_type: Some(requires) };
    let any = |requirements| of(RequiresType::RequiresAny(JwtRequirementOrList { requirements }));
    let (mut each, mut or_none) = (Vec::new(), Vec::new());
    for name in names {
        let valid = of(RequiresType::ProviderName(name.to_owned()));
        each.push(valid.clone());
        or_none.push(any(vec![valid, of(RequiresType::AllowMissing(()))]));
    }
    if or_none.len() == 1 {
        return or_none.remove(0);
    }
    let all = JwtRequirementAndList { requirements: or_none };
    each.push(of(RequiresType::RequiresAll(all)));
    any(each)
}

fn provider(mesh: &Mesh, rule: &JwtRule, clear_route_cache: bool) -> JwtProvider {
    let mut spaced: BTreeSet<&str> = BTreeSet::from(["permission", "scope"]);
    spaced.extend(rule.space_delimited_claims.iter().map(String::as_str));
    let header = |it: &crate::model::istio::request_authentication::JwtHeader| JwtHeader {
        name: it.name.clone(),
        value_prefix: it.prefix.clone(),
    };
    let claim = |it: &crate::model::istio::request_authentication::ClaimToHeader| {
        JwtClaimToHeader { header_name: it.header.clone(), claim_name: it.claim.clone() }
    };
    JwtProvider {
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        forward: rule.forward_original_token,
        forward_payload_header: rule.output_payload_to_header.clone(),
        payload_in_metadata: "payload".to_owned(),
        normalize_payload_in_metadata: Some(NormalizePayload {
            space_delimited_claims: spaced.into_iter().map(ToOwned::to_owned).collect(),
        }),
        clear_route_cache,
        claim_to_headers: rule.output_claim_to_headers.iter().map(claim).collect(),
        from_headers: rule.from_headers.iter().map(header).collect(),
        from_params: rule.from_params.clone(),
        from_cookies: rule.from_cookies.clone(),
        jwks_source_specifier: Some(keys(mesh, rule)),
        ..JwtProvider::default()
    }
}

fn keys(mesh: &Mesh, rule: &JwtRule) -> JwksSourceSpecifier {
    if !rule.jwks.is_empty() {
        let specifier = Some(Specifier::InlineString(rule.jwks.clone()));
        return JwksSourceSpecifier::LocalJwks(DataSource { specifier, ..DataSource::default() });
    }
    let cluster = cluster(mesh, &rule.jwks_uri).unwrap_or_else(|| NOWHERE.to_owned());
    let uri = if rule.jwks_uri.is_empty() { &rule.issuer } else { &rule.jwks_uri };
    JwksSourceSpecifier::RemoteJwks(RemoteJwks {
        http_uri: Some(HttpUri {
            uri: uri.clone(),
            http_upstream_type: Some(HttpUpstreamType::Cluster(cluster)),
            timeout: Some(values::duration(rule.timeout.unwrap_or(TIMEOUT))),
        }),
        cache_duration: Some(values::duration(KEPT)),
        ..RemoteJwks::default()
    })
}

/// The mesh's cluster for an address `http[s]://HOST[:PORT]/…`.
fn cluster(mesh: &Mesh, uri: &str) -> Option<String> {
    let (rest, default) = match uri.split_once("://")? {
        ("http", rest) => (rest, 80),
        ("https", rest) => (rest, 443),
        _ => return None,
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, default),
    };
    providers::cluster(mesh, host, port).map(|it| it.cluster)
}

/// Rules whose tokens are never valid, for want of keys: the policy, the rule's path, and why.
pub(super) fn unapplied(mesh: &Mesh) -> Vec<(Found<'_, RequestAuthentication>, String, String)> {
    let mut found = Vec::new();
    for policy in mesh.all::<RequestAuthentication>() {
        for (index, rule) in policy.spec.jwt_rules.iter().enumerate() {
            if !rule.jwks.is_empty() || cluster(mesh, &rule.jwks_uri).is_some() {
                continue;
            }
            let why = if rule.jwks_uri.is_empty() {
                "keys are not looked up by the issuer's name: without jwks or jwksUri no token is valid"
            } else {
                "proxies fetch keys through the mesh, which knows no such host: no token is valid until a \
                 ServiceEntry tells of it"
            };
            found.push((policy, format!("spec.jwtRules[{index}]"), why.to_owned()));
        }
    }
    found
}
