//! The names of Envoy's command operators.

use super::{GrpcStatusStyle, Operator, Peer, TimePoint};

pub(super) fn time_point(name: &str) -> Option<TimePoint> {
    Some(match name {
        "DS_RX_BEG" => TimePoint::DownstreamRxBegin,
        "DS_RX_END" => TimePoint::DownstreamRxEnd,
        "US_CX_BEG" => TimePoint::UpstreamConnectBegin,
        "US_CX_END" => TimePoint::UpstreamConnectEnd,
        "US_HS_END" => TimePoint::UpstreamHandshakeEnd,
        "US_TX_BEG" => TimePoint::UpstreamTxBegin,
        "US_TX_END" => TimePoint::UpstreamTxEnd,
        "US_RX_BEG" => TimePoint::UpstreamRxBegin,
        "US_RX_END" => TimePoint::UpstreamRxEnd,
        "DS_TX_BEG" => TimePoint::DownstreamTxBegin,
        "DS_TX_END" => TimePoint::DownstreamTxEnd,
        _ => return None,
    })
}

/// Operators that take neither parameter nor length.
pub(super) fn plain(name: &str) -> Option<Operator> {
    Some(match name {
        "PROTOCOL" => Operator::Protocol,
        "UPSTREAM_PROTOCOL" => Operator::UpstreamProtocol,
        "RESPONSE_CODE" => Operator::ResponseCode,
        "RESPONSE_FLAGS" => Operator::ResponseFlags,
        "RESPONSE_FLAGS_LONG" => Operator::ResponseFlagsLong,
        "GRPC_STATUS_NUMBER" => Operator::GrpcStatus(GrpcStatusStyle::Number),
        "CONNECTION_TERMINATION_DETAILS" => Operator::ConnectionTerminationDetails,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Operator::UpstreamTransportFailureReason,
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON" => Operator::DownstreamTransportFailureReason,
        "BYTES_RECEIVED" => Operator::BytesReceived,
        "BYTES_SENT" => Operator::BytesSent,
        "REQUEST_HEADERS_BYTES" => Operator::RequestHeadersBytes,
        "RESPONSE_HEADERS_BYTES" => Operator::ResponseHeadersBytes,
        "RESPONSE_TRAILERS_BYTES" => Operator::ResponseTrailersBytes,
        "DURATION" => Operator::Duration,
        "REQUEST_DURATION" => Operator::RequestDuration,
        "REQUEST_TX_DURATION" => Operator::RequestTxDuration,
        "RESPONSE_DURATION" => Operator::ResponseDuration,
        "RESPONSE_TX_DURATION" => Operator::ResponseTxDuration,
        "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => Operator::UpstreamCluster,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Operator::UpstreamRequestAttemptCount,
        "FILTER_CHAIN_NAME" => Operator::FilterChainName,
        "ROUTE_NAME" => Operator::RouteName,
        "VIRTUAL_CLUSTER_NAME" => Operator::VirtualClusterName,
        "CONNECTION_ID" => Operator::ConnectionId,
        "STREAM_ID" => Operator::StreamId,
        "TRACE_ID" => Operator::TraceId,
        "SPAN_ID" => Operator::SpanId,
        "HOSTNAME" => Operator::Hostname,
        "UNIQUE_ID" => Operator::UniqueId,
        "ACCESS_LOG_TYPE" => Operator::AccessLogType,
        "BYTES_RETRANSMITTED" | "PACKETS_RETRANSMITTED" => Operator::Zero,
        name => return address(name).or_else(|| certificate(name)),
    })
}

fn address(name: &str) -> Option<Operator> {
    Some(match name {
        "UPSTREAM_HOST" => Operator::UpstreamHost,
        "UPSTREAM_HOST_NAME" => Operator::UpstreamHostName,
        "UPSTREAM_HOST_NAME_WITHOUT_PORT" => Operator::UpstreamHostNameWithoutPort,
        "UPSTREAM_LOCAL_ADDRESS" => Operator::UpstreamLocalAddress { with_port: true },
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => {
            Operator::UpstreamLocalAddress { with_port: false }
        }
        "UPSTREAM_LOCAL_PORT" => Operator::UpstreamLocalPort,
        "UPSTREAM_REMOTE_ADDRESS" => Operator::UpstreamRemoteAddress { with_port: true },
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => {
            Operator::UpstreamRemoteAddress { with_port: false }
        }
        "UPSTREAM_REMOTE_PORT" => Operator::UpstreamRemotePort,
        "DOWNSTREAM_LOCAL_ADDRESS" => Operator::DownstreamLocalAddress,
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Operator::DownstreamLocalAddressWithoutPort,
        "DOWNSTREAM_LOCAL_PORT" => Operator::DownstreamLocalPort,
        "DOWNSTREAM_REMOTE_ADDRESS" => Operator::DownstreamRemoteAddress,
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::DownstreamRemoteAddressWithoutPort,
        "DOWNSTREAM_REMOTE_PORT" => Operator::DownstreamRemotePort,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Operator::DownstreamDirectRemoteAddress,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => {
            Operator::DownstreamDirectRemoteAddressWithoutPort
        }
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS" => {
            Operator::DownstreamDirectLocalAddress { with_port: true }
        }
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT" => {
            Operator::DownstreamDirectLocalAddress { with_port: false }
        }
        "DOWNSTREAM_DIRECT_LOCAL_PORT" => Operator::DownstreamDirectLocalPort,
        "DOWNSTREAM_DIRECT_REMOTE_PORT" => Operator::DownstreamDirectRemotePort,
        _ => return None,
    })
}

