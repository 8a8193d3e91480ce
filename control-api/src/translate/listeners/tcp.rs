//! Network filters for connections that are forwarded as they are.

use xds::envoy::config::listener::v3::Filter;
use xds::envoy::extensions::filters::network::mongo_proxy::v3::MongoProxy;
use xds::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use xds::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, TunnelingConfig, WeightedCluster, weighted_cluster::ClusterWeight,
};
use xds::envoy::r#type::v3::HashPolicy;
use xds::envoy::r#type::v3::hash_policy::{PolicySpecifier, SourceIp};

use crate::model::istio::destination_rule::{DestinationRule, TrafficPolicy};
use crate::model::istio::virtual_service::RouteDestination;
use crate::model::protocol::Protocol;
use crate::translate::egress::View;
use crate::translate::policy;
use crate::translate::routes::outbound_cluster;
use crate::translate::telemetry;
use crate::translate::values;

/// The cluster where nothing is.
const BLACK_HOLE: &str = "BlackHoleCluster";

/// Everything to one cluster, and nothing more.
fn to_cluster(cluster: &str) -> TcpProxy {
    TcpProxy {
        stat_prefix: cluster.to_owned(),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..TcpProxy::default()
    }
}

/// Nowhere, and nobody is told.
pub(super) fn nowhere(view: &View<'_>) -> Vec<Filter> {
    stack(view, Protocol::Tcp, &to_cluster(BLACK_HOLE))
}

/// What happens to connections that no service is meant by.
pub(super) fn others(view: &View<'_>) -> Vec<Filter> {
    let cluster = view.other_hosts();
    let proxy = to_cluster(cluster.as_deref().unwrap_or(BLACK_HOLE));
    stack(view, Protocol::Tcp, &logged(view, proxy))
}

/// To one cluster of a service, as its `DestinationRule` asks for.
pub(in crate::translate) fn single(
    view: &View<'_>,
    cluster: &str,
    subset: &str,
    protocol: Protocol,
    rule: Option<&DestinationRule>,
) -> Vec<Filter> {
    stack(view, protocol, &logged(view, to_service(cluster, subset, rule)))
}

/// The same without what a `DestinationRule` says of tunnels: the connection is on its way already.
pub(in crate::translate) fn forwarded(
    view: &View<'_>,
    cluster: &str,
    subset: &str,
    protocol: Protocol,
    rule: Option<&DestinationRule>,
) -> Vec<Filter> {
    let proxy = TcpProxy { tunneling_config: None, ..to_service(cluster, subset, rule) };
    stack(view, protocol, &logged(view, proxy))
}

/// To the destinations of a route of a virtual service, `NAME.NAMESPACE`. None if no destination has any weight.
pub(in crate::translate) fn routed(
    view: &View<'_>,
    routes: &[RouteDestination],
    port: u32,
    protocol: Protocol,
    name: &str,
) -> Option<Vec<Filter>> {
    let cluster = |route: &RouteDestination| {
        let destination = route.destination.as_ref()?;
        let service = view.service(&destination.host).map(|it| &**it);
        Some(outbound_cluster(destination, service, port))
    };
    let first = routes.first()?;
    let destination = first.destination.as_ref()?;
    let rule = view
        .service(&destination.host)
        .and_then(|service| policy::rule(view.mesh, view.proxy, service))
        .map(|it| it.spec);
    if routes.len() == 1 {
        return Some(single(view, &cluster(first)?, &destination.subset, protocol, rule));
    }
    let weighted = routes.iter().filter_map(|route| {
        let weight = u32::try_from(route.weight).ok().filter(|it| *it > 0)?;
        Some(ClusterWeight { name: cluster(route)?, weight, ..ClusterWeight::default() })
    });
    let clusters: Vec<_> = weighted.collect();
    if clusters.is_empty() {
        return None;
    }
    let mut proxy = TcpProxy {
        stat_prefix: name.to_owned(),
        cluster_specifier: Some(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters })),
        ..TcpProxy::default()
    };
    apply(&mut proxy, rule, "");
    Some(stack(view, protocol, &logged(view, proxy)))
}

fn to_service(cluster: &str, subset: &str, rule: Option<&DestinationRule>) -> TcpProxy {
    let mut proxy = to_cluster(cluster);
    apply(&mut proxy, rule, subset);
    proxy
}

fn apply(proxy: &mut TcpProxy, rule: Option<&DestinationRule>, subset: &str) {
    let Some(rule) = rule else { return };
    let policy = rule.traffic_policy.as_ref();
    let subset = rule.subsets.iter().find(|it| it.name == subset);
    let of_subset = subset.and_then(|it| it.traffic_policy.as_ref());
    let pool = policy.and_then(|it| it.connection_pool.as_ref()).and_then(|it| it.tcp.as_ref());
    proxy.idle_timeout = pool.and_then(|it| it.idle_timeout).map(values::duration);
    proxy.max_downstream_connection_duration =
        pool.and_then(|it| it.max_connection_duration).map(values::duration);
    // A subset's balancer goes before the rule's, whatever it is.
    let balanced = of_subset.filter(|it| it.load_balancer.is_some()).or(policy);
    if balanced.is_some_and(hashes_source) {
        let by_source = PolicySpecifier::SourceIp(SourceIp {});
        proxy.hash_policy.push(HashPolicy { policy_specifier: Some(by_source) });
    }
    let tunnel = of_subset.and_then(|it| it.tunnel.as_ref());
    let tunnel = tunnel.or_else(|| policy?.tunnel.as_ref());
    proxy.tunneling_config = tunnel.map(|it| TunnelingConfig {
        hostname: format!("{}:{}", bracketed(&it.target_host), it.target_port),
        use_post: it.protocol == "POST",
        ..TunnelingConfig::default()
    });
}

fn hashes_source(policy: &TrafficPolicy) -> bool {
    let balancer = policy.load_balancer.as_ref();
    let hash = balancer.and_then(|it| it.consistent_hash.as_ref());
    hash.is_some_and(|it| it.use_source_ip == Some(true))
}

fn logged(view: &View<'_>, proxy: TcpProxy) -> TcpProxy {
    let access_log = telemetry::access_logs(view.mesh, view.proxy, view.class());
    TcpProxy { access_log, ..proxy }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// The filters around a proxy of connections.
fn stack(view: &View<'_>, protocol: Protocol, proxy: &TcpProxy) -> Vec<Filter> {
    let mut filters = telemetry::network_stats(view.mesh, view.proxy, view.class());
    if protocol == Protocol::Mongo {
        let mongo = MongoProxy { stat_prefix: proxy.stat_prefix.clone(), ..MongoProxy::default() };
        filters.push(values::network_filter("envoy.filters.network.mongo_proxy", &mongo));
    }
    filters.push(values::network_filter("envoy.filters.network.tcp_proxy", proxy));
    filters
}
