//! When a route is taken.

use xds::envoy::config::route::v3::RouteMatch;
use xds::envoy::config::route::v3::route_match::{
    ConnectMatcher, GrpcRouteMatchOptions, PathSpecifier, TlsContextMatchOptions,
};

use super::errors::{At, Result, each, optional, refuse};
use super::matcher::{header_matcher, query_parameter, regex};
use super::metadata::metadata_matcher;
use super::value::runtime_fraction;
use crate::config::route::{self, PathMatch, TlsContextMatch};

/// A route's conditions.
pub(super) fn route_match(proto: &RouteMatch) -> Result<route::RouteMatch> {
    let RouteMatch {
        case_sensitive,
        runtime_fraction: fraction,
        headers,
        query_parameters,
        grpc,
        tls_context,
        dynamic_metadata,
        path_specifier,
    } = proto;
    Ok(route::RouteMatch {
        path: path_match(path_specifier.as_ref(), case_sensitive.unwrap_or(true))?,
        headers: each("headers", headers, header_matcher)?,
        query_parameters: each("query_parameters", query_parameters, query_parameter)?,
        grpc: matches!(grpc, Some(GrpcRouteMatchOptions {})),
        runtime_fraction: optional("runtime_fraction", fraction, runtime_fraction)?,
        tls: tls_context.as_ref().map(|TlsContextMatchOptions { presented, validated }| {
            TlsContextMatch { presented: *presented, validated: *validated }
        }),
        dynamic_metadata: each("dynamic_metadata", dynamic_metadata, metadata_matcher)?,
    })
}

fn path_match(proto: Option<&PathSpecifier>, case_sensitive: bool) -> Result<PathMatch> {
    Ok(match proto {
        Some(PathSpecifier::Prefix(value)) => {
            PathMatch::Prefix { value: value.as_str().into(), case_sensitive }
        }
        Some(PathSpecifier::Path(value)) => {
            PathMatch::Exact { value: value.as_str().into(), case_sensitive }
        }
        Some(PathSpecifier::PathSeparatedPrefix(value)) => {
            if value.len() < 2 || value.contains(['?', '#']) || value.ends_with('/') {
                let reason = "needs two characters, and neither ? nor # nor a slash at its end";
                return refuse("path_separated_prefix", reason);
            }
            PathMatch::SeparatedPrefix { value: value.as_str().into(), case_sensitive }
        }
        Some(PathSpecifier::SafeRegex(proto)) => PathMatch::Regex(regex(proto).at("safe_regex")?),
        Some(PathSpecifier::ConnectMatcher(ConnectMatcher {})) => PathMatch::Connect,
        None => return refuse("", "required: prefix, path, or another path_specifier"),
    })
}
