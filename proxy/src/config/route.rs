//! Route tables as configured (Envoy `config.route.v3.RouteConfiguration`).

mod rewrite;
mod stream_duration;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderName;

use super::Name;
use super::hash_policy::HashPolicy;
use super::header::HeaderMutations;
use super::http::UpgradeConfig;
use super::http_filter::FilterOverride;
use super::internal_redirect::InternalRedirectPolicy;
use super::matcher::{Fraction, HeaderMatcher, HeaderRef, QueryParameterMatcher, Regex};
use super::metadata::{Metadata, MetadataMatcher, Packed};
use super::mirror::MirrorPolicy;
use super::rate_limit::RateLimit;
use super::retry::RetryPolicy;
use super::subset::MetadataMatch;
use super::tracing::{Decorator, RouteTracing};

pub use rewrite::{HostRewrite, PathRewrite, RegexRewrite, SubstitutionPiece};
pub use stream_duration::{GrpcTimeout, StreamDuration};

/// Envoy `RouteConfiguration`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RouteConfig {
    /// Its name; empty for an unnamed inline table.
    pub name: Name,
    /// Virtual hosts in configuration order; no two share a domain.
    pub virtual_hosts: Vec<VirtualHost>,
    /// Changes to every request.
    pub request_headers: HeaderMutations,
    /// Changes to every response.
    pub response_headers: HeaderMutations,
    /// Removed from requests of external callers.
    pub internal_only_headers: Vec<HeaderName>,
    /// Whether the route's header changes are applied last and so win; by default the table's do.
    pub most_specific_header_mutations_wins: bool,
    /// Whether the port in the Host header is ignored for virtual host matching.
    pub ignore_port_in_host_matching: bool,
    /// Whether `;params` are ignored in path matching.
    pub ignore_path_parameters_in_path_matching: bool,
    /// Whether routes to unknown clusters refuse the table; a static table's default is true, RDS false.
    pub validate_clusters: Option<bool>,
    /// `request_mirror_policies` of virtual hosts without their own.
    pub mirrors: Vec<MirrorPolicy>,
    /// `typed_per_filter_config`, by filter name.
    pub filters: Vec<Arc<FilterOverride>>,
}

/// Envoy `VirtualHost`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VirtualHost {
    /// Its name, unique in the table.
    pub name: Name,
    /// `*`, `*.suffix`, `prefix.*` or exact, in configuration order.
    pub domains: Vec<String>,
    /// First match wins.
    pub routes: Vec<Arc<Route>>,
    /// Whether plain-text requests are redirected.
    pub require_tls: RequireTls,
    /// Changes to requests.
    pub request_headers: HeaderMutations,
    /// Changes to responses.
    pub response_headers: HeaderMutations,
    /// Retry policy of routes without their own.
    pub retry_policy: Option<Arc<RetryPolicy>>,
    /// Whether the upstream sees `x-envoy-attempt-count`.
    pub include_request_attempt_count: bool,
    /// Whether the client sees `x-envoy-attempt-count`.
    pub include_attempt_count_in_response: bool,
    /// Whether `x-envoy-is-timeout-retry` marks retries after a timeout.
    pub include_is_timeout_retry_header: bool,
    /// Body bytes kept for retries; none means the listener's buffer limit.
    pub request_body_buffer_limit: Option<u64>,
    /// `request_mirror_policies` of routes without their own.
    pub mirrors: Vec<MirrorPolicy>,
    /// `typed_per_filter_config`, by filter name.
    pub filters: Vec<Arc<FilterOverride>>,
    /// Named request classes for logs and statistics; first match wins.
    pub virtual_clusters: Vec<VirtualCluster>,
    /// `rate_limits`, for routes that want them or have none of their own.
    pub rate_limits: Vec<RateLimit>,
    /// `metadata`, if there is any.
    pub metadata: Option<Packed>,
}

/// The virtual cluster of requests that match none, where there are any.
pub static OTHER_REQUESTS: LazyLock<Name> = LazyLock::new(|| "other".into());

/// Envoy `VirtualCluster`: a name for requests that match all of `headers`.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualCluster {
    /// The name.
    pub name: Name,
    /// All must match.
    pub headers: Vec<HeaderMatcher>,
}

