//! What is counted of requests that need tokens.

use super::super::cell::{Cell, Counter};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// One worker's share of `http.MANAGER.jwt_authn.[PREFIX.]*`.
    JwtAuthnStats {
        /// Requests that were let through, with a good token or without need for one.
        allowed: Counter = "allowed",
        /// Requests that were let through because they are CORS preflights.
        cors_preflight_bypassed: Counter = "cors_preflight_bypassed",
        /// Requests without the tokens that they need.
        denied: Counter = "denied",
        /// Key sets that were fetched.
        jwks_fetch_success: Counter = "jwks_fetch_success",
        /// Fetches that brought no key set.
        jwks_fetch_failed: Counter = "jwks_fetch_failed",
        /// Tokens whose signature was known to be good.
        jwt_cache_hit: Counter = "jwt_cache_hit",
        /// Tokens whose signature was checked, or that did not get so far.
        jwt_cache_miss: Counter = "jwt_cache_miss",
    }
}
