//! What filters of a rule do, in the words of virtual services.

use std::collections::BTreeMap;

use super::backends::Backends;
use super::{Problems, unmet};
use crate::model::duration::Duration;
use crate::model::gateway_api::http_route::{
    Cors, HeaderFilter, HttpHeader, HttpRouteFilter, HttpRouteFilterType as Type, PathModifier,
    PathModifierType, RequestMirror, RequestRedirect, UrlRewrite,
};
use crate::model::istio::virtual_service::{
    CorsPolicy, HeaderOperations, Headers, HttpMirrorPolicy, HttpRedirect, HttpRewrite, HttpRoute,
    Percent, RedirectPortSelection, RegexRewrite, StringMatch, UnmatchedPreflights,
};

/// What a redirection answers with unless it says something else.
const FOUND: u32 = 302;
/// Origins as browsers send them.
const ANY_ORIGIN: &str = r"^[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s?#]+$";

/// Why a rule cannot be applied: the field, and words for people.
pub(super) type Unsupported = (String, String);

/// Adds what the filters at `path` do to a route, those of headers aside.
///
/// # Errors
/// One of them is not known here: the rule must not be applied without it.
pub(super) fn apply<'m>(
    backends: &Backends<'_, 'm>,
    filters: &'m [HttpRouteFilter],
    path: &str,
    out: &mut HttpRoute,
    problems: &mut Problems<'m>,
) -> Result<(), Unsupported> {
    for (index, filter) in filters.iter().enumerate() {
        let at = format!("{path}.filters[{index}]");
        match filter.r#type {
            Type::RequestHeaderModifier | Type::ResponseHeaderModifier => {}
            Type::RequestRedirect => {
                out.redirect = filter.request_redirect.as_ref().map(redirect);
            }
            Type::UrlRewrite => out.rewrite = filter.url_rewrite.as_ref().and_then(rewrite),
            Type::RequestMirror => {
                let Some(wanted) = &filter.request_mirror else { continue };
                let path = format!("{at}.requestMirror.backendRef");
                let destination =
                    backends.destination((&wanted.backend_ref).into(), &path, problems);
                // A copy that has nowhere to go is no reason to fail.
                if !destination.host.is_empty() {
                    let percentage = share(wanted);
                    let destination = Some(destination);
                    out.mirrors.push(HttpMirrorPolicy { destination, percentage });
                }
            }
            Type::Cors => out.cors_policy = filter.cors.as_ref().map(cors),
            Type::ExtensionRef | Type::ExternalAuth => {
                return Err((at, format!("filters of type {:?} are not known", filter.r#type)));
            }
        }
    }
    Ok(())
}

/// The changes of headers among the filters; none if there are none.
pub(super) fn headers(filters: &[HttpRouteFilter]) -> Option<Headers> {
    let request = filters.iter().rev().find_map(|it| it.request_header_modifier.as_ref());
    let response = filters.iter().rev().find_map(|it| it.response_header_modifier.as_ref());
    (request.is_some() || response.is_some())
        .then(|| Headers { request: request.map(operations), response: response.map(operations) })
}

/// The first filter that does more than change headers, which Envoy does not do for one of several clusters.
///
/// # Errors
/// It, if there is one.
pub(super) fn only_headers(filters: &[HttpRouteFilter], path: &str) -> Result<(), Unsupported> {
    let of_headers = |it: &HttpRouteFilter| {
        matches!(it.r#type, Type::RequestHeaderModifier | Type::ResponseHeaderModifier)
    };
    match filters.iter().enumerate().find(|(_, it)| !of_headers(it)) {
        None => Ok(()),
        Some((index, other)) => {
            let why = format!("a filter of type {:?} is for one backend of several", other.r#type);
            Err((format!("{path}.filters[{index}]"), why))
        }
    }
}

fn operations(wanted: &HeaderFilter) -> HeaderOperations {
    HeaderOperations {
        set: values(&wanted.set),
        add: values(&wanted.add),
        remove: wanted.remove.clone(),
    }
}

/// The first of equal names counts.
fn values(headers: &[HttpHeader]) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for header in headers {
        values.entry(header.name.to_ascii_lowercase()).or_insert_with(|| header.value.clone());
    }
    values
}

fn redirect(wanted: &RequestRedirect) -> HttpRedirect {
    let mut out = HttpRedirect {
        redirect_code: wanted.status_code.unwrap_or(FOUND),
        authority: wanted.hostname.clone().unwrap_or_default(),
        scheme: wanted.scheme.clone().unwrap_or_default(),
        port: wanted.port,
        // Without a scheme, the port stays what it is.
        derive_port: (wanted.port.is_none() && wanted.scheme.is_none())
            .then_some(RedirectPortSelection::FromRequestPort),
        ..HttpRedirect::default()
    };
    match wanted.path.as_ref().map(modified) {
        Some(Modified::Whole(path)) => out.uri = path,
        Some(Modified::Prefix(prefix)) => out.prefix_rewrite = prefix,
        None => {}
    }
    out
}

fn rewrite(wanted: &UrlRewrite) -> Option<HttpRewrite> {
    let mut out = HttpRewrite {
        authority: wanted.hostname.clone().unwrap_or_default(),
        ..HttpRewrite::default()
    };
    match wanted.path.as_ref().map(modified) {
        Some(Modified::Whole(path)) => {
            // A backslash would stand for a group.
            let rewrite = path.replace('\\', "\\\\");
            out.uri_regex_rewrite = Some(RegexRewrite { r#match: "/.*".to_owned(), rewrite });
        }
        Some(Modified::Prefix(prefix)) => out.uri = prefix,
        None => {}
    }
    (out != HttpRewrite::default()).then_some(out)
}

/// What becomes of a path.
enum Modified {
    Whole(String),
    /// Without a slash at the end, or `/` alone.
    Prefix(String),
}

fn modified(wanted: &PathModifier) -> Modified {
    match wanted.r#type {
        PathModifierType::ReplaceFullPath => {
            Modified::Whole(wanted.replace_full_path.clone().unwrap_or_default())
        }
        PathModifierType::ReplacePrefixMatch => {
            let prefix = wanted.replace_prefix_match.as_deref().unwrap_or_default();
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            Modified::Prefix(if prefix.is_empty() { "/".to_owned() } else { prefix.to_owned() })
        }
    }
}

fn share(wanted: &RequestMirror) -> Option<Percent> {
    let of_fraction = wanted.fraction.as_ref().map(|it| {
        let denominator = it.denominator.filter(|it| *it > 0).unwrap_or(100);
        100.0 * f64::from(it.numerator) / f64::from(denominator)
    });
    of_fraction.or_else(|| wanted.percent.map(f64::from)).map(|value| Percent { value })
}

fn cors(wanted: &Cors) -> CorsPolicy {
    CorsPolicy {
        allow_origins: wanted.allow_origins.iter().map(|it| origin(it)).collect(),
        allow_methods: wanted.allow_methods.clone(),
        allow_headers: wanted.allow_headers.clone(),
        expose_headers: wanted.expose_headers.clone(),
        max_age: wanted.max_age.filter(|it| *it > 0).map(|it| Duration::from_secs(it.into())),
        allow_credentials: wanted.allow_credentials.filter(|it| *it),
        unmatched_preflights: UnmatchedPreflights::Ignore,
        ..CorsPolicy::default()
    }
}

/// A `*` stands for any text.
fn origin(wanted: &str) -> StringMatch {
    match wanted.split_once('*') {
        None => StringMatch::Exact(wanted.to_owned()),
        Some(("", "")) => StringMatch::Regex(ANY_ORIGIN.to_owned()),
        Some((start, "")) => StringMatch::Prefix(start.to_owned()),
        Some(_) => {
            let pattern = regex::escape(wanted).replace("\\*", ".*");
            StringMatch::Regex(format!("^{pattern}$"))
        }
    }
}

/// Says what of a rule is not applied, and makes it answer with 500 in its place.
pub(super) fn failing<'m>(
    backends: &Backends<'_, 'm>,
    (path, why): Unsupported,
    out: &mut HttpRoute,
    problems: &mut Problems<'m>,
) {
    let why = format!("{why}; the rule's requests are answered with 500");
    problems.add(backends.route, &path, unmet::PARTIALLY_INVALID, &why);
    let (name, r#match) = (std::mem::take(&mut out.name), std::mem::take(&mut out.r#match));
    *out = HttpRoute { name, r#match, ..HttpRoute::default() };
    out.direct_response = Some(super::http::error());
}