/// Envoy `VirtualHost.TlsRequirementType`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RequireTls {
    /// Plain text is served.
    #[default]
    None,
    /// External callers over plain text get a 301 to https.
    ExternalOnly,
    /// Every plain-text request gets a 301 to https.
    All,
}

/// Envoy `Route`.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Its name, may be empty.
    pub name: Name,
    /// When it is taken.
    pub matcher: RouteMatch,
    /// What it does.
    pub action: Action,
    /// Changes to requests.
    pub request_headers: HeaderMutations,
    /// Changes to responses.
    pub response_headers: HeaderMutations,
    /// `decorator`: how its spans are called.
    pub decorator: Option<Box<Decorator>>,
    /// `tracing`, in place of what the connection manager says.
    pub tracing: Option<Box<RouteTracing>>,
    /// `stat_prefix`: what its requests are counted under; none if they are not.
    pub stat_prefix: Option<Name>,
    /// Body bytes kept for retries; none means the virtual host's.
    pub request_body_buffer_limit: Option<u64>,
    /// `metadata`
    pub metadata: Option<Arc<Metadata>>,
    /// `typed_per_filter_config`, by filter name.
    pub filters: Vec<Arc<FilterOverride>>,
}

/// Envoy `RouteMatch`: all conditions must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// Every one must match.
    pub headers: Vec<HeaderMatcher>,
    /// Every one must match.
    pub query_parameters: Vec<QueryParameterMatcher>,
    /// Only gRPC requests (content-type `application/grpc` or `application/grpc+…`).
    pub grpc: bool,
    /// Only this share of requests.
    pub runtime_fraction: Option<Fraction>,
    /// What the client's TLS must be like.
    pub tls: Option<TlsContextMatch>,
    /// Conditions on dynamic metadata; every one must match.
    pub dynamic_metadata: Vec<MetadataMatcher>,
}

/// Envoy `RouteMatch.path_specifier`.
#[derive(Debug, Clone, PartialEq)]
pub enum PathMatch {
    /// `prefix`
    Prefix {
        /// The path begins with this.
        value: Box<str>,
        /// Whether ASCII case counts.
        case_sensitive: bool,
    },
    /// `path`
    Exact {
        /// The path equals this.
        value: Box<str>,
        /// Whether ASCII case counts.
        case_sensitive: bool,
    },
    /// `path_separated_prefix`: equals this, or goes on with `/` after it.
    SeparatedPrefix {
        /// Without trailing slash.
        value: Box<str>,
        /// Whether ASCII case counts.
        case_sensitive: bool,
    },
    /// `safe_regex`: the whole path matches, without query.
    Regex(Regex),
    /// `connect_matcher`: CONNECT requests (and extended CONNECT).
    Connect,
}

/// Envoy `RouteMatch.TlsContextMatchOptions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsContextMatch {
    /// Whether a client certificate was presented.
    pub presented: Option<bool>,
    /// Whether it was validated.
    pub validated: Option<bool>,
}

/// What a route does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Forward to a cluster.
    Forward(Box<RouteAction>),
    /// Answer with a redirect.
    Redirect(Box<Redirect>),
    /// Answer with a fixed response.
    DirectResponse(DirectResponse),
}

