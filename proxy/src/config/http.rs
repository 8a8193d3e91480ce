//! The HTTP connection manager as configured (Envoy `HttpConnectionManager`).

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;

use super::Name;
use super::access_log::{AccessLog, LoggedHeaders, Wanted};
use super::address::CidrRange;
use super::http_filter::HttpFilter;
use super::route::RouteConfig;
use super::source::ResourceSource;
use super::tracing::Tracing;

/// Envoy `filters.network.http_connection_manager.v3.HttpConnectionManager`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpConnectionManager {
    /// Prefix of its statistics.
    pub stat_prefix: Name,
    /// Which protocols a connection may speak.
    pub codec: CodecType,
    /// Where routes come from.
    pub routes: RouteSource,
    /// `server` header of responses; Envoy's default is `envoy`.
    pub server_name: Box<str>,
    /// What to do with the upstream's `server` header.
    pub server_header: ServerHeaderTransformation,
    /// `via` header appended to requests and responses, if not empty.
    pub via: Option<Box<str>>,
    /// Whether the peer's address is trusted as the client's (edge) or `x-forwarded-for` is (sidecar).
    pub use_remote_address: bool,
    /// Trusted proxies in front of this one.
    pub xff_num_trusted_hops: u32,
    /// Whether the peer's address is left out of `x-forwarded-for`.
    pub skip_xff_append: bool,
    /// `internal_address_config`: who counts as internal.
    pub internal_addresses: InternalAddresses,
    /// Whether an IPv4 peer is written as mapped IPv6.
    pub represent_ipv4_as_mapped: bool,
    /// What to do with `x-forwarded-client-cert`.
    pub forward_client_cert: ForwardClientCert,
    /// Which details of the client certificate SET and APPEND write.
    pub client_cert_details: ClientCertDetails,
    /// `x-request-id` handling.
    pub request_id: RequestIdOptions,
    /// `tracing`; none means that no request is traced.
    pub tracing: Option<Arc<Tracing>>,
    /// Path normalisation.
    pub path: PathNormalisation,
    /// Host port stripping.
    pub strip_port: StripPort,
    /// Whether a trailing dot of the host is removed.
    pub strip_trailing_host_dot: bool,
    /// Whether the peer's own x-envoy-* and internal headers are suppressed.
    pub suppress_envoy_headers: bool,
    /// Whether `x-forwarded-port` is added.
    pub append_x_forwarded_port: bool,
    /// Overwrites the request's scheme.
    pub scheme_overwrite: Option<Box<str>>,
    /// HTTP/1.1 options.
    pub http1: Http1Options,
    /// HTTP/2 options.
    pub http2: Http2Options,
    /// Limits in time and size.
    pub limits: HttpLimits,
    /// Upgrades allowed, matched case-insensitively.
    pub upgrades: Vec<UpgradeConfig>,
    /// `proxy_100_continue`: the upstream answers `expect`, not the proxy.
    pub proxy_100_continue: bool,
    /// `http_filters` in their order, without the router, which is always the last.
    pub filters: Vec<HttpFilter>,
    /// Access logs.
    pub access_logs: Vec<Arc<AccessLog>>,
    /// When requests are logged before they end.
    pub log_options: LogOptions,
    /// `stream_error_on_invalid_http_message`
    pub stream_error_on_invalid_http_message: bool,
}

/// When requests are logged besides at their end (Envoy `HcmAccessLogOptions`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// `flush_access_log_on_new_request`: once they are routed.
    pub on_new_request: bool,
    /// `access_log_flush_interval`: every so often.
    pub interval: Option<Duration>,
    /// `flush_log_on_tunnel_successfully_established`: once both sides have switched protocols.
    pub on_tunnel: bool,
}

/// What one configuration fixes for all its responses, made once.
#[derive(Debug, Clone, Default)]
pub struct FixedHeaders {
    /// `server`
    pub server: Option<HeaderValue>,
    /// `via`
    pub via: Option<HeaderValue>,
    /// What the access logs need of response headers.
    pub logged: LoggedHeaders,
}

impl HttpConnectionManager {
    /// What this configuration fixes for all its responses.
    pub fn fixed_headers(&self) -> FixedHeaders {
        let mut logged = Wanted::default();
        self.access_logs.iter().for_each(|log| log.response_headers(&mut logged));
        FixedHeaders {
            server: HeaderValue::from_str(&self.server_name).ok(),
            via: self.via.as_deref().and_then(|via| HeaderValue::from_str(via).ok()),
            logged: logged.into(),
        }
    }
}

/// Envoy `InternalAddressConfig`; nobody by default, as in Envoy 1.40.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InternalAddresses {
    /// `cidr_ranges`
    pub ranges: Vec<CidrRange>,
    /// `unix_sockets`: those who come over one.
    pub unix_sockets: bool,
}

/// Envoy `CodecType`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CodecType {
    /// ALPN decides, else the connection preface.
    #[default]
    Auto,
    /// HTTP/1.1 (and 1.0) only.
    Http1,
    /// HTTP/2 only.
    Http2,
}

/// Envoy `route_specifier`.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteSource {
    /// `route_config`
    Inline(Arc<RouteConfig>),
    /// `rds`: a discovered table.
    Rds(ResourceSource),
}

/// Envoy `ServerHeaderTransformation`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServerHeaderTransformation {
    /// Always ours.
    #[default]
    Overwrite,
    /// Ours only when the upstream sent none.
    AppendIfAbsent,
    /// Only the upstream's.
    PassThrough,
}

