//! The connection manager: what happens to requests before and after they are routed.

use xds::envoy::config::core::v3::Http1ProtocolOptions;
use xds::envoy::config::listener::v3::Filter;
use xds::envoy::extensions::filters::http::cors::v3::Cors;
use xds::envoy::extensions::filters::http::fault::v3::HttpFault;
use xds::envoy::extensions::filters::http::grpc_stats::v3::FilterConfig as GrpcStats;
use xds::envoy::extensions::filters::http::grpc_stats::v3::filter_config::PerMethodStatSpecifier;
use xds::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    RouteSpecifier, UpgradeConfig,
};
use xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, RequestIdExtension,
};
use xds::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use xds::istio::envoy::config::filter::http::alpn::v2alpha1::FilterConfig as Alpn;
use xds::istio::envoy::config::filter::http::alpn::v2alpha1::filter_config::{
    AlpnOverride, Protocol as UpstreamProtocol,
};

use crate::model::protocol::Protocol;
use crate::translate::egress::View;
use crate::translate::telemetry::Class;
use crate::translate::{manager, security, telemetry, values};

/// A connection manager with what every one of Istio's clients has. Its filters are the caller's to add.
pub(in crate::translate) fn connection_manager(
    view: &View<'_>,
    stat_prefix: &str,
    routes: RouteSpecifier,
) -> HttpConnectionManager {
    let traced = telemetry::tracing(view.mesh, view.proxy, view.class());
    let request_id = UuidRequestIdConfig {
        use_request_id_for_trace_sampling: traced.by_request_id,
        ..UuidRequestIdConfig::default()
    };
    let mut manager = HttpConnectionManager {
        stat_prefix: stat_prefix.to_owned(),
        route_specifier: Some(routes),
        tracing: traced.tracing,
        access_log: telemetry::access_logs(view.mesh, view.proxy, view.class()),
        use_remote_address: Some(false),
        proxy_100_continue: true,
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..UpgradeConfig::default()
        }],
        stream_idle_timeout: Some(prost_types::Duration::default()),
        request_id_extension: Some(RequestIdExtension {
            typed_config: Some(values::any(&request_id)),
        }),
        ..HttpConnectionManager::default()
    };
    if view.class() == Class::Gateway {
        "istio-envoy".clone_into(&mut manager.server_name);
    }
    manager::apply(&mut manager, view.mesh, &view.settings, view.class());
    manager
}

/// Routes by the configuration of this name, which comes over the same stream.
pub(in crate::translate) fn by_name(name: &str) -> RouteSpecifier {
    RouteSpecifier::Rds(Rds {
        config_source: Some(values::ads()),
        route_config_name: name.to_owned(),
    })
}

/// The manager of an outbound listener.
pub(super) fn outbound(
    view: &View<'_>,
    listener: &str,
    protocol: Protocol,
    routes: &str,
) -> Filter {
    let mut manager = connection_manager(view, &format!("outbound_{listener};"), by_name(routes));
    manager.http_filters = client_filters(view, protocol);
    values::network_filter("envoy.filters.network.http_connection_manager", &manager)
}

/// The manager of a gateway's listener.
pub(in crate::translate) fn gateway(view: &View<'_>, stat_prefix: &str, routes: &str) -> Filter {
    let mut manager = HttpConnectionManager {
        http_protocol_options: Some(Http1ProtocolOptions::default()),
        use_remote_address: Some(true),
        ..connection_manager(view, stat_prefix, by_name(routes))
    };
    manager.http_filters = security::http_filters(view.mesh, view.proxy);
    manager.http_filters.extend(client_filters(view, Protocol::Http));
    values::network_filter("envoy.filters.network.http_connection_manager", &manager)
}

/// The filters where a proxy is the client's side of the mesh: of a sidecar's outbound listeners, and of gateways.
pub(in crate::translate) fn client_filters(view: &View<'_>, protocol: Protocol) -> Vec<HttpFilter> {
    let mut filters = Vec::new();
    if protocol == Protocol::GrpcWeb {
        filters.push(values::http_filter("envoy.filters.http.grpc_web", &GrpcWeb {}));
    }
    let grpc = GrpcStats {
        emit_filter_state: true,
        per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(false)),
        ..GrpcStats::default()
    };
    filters.push(values::http_filter("envoy.filters.http.grpc_stats", &grpc));
    if view.proxy.knows_istio_filters {
        filters.push(values::http_filter("istio.alpn", &offered_protocols()));
    }
    filters.push(values::http_filter("envoy.filters.http.fault", &HttpFault::default()));
    filters.push(values::http_filter("envoy.filters.http.cors", &Cors {}));
    filters.extend(telemetry::http_stats(view.mesh, view.proxy, view.class()));
    filters.push(manager::router(&view.settings));
    filters
}

/// The protocols that a server of the mesh is offered, so that its sidecar knows HTTP before it sees any of it.
fn offered_protocols() -> Alpn {
    let offer = |protocol: UpstreamProtocol, names: [&str; 3]| AlpnOverride {
        upstream_protocol: protocol.into(),
        alpn_override: names.map(ToOwned::to_owned).to_vec(),
    };
    Alpn {
        alpn_override: vec![
            offer(UpstreamProtocol::Http10, ["istio-http/1.0", "istio", "http/1.0"]),
            offer(UpstreamProtocol::Http11, ["istio-http/1.1", "istio", "http/1.1"]),
            offer(UpstreamProtocol::Http2, ["istio-h2", "istio", "h2"]),
        ],
    }
}
