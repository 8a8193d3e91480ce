//! HTTP filters as configured, and what route tables say to them.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::Name;
use super::compression::{Compressor, Decompressor, RouteCompression};
use super::dns::Cache;
use super::ext_authz::{ExtAuthz, RouteAuthz};
use super::fault::Fault;
use super::format::Format;
use super::global_rate_limit::{GlobalRateLimit, RouteRateLimit};
use super::grpc_stats::GrpcStats;
use super::header::{AppendAction, HeaderChange};
use super::istio::{AlpnOverrides, PeerMetadata};
use super::jwt::{JwtAuthn, RouteRequirement};
use super::local_rate_limit::LocalRateLimit;
use super::matcher::{Fraction, HeaderMatcher, StringMatcher};
use super::rbac::{Rbac, RbacFilter};
use super::source::ConfigSource;

/// A filter that requests pass before the router (Envoy `HttpFilter`).
#[derive(Debug, Clone, PartialEq)]
pub struct HttpFilter {
    /// Its name in the chain, by which routes speak to it.
    pub name: Name,
    /// `disabled`: whether requests pass it by unless their route says otherwise.
    pub disabled: bool,
    /// What it does.
    pub kind: FilterKind,
}

/// Which filter it is.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterKind {
    /// `envoy.filters.http.dynamic_forward_proxy`: hosts are resolved before requests are forwarded.
    ForwardProxy(Arc<Cache>),
    /// `envoy.filters.http.stateful_session`
    StatefulSession(StatefulSession),
    /// `envoy.filters.http.cors`: what is allowed is said by routes alone.
    Cors,
    /// `envoy.filters.http.header_mutation`
    HeaderMutation(HeaderMutation),
    /// `envoy.filters.http.buffer`: how large a request may be, in bytes.
    Buffer(u32),
    /// `envoy.filters.http.csrf`
    Csrf(Box<CsrfPolicy>),
    /// `envoy.filters.http.compressor`
    Compressor(Box<Compressor>),
    /// `envoy.filters.http.decompressor`
    Decompressor(Box<Decompressor>),
    /// `envoy.filters.http.grpc_stats`
    GrpcStats(Box<GrpcStats>),
    /// `envoy.filters.http.grpc_web`
    GrpcWeb,
    /// `envoy.filters.http.health_check`
    HealthCheck(Arc<HealthCheck>),
    /// `envoy.filters.http.set_filter_state`
    SetFilterState(Vec<SetFilterState>),
    /// `envoy.filters.http.fault`
    Fault(Box<Fault>),
    /// `envoy.filters.http.rbac`
    Rbac(Box<RbacFilter>),
    /// `envoy.filters.http.jwt_authn`
    JwtAuthn(Arc<JwtAuthn>),
    /// `envoy.filters.http.ext_authz`
    ExtAuthz(Arc<ExtAuthz>),
    /// `envoy.filters.http.ratelimit`
    RateLimit(Arc<GlobalRateLimit>),
    /// `istio.alpn`
    IstioAlpn(Arc<AlpnOverrides>),
    /// `istio.metadata_exchange`
    IstioPeerMetadata(PeerMetadata),
    /// `envoy.filters.http.wasm` whose plugin is indispensable: plugins are not run, so no request passes.
    Wasm,
    /// `config_discovery`: what it does is discovered.
    Discovered(Box<DiscoveredFilter>),
    /// `envoy.filters.http.local_ratelimit`
    LocalRateLimit(Arc<LocalRateLimit>),
}

/// A filter whose configuration is discovered (Envoy `core.v3.ExtensionConfigSource`).
#[derive(Debug, Clone, PartialEq)]
pub struct DiscoveredFilter {
    /// `config_source`; the resource has the filter's name.
    pub source: ConfigSource,
    /// `type_urls`: what it may turn out to be; the last parts of the URLs.
    pub types: Vec<Box<str>>,
    /// `default_config`
    pub default: Option<FilterKind>,
}