fn certificate(name: &str) -> Option<Operator> {
    let (peer, what) = match name.split_once('_')? {
        ("DOWNSTREAM", what) => (Peer::Downstream, what),
        ("UPSTREAM", what) => (Peer::Upstream, what),
        _ => return None,
    };
    Some(match (what, peer) {
        ("PEER_SUBJECT", _) => Operator::PeerSubject(peer),
        ("PEER_ISSUER", _) => Operator::PeerIssuer(peer),
        ("PEER_URI_SAN", _) => Operator::PeerUriSan(peer),
        ("PEER_DNS_SAN", _) => Operator::PeerDnsSan(peer),
        ("PEER_IP_SAN", _) => Operator::PeerIpSan(peer),
        ("PEER_EMAIL_SAN", Peer::Downstream) => Operator::PeerEmailSan(peer),
        ("PEER_FINGERPRINT_1", Peer::Downstream) => Operator::PeerFingerprint1(peer),
        ("PEER_CERT", _) => Operator::PeerCert(peer),
        ("PEER_FINGERPRINT_256", Peer::Downstream) => Operator::PeerFingerprint256(peer),
        ("PEER_SERIAL", Peer::Downstream) => Operator::PeerSerial(peer),
        ("LOCAL_SUBJECT", Peer::Downstream) => Operator::LocalSubject(peer),
        ("LOCAL_URI_SAN", _) => Operator::LocalUriSan(peer),
        ("LOCAL_DNS_SAN", _) => Operator::LocalDnsSan(peer),
        ("LOCAL_IP_SAN", _) => Operator::LocalIpSan(peer),
        ("LOCAL_EMAIL_SAN", Peer::Downstream) => Operator::LocalEmailSan(peer),
        ("TLS_GROUP", _) => Operator::TlsGroup(peer),
        ("TLS_VERSION", _) => Operator::TlsVersion(peer),
        ("TLS_CIPHER", _) => Operator::TlsCipher(peer),
        _ => return None,
    })
}

/// Operators whose value may be cut to a length.
pub(super) const TAKES_LIMIT: &[&str] = &[
    "REQ",
    "REQUEST_HEADER",
    "RESP",
    "RESPONSE_HEADER",
    "TRAILER",
    "RESPONSE_TRAILER",
    "PATH",
    "QUERY_PARAM",
    "QUERY_PARAMS",
    "DYNAMIC_METADATA",
    "CLUSTER_METADATA",
    "UPSTREAM_METADATA",
    "METADATA",
    "FILTER_STATE",
    "UPSTREAM_FILTER_STATE",
    "CEL",
    "TYPED_CEL",
];

/// Operators that are empty here, as in an Envoy without what they speak of: filters that set flags of their own, local
/// replies that are formatted, internal listeners.
pub(super) const EMPTY: &[&str] = &[
    "CUSTOM_FLAGS",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID",
    "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID",
    "LOCAL_REPLY_BODY",
];

/// Operators of Envoy that this proxy does not have; refused by name rather than as unknown.
pub(super) const NOT_HERE: &[&str] = &[
    "DOWNSTREAM_CX_RTT",
    "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT",
    "DOWNSTREAM_DETECTED_CLOSE_TYPE",
    "DOWNSTREAM_HANDSHAKE_DURATION",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_LOCAL_CLOSE_REASON",
    "DOWNSTREAM_LOCAL_OTHERNAME_SAN",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
    "DOWNSTREAM_PEER_CHAIN_SERIALS",
    "DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_ISSUER_SERIAL",
    "DOWNSTREAM_PEER_OTHERNAME_SAN",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_WIRE_BYTES_SENT",
    "EMIT_TIME_LOCAL",
    "ROUTE_RESOLUTION_COUNT",
    "ROUTE_RESOLUTION_TIME_US",
    "START_TIME_LOCAL",
    "TLS_JA3_FINGERPRINT",
    "TLS_JA4_FINGERPRINT",
    "UPSTREAM_CONNECTION_ID",
    "UPSTREAM_CONNECTION_IDS_ATTEMPTED",
    "UPSTREAM_CONNECTION_POOL_READY_DURATION",
    "UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED",
    "UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT",
    "UPSTREAM_DETECTED_CLOSE_TYPE",
    "UPSTREAM_HEADER_BYTES_RECEIVED",
    "UPSTREAM_HEADER_BYTES_SENT",
    "UPSTREAM_HOSTS_ATTEMPTED",
    "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT",
    "UPSTREAM_HOST_NAMES_ATTEMPTED",
    "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT",
    "UPSTREAM_LOCAL_CLOSE_REASON",
    "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID",
    "UPSTREAM_SERVER_NAME",
    "UPSTREAM_TLS_SESSION_ID",
    "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_WIRE_BYTES_SENT",
];
