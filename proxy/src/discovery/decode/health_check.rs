//! Active health checks.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use xds::envoy::config::cluster::v3::cluster::CommonLbConfig;
use xds::envoy::config::core::v3::health_check::payload::Payload as PayloadKind;
use xds::envoy::config::core::v3::health_check::{
    GrpcHealthCheck, HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck, TlsOptions,
};
use xds::envoy::config::core::v3::{
    HeaderValueOption, HealthCheck, HealthStatusSet, RequestMethod, TypedExtensionConfig,
};
use xds::envoy::extensions::health_check::event_sinks::file::v3::HealthCheckEventFileSink;
use xds::envoy::r#type::v3::{CodecClientType, Int64Range};

use super::endpoint::{health_status_of, socket_criteria};
use super::errors::{At, Result, each, optional, refuse, required};
use super::extension::{unpack, unsupported};
use super::header::{mutations, to_add};
use super::matcher::string_matcher;
use super::value::{enumeration, non_empty, optional_duration, positive_duration, whole_percent};
use crate::config::cluster::{HostPolicy, UpstreamHttp, UpstreamProtocol};
use crate::config::endpoint::HealthStatuses;
use crate::config::header::{HeaderMutations, HeaderToAdd};
use crate::config::health_check::{self, Checker, GrpcCheck, HttpCheck, Intervals, TcpCheck};

/// Envoy's defaults.
const NO_TRAFFIC_INTERVAL: Duration = Duration::from_secs(60);
const RESPONSE_BUFFER_SIZE: u64 = 1024;

/// How the hosts of a cluster that speaks `http` to them are watched.
pub(super) fn hosts(
    checks: &[HealthCheck],
    common: Option<&CommonLbConfig>,
    http: &UpstreamHttp,
) -> Result<HostPolicy> {
    Ok(HostPolicy {
        health_check: health_checks(checks, http)?,
        ignore_new_until_first_check: common.is_some_and(|it| it.ignore_new_hosts_until_first_hc),
        close_connections_on_change: common
            .is_some_and(|it| it.close_connections_on_host_set_change),
        override_statuses: match common.and_then(|it| it.override_host_status.as_ref()) {
            Some(proto) => override_statuses(proto).at("common_lb_config.override_host_status")?,
            None => HostPolicy::default().override_statuses,
        },
        ..HostPolicy::default()
    })
}

fn override_statuses(proto: &HealthStatusSet) -> Result<HealthStatuses> {
    let HealthStatusSet { statuses } = proto;
    let statuses = each("statuses", statuses, |status| health_status_of("", *status))?;
    Ok(statuses.into_iter().collect())
}

fn health_checks(
    protos: &[HealthCheck],
    http: &UpstreamHttp,
) -> Result<Option<Arc<health_check::HealthCheck>>> {
    match protos {
        [] => Ok(None),
        [proto] => Ok(Some(Arc::new(health_check(proto, http).at("health_checks[0]")?))),
        _ => refuse("health_checks[1]", "a cluster can have only one health check"),
    }
}

