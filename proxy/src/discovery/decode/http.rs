//! The HTTP connection manager and its filters.

use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderValue;
use xds::envoy::config::core::v3::scheme_header_transformation::Transformation;
use xds::envoy::config::core::v3::{HttpProtocolOptions, SchemeHeaderTransformation};
use xds::envoy::extensions::filters::http::router::v3::Router;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType as Codec, ForwardClientCertDetails, HcmAccessLogOptions, InternalAddressConfig,
    PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation as ServerHeader,
    SetCurrentClientCertDetails, StripPortMode, UpgradeConfig,
};
use xds::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, Rds, RequestIdExtension,
};

use super::access_log::access_log;
use super::address::cidr_range;
use super::errors::{At, Result, each, optional, refuse, required};
use super::extension::{unpack, unsupported};
use super::http_filter::filters;
use super::http_options::{common_http, http1, http2, upgrades};
use super::route::route_config;
use super::source;
use super::tracing::tracing;
use super::value::{
    bounded, duration_in_ms, enumeration, limit, name, optional_duration, unless_empty,
};
use crate::config::http::{
    self, ClientCertDetails, CodecType, EscapedSlashes, ForwardClientCert, HttpLimits,
    InternalAddresses, LogOptions, PathNormalisation, RequestIdOptions, RouteSource,
    ServerHeaderTransformation, StripPort,
};
use crate::config::source::ResourceSource;

/// What Envoy calls itself in `server`.
const SERVER_NAME: &str = "envoy";
/// Envoy's default.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Envoy has none, which lets a client hold a connection with half a request for ever.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
/// Envoy's default.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Envoy's default.
const DELAYED_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// An HTTP connection manager.
pub(super) fn connection_manager(
    proto: &HttpConnectionManager,
) -> Result<http::HttpConnectionManager> {
    // One name a line would fill a screen.
    #[rustfmt::skip]
    let HttpConnectionManager {
        codec_type, stat_prefix, http_filters, tracing: traces, common_http_protocol_options,
        http_protocol_options, http2_protocol_options, server_name, server_header_transformation,
        scheme_header_transformation: scheme_change, max_request_headers_kb, stream_idle_timeout, request_timeout,
        request_headers_timeout, drain_timeout, delayed_close_timeout, access_log: access_logs,
        access_log_flush_interval: log_interval, flush_access_log_on_new_request: log_new_requests, access_log_options,
        use_remote_address, xff_num_trusted_hops, internal_address_config, skip_xff_append, via,
        generate_request_id, preserve_external_request_id, always_set_request_id_in_response,
        request_id_extension, forward_client_cert_details, set_current_client_cert_details, proxy_100_continue,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6, upgrade_configs, normalize_path,
        merge_slashes, path_with_escaped_slashes_action, strip_matching_host_port,
        stream_error_on_invalid_http_message, strip_trailing_host_dot, append_x_forwarded_port,
        route_specifier, strip_port_mode,
    } = proto;
    #[rustfmt::skip]
    let timeouts = [stream_idle_timeout, request_timeout, request_headers_timeout, drain_timeout, delayed_close_timeout];
    let stat_prefix = name("stat_prefix", stat_prefix)?;
    let (Router { dynamic_stats: _, start_child_span, suppress_envoy_headers }, filters) =
        filters(http_filters, &stat_prefix)?;
    Ok(http::HttpConnectionManager {
        stat_prefix,
        codec: codec(*codec_type)?,
        routes: routes(route_specifier.as_ref())?,
        server_name: header_value("server_name", server_name)?.unwrap_or(SERVER_NAME.into()),
        server_header: server_header(*server_header_transformation)?,
        via: header_value("via", via)?,
        use_remote_address: use_remote_address.unwrap_or(false),
        xff_num_trusted_hops: *xff_num_trusted_hops,
        skip_xff_append: *skip_xff_append,
        internal_addresses: internal_addresses(internal_address_config.as_ref())?,
        represent_ipv4_as_mapped: *represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        forward_client_cert: forward_client_cert(*forward_client_cert_details)?,
        client_cert_details: client_cert_details(set_current_client_cert_details.as_ref()),
        request_id: RequestIdOptions {
            preserve_external: *preserve_external_request_id,
            always_in_response: *always_set_request_id_in_response,
            ..request_ids(*generate_request_id, request_id_extension.as_ref())?
        },
        tracing: optional("tracing", traces, |it| tracing(it, start_child_span))?.map(Arc::new),
        path: path(*normalize_path, *merge_slashes, *path_with_escaped_slashes_action)?,
        strip_port: strip_port(*strip_matching_host_port, strip_port_mode.as_ref())?,
        strip_trailing_host_dot: *strip_trailing_host_dot,
        suppress_envoy_headers,
        append_x_forwarded_port: *append_x_forwarded_port,
        scheme_overwrite: optional("scheme_header_transformation", scheme_change, scheme)?,
        http1: http1(http_protocol_options.as_ref()).at("http_protocol_options")?,
        http2: http2(http2_protocol_options.as_ref()).at("http2_protocol_options")?,
        limits: limits(common_http_protocol_options.as_ref(), *max_request_headers_kb, timeouts)?,
        upgrades: upgrades(upgrade_configs, upgrade)?,
        proxy_100_continue: *proxy_100_continue,
        filters,
        access_logs: each("access_log", access_logs, |proto| access_log(proto).map(Arc::new))?,
        log_options: log_options(
            access_log_options.as_ref(),
            (log_interval.as_ref(), *log_new_requests),
        )?,
        stream_error_on_invalid_http_message: stream_error_on_invalid_http_message.unwrap_or(false),
    })
}

