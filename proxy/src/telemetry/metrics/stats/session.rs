//! What is counted of stateful sessions with one stat prefix.

use super::super::cell::{Cell, Counter};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// One worker's share of `http.MANAGER.stateful_session.PREFIX.*`.
    SessionStats {
        /// Requests that went to the endpoint of their session.
        routed: Counter = "routed",
        /// Requests that began a session, or went elsewhere because the endpoint of theirs could not be had.
        failed_open: Counter = "failed_open",
        /// Requests that failed because the endpoint of their session could not be had.
        failed_closed: Counter = "failed_closed",
        /// Requests that can have no session.
        no_session: Counter = "no_session",
    }
}