fn health_check(proto: &HealthCheck, http: &UpstreamHttp) -> Result<health_check::HealthCheck> {
    // One name a line would fill a screen.
    #[rustfmt::skip]
    let HealthCheck {
        timeout, interval, initial_jitter, interval_jitter, interval_jitter_percent,
        unhealthy_threshold, healthy_threshold, reuse_connection, no_traffic_interval,
        no_traffic_healthy_interval, unhealthy_interval, unhealthy_edge_interval,
        healthy_edge_interval, event_log_path, event_logger, always_log_health_check_failures,
        always_log_health_check_success, tls_options, transport_socket_match_criteria,
        health_checker,
    } = proto;
    let timeout = positive_duration("timeout", Some(required("timeout", timeout)?))?;
    let healthy =
        positive_duration("interval", Some(required("interval", interval)?))?.unwrap_or_default();
    let unhealthy =
        positive_duration("unhealthy_interval", unhealthy_interval.as_ref())?.unwrap_or(healthy);
    let no_traffic = positive_duration("no_traffic_interval", no_traffic_interval.as_ref())?
        .unwrap_or(NO_TRAFFIC_INTERVAL);
    let edge = |field, proto: &Option<_>, default| -> Result<Duration> {
        Ok(positive_duration(field, proto.as_ref())?.unwrap_or(default))
    };
    let jitter = |field, proto: &Option<_>| -> Result<Duration> {
        Ok(optional_duration(field, proto.as_ref())?.unwrap_or_default())
    };
    let tls = optional("tls_options", tls_options, |TlsOptions { alpn_protocols }| {
        Ok(alpn_protocols.iter().map(|name| name.as_str().into()).collect())
    })?;
    Ok(health_check::HealthCheck {
        timeout: timeout.unwrap_or_default(),
        intervals: Intervals {
            healthy,
            unhealthy,
            healthy_edge: edge("healthy_edge_interval", healthy_edge_interval, healthy)?,
            unhealthy_edge: edge("unhealthy_edge_interval", unhealthy_edge_interval, unhealthy)?,
            no_traffic,
            no_traffic_healthy: edge(
                "no_traffic_healthy_interval",
                no_traffic_healthy_interval,
                no_traffic,
            )?,
            initial_jitter: jitter("initial_jitter", initial_jitter)?,
            jitter: jitter("interval_jitter", interval_jitter)?,
            jitter_percent: whole_percent(
                "interval_jitter_percent",
                Some(*interval_jitter_percent),
                0,
            )?,
        },
        unhealthy_threshold: threshold("unhealthy_threshold", *unhealthy_threshold)?,
        healthy_threshold: threshold("healthy_threshold", *healthy_threshold)?,
        reuse_connection: reuse_connection.unwrap_or(true),
        checker: checker(required("http_health_check", health_checker)?, http)?,
        event_logs: event_logs(event_log_path, event_logger)?,
        log_failures: *always_log_health_check_failures,
        log_successes: *always_log_health_check_success,
        alpn: tls.unwrap_or_default(),
        socket_criteria: optional(
            "transport_socket_match_criteria",
            transport_socket_match_criteria,
            socket_criteria,
        )?,
    })
}

/// A threshold of 0 is never reached by counting, so it means "at once".
fn threshold(field: &str, proto: Option<u32>) -> Result<u32> {
    Ok((*required(field, &proto)?).max(1))
}

fn event_logs(path: &str, loggers: &[TypedExtensionConfig]) -> Result<Vec<PathBuf>> {
    if !path.is_empty() {
        // As in Envoy the old field wins.
        return Ok(vec![PathBuf::from(path)]);
    }
    each("event_logger", loggers, |proto| {
        let TypedExtensionConfig { name, typed_config } = proto;
        non_empty("name", name)?;
        let any = required("typed_config", typed_config)?;
        match unpack::<HealthCheckEventFileSink>(any).at("typed_config")? {
            Some(HealthCheckEventFileSink { event_log_path }) => {
                let path = non_empty("event_log_path", &event_log_path).at("typed_config")?;
                Ok(PathBuf::from(path))
            }
            None => unsupported(any).at("typed_config"),
        }
    })
}

fn checker(proto: &HealthChecker, http: &UpstreamHttp) -> Result<Checker> {
    match proto {
        HealthChecker::HttpHealthCheck(proto) => {
            http_check(proto).map(|check| Checker::Http(Box::new(check))).at("http_health_check")
        }
        HealthChecker::TcpHealthCheck(proto) => {
            tcp_check(proto).map(Checker::Tcp).at("tcp_health_check")
        }
        HealthChecker::GrpcHealthCheck(_) if http.protocol != UpstreamProtocol::Http2 => {
            refuse("grpc_health_check", "gRPC health checks need a cluster that speaks HTTP/2")
        }
        HealthChecker::GrpcHealthCheck(proto) => {
            grpc_check(proto).map(Checker::Grpc).at("grpc_health_check")
        }
    }
}