/// What `proto` says, or if it is not there the fields that are older than it.
fn log_options(
    proto: Option<&HcmAccessLogOptions>,
    (interval, on_new_request): (Option<&prost_types::Duration>, bool),
) -> Result<LogOptions> {
    const INTERVAL: &str = "access_log_flush_interval";
    let Some(proto) = proto else {
        let interval = duration_in_ms(INTERVAL, interval)?;
        return Ok(LogOptions { on_new_request, interval, on_tunnel: false });
    };
    for (field, is_set) in
        [(INTERVAL, interval.is_some()), ("flush_access_log_on_new_request", on_new_request)]
    {
        if is_set {
            return refuse(field, "cannot be set together with access_log_options");
        }
    }
    let HcmAccessLogOptions {
        access_log_flush_interval: interval,
        flush_access_log_on_new_request: on_new_request,
        flush_log_on_tunnel_successfully_established: on_tunnel,
    } = proto;
    let interval = duration_in_ms(INTERVAL, interval.as_ref()).at("access_log_options")?;
    Ok(LogOptions { on_new_request: *on_new_request, interval, on_tunnel: *on_tunnel })
}

fn upgrade(proto: &UpgradeConfig) -> (&String, Option<bool>) {
    let UpgradeConfig { upgrade_type, enabled } = proto;
    (upgrade_type, *enabled)
}

fn codec(proto: i32) -> Result<CodecType> {
    Ok(match enumeration("codec_type", proto)? {
        Codec::Auto => CodecType::Auto,
        Codec::Http1 => CodecType::Http1,
        Codec::Http2 => CodecType::Http2,
        Codec::Http3 => return refuse("codec_type", "HTTP3 is not supported by this version"),
    })
}

fn routes(proto: Option<&RouteSpecifier>) -> Result<RouteSource> {
    Ok(match proto {
        Some(RouteSpecifier::RouteConfig(proto)) => {
            RouteSource::Inline(Arc::new(route_config(proto).at("route_config")?))
        }
        Some(RouteSpecifier::Rds(proto)) => RouteSource::Rds(rds(proto).at("rds")?),
        None => return refuse("", "required: route_config or rds"),
    })
}

fn rds(proto: &Rds) -> Result<ResourceSource> {
    let Rds { config_source, route_config_name } = proto;
    let found = required("config_source", config_source)?;
    Ok(ResourceSource {
        name: name("route_config_name", route_config_name)?,
        source: source::config_source(found).at("config_source")?,
    })
}

/// What ids of requests say of traces; the rest is said elsewhere.
fn request_ids(
    generate: Option<bool>,
    extension: Option<&RequestIdExtension>,
) -> Result<RequestIdOptions> {
    let config = extension.map(|RequestIdExtension { typed_config }| {
        let any = required("typed_config", typed_config)?;
        let config = unpack(any).and_then(|it| it.map_or_else(|| unsupported(any), Ok));
        config.at("typed_config")
    });
    let config = config.transpose().at("request_id_extension")?.unwrap_or_default();
    let UuidRequestIdConfig { pack_trace_reason, use_request_id_for_trace_sampling } = config;
    Ok(RequestIdOptions {
        generate: generate.unwrap_or(true),
        preserve_external: false,
        always_in_response: false,
        pack_trace_reason: pack_trace_reason.unwrap_or(true),
        decides_sampling: use_request_id_for_trace_sampling.unwrap_or(true),
    })
}

fn internal_addresses(proto: Option<&InternalAddressConfig>) -> Result<InternalAddresses> {
    let Some(InternalAddressConfig { unix_sockets, cidr_ranges }) = proto else {
        return Ok(InternalAddresses::default());
    };
    let ranges = each("cidr_ranges", cidr_ranges, cidr_range).at("internal_address_config")?;
    Ok(InternalAddresses { ranges, unix_sockets: *unix_sockets })
}

