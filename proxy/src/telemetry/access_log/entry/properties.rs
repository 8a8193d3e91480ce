//! What entries about requests and about connections have in common.

use std::net::SocketAddr;
use std::time::Duration;

use prost::Message as _;
use prost_types::{Any, Timestamp};
use xds::envoy::config::core::v3::address::Address as Specifier;
use xds::envoy::config::core::v3::socket_address::PortSpecifier;
use xds::envoy::config::core::v3::{Address, Metadata, Pipe, SocketAddress};
use xds::envoy::data::accesslog::v3::response_flags::Unauthorized;
use xds::envoy::data::accesslog::v3::response_flags::unauthorized::Reason;
use xds::envoy::data::accesslog::v3::tls_properties::certificate_properties::SubjectAltName;
use xds::envoy::data::accesslog::v3::tls_properties::certificate_properties::subject_alt_name::San;
use xds::envoy::data::accesslog::v3::tls_properties::{CertificateProperties, TlsVersion};
use xds::envoy::data::accesslog::v3::{
    AccessLogCommon, AccessLogType, ResponseFlags, TlsProperties,
};

use super::Event;
use crate::config::access_log::{Extras, LogKind};
use crate::config::format::{Facts as _, Operator, Peer, TimePoint, TimeUnit};
use crate::config::metadata::MetadataOf;
use crate::net::structure::{structure, value};
use crate::telemetry::custom_tag;
use crate::telemetry::response_flags::ResponseFlags as Flags;

const NANOSECONDS: u64 = 1_000_000_000;

pub(super) fn common(
    extras: &Extras,
    event: &Event<'_>,
    nanoseconds: &Operator,
) -> AccessLogCommon {
    let goes_on = event.kind.goes_on();
    let duration = (!goes_on).then(|| proto(event.facts.duration()));
    let attempts = event.number(&Operator::UpstreamRequestAttemptCount);
    let upstream = address(event, &Operator::UpstreamHost);
    let cluster = upstream.is_some().then(|| event.text(&Operator::UpstreamCluster));
    let mut common = AccessLogCommon {
        downstream_remote_address: address(event, &Operator::DownstreamRemoteAddress),
        downstream_local_address: address(event, &Operator::DownstreamLocalAddress),
        downstream_direct_remote_address: address(event, &Operator::DownstreamDirectRemoteAddress),
        upstream_remote_address: upstream,
        upstream_local_address: address(event, &Operator::UpstreamLocalAddress { with_port: true }),
        upstream_cluster: cluster.unwrap_or_default(),
        upstream_transport_failure_reason: event.text(&Operator::UpstreamTransportFailureReason),
        downstream_transport_failure_reason: event
            .text(&Operator::DownstreamTransportFailureReason),
        upstream_request_attempt_count: u32::try_from(attempts).unwrap_or(u32::MAX),
        connection_termination_details: event.text(&Operator::ConnectionTerminationDetails),
        route_name: event.text(&Operator::RouteName),
        stream_id: event.text(&Operator::StreamId),
        tls_properties: tls(event),
        start_time: Some(timestamp(event.number(nanoseconds))),
        duration,
        intermediate_log_entry: goes_on,
        response_flags: flags(event.facts.flags()),
        metadata: metadata(event),
        access_log_type: AccessLogType::from_str_name(event.kind.name()).unwrap_or_default().into(),
        ..AccessLogCommon::default()
    };
    match event.kind {
        kind if kind.is_of_request() => times(event, &mut common),
        kind if kind.is_of_session() => wire_bytes(event, &mut common),
        _ => {}
    }
    for key in &extras.filter_state {
        event.with_filter_state(key, &mut |state| {
            common.filter_state_objects.insert(key.to_string(), packed(state));
        });
    }
    for tag in &extras.custom_tags {
        if let Some(value) = custom_tag::value(event.facts, &tag.value) {
            common.custom_tags.insert(tag.name.to_string(), value);
        }
    }
    common
}

