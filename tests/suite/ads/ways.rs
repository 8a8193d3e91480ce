//! The ways by which configuration comes: a stream for each kind, filters of their own, and the next server of a list.

use harness::eventually::eventually_true;
use harness::management::{ManagementServer, resource};
use harness::{Backend, Bootstrap, Cluster, Program, json};
use prost_types::Any;
use xds::envoy::config::core::v3::TypedExtensionConfig;
use xds::envoy::config::listener::v3::Listener;

use super::resources::{
    VARIANTS, ads, cluster, eds_cluster, endpoints, listener, listener_value, listener_with,
    managed, routes,
};

on_both!(each_kind_may_have_a_stream_of_its_own, a_filter_may_be_discovered);
on_outrigger_only!(the_next_server_is_asked because SEVERAL_SERVERS);

async fn each_kind_may_have_a_stream_of_its_own(program: Program) {
    for variant in VARIANTS {
        let (server, app) = (ManagementServer::start(), Backend::echo("app").await);
        let source = json!({"resource_api_version": "V3", "api_config_source": {
            "api_type": variant, "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "management"}}],
        }});
        let mut bootstrap = Bootstrap::new();
        let main = bootstrap.reserve("main");
        let first = [
            eds_cluster("one", &source, "5s"),
            endpoints("one", &app),
            listener_with(main, "x", "routes", &source),
            routes("one"),
        ];
        server.publish(first, []);
        let proxy = managed(bootstrap, &server, variant, &source).start(program).await;
        assert_eq!(proxy.get("/").send().await.status, 200);
        let other = Backend::echo("other").await;
        server.publish([endpoints("one", &other)], []);
        eventually_true("the change", async || {
            assert_eq!(proxy.get("/").send().await.status, 200);
            other.count() > 0
        })
        .await;
        let told = server.told();
        assert!(told.streams >= 4, "{variant}: {}", told.streams);
        assert_eq!(told.nacks(), []);
    }
}

/// A filter that answers everything with `status`.
fn abort(status: u16) -> Any {
    resource::<TypedExtensionConfig>(&json!({"name": "fault", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "abort": {"http_status": status, "percentage": {"numerator": 100}},
    }}))
}

async fn a_filter_may_be_discovered(program: Program) {
    for variant in VARIANTS {
        let (server, app) = (ManagementServer::start(), Backend::echo("app").await);
        let mut bootstrap = Bootstrap::new();
        let main = bootstrap.reserve("main");
        let mut value = listener_value("main", main, "x", "routes", &ads());
        let manager = &mut value["filter_chains"][0]["filters"][0]["typed_config"];
        let discovered = json!({"name": "fault", "config_discovery": {
            "config_source": ads(),
            "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"],
        }});
        manager["http_filters"].as_array_mut().unwrap().insert(0, discovered);
        server.publish([cluster("one"), endpoints("one", &app), routes("one")], []);
        server.publish([resource::<Listener>(&value), abort(418)], []);
        let proxy = managed(bootstrap, &server, variant, &ads()).start(program).await;
        assert_eq!(proxy.get("/").send().await.status, 418, "{variant}");
        server.publish([abort(420)], []);
        eventually_true("the change", async || proxy.get("/").send().await.status == 420).await;
        assert_eq!((app.count(), server.told().nacks()), (0, vec![]));
    }
}

async fn the_next_server_is_asked(program: Program) {
    for variant in VARIANTS {
        let (server, app) = (ManagementServer::start(), Backend::echo("app").await);
        let mut bootstrap = Bootstrap::new();
        let [main, nobody] = ["main", "nobody"].map(|name| bootstrap.reserve(name));
        let first = [cluster("one"), endpoints("one", &app), listener(main, "x"), routes("one")];
        server.publish(first, []);
        let services = ["gone", "management"].map(|it| json!({"envoy_grpc": {"cluster_name": it}}));
        let proxy = managed(bootstrap, &server, variant, &ads())
            .cluster(Cluster::new("gone").http2().endpoint(nobody))
            .with("dynamic_resources.ads_config.grpc_services", services.to_vec())
            .start(program)
            .await;
        assert_eq!(proxy.get("/").send().await.status, 200);
        assert_eq!(server.told().nacks(), []);
    }
}