fn header_value(field: &str, text: &str) -> Result<Option<Box<str>>> {
    HeaderValue::from_str(text).map_err(|_| String::from("is no header value")).at(field)?;
    Ok(unless_empty(text))
}

fn server_header(proto: i32) -> Result<ServerHeaderTransformation> {
    Ok(match enumeration("server_header_transformation", proto)? {
        ServerHeader::Overwrite => ServerHeaderTransformation::Overwrite,
        ServerHeader::AppendIfAbsent => ServerHeaderTransformation::AppendIfAbsent,
        ServerHeader::PassThrough => ServerHeaderTransformation::PassThrough,
    })
}

fn forward_client_cert(proto: i32) -> Result<ForwardClientCert> {
    Ok(match enumeration("forward_client_cert_details", proto)? {
        ForwardClientCertDetails::Sanitize => ForwardClientCert::Sanitize,
        ForwardClientCertDetails::ForwardOnly => ForwardClientCert::ForwardOnly,
        ForwardClientCertDetails::AppendForward => ForwardClientCert::AppendForward,
        ForwardClientCertDetails::SanitizeSet => ForwardClientCert::SanitizeSet,
        ForwardClientCertDetails::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
    })
}

fn client_cert_details(proto: Option<&SetCurrentClientCertDetails>) -> ClientCertDetails {
    let Some(proto) = proto else { return ClientCertDetails::default() };
    let SetCurrentClientCertDetails { subject, cert, chain, dns, uri } = proto;
    ClientCertDetails {
        subject: subject.unwrap_or(false),
        cert: *cert,
        chain: *chain,
        dns: *dns,
        uri: *uri,
    }
}

fn path(
    normalize: Option<bool>,
    merge_slashes: bool,
    escaped_slashes: i32,
) -> Result<PathNormalisation> {
    use PathWithEscapedSlashesAction as Action;
    let escaped_slashes = match enumeration("path_with_escaped_slashes_action", escaped_slashes)? {
        Action::ImplementationSpecificDefault | Action::KeepUnchanged => EscapedSlashes::Keep,
        Action::RejectRequest => EscapedSlashes::Reject,
        Action::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
        Action::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
    };
    let normalize = normalize.unwrap_or(false);
    Ok(PathNormalisation { normalize, merge_slashes, escaped_slashes })
}

fn strip_port(matching: bool, mode: Option<&StripPortMode>) -> Result<StripPort> {
    match (matching, mode) {
        (true, Some(StripPortMode::StripAnyHostPort(true))) => refuse(
            "strip_any_host_port",
            "only one of strip_matching_host_port and strip_any_host_port can be set",
        ),
        (false, Some(StripPortMode::StripAnyHostPort(true))) => Ok(StripPort::Any),
        (true, _) => Ok(StripPort::Matching),
        (false, _) => Ok(StripPort::No),
    }
}

fn scheme(proto: &SchemeHeaderTransformation) -> Result<Box<str>> {
    let SchemeHeaderTransformation { transformation } = proto;
    match required("scheme_to_overwrite", transformation)? {
        Transformation::SchemeToOverwrite(scheme)
            if matches!(scheme.as_str(), "http" | "https") =>
        {
            Ok(scheme.as_str().into())
        }
        Transformation::SchemeToOverwrite(_) => {
            refuse("scheme_to_overwrite", "must be http or https")
        }
    }
}

/// Limits of connections and requests; `timeouts` are those of streams, requests, request headers, draining and
/// delayed closing.
fn limits(
    common: Option<&HttpProtocolOptions>,
    headers_kb: Option<u32>,
    timeouts: [&Option<prost_types::Duration>; 5],
) -> Result<HttpLimits> {
    let [stream_idle, request, headers, drain, delayed_close] = timeouts.map(Option::as_ref);
    let common = common_http(common).at("common_http_protocol_options")?;
    Ok(HttpLimits {
        max_request_headers: bounded("max_request_headers_kb", headers_kb, 60, (1, 8192))? * 1024,
        max_headers_count: common.max_headers_count,
        idle_timeout: common.idle_timeout,
        max_connection_duration: common.max_connection_duration,
        max_stream_duration: common.max_stream_duration,
        max_requests_per_connection: common.max_requests_per_connection,
        underscores: common.underscores,
        stream_idle_timeout: limit("stream_idle_timeout", stream_idle, Some(STREAM_IDLE_TIMEOUT))?,
        request_timeout: limit("request_timeout", request, None)?,
        request_headers_timeout: limit("request_headers_timeout", headers, Some(HEADERS_TIMEOUT))?,
        drain_timeout: optional_duration("drain_timeout", drain)?.unwrap_or(DRAIN_TIMEOUT),
        delayed_close_timeout: optional_duration("delayed_close_timeout", delayed_close)?
            .unwrap_or(DELAYED_CLOSE_TIMEOUT),
    })
}