/// What a table, virtual host, route or weighted cluster says to one filter (an entry of its
/// `typed_per_filter_config`).
#[derive(Debug, Clone, PartialEq)]
pub struct FilterOverride {
    /// The filter's name in its chain.
    pub filter: Name,
    /// What it says.
    pub rule: FilterRule,
}

/// See [`FilterOverride`]. What is meant for another kind of filter means nothing to this one, as in Envoy, except
/// that it enables it.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterRule {
    /// `FilterConfig.disabled`
    Disabled,
    /// `FilterConfig` with an empty `config`: not disabled, as configured elsewhere.
    Enabled,
    /// Envoy `filters.http.dynamic_forward_proxy.v3.PerRouteConfig`
    ForwardProxy(ForwardRewrite),
    /// Envoy `filters.http.stateful_session.v3.StatefulSessionPerRoute`; none means no sessions.
    StatefulSession(Option<StatefulSession>),
    /// Envoy `filters.http.cors.v3.CorsPolicy`
    Cors(CorsPolicy),
    /// Envoy `filters.http.buffer.v3.BufferPerRoute`: how large a request may be; none means that it is not waited for.
    Buffer(Option<u32>),
    /// Envoy `filters.http.csrf.v3.CsrfPolicy`, in place of the filter's own.
    Csrf(Box<CsrfPolicy>),
    /// Envoy `filters.http.compressor.v3.CompressorPerRoute`
    Compressor(RouteCompression),
    /// Envoy `filters.http.set_filter_state.v3.Config`, beside the filter's own.
    SetFilterState(Vec<SetFilterState>),
    /// Envoy `filters.http.fault.v3.HTTPFault`, in place of the filter's own.
    Fault(Box<Fault>),
    /// Envoy `filters.http.local_ratelimit.v3.LocalRateLimit`, in place of the filter's own.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// Envoy `filters.http.header_mutation.v3.HeaderMutationPerRoute`, beside the filter's own.
    HeaderMutation(MessageMutations),
    /// Envoy `filters.http.rbac.v3.RBACPerRoute`, in place of the filter's own.
    Rbac(Rbac),
    /// Envoy `filters.http.jwt_authn.v3.PerRouteConfig`
    JwtAuthn(RouteRequirement),
    /// Envoy `filters.http.ext_authz.v3.ExtAuthzPerRoute`
    ExtAuthz(RouteAuthz),
    /// Envoy `filters.http.ratelimit.v3.RateLimitPerRoute`
    RateLimit(Box<RouteRateLimit>),
}

/// Envoy `PerRouteConfig.host_rewrite_specifier`: which host is resolved, and forwarded to.
#[derive(Debug, Clone, PartialEq)]
pub enum ForwardRewrite {
    /// The request's own.
    None,
    /// `host_rewrite_literal`
    Literal(Box<str>),
    /// `host_rewrite_header`: the first value of this header, if there is one.
    Header(HeaderName),
}

/// Envoy `filters.http.header_mutation.v3.HeaderMutation`.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderMutation {
    /// `mutations`
    pub mutations: MessageMutations,
    /// `most_specific_header_mutations_wins`: whether the route's changes are made after those of its virtual host and
    /// table; by default they are made before them.
    pub most_specific_wins: bool,
}

/// Changes to the headers of requests and responses (Envoy `header_mutation.v3.Mutations`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MessageMutations {
    /// `request_mutations`, in their order.
    pub request: Vec<HeaderChange>,
    /// `query_parameter_mutations`, in their order, after the request's headers.
    pub query: Vec<QueryChange>,
    /// `response_mutations`, in their order.
    pub response: Vec<HeaderChange>,
}

/// One change of a query (Envoy `KeyValueMutation`).
#[derive(Debug, Clone, PartialEq)]
pub enum QueryChange {
    /// `remove`: all parameters of this name.
    Remove(Box<str>),
    /// `append`
    Add {
        /// The parameter's name.
        name: Box<str>,
        /// Its value, before it is percent-encoded.
        value: Format,
        /// What becomes of others of this name.
        action: AppendAction,
    },
}

