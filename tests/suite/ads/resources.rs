//! The resources of the scenarios, and proxies that have everything but the way to their server from it.

use std::net::SocketAddr;

use harness::management::resource;
use harness::{Backend, Bootstrap, Cluster, Program, Proxy, Value, json};
use prost_types::Any;
use xds::envoy::config::cluster::v3::Cluster as ClusterMessage;
use xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds::envoy::config::listener::v3::Listener;
use xds::envoy::config::route::v3::RouteConfiguration;

/// The two variants, as `ApiConfigSource.api_type` names them.
pub(super) const VARIANTS: [&str; 2] = ["GRPC", "DELTA_GRPC"];

/// A `ConfigSource` of the aggregated stream.
pub(super) fn ads() -> Value {
    json!({"ads": {}, "resource_api_version": "V3"})
}

/// The same for somebody who does not wait long.
pub(super) fn impatient() -> Value {
    json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0.5s"})
}

/// A cluster whose endpoints come from the server as well.
pub(super) fn cluster(name: &str) -> Any {
    eds_cluster(name, &ads(), "5s")
}

/// The same with its source and connect timeout.
pub(super) fn eds_cluster(name: &str, source: &Value, connect_timeout: &str) -> Any {
    resource::<ClusterMessage>(&json!({
        "name": name, "type": "EDS", "connect_timeout": connect_timeout,
        "eds_cluster_config": {"eds_config": source},
    }))
}

/// The one endpoint of a cluster.
pub(super) fn endpoints(name: &str, backend: &Backend) -> Any {
    let address = harness::bootstrap::socket_address(backend.into());
    let endpoint = json!({"endpoint": {"address": address}});
    let endpoints = json!([{"lb_endpoints": [endpoint]}]);
    resource::<ClusterLoadAssignment>(&json!({"cluster_name": name, "endpoints": endpoints}))
}

/// A listener called `main` with this stat prefix; its table `routes` comes from the server as well.
pub(super) fn listener(address: SocketAddr, prefix: &str) -> Any {
    listener_with(address, prefix, "routes", &ads())
}

/// The same with the name and source of its table.
pub(super) fn listener_with(address: SocketAddr, prefix: &str, table: &str, source: &Value) -> Any {
    resource::<Listener>(&listener_value("main", address, prefix, table, source))
}

/// Any listener.
pub(super) fn listener_value(
    name: &str,
    address: SocketAddr,
    prefix: &str,
    table: &str,
    source: &Value,
) -> Value {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": prefix,
        "rds": {"route_config_name": table, "config_source": source},
        "http_filters": [{"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
    });
    json!({
        "name": name, "address": harness::bootstrap::socket_address(address),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    })
}

/// The table `routes`, which leads to `cluster`.
pub(super) fn routes(cluster: &str) -> Any {
    table("routes", cluster)
}

/// A table that leads to `cluster`.
pub(super) fn table(name: &str, cluster: &str) -> Any {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": cluster}});
    resource::<RouteConfiguration>(&json!({
        "name": name,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
    }))
}

/// Has clusters and listeners come from `server`, as `source` says.
pub(super) fn managed(
    bootstrap: Bootstrap,
    server: impl Into<SocketAddr>,
    variant: &str,
    source: &Value,
) -> Bootstrap {
    bootstrap
        .cluster(Cluster::new("management").http2().endpoint(server))
        .with(
            "dynamic_resources.ads_config",
            json!({
                "api_type": variant, "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "management"}}],
            }),
        )
        .with("dynamic_resources.cds_config", source.clone())
        .with("dynamic_resources.lds_config", source.clone())
}

/// A proxy whose server has a listener `main`, with a table that leads to the cluster `one`, with `backend`.
pub(super) async fn proxy(
    program: Program,
    server: &harness::ManagementServer,
    variant: &str,
    backend: &Backend,
) -> Proxy {
    let mut bootstrap = Bootstrap::new();
    let main = bootstrap.reserve("main");
    let first = [cluster("one"), endpoints("one", backend), listener(main, "x"), routes("one")];
    server.publish(first, []);
    let proxy = managed(bootstrap, server, variant, &ads()).start(program).await;
    assert_eq!(proxy.get("/").send().await.status, 200);
    proxy
}
