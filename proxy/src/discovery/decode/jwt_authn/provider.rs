//! A provider of tokens: whose they are, where requests carry them, and where its keys come from.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;
use xds::envoy::config::core::v3::RetryPolicy;
use xds::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::{
    JwksSourceSpecifier, NormalizePayload,
};
use xds::envoy::extensions::filters::http::jwt_authn::v3::{
    JwksAsyncFetch, JwtCacheConfig, JwtClaimToHeader, JwtHeader, JwtProvider, RemoteJwks,
};

use super::super::errors::{At, Result, each, optional, refuse, required};
use super::super::matcher::string_matcher;
use super::super::service::http_uri;
use super::super::source::contents;
use super::super::tcp::backoff;
use super::super::value::{
    duration, duration_in_ms, header_name, non_empty, positive_duration, unless_empty,
};
use crate::config::jwt::jwks::Jwks;
use crate::config::jwt::{
    self, Audiences, FetchRetries, KeySource, Lifetime, Location, Place, Provider,
};
use crate::config::tcp::Backoff;

/// By how many seconds clocks may differ.
const CLOCK_SKEW: u32 = 60;
/// Tokens that are remembered for each provider, and for each with an empty `jwt_cache_config`.
const CACHE_SIZE: (usize, usize) = (512, 100);
/// The longest token that is remembered, in bytes.
const LONGEST_TOKEN: u32 = 4096;
/// How long fetched keys are used.
const CACHE_DURATION: Duration = Duration::from_secs(600);
/// After how long keys are fetched again if that failed.
const REFETCH: Duration = Duration::from_secs(1);
/// Pauses between the attempts of a fetch.
const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(10) };

/// The provider called `name`.
pub(super) fn provider(name: &str, proto: &JwtProvider) -> Result<Provider> {
    let JwtProvider {
        issuer,
        audiences,
        subjects,
        require_expiration,
        max_lifetime,
        forward,
        from_headers,
        from_params,
        from_cookies,
        forward_payload_header,
        pad_forward_payload_header,
        payload_in_metadata,
        normalize_payload_in_metadata: normalize,
        header_in_metadata,
        failed_status_in_metadata,
        clock_skew_seconds,
        jwt_cache_config,
        claim_to_headers,
        clear_route_cache,
        jwks_source_specifier: source,
    } = proto;
    let issuer = unless_empty(issuer);
    let places = places(from_headers, from_params, from_cookies)?;
    let at = |place| Location { place, issuers: vec![issuer.clone()] };
    let locations: Vec<_> = places.into_iter().map(at).collect();
    let skew = if *clock_skew_seconds == 0 { CLOCK_SKEW } else { *clock_skew_seconds };
    let lists = normalize.as_ref().map(|it| {
        let NormalizePayload { space_delimited_claims } = it;
        space_delimited_claims.iter().map(|claim| claim.as_str().into()).collect()
    });
    Ok(Provider {
        name: name.into(),
        audiences: Audiences::new(audiences),
        subjects: optional("subjects", subjects, string_matcher)?,
        lifetime: match optional("max_lifetime", max_lifetime, duration)? {
            Some(longest) => Lifetime::AtMost(longest),
            None if *require_expiration => Lifetime::Limited,
            None => Lifetime::Any,
        },
        clock_skew: skew.into(),
        keys: keys(required("remote_jwks or local_jwks", source)?)?,
        locations: Location::merged(locations.iter()),
        issuer,
        forward: *forward,
        payload_header: match forward_payload_header.as_str() {
            "" => None,
            name => {
                let name = header_name(name).at("forward_payload_header")?;
                Some((name, *pad_forward_payload_header))
            }
        },
        claim_headers: each("claim_to_headers", claim_to_headers, claim_header)?,
        payload_key: unless_empty(payload_in_metadata),
        lists: lists.unwrap_or_default(),
        header_key: unless_empty(header_in_metadata),
        failure_key: unless_empty(failed_status_in_metadata),
        clear_route: *clear_route_cache,
        cache: cache(jwt_cache_config.as_ref()),
    })
}

