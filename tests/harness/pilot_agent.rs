//! The bootstrap that Istio's agent writes for its proxy (`envoy-rev.json`), and where it expects whom.

use serde_json::{Value, json};

use crate::bootstrap::{Bootstrap, socket_address, typed};

/// Where the agent passes on what its control plane says, below the proxy's directory.
pub const XDS_SOCKET: &str = "etc/istio/proxy/XDS";
/// Where the agent has the workload's secrets, below the proxy's directory.
pub const SDS_SOCKET: &str = "var/run/secrets/workload-spiffe-uds/socket";
/// Where the agent says whether the workload is ready.
pub const STATUS: ([u8; 4], u16) = ([127, 0, 0, 1], 15020);
/// Where the proxy shows its metrics to everybody.
pub const METRICS: ([u8; 4], u16) = ([127, 0, 0, 1], 15090);
/// Where the proxy passes on what the agent says of its readiness.
pub const READINESS: ([u8; 4], u16) = ([127, 0, 0, 1], 15021);

/// The bootstrap of the proxy that is `node`, a `Node` as JSON; `api_type` is `GRPC` or `DELTA_GRPC`. Its ports are
/// always the same ones. The directories of both sockets are there.
pub fn bootstrap(node: &Value, api_type: &str) -> Bootstrap {
    let bootstrap = Bootstrap::new();
    for socket in [XDS_SOCKET, SDS_SOCKET] {
        std::fs::create_dir_all(bootstrap.dir().join(socket).parent().unwrap()).unwrap();
    }
    let source = json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"});
    let admin = bootstrap.admin_address();
    let at = |(ip, port): ([u8; 4], u16)| socket_address((ip, port).into());
    bootstrap
        .with("node.id", node["id"].clone())
        .with("node.cluster", node["cluster"].clone())
        .with("node.locality", node["locality"].clone())
        .with("node.metadata", node["metadata"].clone())
        .with("application_log_config.log_format.text_format", "%Y-%m-%dT%T.%fZ\t%l\t%v")
        .with("layered_runtime.layers", layers())
        .with("bootstrap_extensions", json!([internal_listeners()]))
        .with("stats_eviction_interval", "60s")
        .with("stats_config", stats_config())
        .with("admin.access_log", json!([nowhere()]))
        .with("admin.profile_path", "/var/lib/istio/data/envoy.prof")
        .with("dynamic_resources.lds_config", source.clone())
        .with("dynamic_resources.cds_config", source)
        .with(
            "dynamic_resources.ads_config",
            json!({
                "api_type": api_type, "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            }),
        )
        .with(
            "static_resources.clusters",
            json!([
                cluster("prometheus_stats", &socket_address(admin)),
                cluster("agent", &at(STATUS)),
                speaking_grpc(cluster(
                    "sds-grpc",
                    &json!({"pipe": {"path": format!("./{SDS_SOCKET}")}})
                )),
                upstream(cluster(
                    "xds-grpc",
                    &json!({"pipe": {"path": format!("./{XDS_SOCKET}")}})
                )),
            ]),
        )
        .with(
            "static_resources.listeners",
            json!([
                listener(METRICS.1, "stats", "/stats/prometheus", "prometheus_stats"),
                listener(READINESS.1, "agent", "/healthz/ready", "agent"),
            ]),
        )
}

fn layers() -> Value {
    json!([
        {"name": "global config", "static_layer": {
            "envoy.deprecated_features:envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst": true,
            "envoy.reloadable_features.http_reject_path_with_fragment": false,
            "overload.global_downstream_max_connections": "2147483647",
            "re2.max_program_size.error_level": "32768",
        }},
        {"name": "admin", "admin_layer": {}},
    ])
}

fn internal_listeners() -> Value {
    let typed_config = typed(
        "udpa.type.v1.TypedStruct",
        json!({
            "type_url": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
            "value": {"buffer_size_kb": 64},
        }),
    );
    json!({"name": "envoy.bootstrap.internal_listener", "typed_config": typed_config})
}

fn stats_config() -> Value {
    let prefixes = [
        "reporter=",
        "cluster_manager",
        "listener_manager",
        "server",
        "cluster.xds-grpc",
        "wasm",
        "component",
        "istio",
    ];
    let suffixes = ["rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied"];
    let mut patterns: Vec<Value> = prefixes.iter().map(|it| json!({"prefix": it})).collect();
    patterns.extend(suffixes.iter().map(|it| json!({"suffix": it})));
    patterns.push(json!({"safe_regex": {"regex": r"vhost\..*\.route\..*"}}));
    json!({
        "use_all_default_tags": false,
        "stats_tags": [
            {"tag_name": "cluster_name", "regex": r"^cluster(\.(.+);)"},
            {"tag_name": "response_code", "regex": r"_rq(_(\d{3}))$"},
            {"tag_name": "authz_enforce_result", "regex": r"rbac(\.(allowed|denied))"},
        ],
        "stats_matcher": {"inclusion_list": {"patterns": patterns}},
    })
}

fn nowhere() -> Value {
    let log = typed(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        json!({"path": "/dev/null"}),
    );
    json!({"name": "envoy.access_loggers.file", "typed_config": log})
}

fn cluster(name: &str, address: &Value) -> Value {
    json!({
        "name": name, "alt_stat_name": format!("{name};"), "type": "STATIC",
        "connect_timeout": "1s", "lb_policy": "ROUND_ROBIN",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    })
}

fn speaking_grpc(mut cluster: Value) -> Value {
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let http2 = json!({"explicit_http_config": {"http2_protocol_options": {}}});
    cluster["typed_extension_protocol_options"] = json!({OPTIONS: typed(OPTIONS, http2)});
    cluster
}

/// The way to the control plane.
fn upstream(cluster: Value) -> Value {
    let mut cluster = speaking_grpc(cluster);
    let limits = |priority: &str| {
        json!({"priority": priority, "max_connections": 100_000, "max_pending_requests": 100_000,
            "max_requests": 100_000})
    };
    cluster["circuit_breakers"] = json!({"thresholds": [limits("DEFAULT"), limits("HIGH")]});
    cluster["upstream_connection_options"] = json!({"tcp_keepalive": {"keepalive_time": 300}});
    cluster["max_requests_per_connection"] = 1.into();
    cluster
}

fn listener(port: u16, prefix: &str, path: &str, cluster: &str) -> Value {
    let router = typed("envoy.extensions.filters.http.router.v3.Router", json!({}));
    let manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "codec_type": "AUTO", "stat_prefix": prefix,
            "route_config": {"virtual_hosts": [{"name": "backend", "domains": ["*"], "routes": [
                {"match": {"prefix": path}, "route": {"cluster": cluster}},
            ]}]},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        }),
    );
    let filter =
        json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager});
    json!({
        "name": format!("0.0.0.0_{port}"), "address": socket_address(([0, 0, 0, 0], port).into()),
        "ignore_global_conn_limit": true, "bypass_overload_manager": true,
        "filter_chains": [{"filters": [filter]}],
    })
}
