//! External authorization: the HTTP filter, what routes say to it, and the network filter.

use std::time::Duration;

use http::StatusCode;
use xds::envoy::config::core::v3::{ApiVersion, HeaderValue};
use xds::envoy::extensions::filters::http::ext_authz::v3 as proto;
use xds::envoy::extensions::filters::http::ext_authz::v3::check_settings::ServiceOverride;
use xds::envoy::extensions::filters::http::ext_authz::v3::ext_authz::Services;
use xds::envoy::extensions::filters::http::ext_authz::v3::ext_authz_per_route::Override;

use xds::envoy::extensions::filters::network::ext_authz::v3 as network;

use super::errors::{At, Result, each, optional, refuse, required};
use super::header;
use super::header_rules::header_rules;
use super::matcher::{string_list, string_list_in};
use super::metadata::metadata_matcher;
use super::service::{grpc_service, http_uri};
use super::value::{enumeration, feature, http_status, name, runtime_fraction};
use crate::config::Name;
use crate::config::ext_authz::{
    AuthzScope, AuthzService, BodyLimit, CheckSettings, ExtAuthz, HttpAuthz, NetworkAuthz,
    RouteAuthz, Tells,
};
use crate::config::header::{AppendAction, HeaderToAdd};
use crate::config::matcher::{StringMatcher, StringPattern};
use crate::config::service::GrpcService;

/// How long a gRPC service may take if nobody says otherwise.
const TIMEOUT: Duration = Duration::from_millis(200);
/// What an HTTP service is told in any case.
const ALWAYS_TOLD: [&str; 4] = ["authorization", ":authority", ":method", ":path"];

/// The filter of a connection manager with this `stat_prefix`.
pub(super) fn filter(proto: &proto::ExtAuthz, manager: &Name) -> Result<ExtAuthz> {
    let proto::ExtAuthz {
        services,
        transport_api_version,
        failure_mode_allow,
        failure_mode_allow_header_add,
        with_request_body,
        clear_route_cache,
        status_on_error,
        validate_mutations,
        metadata_context_namespaces,
        typed_metadata_context_namespaces: _,
        route_metadata_context_namespaces,
        route_typed_metadata_context_namespaces: _,
        filter_enabled,
        filter_enabled_metadata,
        deny_at_disable,
        include_peer_certificate,
        stat_prefix,
        allowed_headers,
        disallowed_headers,
        include_tls_session,
        charge_cluster_response_stats,
        encode_raw_headers,
        decoder_header_mutation_rules: rules,
        enable_dynamic_metadata_ingestion,
        max_denied_response_body_bytes: longest_denial,
    } = proto;
    api_version(*transport_api_version)?;
    let services = required("grpc_service or http_service", services)?;
    let texts = |list: &[String]| list.iter().map(|it| it.as_str().into()).collect();
    let status = http_status("status_on_error", status_on_error.as_ref(), StatusCode::FORBIDDEN);
    let enabled = optional("filter_enabled_metadata", filter_enabled_metadata, metadata_matcher)?;
    Ok(ExtAuthz {
        service: service(services)?,
        scope: AuthzScope { manager: manager.clone(), prefix: stat_prefix.as_str().into() },
        enabled: optional("filter_enabled", filter_enabled, runtime_fraction)?,
        enabled_metadata: enabled,
        deny_at_disable: optional("deny_at_disable", deny_at_disable, feature)?.unwrap_or(false),
        tells: Tells {
            allowed: allowed(services, allowed_headers.as_ref())?,
            disallowed: string_list_in("disallowed_headers", disallowed_headers.as_ref())?,
            raw_headers: *encode_raw_headers,
            certificate: *include_peer_certificate,
            tls_session: *include_tls_session,
            metadata: texts(metadata_context_namespaces),
            route_metadata: texts(route_metadata_context_namespaces),
        },
        body: optional("with_request_body", with_request_body, body_limit)?,
        failure_mode_allow: *failure_mode_allow,
        failure_mode_allow_header: *failure_mode_allow_header_add,
        status_on_error: status?,
        clear_route_cache: *clear_route_cache,
        validate_mutations: *validate_mutations,
        rules: optional("decoder_header_mutation_rules", rules, header_rules)?,
        takes_metadata: enable_dynamic_metadata_ingestion.unwrap_or(true),
        charges_cluster: charge_cluster_response_stats.unwrap_or(true),
        longest_denial: (*longest_denial != 0).then_some(*longest_denial as usize),
    })
}

fn service(proto: &Services) -> Result<AuthzService> {
    match proto {
        Services::GrpcService(proto) => grpc(proto).at("grpc_service"),
        Services::HttpService(proto) => http(proto).at("http_service"),
    }
}