/// Where requests carry tokens; where RFC 6750 says, if the configuration does not.
fn places(headers: &[JwtHeader], parameters: &[String], cookies: &[String]) -> Result<Vec<Place>> {
    let header = |proto: &JwtHeader| {
        let JwtHeader { name, value_prefix } = proto;
        let name = header_name(name).at("name")?;
        Ok(Place::Header(name, value_prefix.as_str().into()))
    };
    let mut places = each("from_headers", headers, header)?;
    places.extend(parameters.iter().map(|name| Place::Parameter(name.as_str().into())));
    places.extend(cookies.iter().map(|name| Place::Cookie(name.as_str().into())));
    if places.is_empty() {
        places.push(Place::Header(AUTHORIZATION, "Bearer ".into()));
        places.push(Place::Parameter("access_token".into()));
    }
    Ok(places)
}

fn claim_header(proto: &JwtClaimToHeader) -> Result<(Vec<Box<str>>, HeaderName)> {
    let JwtClaimToHeader { header_name: name, claim_name } = proto;
    let path = non_empty("claim_name", claim_name)?.split('.').map(Into::into).collect();
    Ok((path, header_name(name).at("header_name")?))
}

fn cache(proto: Option<&JwtCacheConfig>) -> (usize, usize) {
    let or = |value: u32, default: usize| match value {
        0 => default,
        value => usize::try_from(value).unwrap_or(usize::MAX),
    };
    let longest = usize::try_from(LONGEST_TOKEN).unwrap_or_default();
    match proto {
        None => (CACHE_SIZE.0, longest),
        Some(JwtCacheConfig { jwt_cache_size, jwt_max_token_size }) => {
            (or(*jwt_cache_size, CACHE_SIZE.1), or(*jwt_max_token_size, longest))
        }
    }
}

fn keys(source: &JwksSourceSpecifier) -> Result<KeySource> {
    match source {
        JwksSourceSpecifier::LocalJwks(proto) => {
            let text = contents(proto).at("local_jwks")?;
            Jwks::parse(&text).at("local_jwks").map(|keys| KeySource::Local(Arc::new(keys)))
        }
        JwksSourceSpecifier::RemoteJwks(proto) => {
            remote(proto).at("remote_jwks").map(|remote| KeySource::Remote(Arc::new(remote)))
        }
    }
}

fn remote(proto: &RemoteJwks) -> Result<jwt::RemoteJwks> {
    let RemoteJwks { http_uri: uri, cache_duration, async_fetch, retry_policy } = proto;
    let uri = http_uri(required("http_uri", uri)?).at("http_uri")?;
    if uri.timeout.is_zero() {
        return refuse("http_uri.timeout", "must be longer than 0s");
    }
    let cache_duration = duration_in_ms("cache_duration", cache_duration.as_ref())?;
    let ahead = |proto: &JwksAsyncFetch| {
        let JwksAsyncFetch { fast_listener: _, failed_refetch_duration: refetch } = proto;
        let refetch = positive_duration("failed_refetch_duration", refetch.as_ref())?;
        Ok(refetch.unwrap_or(REFETCH))
    };
    Ok(jwt::RemoteJwks {
        uri,
        cache_duration: cache_duration.unwrap_or(CACHE_DURATION),
        ahead: optional("async_fetch", async_fetch, ahead)?,
        retries: optional("retry_policy", retry_policy, retries)?,
    })
}

fn retries(proto: &RetryPolicy) -> Result<FetchRetries> {
    let RetryPolicy { retry_back_off, num_retries, retry_on: _ } = proto;
    let backoff = optional("retry_back_off", retry_back_off, backoff)?.unwrap_or(BACKOFF);
    match num_retries.unwrap_or(1) {
        0..=1000 => Ok(FetchRetries { times: num_retries.unwrap_or(1), backoff }),
        _ => refuse("num_retries", "must be at most 1000"),
    }
}
