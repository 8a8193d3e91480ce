//! External authorization as configured: who is asked, what is told, and what becomes of the answer.

use http::StatusCode;

use super::header::HeaderToAdd;
use super::header_rules::HeaderRules;
use super::matcher::{Fraction, StringMatcher};
use super::metadata::MetadataMatcher;
use super::service::{GrpcService, HttpUri};
use super::{HashMap, Name};

/// The HTTP filter (Envoy `filters.http.ext_authz.v3.ExtAuthz`).
#[derive(Debug, Clone, PartialEq)]
pub struct ExtAuthz {
    /// `services`
    pub service: AuthzService,
    /// What it is counted under.
    pub scope: AuthzScope,
    /// `filter_enabled`: the share of requests that are checked; none means all.
    pub enabled: Option<Fraction>,
    /// `filter_enabled_metadata`: what the dynamic metadata of those that are checked has to be.
    pub enabled_metadata: Option<MetadataMatcher>,
    /// `deny_at_disable`: whether requests that are not checked are denied.
    pub deny_at_disable: bool,
    /// What of a request is told.
    pub tells: Tells,
    /// `with_request_body`
    pub body: Option<BodyLimit>,
    /// `failure_mode_allow`: whether requests go on that cannot be checked.
    pub failure_mode_allow: bool,
    /// `failure_mode_allow_header_add`: whether the upstream is told so.
    pub failure_mode_allow_header: bool,
    /// `status_on_error`, of requests that cannot be checked and do not go on.
    pub status_on_error: StatusCode,
    /// `clear_route_cache`: whether the route is found anew when the service has changed the request.
    pub clear_route_cache: bool,
    /// `validate_mutations`: whether an answer with a bad header denies the request.
    pub validate_mutations: bool,
    /// `decoder_header_mutation_rules`
    pub rules: Option<HeaderRules>,
    /// `enable_dynamic_metadata_ingestion`
    pub takes_metadata: bool,
    /// `charge_cluster_response_stats`: whether the cluster that a request is for counts its verdicts.
    pub charges_cluster: bool,
    /// `max_denied_response_body_bytes`; none means no limit.
    pub longest_denial: Option<usize>,
}

/// `http.MANAGER.ext_authz.[PREFIX.]`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AuthzScope {
    /// `stat_prefix` of the connection manager.
    pub manager: Name,
    /// `stat_prefix`; may be empty.
    pub prefix: Name,
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum AuthzService {
    /// `grpc_service`; its `timeout` is always there.
    Grpc(GrpcService),
    /// `http_service`
    Http(Box<HttpAuthz>),
}

/// Envoy `filters.http.ext_authz.v3.HttpService`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpAuthz {
    /// `server_uri`, of which only the cluster and the timeout count.
    pub server: HttpUri,
    /// `path_prefix`
    pub path_prefix: Box<str>,
    /// `authorization_request.headers_to_add`
    pub headers_to_add: Vec<HeaderToAdd>,
    /// `allowed_upstream_headers`: headers of the answer that replace those of the request.
    pub upstream: Vec<StringMatcher>,
    /// `allowed_upstream_headers_to_append`: those that are added to it.
    pub upstream_append: Vec<StringMatcher>,
    /// `allowed_client_headers`: those that a client gets with a denial; empty means all but `host`.
    pub client: Vec<StringMatcher>,
    /// `allowed_client_headers_on_success`: those that a client gets with the response.
    pub client_on_success: Vec<StringMatcher>,
    /// `dynamic_metadata_from_headers`: those that become dynamic metadata.
    pub metadata: Vec<StringMatcher>,
}

/// What of a request the service is told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tells {
    /// `allowed_headers`; none means all.
    pub allowed: Option<Vec<StringMatcher>>,
    /// `disallowed_headers`, whatever is allowed.
    pub disallowed: Vec<StringMatcher>,
    /// `encode_raw_headers`: whether headers are told one by one, as bytes.
    pub raw_headers: bool,
    /// `include_peer_certificate`
    pub certificate: bool,
    /// `include_tls_session`
    pub tls_session: bool,
    /// `metadata_context_namespaces`
    pub metadata: Vec<Box<str>>,
    /// `route_metadata_context_namespaces`
    pub route_metadata: Vec<Box<str>>,
}

impl Tells {
    /// Whether the header called `name`, in lower case, is told.
    pub fn header(&self, name: &str) -> bool {
        let any = |list: &[StringMatcher]| list.iter().any(|it| it.matches(name.as_bytes()));
        !any(&self.disallowed) && self.allowed.as_deref().is_none_or(any)
    }
}

/// Envoy `BufferSettings`: how much of a request's body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimit {
    /// `max_request_bytes`, at least 1.
    pub bytes: u32,
    /// `allow_partial_message`: whether the beginning of a longer body will do; otherwise the request is refused.
    pub partial: bool,
    /// `pack_as_bytes`: whether it is told as bytes rather than as text.
    pub as_bytes: bool,
}

/// What a route says to the filter (Envoy `ExtAuthzPerRoute`).
#[derive(Debug, Clone, PartialEq)]
pub enum RouteAuthz {
    /// `disabled`
    Disabled,
    /// `check_settings`
    Settings(Box<CheckSettings>),
}

/// Envoy `CheckSettings`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CheckSettings {
    /// `context_extensions`; those of all levels are told, the most specific value of each key.
    pub extensions: HashMap<Box<str>, Box<str>>,
    /// `disable_request_body_buffering`
    pub without_body: bool,
    /// `with_request_body`, in place of the filter's own.
    pub body: Option<BodyLimit>,
    /// `service_override`
    pub service: Option<AuthzService>,
}

/// The network filter (Envoy `filters.network.ext_authz.v3.ExtAuthz`).
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkAuthz {
    /// `stat_prefix`
    pub stat_prefix: Name,
    /// `grpc_service`; its `timeout` is always there.
    pub service: GrpcService,
    /// `failure_mode_allow`: whether connections go on that cannot be checked.
    pub failure_mode_allow: bool,
    /// `filter_enabled_metadata`
    pub enabled_metadata: Option<MetadataMatcher>,
    /// `include_peer_certificate`
    pub certificate: bool,
    /// `include_tls_session`
    pub tls_session: bool,
}
