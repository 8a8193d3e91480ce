//! Metrics: Istio's own filter for them, for proxies that have it.

use std::collections::{BTreeMap, BTreeSet};

use xds::envoy::config::listener::v3::Filter;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use xds::stats::{MetricConfig, PluginConfig};

use super::{Class, applicable, names};
use crate::model::Mesh;
use crate::model::duration::Duration;
use crate::model::istio::selector::WorkloadMode;
use crate::model::istio::telemetry::{
    IstioMetric, MetricSelector, Metrics, MetricsOverrides, Operation, TagOverride,
};
use crate::translate::proxy::Proxy;
use crate::translate::{providers, values};

const FILTER: &str = "istio.stats";

/// Every metric but those of one's own: Istio's name, and Prometheus'.
const METRICS: [(IstioMetric, &str, &str); 10] = [
    (IstioMetric::GrpcRequestMessages, "GRPC_REQUEST_MESSAGES", "request_messages_total"),
    (IstioMetric::GrpcResponseMessages, "GRPC_RESPONSE_MESSAGES", "response_messages_total"),
    (IstioMetric::RequestCount, "REQUEST_COUNT", "requests_total"),
    (IstioMetric::RequestDuration, "REQUEST_DURATION", "request_duration_milliseconds"),
    (IstioMetric::RequestSize, "REQUEST_SIZE", "request_bytes"),
    (IstioMetric::ResponseSize, "RESPONSE_SIZE", "response_bytes"),
    (IstioMetric::TcpClosedConnections, "TCP_CLOSED_CONNECTIONS", "tcp_connections_closed_total"),
    (IstioMetric::TcpOpenedConnections, "TCP_OPENED_CONNECTIONS", "tcp_connections_opened_total"),
    (IstioMetric::TcpReceivedBytes, "TCP_RECEIVED_BYTES", "tcp_received_bytes_total"),
    (IstioMetric::TcpSentBytes, "TCP_SENT_BYTES", "tcp_sent_bytes_total"),
];

/// The filters that count requests.
pub fn http_stats(mesh: &Mesh, proxy: &Proxy, class: Class) -> Vec<HttpFilter> {
    configs(mesh, proxy, class).iter().map(|it| values::http_filter(FILTER, it)).collect()
}

/// The filters that count connections.
pub fn network_stats(mesh: &Mesh, proxy: &Proxy, class: Class) -> Vec<Filter> {
    configs(mesh, proxy, class).iter().map(|it| values::network_filter(FILTER, it)).collect()
}

#[derive(Default)]
struct Override<'m> {
    disabled: Option<bool>,
    tags: BTreeMap<&'m str, &'m TagOverride>,
}

/// What is said of one provider's metrics.
#[derive(Default)]
struct Wanted<'m> {
    off: bool,
    interval: Option<Duration>,
    /// By Istio's name, or one's own.
    overrides: BTreeMap<&'m str, Override<'m>>,
}

fn configs(mesh: &Mesh, proxy: &Proxy, class: Class) -> Vec<PluginConfig> {
    if !proxy.knows_istio_filters {
        return Vec::new();
    }
    let said = applicable(mesh, proxy);
    let said: Vec<&Metrics> = said.iter().flat_map(|it| &it.metrics).collect();
    let wanted = wanted(mesh, &said, class.mode());
    let is_prometheus =
        |name: &str| providers::named(mesh, name).is_some_and(|it| it.prometheus.is_some());
    let mut configs = Vec::new();
    for (name, wanted) in wanted {
        if !wanted.off && is_prometheus(name) {
            configs.push(PluginConfig {
                disable_host_header_fallback: class != Class::Outbound,
                tcp_reporting_duration: wanted.interval.map(values::duration),
                metrics: wanted.overrides.iter().map(|(name, it)| metric(name, it)).collect(),
                ..PluginConfig::default()
            });
        }
    }
    configs
}

fn metric(name: &str, over: &Override<'_>) -> MetricConfig {
    let known = METRICS.iter().find(|(_, istio, _)| *istio == name);
    let mut config = MetricConfig {
        name: known.map_or(name, |(_, _, prometheus)| prometheus).to_owned(),
        drop: over.disabled == Some(true),
        ..MetricConfig::default()
    };
    for (tag, over) in &over.tags {
        match over.operation {
            Operation::Remove => config.tags_to_remove.push((*tag).to_owned()),
            Operation::Upsert => {
                config.dimensions.insert((*tag).to_owned(), over.value.clone());
            }
        }
    }
    config
}

/// What is said of each provider, by its name.
fn wanted<'m>(
    mesh: &'m Mesh,
    said: &[&'m Metrics],
    mode: WorkloadMode,
) -> BTreeMap<&'m str, Wanted<'m>> {
    let default: Vec<&str> =
        mesh.config.default_providers.metrics.iter().map(String::as_str).collect();
    if said.is_empty() {
        return default.into_iter().map(|it| (it, Wanted::default())).collect();
    }
    let last = said.iter().rev().find(|it| !it.providers.is_empty());
    let in_scope: BTreeSet<&str> =
        last.map_or_else(|| default.clone(), |it| names(&it.providers)).into_iter().collect();
    let mut wanted: BTreeMap<&str, Wanted<'_>> = BTreeMap::new();
    let mut parents = default;
    for metrics in said {
        if !metrics.providers.is_empty() {
            parents = names(&metrics.providers);
        }
        for name in parents.iter().copied().filter(|it| in_scope.contains(it)) {
            let of_provider = wanted.entry(name).or_default();
            of_provider.interval = metrics.reporting_interval.or(of_provider.interval);
            for over in &metrics.overrides {
                apply(of_provider, over, mode);
            }
        }
    }
    wanted
}

fn apply<'m>(wanted: &mut Wanted<'m>, over: &'m MetricsOverrides, mode: WorkloadMode) {
    let of = over.r#match.as_ref().map_or(WorkloadMode::Undefined, |it| it.mode);
    if matches!(of, WorkloadMode::Client | WorkloadMode::Server) && of != mode {
        return;
    }
    let names = metrics(over.r#match.as_ref());
    if names.len() == METRICS.len() && over.disabled == Some(true) {
        wanted.off = true;
        return;
    }
    wanted.off = false;
    for name in names {
        let known = wanted.overrides.entry(name).or_default();
        known.disabled = over.disabled.or(known.disabled);
        known.tags.extend(over.tag_overrides.iter().map(|(tag, it)| (tag.as_str(), it)));
    }
}

/// The metrics that are meant.
fn metrics(selector: Option<&MetricSelector>) -> Vec<&str> {
    if let Some(custom) = selector.and_then(|it| it.custom_metric.as_deref()) {
        return vec![custom];
    }
    let wanted = selector.and_then(|it| it.metric).unwrap_or_default();
    let fits = |metric: IstioMetric| wanted == IstioMetric::AllMetrics || wanted == metric;
    METRICS.iter().filter(|(metric, ..)| fits(*metric)).map(|(_, name, _)| *name).collect()
}
