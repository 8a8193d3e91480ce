//! Where else a request is sent, and how it is changed for that (Envoy `RouteAction.RequestMirrorPolicy`).

use super::header::HeaderChange;
use super::matcher::Fraction;
use super::route::ClusterTarget;

/// Envoy `RouteAction.RequestMirrorPolicy`.
#[derive(Debug, Clone, PartialEq)]
pub struct MirrorPolicy {
    /// `cluster` or `cluster_header`.
    pub cluster: ClusterTarget,
    /// `runtime_fraction`: only this share of requests; none means all.
    pub fraction: Option<Fraction>,
    /// `trace_sampled`: whether its span is reported; none leaves that to the request's own.
    pub trace_sampled: Option<bool>,
    /// What the host becomes.
    pub host: MirrorHost,
    /// `request_headers_mutations`, in order.
    pub changes: Vec<HeaderChange>,
}

/// The host of a mirrored request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorHost {
    /// That of the request with `-shadow` after its name.
    Suffixed,
    /// That of the request (`disable_shadow_host_suffix_append`).
    Kept,
    /// `host_rewrite_literal`
    Literal(Box<str>),
}
