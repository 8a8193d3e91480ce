//! What is counted of where requests come from that change something.

use super::super::cell::{Cell, Counter};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// One worker's share of `http.PREFIX.csrf.*`.
    CsrfStats {
        /// Requests that do not say where they come from.
        missing_source_origin: Counter = "missing_source_origin",
        /// Requests that come from elsewhere.
        request_invalid: Counter = "request_invalid",
        /// Requests that come from where they may.
        request_valid: Counter = "request_valid",
    }
}
