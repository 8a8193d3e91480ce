//! HTTP protocol options, of the downstream and of the upstream side.

use std::collections::HashSet;
use std::time::Duration;

use xds::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use xds::envoy::config::core::v3::http1_protocol_options::HeaderKeyFormat;
use xds::envoy::config::core::v3::http1_protocol_options::header_key_format::{
    HeaderFormat, ProperCaseWords,
};
use xds::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions, KeepaliveSettings,
};

use super::errors::{At, Result, each, optional, refuse, required};
use super::value::{bounded, enumeration, limit, non_empty, positive_duration, unless_empty};
use crate::config::http::{Http1Options, Http2Options, Underscores, UpgradeConfig};

/// Connections without requests are closed after this time, unless configured otherwise.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// HTTP/2 windows are 65,535 to 2^31-1 bytes.
const WINDOW: (u32, u32) = (65_535, i32::MAX as u32);

/// `HttpProtocolOptions`, which both sides have.
pub(super) struct CommonHttp {
    pub(super) idle_timeout: Option<Duration>,
    pub(super) max_connection_duration: Option<Duration>,
    pub(super) max_stream_duration: Option<Duration>,
    pub(super) max_headers_count: u32,
    pub(super) max_response_headers_kb: u32,
    pub(super) max_requests_per_connection: u32,
    pub(super) underscores: Underscores,
}

/// The options of both sides; absent ones have Envoy's defaults.
pub(super) fn common_http(proto: Option<&HttpProtocolOptions>) -> Result<CommonHttp> {
    let absent = HttpProtocolOptions::default();
    let HttpProtocolOptions {
        idle_timeout,
        max_connection_duration,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = proto.unwrap_or(&absent);
    let underscores = "headers_with_underscores_action";
    Ok(CommonHttp {
        idle_timeout: limit("idle_timeout", idle_timeout.as_ref(), Some(IDLE_TIMEOUT))?,
        max_connection_duration: limit(
            "max_connection_duration",
            max_connection_duration.as_ref(),
            None,
        )?,
        max_stream_duration: limit("max_stream_duration", max_stream_duration.as_ref(), None)?,
        max_headers_count: bounded("max_headers_count", *max_headers_count, 100, (1, u32::MAX))?,
        max_response_headers_kb: bounded(
            "max_response_headers_kb",
            *max_response_headers_kb,
            60,
            (1, 8192),
        )?,
        max_requests_per_connection: max_requests_per_connection.unwrap_or(0),
        underscores: match enumeration(underscores, *headers_with_underscores_action)? {
            HeadersWithUnderscoresAction::Allow => Underscores::Allow,
            HeadersWithUnderscoresAction::RejectRequest => Underscores::RejectRequest,
            HeadersWithUnderscoresAction::DropHeader => Underscores::DropHeader,
        },
    })
}

/// HTTP/1 options.
pub(super) fn http1(proto: Option<&Http1ProtocolOptions>) -> Result<Http1Options> {
    let absent = Http1ProtocolOptions::default();
    let Http1ProtocolOptions {
        allow_absolute_url,
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        use_balsa_parser: _,
    } = proto.unwrap_or(&absent);
    if *allow_absolute_url == Some(false) {
        return refuse("allow_absolute_url", "absolute request targets are always taken");
    }
    let proper_case = match header_key_format {
        Some(HeaderKeyFormat { header_format }) => {
            let HeaderFormat::ProperCaseWords(ProperCaseWords {}) =
                required("header_key_format", header_format)?;
            true
        }
        None => false,
    };
    Ok(Http1Options {
        accept_http_10: *accept_http_10,
        default_host_for_http_10: unless_empty(default_host_for_http_10),
        enable_trailers: *enable_trailers,
        proper_case,
    })
}

/// HTTP/2 options.
pub(super) fn http2(proto: Option<&Http2ProtocolOptions>) -> Result<Http2Options> {
    let absent = Http2ProtocolOptions::default();
    let Http2ProtocolOptions {
        hpack_table_size: _,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        max_outbound_frames: _,
        max_outbound_control_frames: _,
        max_consecutive_inbound_frames_with_empty_payload: _,
        max_inbound_priority_frames_per_stream: _,
        max_inbound_window_update_frames_per_data_frame_sent: _,
        connection_keepalive,
        use_oghttp2_codec: _,
    } = proto.unwrap_or(&absent);
    let defaults = Http2Options::default();
    Ok(Http2Options {
        max_concurrent_streams: bounded(
            "max_concurrent_streams",
            *max_concurrent_streams,
            defaults.max_concurrent_streams,
            (1, WINDOW.1),
        )?,
        initial_stream_window: bounded(
            "initial_stream_window_size",
            *initial_stream_window_size,
            defaults.initial_stream_window,
            WINDOW,
        )?,
        initial_connection_window: bounded(
            "initial_connection_window_size",
            *initial_connection_window_size,
            defaults.initial_connection_window,
            WINDOW,
        )?,
        allow_connect: *allow_connect,
        keepalive: optional("connection_keepalive", connection_keepalive, keepalive)?.flatten(),
    })
}

/// Interval and timeout; none without an interval, as nothing is sent then.
fn keepalive(proto: &KeepaliveSettings) -> Result<Option<(Duration, Duration)>> {
    let KeepaliveSettings { interval, timeout, interval_jitter: _ } = proto;
    required("timeout", timeout)?;
    let interval = positive_duration("interval", interval.as_ref())?;
    let timeout = positive_duration("timeout", timeout.as_ref())?;
    Ok(interval.zip(timeout))
}

/// `upgrade_configs`: each type once, whatever its case.
pub(super) fn upgrades<P>(
    protos: &[P],
    parts: impl Fn(&P) -> (&String, Option<bool>),
) -> Result<Vec<UpgradeConfig>> {
    let mut seen = HashSet::new();
    each("upgrade_configs", protos, |proto| {
        let (upgrade_type, enabled) = parts(proto);
        let upgrade_type = non_empty("upgrade_type", upgrade_type)?.to_ascii_lowercase();
        if !seen.insert(upgrade_type.clone()) {
            let reason = format!("multiple upgrade configs with the same name: {upgrade_type:?}");
            return Err(reason).at("upgrade_type");
        }
        Ok(UpgradeConfig { upgrade_type: upgrade_type.into(), enabled: enabled.unwrap_or(true) })
    })
}
