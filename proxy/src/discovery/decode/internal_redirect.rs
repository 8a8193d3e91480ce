//! Redirects that are followed for the client.

use http::StatusCode;
use http::header::{HOST, HeaderName};
use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::config::route::v3::InternalRedirectPolicy;
use xds::envoy::extensions::internal_redirect::allow_listed_routes::v3::AllowListedRoutesConfig;
use xds::envoy::extensions::internal_redirect::previous_routes::v3::PreviousRoutesConfig;
use xds::envoy::extensions::internal_redirect::safe_cross_scheme::v3::SafeCrossSchemeConfig;

use super::errors::{At, Result, each, refuse, required};
use super::extension::{unpack, unsupported};
use super::value::{header_name, non_empty};
use crate::config::internal_redirect::{self, RedirectPredicate};

/// As many statuses as Envoy takes.
const MOST_STATUSES: usize = 5;

/// An `internal_redirect_policy`.
pub(super) fn internal_redirect(
    proto: &InternalRedirectPolicy,
) -> Result<internal_redirect::InternalRedirectPolicy> {
    let InternalRedirectPolicy {
        max_internal_redirects,
        redirect_response_codes,
        predicates,
        allow_cross_scheme_redirect,
        response_headers_to_copy,
    } = proto;
    if redirect_response_codes.len() > MOST_STATUSES {
        return refuse("redirect_response_codes", format!("at most {MOST_STATUSES} are taken"));
    }
    // As in Envoy, statuses that are no redirects are passed over.
    let known = |code: &u32| match code {
        301 => Some(StatusCode::MOVED_PERMANENTLY),
        302 => Some(StatusCode::FOUND),
        303 => Some(StatusCode::SEE_OTHER),
        307 => Some(StatusCode::TEMPORARY_REDIRECT),
        308 => Some(StatusCode::PERMANENT_REDIRECT),
        _ => None,
    };
    let statuses = match redirect_response_codes.as_slice() {
        [] => vec![StatusCode::FOUND],
        codes => codes.iter().filter_map(known).collect(),
    };
    Ok(internal_redirect::InternalRedirectPolicy {
        max: max_internal_redirects.unwrap_or(1),
        statuses,
        predicates: each("predicates", predicates, predicate)?,
        cross_scheme: *allow_cross_scheme_redirect,
        copied_headers: each("response_headers_to_copy", response_headers_to_copy, |name| {
            copied(name)
        })?,
    })
}

fn predicate(proto: &TypedExtensionConfig) -> Result<RedirectPredicate> {
    let TypedExtensionConfig { name, typed_config } = proto;
    non_empty("name", name)?;
    let any = required("typed_config", typed_config)?;
    if let Some(PreviousRoutesConfig {}) = unpack(any).at("typed_config")? {
        return Ok(RedirectPredicate::PreviousRoutes);
    }
    if let Some(SafeCrossSchemeConfig {}) = unpack(any).at("typed_config")? {
        return Ok(RedirectPredicate::SafeCrossScheme);
    }
    match unpack(any).at("typed_config")? {
        Some(AllowListedRoutesConfig { allowed_route_names }) => {
            let names = allowed_route_names.iter().map(|name| name.as_str().into());
            Ok(RedirectPredicate::AllowListed(names.collect()))
        }
        None => unsupported(any).at("typed_config"),
    }
}

fn copied(name: &str) -> Result<HeaderName> {
    if name.starts_with(':') || name.eq_ignore_ascii_case(HOST.as_str()) {
        return refuse("", ":-prefixed headers and host cannot be copied");
    }
    header_name(name)
}