/// Envoy `RouteAction`.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteAction {
    /// Where to.
    pub cluster: ClusterSpecifier,
    /// Status when the cluster does not exist: 503 (default), 404 or 500.
    pub cluster_not_found_status: StatusCode,
    /// `metadata_match`: what is wanted of the endpoint, where the cluster has subsets.
    pub metadata_match: Option<Arc<MetadataMatch>>,
    /// How the path changes.
    pub path_rewrite: PathRewrite,
    /// How the host changes.
    pub host_rewrite: HostRewrite,
    /// Whether a changed host is kept in `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
    /// Limit from the end of the request to the end of the response; none means no limit (Envoy's default is 15 s).
    pub timeout: Option<Duration>,
    /// Stream idle timeout in place of the connection manager's; `Some(None)` turns it off.
    pub idle_timeout: Option<Option<Duration>>,
    /// `max_stream_duration`: limits on the stream's whole life in place of `timeout`.
    pub stream_duration: Option<StreamDuration>,
    /// `max_grpc_timeout`: the timeout of gRPC requests is their own.
    pub grpc_timeout: Option<GrpcTimeout>,
    /// Its own retry policy.
    pub retry_policy: Option<Arc<RetryPolicy>>,
    /// `internal_redirect_policy`: which redirects are followed for the client; none passes all on.
    pub internal_redirect: Option<Box<InternalRedirectPolicy>>,
    /// `request_mirror_policies`: where else the request is sent; if empty, the virtual host's apply.
    pub mirrors: Vec<MirrorPolicy>,
    /// Which circuit-breaker thresholds apply.
    pub priority: Priority,
    /// `hash_policy`: what of a request decides about its endpoint, where the cluster balances by hash.
    pub hash_policies: Vec<HashPolicy>,
    /// Upgrades allowed or refused in place of the connection manager's.
    pub upgrades: Vec<UpgradeConfig>,
    /// `rate_limits`: what a request counts for.
    pub rate_limits: Vec<RateLimit>,
    /// `include_vh_rate_limits`: whether it counts for those of the virtual host as well, whatever a filter says.
    pub include_vh_rate_limits: bool,
}

/// Envoy `core.v3.RoutingPriority`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Priority {
    /// DEFAULT
    #[default]
    Default,
    /// HIGH
    High,
}

/// Envoy `RouteAction.cluster_specifier`.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterSpecifier {
    /// `cluster`
    Name(Name),
    /// `cluster_header`: the named request header holds the cluster's name.
    Header(HeaderRef),
    /// `weighted_clusters`
    Weighted(WeightedClusters),
}

/// Envoy `WeightedCluster`.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedClusters {
    /// The choices, in order.
    pub clusters: Vec<WeightedCluster>,
    /// Sum of the weights, at least 1.
    pub total: u64,
    /// What chooses among them.
    pub random_value: RandomValue,
}

/// Envoy `WeightedCluster.random_value_specifier`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RandomValue {
    /// The request's random number.
    #[default]
    Drawn,
    /// `header_name`: a request header whose decimal value replaces it.
    Header(HeaderName),
    /// `use_hash_policy`: the hash of the route's hash policies replaces it.
    HashPolicy,
}

/// Envoy `WeightedCluster.ClusterWeight`.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedCluster {
    /// `name`, or none when `header` decides.
    pub target: ClusterTarget,
    /// `metadata_match` over the route's; none means the route's.
    pub metadata_match: Option<Arc<MetadataMatch>>,
    /// Its share of the total.
    pub weight: u32,
    /// Changes to requests.
    pub request_headers: HeaderMutations,
    /// Changes to responses.
    pub response_headers: HeaderMutations,
    /// `host_rewrite_literal`
    pub host_rewrite: Option<Box<str>>,
    /// `typed_per_filter_config`, by filter name.
    pub filters: Vec<Arc<FilterOverride>>,
}

/// How one weighted choice names its cluster.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterTarget {
    /// `name`
    Name(Name),
    /// `cluster_header`
    Header(HeaderRef),
}

/// Envoy `RedirectAction`.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// The scheme of the new location.
    pub scheme: SchemeRedirect,
    /// The host of the new location.
    pub host: Option<Box<str>>,
    /// The port of the new location.
    pub port: Option<u16>,
    /// The path of the new location.
    pub path: PathRedirect,
    /// Whether the query is dropped.
    pub strip_query: bool,
}

/// Envoy `RedirectAction.scheme_rewrite_specifier`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SchemeRedirect {
    /// As requested.
    #[default]
    Keep,
    /// `https_redirect`
    Https,
    /// `scheme_redirect`
    To(Box<str>),
}

/// Envoy `RedirectAction.path_rewrite_specifier`.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum PathRedirect {
    /// As requested.
    #[default]
    Keep,
    /// `path_redirect`, may hold its own query
    Full(Box<str>),
    /// `prefix_rewrite`
    Prefix(Box<str>),
    /// `regex_rewrite`
    Regex(RegexRewrite),
}

/// Envoy `DirectResponseAction`.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectResponse {
    /// 200 to 599.
    pub status: StatusCode,
    /// The body, at most 4 KiB unless the table raises the limit.
    pub body: Bytes,
}