fn http_check(proto: &HttpHealthCheck) -> Result<HttpCheck> {
    // One name a line would fill a screen.
    #[rustfmt::skip]
    let HttpHealthCheck {
        host, path, send, receive, response_buffer_size, request_headers_to_add,
        request_headers_to_remove, expected_statuses, retriable_statuses, codec_client_type,
        service_name_matcher, method,
    } = proto;
    let path = non_empty("path", path)?;
    if http::uri::PathAndQuery::try_from(path).is_err() || !path.starts_with('/') {
        return refuse("path", format!("{path:?} is no path"));
    }
    let receive = each("receive", receive, payload)?;
    let method = request_method(*method)?;
    let send = optional("send", send, payload)?.unwrap_or_default();
    if !send.is_empty()
        && !matches!(method, Method::POST | Method::PUT | Method::PATCH | Method::OPTIONS)
    {
        return refuse("send", format!("a request with method {method} has no body"));
    }
    let body_limit = response_buffer_size.unwrap_or(RESPONSE_BUFFER_SIZE);
    let wanted: usize = receive.iter().map(Vec::len).sum();
    if body_limit != 0 && wanted as u64 > body_limit {
        return refuse("receive", "is longer than response_buffer_size");
    }
    let mut expected = each("expected_statuses", expected_statuses, statuses)?;
    if expected.is_empty() {
        expected.push(200..201);
    }
    Ok(HttpCheck {
        host: host_name("host", host)?,
        path: path.into(),
        method,
        send,
        http2: match enumeration("codec_client_type", *codec_client_type)? {
            CodecClientType::Http1 => false,
            CodecClientType::Http2 => true,
            CodecClientType::Http3 => {
                return refuse("codec_client_type", "HTTP3 is not supported by this version");
            }
        },
        headers: HeaderMutations {
            add: each("request_headers_to_add", request_headers_to_add, header)?,
            ..mutations("request", &[], request_headers_to_remove)?
        },
        expected,
        retriable: each("retriable_statuses", retriable_statuses, statuses)?,
        receive,
        body_limit,
        service_name: optional("service_name_matcher", service_name_matcher, string_matcher)?,
    })
}

fn request_method(proto: i32) -> Result<Method> {
    Ok(match enumeration("method", proto)? {
        RequestMethod::MethodUnspecified | RequestMethod::Get => Method::GET,
        RequestMethod::Head => Method::HEAD,
        RequestMethod::Post => Method::POST,
        RequestMethod::Put => Method::PUT,
        RequestMethod::Delete => Method::DELETE,
        RequestMethod::Options => Method::OPTIONS,
        RequestMethod::Trace => Method::TRACE,
        RequestMethod::Patch => Method::PATCH,
        RequestMethod::Connect => {
            return refuse("method", "CONNECT opens a tunnel and checks nothing");
        }
    })
}

/// What is sent as `Host` or `:authority`; may be empty.
fn host_name(field: &str, text: &str) -> Result<Box<str>> {
    if !text.is_empty() && http::uri::Authority::try_from(text).is_err() {
        return refuse(field, format!("{text:?} cannot be sent as a host"));
    }
    Ok(text.into())
}

fn statuses(proto: &Int64Range) -> Result<Range<u16>> {
    let Int64Range { start, end } = *proto;
    match (u16::try_from(start), u16::try_from(end)) {
        (Ok(start), Ok(end)) if 100 <= start && start < end && end <= 600 => Ok(start..end),
        _ => refuse("", "must begin at 100 or later, and end after that, at 600 or before"),
    }
}

fn tcp_check(proto: &TcpHealthCheck) -> Result<TcpCheck> {
    let TcpHealthCheck { send, receive } = proto;
    Ok(TcpCheck {
        send: optional("send", send, payload)?.unwrap_or_default(),
        receive: each("receive", receive, payload)?,
    })
}

fn grpc_check(proto: &GrpcHealthCheck) -> Result<GrpcCheck> {
    let GrpcHealthCheck { service_name, authority, initial_metadata } = proto;
    Ok(GrpcCheck {
        service: service_name.clone(),
        authority: host_name("authority", authority)?,
        metadata: each("initial_metadata", initial_metadata, header)?,
    })
}

/// A header of a check, in which only what a check knows can stand.
fn header(proto: &HeaderValueOption) -> Result<HeaderToAdd> {
    let header = to_add(proto)?;
    if header.value.operators().all(health_check::HealthCheck::has_value) {
        return Ok(header);
    }
    refuse("header.value", "holds an operator that has no value in a health check")
}

/// The bytes of a payload: hexadecimal text, or as they are.
fn payload(proto: &Payload) -> Result<Vec<u8>> {
    let Payload { payload } = proto;
    match required("text", payload)? {
        PayloadKind::Text(text) => match hexadecimal(non_empty("text", text)?) {
            Some(bytes) => Ok(bytes),
            None => refuse("text", "is not an even number of hexadecimal digits"),
        },
        PayloadKind::Binary(bytes) if bytes.is_empty() => refuse("binary", "must not be empty"),
        PayloadKind::Binary(bytes) => Ok(bytes.clone()),
    }
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_written_in_hexadecimal() {
        assert_eq!(hexadecimal("50494e47"), Some(b"PING".to_vec()));
        assert_eq!(hexadecimal("0aFf"), Some(vec![0x0a, 0xff]));
        assert_eq!(hexadecimal("abc"), None);
        assert_eq!(hexadecimal("zz"), None);
    }
}
