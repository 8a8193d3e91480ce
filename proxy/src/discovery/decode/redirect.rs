//! Routes that the proxy answers itself: redirects and direct responses.

use bytes::Bytes;
use http::StatusCode;
use xds::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use xds::envoy::config::route::v3::{DirectResponseAction, RedirectAction};

use super::address::port_number;
use super::errors::{At, Result, refuse};
use super::rewrite::regex_rewrite;
use super::source::contents;
use super::value::{enumeration, unless_empty};
use crate::config::route::{DirectResponse, PathRedirect, Redirect, SchemeRedirect};

/// A redirect.
pub(super) fn redirect(proto: &RedirectAction) -> Result<Redirect> {
    let RedirectAction {
        host_redirect,
        port_redirect,
        response_code,
        strip_query,
        scheme_rewrite_specifier,
        path_rewrite_specifier,
    } = proto;
    let status = match enumeration("response_code", *response_code)? {
        RedirectResponseCode::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
        RedirectResponseCode::Found => StatusCode::FOUND,
        RedirectResponseCode::SeeOther => StatusCode::SEE_OTHER,
        RedirectResponseCode::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
        RedirectResponseCode::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
    };
    let port = port_number("port_redirect", *port_redirect)?;
    Ok(Redirect {
        status,
        scheme: match scheme_rewrite_specifier {
            Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => SchemeRedirect::Https,
            Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if !scheme.is_empty() => {
                SchemeRedirect::To(scheme.as_str().into())
            }
            Some(_) | None => SchemeRedirect::Keep,
        },
        host: unless_empty(host_redirect),
        port: (port != 0).then_some(port),
        path: path_redirect(path_rewrite_specifier.as_ref())?,
        strip_query: *strip_query,
    })
}

fn path_redirect(proto: Option<&PathRewriteSpecifier>) -> Result<PathRedirect> {
    Ok(match proto {
        Some(PathRewriteSpecifier::PathRedirect(path)) if !path.is_empty() => {
            PathRedirect::Full(path.as_str().into())
        }
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) if !prefix.is_empty() => {
            PathRedirect::Prefix(prefix.as_str().into())
        }
        Some(PathRewriteSpecifier::RegexRewrite(proto)) => {
            PathRedirect::Regex(regex_rewrite(proto).at("regex_rewrite")?)
        }
        Some(_) | None => PathRedirect::Keep,
    })
}

/// A fixed response, whose body may be `longest` bytes long.
pub(super) fn direct_response(
    proto: &DirectResponseAction,
    longest: usize,
) -> Result<DirectResponse> {
    let DirectResponseAction { status, body } = proto;
    let status = u16::try_from(*status)
        .ok()
        .filter(|status| (200..600).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| String::from("must be 200 to 599"))
        .at("status")?;
    let body = match body {
        Some(source) => contents(source).at("body")?,
        None => Vec::new(),
    };
    if body.len() > longest {
        let length = body.len();
        return refuse(
            "body",
            format!("response body size is {length} bytes; maximum is {longest}"),
        );
    }
    Ok(DirectResponse { status, body: Bytes::from(body) })
}