/// When what happened, from the beginning on.
fn times(event: &Event<'_>, common: &mut AccessLogCommon) {
    let until = |to| {
        let from = TimePoint::DownstreamRxBegin;
        let operator = Operator::CommonDuration { from, to, unit: TimeUnit::Nanoseconds };
        Some(proto(Duration::from_nanos(event.text(&operator).parse().ok()?)))
    };
    common.time_to_last_rx_byte = until(TimePoint::DownstreamRxEnd);
    common.time_to_first_upstream_tx_byte = until(TimePoint::UpstreamTxBegin);
    common.time_to_last_upstream_tx_byte = until(TimePoint::UpstreamTxEnd);
    common.time_to_first_upstream_rx_byte = until(TimePoint::UpstreamRxBegin);
    common.time_to_first_downstream_tx_byte = until(TimePoint::DownstreamTxBegin);
    if !common.intermediate_log_entry {
        common.time_to_last_upstream_rx_byte = until(TimePoint::UpstreamRxEnd);
        common.time_to_last_downstream_tx_byte = until(TimePoint::DownstreamTxEnd);
    }
}

/// What a session moves is all that is on the wire.
fn wire_bytes(event: &Event<'_>, common: &mut AccessLogCommon) {
    let received = event.number(&Operator::BytesReceived);
    let sent = event.number(&Operator::BytesSent);
    common.downstream_wire_bytes_received = received;
    common.upstream_wire_bytes_sent = received;
    common.downstream_wire_bytes_sent = sent;
    common.upstream_wire_bytes_received = sent;
}

fn proto(duration: Duration) -> prost_types::Duration {
    // Longer than 292 billion years cannot be.
    duration.try_into().unwrap_or_default()
}

fn timestamp(nanoseconds: u64) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(nanoseconds / NANOSECONDS).unwrap_or(i64::MAX),
        nanos: i32::try_from(nanoseconds % NANOSECONDS).unwrap_or(0),
    }
}

/// The address that `operator` prints.
fn address(event: &Event<'_>, operator: &Operator) -> Option<Address> {
    let text = event.text(operator);
    let specifier = match text.parse::<SocketAddr>() {
        Ok(socket) => Specifier::SocketAddress(SocketAddress {
            address: socket.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(socket.port().into())),
            ..SocketAddress::default()
        }),
        Err(_) if text.is_empty() => return None,
        Err(_) => Specifier::Pipe(Pipe { path: text, mode: 0 }),
    };
    Some(Address { address: Some(specifier) })
}

/// What TLS with the client established, and which name it asked for.
fn tls(event: &Event<'_>) -> Option<TlsProperties> {
    let peer = Peer::Downstream;
    let name = event.text(&Operator::RequestedServerName);
    let version = match event.text(&Operator::TlsVersion(peer)).as_str() {
        "TLSv1.2" => TlsVersion::TlSv12,
        "TLSv1.3" => TlsVersion::TlSv13,
        _ if name.is_empty() => return None,
        _ => return Some(TlsProperties { tls_sni_hostname: name, ..TlsProperties::default() }),
    };
    let cipher = event.number(&Operator::TlsCipherNumber);
    Some(TlsProperties {
        tls_version: version.into(),
        tls_cipher_suite: u32::try_from(cipher).ok(),
        tls_sni_hostname: name,
        local_certificate_properties: Some(CertificateProperties {
            subject_alt_name: uris(&event.text(&Operator::LocalUriSan(peer))),
            subject: event.text(&Operator::LocalSubject(peer)),
            issuer: String::new(),
        }),
        peer_certificate_properties: Some(CertificateProperties {
            subject_alt_name: uris(&event.text(&Operator::PeerUriSan(peer))),
            subject: event.text(&Operator::PeerSubject(peer)),
            issuer: event.text(&Operator::PeerIssuer(peer)),
        }),
    })
}

/// The names that are joined in `text`.
fn uris(text: &str) -> Vec<SubjectAltName> {
    let uris = text.split(',').filter(|uri| !uri.is_empty());
    uris.map(|uri| SubjectAltName { san: Some(San::Uri(uri.to_owned())) }).collect()
}

/// Dynamic metadata, if there is any.
fn metadata(event: &Event<'_>) -> Option<Metadata> {
    let mut found = None;
    event.with_metadata(MetadataOf::Dynamic, &mut |metadata| {
        let namespaces = metadata.namespaces();
        let filter_metadata = namespaces.map(|(name, values)| (name.to_owned(), structure(values)));
        found = Some(Metadata { filter_metadata: filter_metadata.collect() });
    });
    found
}

