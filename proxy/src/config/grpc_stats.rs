//! What is counted of gRPC calls (Envoy `filters.http.grpc_stats.v3.FilterConfig`).

use std::collections::BTreeSet;

use super::HashMap;

/// Envoy `FilterConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcStats {
    /// `emit_filter_state`: whether the messages of a call are in its filter state, for logs.
    pub emits_state: bool,
    /// Which methods are counted by their names; all others are counted together.
    pub methods: GrpcMethods,
    /// `enable_upstream_stats`: whether calls are timed.
    pub upstream: bool,
    /// `replace_dots_in_grpc_service_name`: whether dots in the names of services become underscores.
    pub replaces_dots: bool,
}

/// See [`GrpcStats`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrpcMethods {
    /// `stats_for_all_methods`
    All,
    /// `individual_method_stats_allowlist`: services, and of each its methods.
    These(HashMap<Box<str>, BTreeSet<Box<str>>>),
}
