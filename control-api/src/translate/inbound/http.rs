//! Requests to the workload: the connection manager, its filters, and the one route there is.

use xds::envoy::config::core::v3::Http2ProtocolOptions;
use xds::envoy::config::listener::v3::Filter;
use xds::envoy::config::route::v3::route::Action;
use xds::envoy::config::route::v3::route_action::{ClusterSpecifier, MaxStreamDuration};
use xds::envoy::config::route::v3::route_match::PathSpecifier;
use xds::envoy::config::route::v3::{
    Decorator, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
};
use xds::envoy::extensions::filters::http::cors::v3::Cors;
use xds::envoy::extensions::filters::http::fault::v3::HttpFault;
use xds::envoy::extensions::filters::http::grpc_stats::v3::FilterConfig as GrpcStats;
use xds::envoy::extensions::filters::http::grpc_stats::v3::filter_config::PerMethodStatSpecifier;
use xds::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    RouteSpecifier, UpgradeConfig,
};
use xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, RequestIdExtension,
};
use xds::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;

use super::chain::{Chain, Context};
use crate::model::istio::mesh_config::DefaultConfig;
use crate::model::protocol::Protocol;
use crate::translate::telemetry::{self, Class};
use crate::translate::{manager, values};

const NO_LIMIT: prost_types::Duration = prost_types::Duration { seconds: 0, nanos: 0 };

/// The connection manager of a port.
pub(super) fn filter(context: &Context<'_>, chain: &Chain) -> Filter {
    let (mesh, proxy) = (context.mesh, context.proxy);
    let traced = telemetry::tracing(mesh, proxy, Class::Inbound);
    let request_ids = UuidRequestIdConfig {
        use_request_id_for_trace_sampling: traced.by_request_id,
        ..UuidRequestIdConfig::default()
    };
    let settings = proxy.settings(mesh);
    let is_http2 = matches!(chain.protocol, Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb);
    let mut manager = HttpConnectionManager {
        stat_prefix: chain.stat_prefix(),
        route_specifier: Some(RouteSpecifier::RouteConfig(routes(chain))),
        http_filters: filters(context, chain, &settings),
        tracing: traced.tracing,
        http2_protocol_options: is_http2.then(Http2ProtocolOptions::default),
        server_name: "istio-envoy".to_owned(),
        access_log: telemetry::access_logs(mesh, proxy, Class::Inbound),
        use_remote_address: Some(false),
        proxy_100_continue: true,
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..UpgradeConfig::default()
        }],
        stream_idle_timeout: Some(NO_LIMIT),
        request_id_extension: Some(RequestIdExtension {
            typed_config: Some(values::any(&request_ids)),
        }),
        ..HttpConnectionManager::default()
    };
    manager::apply(&mut manager, mesh, &settings, Class::Inbound);
    values::network_filter("envoy.filters.network.http_connection_manager", &manager)
}

fn filters(context: &Context<'_>, chain: &Chain, settings: &DefaultConfig) -> Vec<HttpFilter> {
    let mut filters = context.policies.clone();
    if chain.protocol == Protocol::GrpcWeb {
        filters.push(values::http_filter("envoy.filters.http.grpc_web", &GrpcWeb {}));
    }
    let grpc_stats = GrpcStats {
        emit_filter_state: true,
        per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(false)),
        ..GrpcStats::default()
    };
    filters.push(values::http_filter("envoy.filters.http.grpc_stats", &grpc_stats));
    // Routes may have these for themselves.
    filters.push(values::http_filter("envoy.filters.http.fault", &HttpFault::default()));
    filters.push(values::http_filter("envoy.filters.http.cors", &Cors {}));
    filters.extend(telemetry::http_stats(context.mesh, context.proxy, Class::Inbound));
    filters.push(manager::router(settings));
    filters
}

fn routes(chain: &Chain) -> RouteConfiguration {
    let number = chain.number;
    // What has begun to answer is not asked again; nor is what a stream of messages was sent to.
    let retries =
        (chain.protocol != Protocol::Grpc && chain.protocol != Protocol::GrpcWeb).then(|| {
            RetryPolicy {
                retry_on: "reset-before-request".to_owned(),
                num_retries: Some(2),
                ..RetryPolicy::default()
            }
        });
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(chain.cluster())),
        timeout: Some(NO_LIMIT),
        retry_policy: retries,
        max_stream_duration: Some(MaxStreamDuration {
            max_stream_duration: Some(NO_LIMIT),
            grpc_timeout_header_max: Some(NO_LIMIT),
            ..MaxStreamDuration::default()
        }),
        ..RouteAction::default()
    };
    let route = Route {
        name: "default".to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(Action::Route(action)),
        decorator: Some(Decorator {
            operation: format!("{}:{number}/*", chain.host),
            ..Decorator::default()
        }),
        ..Route::default()
    };
    RouteConfiguration {
        name: chain.cluster(),
        virtual_hosts: vec![VirtualHost {
            name: format!("inbound|http|{number}"),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        }],
        validate_clusters: Some(false),
        ..RouteConfiguration::default()
    }
}