/// Filter state: a text, or else a structure or another value.
fn packed(state: &serde_json::Value) -> Any {
    let (name, value) = match state {
        serde_json::Value::String(text) => ("StringValue", text.encode_to_vec()),
        serde_json::Value::Object(object) => ("Struct", structure(object).encode_to_vec()),
        other => ("Value", value(other).encode_to_vec()),
    };
    Any { type_url: format!("type.googleapis.com/google.protobuf.{name}"), value }
}

/// What went wrong; none if nothing.
fn flags(set: Flags) -> Option<ResponseFlags> {
    if set.is_empty() {
        return None;
    }
    let has = |flag| set.contains(flag);
    let refused = Unauthorized { reason: Reason::ExternalService.into() };
    Some(ResponseFlags {
        failed_local_healthcheck: has(Flags::FAILED_LOCAL_HEALTH_CHECK),
        no_healthy_upstream: has(Flags::NO_HEALTHY_UPSTREAM),
        upstream_request_timeout: has(Flags::UPSTREAM_REQUEST_TIMEOUT),
        local_reset: has(Flags::LOCAL_RESET),
        upstream_remote_reset: has(Flags::UPSTREAM_REMOTE_RESET),
        upstream_connection_failure: has(Flags::UPSTREAM_CONNECTION_FAILURE),
        upstream_connection_termination: has(Flags::UPSTREAM_CONNECTION_TERMINATION),
        upstream_overflow: has(Flags::UPSTREAM_OVERFLOW),
        no_route_found: has(Flags::NO_ROUTE_FOUND),
        delay_injected: has(Flags::DELAY_INJECTED),
        fault_injected: has(Flags::FAULT_INJECTED),
        rate_limited: has(Flags::RATE_LIMITED),
        unauthorized_details: has(Flags::UNAUTHORIZED_EXTERNAL_SERVICE).then_some(refused),
        rate_limit_service_error: has(Flags::RATE_LIMIT_SERVICE_ERROR),
        downstream_connection_termination: has(Flags::DOWNSTREAM_CONNECTION_TERMINATION),
        upstream_retry_limit_exceeded: has(Flags::UPSTREAM_RETRY_LIMIT_EXCEEDED),
        stream_idle_timeout: has(Flags::STREAM_IDLE_TIMEOUT),
        invalid_envoy_request_headers: has(Flags::INVALID_ENVOY_REQUEST_HEADERS),
        downstream_protocol_error: has(Flags::DOWNSTREAM_PROTOCOL_ERROR),
        upstream_max_stream_duration_reached: has(Flags::UPSTREAM_MAX_STREAM_DURATION_REACHED),
        response_from_cache_filter: has(Flags::RESPONSE_FROM_CACHE_FILTER),
        no_filter_config_found: has(Flags::NO_FILTER_CONFIG_FOUND),
        duration_timeout: has(Flags::DURATION_TIMEOUT),
        upstream_protocol_error: has(Flags::UPSTREAM_PROTOCOL_ERROR),
        no_cluster_found: has(Flags::NO_CLUSTER_FOUND),
        overload_manager: has(Flags::OVERLOAD_MANAGER),
        dns_resolution_failure: has(Flags::DNS_RESOLUTION_FAILED),
        downstream_remote_reset: has(Flags::DOWNSTREAM_REMOTE_RESET),
    })
}

impl LogKind {
    /// Whether what is logged has not ended yet.
    fn goes_on(self) -> bool {
        matches!(
            self,
            Self::TcpUpstreamConnected
                | Self::TcpPeriodic
                | Self::DownstreamStart
                | Self::DownstreamPeriodic
                | Self::TunnelEstablished
        )
    }

    fn is_of_request(self) -> bool {
        matches!(
            self,
            Self::DownstreamStart
                | Self::DownstreamPeriodic
                | Self::TunnelEstablished
                | Self::DownstreamEnd
        )
    }

    fn is_of_session(self) -> bool {
        matches!(self, Self::TcpUpstreamConnected | Self::TcpPeriodic | Self::TcpConnectionEnd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_its_field() {
        let names = [
            "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE",
            "DC", "URX", "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF",
            "DR",
        ];
        for (number, name) in (1..).zip(names) {
            let told = flags(Flags::from_short(name).unwrap()).unwrap().encode_to_vec();
            // What is encoded begins with the number of its field.
            let (field, _) = prost::encoding::decode_key(&mut told.as_slice()).unwrap();
            assert_eq!(field, number, "{name}");
        }
        assert_eq!(flags(Flags::default()), None);
    }
}
