//! `connectionPool` and `retryBudget`: circuit breakers, time-outs and the protocol of connections.

use xds::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use xds::envoy::config::cluster::v3::circuit_breakers::thresholds::RetryBudget as EnvoyBudget;
use xds::envoy::config::cluster::v3::{CircuitBreakers, UpstreamConnectionOptions};
use xds::envoy::config::core::v3::{KeepaliveSettings, TcpKeepalive};
use xds::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use xds::envoy::r#type::v3::Percent;

use super::Draft;
use crate::model::duration::Duration;
use crate::model::istio::destination_rule::{
    ConnectionPoolSettings, H2UpgradePolicy, HttpSettings, RetryBudget, TcpKeepalive as Keepalive,
    TcpSettings, TrafficPolicy,
};
use crate::translate::values;

/// Who connects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The proxy of a client: it may choose HTTP/2.
    Client,
    /// The proxy of the workload itself.
    Server,
}

/// Sets what the policy says of connections, or Istio's defaults: no limits.
pub(super) fn apply(draft: &mut Draft, policy: Option<&TrafficPolicy>, side: Side) {
    let none = ConnectionPoolSettings::default();
    let pool = policy.and_then(|it| it.connection_pool.as_ref()).unwrap_or(&none);
    let (tcp, http) = (pool.tcp.as_ref(), pool.http.as_ref());
    let upgrade = |it: &HttpSettings| {
        it.h2_upgrade_policy == H2UpgradePolicy::Upgrade && !it.use_client_protocol
    };
    if side == Side::Client && http.is_some_and(upgrade) {
        draft.speak_http2();
    }
    let mut limits = thresholds(tcp, http);
    limits.retry_budget = policy.and_then(|it| it.retry_budget.as_ref()).map(budget);
    draft.cluster.circuit_breakers = Some(CircuitBreakers { thresholds: vec![limits] });
    if let Some(tcp) = tcp {
        connections(draft, tcp);
    }
    limit_requests(draft, tcp, http);
    if http.is_some_and(|it| it.use_client_protocol) {
        draft.speak_as_client();
    }
}

fn positive(value: i32) -> Option<u32> {
    u32::try_from(value).ok().filter(|value| *value > 0)
}

fn thresholds(tcp: Option<&TcpSettings>, http: Option<&HttpSettings>) -> Thresholds {
    let limit = |value: Option<i32>| Some(value.and_then(positive).unwrap_or(u32::MAX));
    Thresholds {
        max_connections: limit(tcp.map(|it| it.max_connections)),
        max_pending_requests: limit(http.map(|it| it.http1_max_pending_requests)),
        max_requests: limit(http.map(|it| it.http2_max_requests)),
        max_retries: limit(http.map(|it| it.max_retries)),
        ..Thresholds::default()
    }
}

fn budget(budget: &RetryBudget) -> EnvoyBudget {
    let concurrency = budget.min_retry_concurrency;
    EnvoyBudget {
        budget_percent: Some(Percent { value: budget.percent.unwrap_or(20.0) }),
        min_retry_concurrency: Some(if concurrency == 0 { 3 } else { concurrency }),
    }
}

fn connections(draft: &mut Draft, tcp: &TcpSettings) {
    if let Some(timeout) = tcp.connect_timeout {
        draft.cluster.connect_timeout = Some(values::duration(timeout));
    }
    if let Some(keepalive) = &tcp.tcp_keepalive {
        keep_alive(draft, keepalive);
    }
}

/// Idle connections are asked whether they live.
pub(super) fn keep_alive(draft: &mut Draft, keepalive: &Keepalive) {
    let seconds =
        |it: Option<Duration>| it.map(|it| u32::try_from(it.as_secs()).unwrap_or(u32::MAX));
    draft.cluster.upstream_connection_options = Some(UpstreamConnectionOptions {
        tcp_keepalive: Some(TcpKeepalive {
            keepalive_probes: Some(keepalive.probes).filter(|probes| *probes > 0),
            keepalive_time: seconds(keepalive.time),
            keepalive_interval: seconds(keepalive.interval),
        }),
        ..UpstreamConnectionOptions::default()
    });
}

fn limit_requests(draft: &mut Draft, tcp: Option<&TcpSettings>, http: Option<&HttpSettings>) {
    let idle = http.and_then(|it| it.idle_timeout).or_else(|| tcp.and_then(|it| it.idle_timeout));
    let lifetime = tcp.and_then(|it| it.max_connection_duration);
    let requests = http.and_then(|it| positive(it.max_requests_per_connection));
    let streams = http.and_then(|it| positive(it.max_concurrent_streams));
    let keepalive = http.and_then(|it| it.http2_keep_alive.as_ref());
    if idle.is_none()
        && lifetime.is_none()
        && requests.is_none()
        && streams.is_none()
        && keepalive.is_none()
    {
        return;
    }
    let common = draft.http().common_http_protocol_options.get_or_insert_default();
    common.idle_timeout = idle.map(values::duration);
    common.max_connection_duration = lifetime.map(values::duration);
    common.max_requests_per_connection = requests;
    if let Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
        protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(http2)),
    })) = &mut draft.http().upstream_protocol_options
    {
        http2.max_concurrent_streams = streams;
        http2.connection_keepalive = keepalive.map(|it| KeepaliveSettings {
            interval: it.interval.map(values::duration),
            timeout: it.timeout.map(values::duration),
            ..KeepaliveSettings::default()
        });
    }
}
