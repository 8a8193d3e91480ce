//! What is counted of requests from pages of other origins.

use super::super::cell::{Cell, Counter};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// One worker's share of `http.PREFIX.cors.*`.
    CorsStats {
        /// Requests with an origin that is allowed.
        origin_valid: Counter = "origin_valid",
        /// Requests with an origin that is not allowed.
        origin_invalid: Counter = "origin_invalid",
    }
}
