//! Redirects that are followed for the client (Envoy `config.route.v3.InternalRedirectPolicy`).

use http::StatusCode;
use http::header::HeaderName;

/// Envoy `InternalRedirectPolicy`.
#[derive(Debug, Clone, PartialEq)]
pub struct InternalRedirectPolicy {
    /// `max_internal_redirects`: how many are followed for one request; 1 by default.
    pub max: u32,
    /// `redirect_response_codes`: which answers are followed; 302 by default.
    pub statuses: Vec<StatusCode>,
    /// `predicates`: all must agree.
    pub predicates: Vec<RedirectPredicate>,
    /// `allow_cross_scheme_redirect`: whether the location may have another scheme than the request.
    pub cross_scheme: bool,
    /// `response_headers_to_copy`: headers of the answer that take the place of the request's.
    pub copied_headers: Vec<HeaderName>,
}

/// What decides about the route that a redirect leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectPredicate {
    /// `previous_routes`: no redirect from this route has led there.
    PreviousRoutes,
    /// `allow_listed_routes`: it has one of these names.
    AllowListed(Vec<Box<str>>),
    /// `safe_cross_scheme`: it is not https for a request that came in plain text.
    SafeCrossScheme,
}