/// What a route says to the filter.
pub(super) fn route(proto: &proto::ExtAuthzPerRoute) -> Result<RouteAuthz> {
    let proto::ExtAuthzPerRoute { r#override } = proto;
    match required("disabled or check_settings", r#override)? {
        Override::Disabled(true) => Ok(RouteAuthz::Disabled),
        Override::Disabled(false) => refuse("disabled", "must be true"),
        Override::CheckSettings(proto) => {
            let settings = check_settings(proto).at("check_settings")?;
            Ok(RouteAuthz::Settings(Box::new(settings)))
        }
    }
}

fn check_settings(proto: &proto::CheckSettings) -> Result<CheckSettings> {
    let proto::CheckSettings {
        context_extensions,
        disable_request_body_buffering,
        with_request_body,
        service_override,
    } = proto;
    if *disable_request_body_buffering && with_request_body.is_some() {
        let reason = "cannot be set together with disable_request_body_buffering";
        return refuse("with_request_body", reason);
    }
    let extension = |(key, value): (&String, &String)| (key.as_str().into(), value.as_str().into());
    Ok(CheckSettings {
        extensions: context_extensions.iter().map(extension).collect(),
        without_body: *disable_request_body_buffering,
        body: optional("with_request_body", with_request_body, body_limit)?,
        service: match service_override {
            None => None,
            Some(ServiceOverride::GrpcService(proto)) => Some(grpc(proto).at("grpc_service")?),
            Some(ServiceOverride::HttpService(proto)) => Some(http(proto).at("http_service")?),
        },
    })
}

/// The network filter.
pub(super) fn network(proto: &network::ExtAuthz) -> Result<NetworkAuthz> {
    let network::ExtAuthz {
        stat_prefix,
        grpc_service,
        failure_mode_allow,
        include_peer_certificate,
        transport_api_version,
        filter_enabled_metadata,
        include_tls_session,
    } = proto;
    api_version(*transport_api_version)?;
    Ok(NetworkAuthz {
        stat_prefix: name("stat_prefix", stat_prefix)?,
        service: limited(required("grpc_service", grpc_service)?).at("grpc_service")?,
        failure_mode_allow: *failure_mode_allow,
        enabled_metadata: optional(
            "filter_enabled_metadata",
            filter_enabled_metadata,
            metadata_matcher,
        )?,
        certificate: *include_peer_certificate,
        tls_session: *include_tls_session,
    })
}

/// Which headers are told; none means all.
fn allowed(
    services: &Services,
    own: Option<&xds::envoy::r#type::matcher::v3::ListStringMatcher>,
) -> Result<Option<Vec<StringMatcher>>> {
    let Services::HttpService(http) = services else {
        return own.map(string_list).transpose().at("allowed_headers");
    };
    let request = http.authorization_request.as_ref();
    let old = request.and_then(|request| request.allowed_headers.as_ref());
    let path = "http_service.authorization_request.allowed_headers";
    if old.is_some() && own.is_some() {
        return refuse(path, "cannot be set together with allowed_headers");
    }
    let mut allowed = string_list_in("allowed_headers", own)?;
    allowed.extend(string_list_in(path, old)?);
    let exact = |name: &str| StringMatcher::new(StringPattern::Exact(name.into()), true);
    allowed.extend(ALWAYS_TOLD.map(exact));
    Ok(Some(allowed))
}

fn grpc(proto: &xds::envoy::config::core::v3::GrpcService) -> Result<AuthzService> {
    limited(proto).map(AuthzService::Grpc)
}

fn limited(proto: &xds::envoy::config::core::v3::GrpcService) -> Result<GrpcService> {
    let service = grpc_service(proto)?;
    Ok(GrpcService { timeout: service.timeout.or(Some(TIMEOUT)), ..service })
}

fn http(proto: &proto::HttpService) -> Result<AuthzService> {
    let proto::HttpService {
        server_uri,
        path_prefix,
        authorization_request: request,
        authorization_response: response,
    } = proto;
    if !path_prefix.is_empty() && !path_prefix.starts_with('/') {
        return refuse("path_prefix", "must begin with /");
    }
    let none = proto::AuthorizationRequest::default();
    // What is allowed is read with the filter's own list.
    let proto::AuthorizationRequest { allowed_headers: _allowed, headers_to_add } =
        request.as_ref().unwrap_or(&none);
    let none = proto::AuthorizationResponse::default();
    let proto::AuthorizationResponse {
        allowed_upstream_headers,
        allowed_upstream_headers_to_append,
        allowed_client_headers,
        allowed_client_headers_on_success,
        dynamic_metadata_from_headers,
    } = response.as_ref().unwrap_or(&none);
    let list = |field: &str, list: &Option<_>| {
        string_list_in(&format!("authorization_response.{field}"), list.as_ref())
    };
    Ok(AuthzService::Http(Box::new(HttpAuthz {
        server: http_uri(required("server_uri", server_uri)?).at("server_uri")?,
        path_prefix: path_prefix.as_str().into(),
        headers_to_add: each("headers_to_add", headers_to_add, to_add)
            .at("authorization_request")?,
        upstream: list("allowed_upstream_headers", allowed_upstream_headers)?,
        upstream_append: list(
            "allowed_upstream_headers_to_append",
            allowed_upstream_headers_to_append,
        )?,
        client: list("allowed_client_headers", allowed_client_headers)?,
        client_on_success: list(
            "allowed_client_headers_on_success",
            allowed_client_headers_on_success,
        )?,
        metadata: list("dynamic_metadata_from_headers", dynamic_metadata_from_headers)?,
    })))
}

fn to_add(proto: &HeaderValue) -> Result<HeaderToAdd> {
    let (key, value) = header::key_and_value(proto)?;
    Ok(HeaderToAdd {
        name: header::added(key).at("key")?,
        value: header::text(value).at("value")?,
        action: AppendAction::OverwriteIfExistsOrAdd,
        keep_empty: false,
    })
}

fn body_limit(proto: &proto::BufferSettings) -> Result<BodyLimit> {
    let proto::BufferSettings { max_request_bytes, allow_partial_message, pack_as_bytes } = proto;
    if *max_request_bytes == 0 {
        return refuse("max_request_bytes", "must be at least 1");
    }
    Ok(BodyLimit {
        bytes: *max_request_bytes,
        partial: *allow_partial_message,
        as_bytes: *pack_as_bytes,
    })
}

/// Which version of the service is meant; there is but one.
pub(super) fn api_version(version: i32) -> Result<()> {
    match enumeration("transport_api_version", version)? {
        ApiVersion::V2 => refuse("transport_api_version", "must be V3"),
        ApiVersion::Auto | ApiVersion::V3 => Ok(()),
    }
}