/// Envoy `CorsPolicy`. What it leaves out is said by the next less specific policy, if there is one.
#[derive(Debug, Clone, PartialEq)]
pub struct CorsPolicy {
    /// `allow_origin_string_match`
    pub allow_origins: Vec<StringMatcher>,
    /// `allow_methods`; `*` allows the method asked for.
    pub allow_methods: Option<HeaderValue>,
    /// `allow_headers`; `*` allows the headers asked for.
    pub allow_headers: Option<HeaderValue>,
    /// `expose_headers`
    pub expose_headers: Option<HeaderValue>,
    /// `max_age`
    pub max_age: Option<HeaderValue>,
    /// `allow_credentials`; not, if nobody says so.
    pub allow_credentials: Option<bool>,
    /// `filter_enabled`: the share of requests; none means all. Only the most specific one counts.
    pub enabled: Option<Fraction>,
    /// `shadow_enabled`: the share of the other requests whose origin is only counted. Only the most specific one
    /// counts.
    pub shadow_enabled: Option<Fraction>,
    /// `allow_private_network_access`; not, if nobody says so.
    pub allow_private_network_access: Option<bool>,
    /// `forward_not_matching_preflights`: whether preflights of other origins are forwarded; they are, if nobody says
    /// otherwise.
    pub forward_not_matching_preflights: Option<bool>,
}

/// Envoy `StatefulSession`: requests of a session go to the endpoint of its first one.
#[derive(Debug, Clone, PartialEq)]
pub struct StatefulSession {
    /// How clients carry their session; none if they do not.
    pub state: Option<SessionState>,
    /// Whether a request fails if its session's endpoint cannot take it.
    pub strict: bool,
    /// What it is counted under; none means not at all.
    pub stats: Option<SessionScope>,
}

/// `http.MANAGER.stateful_session.PREFIX.`, or `stateful_session.PREFIX.` for what routes say.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionScope {
    /// `stat_prefix` of the connection manager; empty for what routes say.
    pub manager: Name,
    /// `stat_prefix`
    pub prefix: Name,
}

/// How clients carry their session.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionState {
    /// Envoy `CookieBasedSessionState`
    Cookie(SessionCookie),
    /// Envoy `HeaderBasedSessionState`: the header's name.
    Header(HeaderName),
}

/// Envoy `type.http.v3.Cookie`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionCookie {
    /// Its name.
    pub name: Box<str>,
    /// In whole seconds; 0 means as long as the client runs.
    pub ttl: u64,
    /// Where it is valid; empty means where it was given.
    pub path: Box<str>,
    /// Names and values; a value may be empty.
    pub attributes: Vec<(Box<str>, Box<str>)>,
}

/// Envoy `CsrfPolicy`.
#[derive(Debug, Clone, PartialEq)]
pub struct CsrfPolicy {
    /// `filter_enabled`: the share of requests that are refused if they come from elsewhere.
    pub enabled: Fraction,
    /// `shadow_enabled`: the share of the others that are only counted.
    pub shadow_enabled: Fraction,
    /// `additional_origins`: hosts, with their ports, whose pages may make requests too.
    pub additional_origins: Vec<StringMatcher>,
}

/// Envoy `filters.http.health_check.v3.HealthCheck`.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    /// `pass_through_mode`: whether the upstream answers, unless the proxy is to fail its checks.
    pub pass_through: bool,
    /// `cache_time`: how long the upstream's last answer is repeated.
    pub cache_time: Option<Duration>,
    /// `cluster_min_healthy_percentages`, by name.
    pub clusters: Vec<(Name, f64)>,
    /// `headers`: a request is a check if all match.
    pub headers: Vec<HeaderMatcher>,
}

/// Envoy `FilterStateValue`, a text.
#[derive(Debug, Clone, PartialEq)]
pub struct SetFilterState {
    /// `object_key`
    pub key: Box<str>,
    /// `format_string`
    pub format: Format,
    /// `format_string.omit_empty_values`: whether what is absent is left out; otherwise it is `-`.
    pub omits_empty: bool,
    /// `skip_if_empty`: whether an empty text is not set.
    pub skip_if_empty: bool,
}
