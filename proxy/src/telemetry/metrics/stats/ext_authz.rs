//! What is counted of external authorization.

use super::super::cell::{Cell, Counter, Gauge, SparseCounter};
use super::super::sample::{Name, Samples, Scope};
use super::{Group, statistics};

statistics! {
    /// One worker's share of `http.MANAGER.ext_authz.[PREFIX.]*`.
    ExtAuthzStats {
        /// Requests that were allowed.
        ok: Counter = "ok",
        /// Requests that were denied.
        denied: Counter = "denied",
        /// Requests that could not be checked.
        error: Counter = "error",
        /// Requests that were not to be checked.
        disabled: Counter = "disabled",
        /// Requests that went on although they could not be checked.
        failure_mode_allowed: Counter = "failure_mode_allowed",
        /// Requests refused because the service's answer made no sense.
        invalid: Counter = "invalid",
        /// Answers whose dynamic metadata was not taken.
        ignored_dynamic_metadata: Counter = "ignored_dynamic_metadata",
    }
}

statistics! {
    /// One worker's share of `cluster.NAME.ext_authz.[PREFIX.]*`.
    ClusterAuthzStats {
        /// Requests for the cluster that were allowed.
        ok: SparseCounter = "ok",
        /// Requests for the cluster that were denied.
        denied: SparseCounter = "denied",
        /// Requests for the cluster that could not be checked.
        error: SparseCounter = "error",
        /// Requests for the cluster that went on although they could not be checked.
        failure_mode_allowed: SparseCounter = "failure_mode_allowed",
        /// Requests for the cluster refused because the service's answer made no sense.
        invalid: SparseCounter = "invalid",
    }
}

statistics! {
    /// One worker's share of `ext_authz.PREFIX.*`.
    NetworkAuthzStats {
        /// Connections that were checked.
        total: Counter = "total",
        /// Connections that were allowed.
        ok: Counter = "ok",
        /// Connections that were denied.
        denied: Counter = "denied",
        /// Connections that could not be checked.
        error: Counter = "error",
        /// Connections that were not to be checked.
        disabled: Counter = "disabled",
        /// Connections that went on although they could not be checked.
        failure_mode_allowed: Counter = "failure_mode_allowed",
        /// Connections that were closed.
        cx_closed: Counter = "cx_closed",
        /// Connections that are being checked.
        active: Gauge = "active",
    }
}