/// Envoy `ForwardClientCertDetails`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// Remove the header.
    #[default]
    Sanitize,
    /// Keep it on mTLS connections, remove it otherwise.
    ForwardOnly,
    /// Append this hop's element on mTLS connections, remove it otherwise.
    AppendForward,
    /// Replace it by this hop's element on mTLS connections, remove it otherwise.
    SanitizeSet,
    /// Keep it whatever the connection.
    AlwaysForwardOnly,
}

/// Envoy `SetCurrentClientCertDetails`; `Hash` and `By` are always written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientCertDetails {
    /// `Subject`
    pub subject: bool,
    /// `Cert`: the leaf, URL-encoded PEM.
    pub cert: bool,
    /// `Chain`: the whole chain, URL-encoded PEM.
    pub chain: bool,
    /// `DNS`
    pub dns: bool,
    /// `URI`
    pub uri: bool,
}

/// `x-request-id` handling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestIdOptions {
    /// `generate_request_id`, default true.
    pub generate: bool,
    /// `preserve_external_request_id`, default false.
    pub preserve_external: bool,
    /// `always_set_request_id_in_response`, default false.
    pub always_in_response: bool,
    /// `request_id_extension.pack_trace_reason`, default true: whether the id says why a request is traced.
    pub pack_trace_reason: bool,
    /// `request_id_extension.use_request_id_for_trace_sampling`, default true: whether the id decides which
    /// requests are traced; otherwise, the collector's own sampling does.
    pub decides_sampling: bool,
}

/// How paths are normalised before anything looks at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathNormalisation {
    /// `normalize_path`: RFC 3986 dot segments and percent-encoding of unreserved characters.
    pub normalize: bool,
    /// `merge_slashes`
    pub merge_slashes: bool,
    /// `path_with_escaped_slashes_action`
    pub escaped_slashes: EscapedSlashes,
}

/// Envoy `PathWithEscapedSlashesAction`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// Leave `%2F` and `%5C` as they are.
    #[default]
    Keep,
    /// Answer 400.
    Reject,
    /// Answer 307 to the unescaped path.
    UnescapeAndRedirect,
    /// Unescape, then go on.
    UnescapeAndForward,
}

/// Which port is stripped from the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StripPort {
    /// None.
    #[default]
    No,
    /// `strip_matching_host_port`: the listener's own.
    Matching,
    /// `strip_any_host_port`
    Any,
}

/// Envoy `Http1ProtocolOptions` (downstream side).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http1Options {
    /// `accept_http_10`, default false: HTTP/1.0 gets 426.
    pub accept_http_10: bool,
    /// `default_host_for_http_10`
    pub default_host_for_http_10: Option<Box<str>>,
    /// `enable_trailers`, default false: trailers are dropped.
    pub enable_trailers: bool,
    /// `header_key_format.proper_case_words`
    pub proper_case: bool,
}

/// Envoy `Http2ProtocolOptions`, used on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Options {
    /// Concurrent streams; 100 by default.
    pub max_concurrent_streams: u32,
    /// Bytes per stream, 65,535 to 2^31-1; 64 KiB by default.
    pub initial_stream_window: u32,
    /// Bytes per connection; 1 MiB by default.
    pub initial_connection_window: u32,
    /// `allow_connect` (RFC 8441).
    pub allow_connect: bool,
    /// `connection_keepalive.interval` and `.timeout`.
    pub keepalive: Option<(Duration, Duration)>,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 100,
            initial_stream_window: 65_535,
            initial_connection_window: 1 << 20,
            allow_connect: false,
            keepalive: None,
        }
    }
}

/// Limits of one connection and its requests. A timeout of none means no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpLimits {
    /// `max_request_headers_kb` in bytes; 60 KiB by default.
    pub max_request_headers: u32,
    /// `common_http_protocol_options.max_headers_count`; 100 by default.
    pub max_headers_count: u32,
    /// `common_http_protocol_options.idle_timeout`; 1 h by default.
    pub idle_timeout: Option<Duration>,
    /// `common_http_protocol_options.max_connection_duration`
    pub max_connection_duration: Option<Duration>,
    /// `common_http_protocol_options.max_stream_duration`
    pub max_stream_duration: Option<Duration>,
    /// `common_http_protocol_options.max_requests_per_connection`; 0 means no limit.
    pub max_requests_per_connection: u32,
    /// `common_http_protocol_options.headers_with_underscores_action`
    pub underscores: Underscores,
    /// `stream_idle_timeout`; 5 min by default.
    pub stream_idle_timeout: Option<Duration>,
    /// `request_timeout`: the whole request must have arrived.
    pub request_timeout: Option<Duration>,
    /// `request_headers_timeout`: the headers must have arrived; 10 s by default (Envoy: none).
    pub request_headers_timeout: Option<Duration>,
    /// `drain_timeout`; 5 s by default.
    pub drain_timeout: Duration,
    /// `delayed_close_timeout`; 1 s by default.
    pub delayed_close_timeout: Duration,
}

/// Envoy `HeadersWithUnderscoresAction`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Underscores {
    /// Pass them.
    #[default]
    Allow,
    /// Answer 400.
    RejectRequest,
    /// Remove them.
    DropHeader,
}

/// Envoy `UpgradeConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeConfig {
    /// `websocket`, `CONNECT` or any other token; lower case here.
    pub upgrade_type: Box<str>,
    /// Whether it is allowed; default true.
    pub enabled: bool,
}
