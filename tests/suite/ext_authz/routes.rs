//! What routes say to the filter.

use harness::bootstrap::typed;
use harness::{AuthzServer, Backend, Cluster, Program, Route, Value, json};

use super::{asking, filtering, guarding, start};

on_both!(
    what_has_no_route_is_not_checked,
    a_route_may_not_want_to_be_checked,
    routes_tell_the_service_who_they_are,
    a_route_may_ask_another_service,
    a_route_may_tell_more_or_less_of_the_body,
);

const PER_ROUTE: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute";

fn said(route: Route, fields: Value) -> Route {
    route.with("typed_per_filter_config", json!({"authz": typed(PER_ROUTE, fields)}))
}

fn settings(fields: Value) -> Value {
    let mut said = json!({});
    said["check_settings"] = fields;
    said
}

async fn what_has_no_route_is_not_checked(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let routes = [
        Route::prefix("/direct").direct(200, "direct"),
        Route::prefix("/redirect").redirect(json!({"path_redirect": "/"})),
    ];
    let proxy = guarding(program, &app, &authz, json!({}), routes).await;
    for (path, status, checks) in [("/", 404, 0), ("/direct", 200, 1), ("/redirect", 301, 2)] {
        assert_eq!(
            (proxy.get(path).send().await.status, authz.count()),
            (status, checks),
            "{path}"
        );
    }
    let denied = proxy.get("/direct").header("x-verdict", "status: {code: 7}").send().await;
    assert_eq!((denied.status, denied.text()), (403, String::new()));
}

async fn a_route_may_not_want_to_be_checked(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let disabled = typed("envoy.config.route.v3.FilterConfig", json!({"disabled": true}));
    let routes = [
        said(Route::prefix("/own").to("app"), json!({"disabled": true})),
        Route::prefix("/any").to("app").with("typed_per_filter_config", json!({"authz": disabled})),
        said(Route::prefix("/again").to("app"), settings(json!({}))),
        Route::prefix("/").to("app"),
    ];
    let http = filtering(asking(json!({})), routes).with(
        "route_config.virtual_hosts.0.typed_per_filter_config",
        json!({"authz": typed(PER_ROUTE, json!({"disabled": true}))}),
    );
    let clusters =
        [Cluster::new("app").endpoint(&app), Cluster::new("authz").endpoint(&authz).http2()];
    let proxy = start(program, http, clusters).await;
    for (path, status) in [("/own", 200), ("/any", 200), ("/again", 403), ("/", 200)] {
        let reply = proxy.get(path).header("x-verdict", "status: {code: 7}").send().await;
        assert_eq!(reply.status, status, "{path}");
    }
    assert_eq!(authz.count(), 1);
}

async fn routes_tell_the_service_who_they_are(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let extensions = |from: &str| json!({"context_extensions": {"who": from, from: "1"}});
    let weighted = Route::prefix("/").to_weighted([("app", 1)]).with(
        "route.weighted_clusters.clusters.0.typed_per_filter_config",
        json!({"authz": typed(PER_ROUTE, settings(extensions("cluster")))}),
    );
    let routes = [
        said(Route::prefix("/own").to("app"), settings(extensions("route"))),
        said(weighted, settings(json!({"context_extensions": {"route": "2"}}))),
    ];
    let http = filtering(asking(json!({})), routes).with(
        "route_config.virtual_hosts.0.typed_per_filter_config",
        json!({"authz": typed(PER_ROUTE, settings(extensions("host")))}),
    );
    let clusters =
        [Cluster::new("app").endpoint(&app), Cluster::new("authz").endpoint(&authz).http2()];
    let proxy = start(program, http, clusters).await;
    for (path, expected) in [
        ("/own", json!({"who": "route", "route": "1", "host": "1"})),
        ("/", json!({"who": "cluster", "cluster": "1", "route": "2", "host": "1"})),
    ] {
        assert_eq!(proxy.get(path).send().await.status, 200);
        let told = authz.last().message.attributes.unwrap().context_extensions;
        assert_eq!(json!(told), expected, "{path}");
    }
}

async fn a_route_may_ask_another_service(program: Program) {
    let app = Backend::echo("app").await;
    let (authz, other) = (AuthzServer::as_asked().await, AuthzServer::as_asked().await);
    let plain = Backend::scripted("plain", |_| harness::Answer::status(401)).await;
    let grpc = json!({"grpc_service": {"envoy_grpc": {"cluster_name": "other"}, "timeout": "2s"}});
    let uri = json!({"uri": "http://plain", "cluster": "plain", "timeout": "2s"});
    let routes = [
        said(Route::prefix("/other").to("app"), settings(grpc)),
        said(
            Route::prefix("/plain").to("app"),
            settings(json!({"http_service": {"server_uri": uri}})),
        ),
        Route::prefix("/").to("app"),
    ];
    let clusters = [
        Cluster::new("app").endpoint(&app),
        Cluster::new("authz").endpoint(&authz).http2(),
        Cluster::new("other").endpoint(&other).http2(),
        Cluster::new("plain").endpoint(&plain),
    ];
    let proxy = start(program, filtering(asking(json!({})), routes), clusters).await;
    for (path, status) in [("/other", 200), ("/plain", 401), ("/", 200)] {
        assert_eq!(proxy.get(path).send().await.status, status, "{path}");
    }
    assert_eq!((authz.count(), other.count(), plain.count()), (1, 1, 1));
}

async fn a_route_may_tell_more_or_less_of_the_body(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let body = |bytes: u32| json!({"max_request_bytes": bytes, "allow_partial_message": true});
    let routes = [
        said(
            Route::prefix("/less").to("app"),
            settings(json!({"disable_request_body_buffering": true})),
        ),
        said(Route::prefix("/more").to("app"), settings(json!({"with_request_body": body(100)}))),
        Route::prefix("/").to("app"),
    ];
    let fields = json!({"with_request_body": body(4)});
    let proxy = guarding(program, &app, &authz, fields, routes).await;
    for (path, told) in [("/less", ""), ("/more", "whole body"), ("/", "whol")] {
        let reply = proxy.client().post(path).body("whole body").send().await;
        assert_eq!(reply.echo().body(), "whole body");
        let http = authz.last().message.attributes.unwrap().request.unwrap().http.unwrap();
        assert_eq!(http.body, told, "{path}");
    }
}
