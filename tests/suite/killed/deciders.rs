//! Services that decide about requests and connections.

use harness::{AuthzServer, Backend, Filters, RateLimitServer};

use super::{
    Answer, Bootstrap, Cluster, Duration, Http, Listener, Program, Relay, Route, Taken, Traffic,
    Value, Verdicts, app, filtering, json, survives, users, verdict,
};

on_both!(
    requests_are_denied_while_an_authorization_service_is_away,
    requests_are_let_through_while_an_authorization_service_is_away,
    requests_are_denied_while_an_authorization_service_over_http_is_away,
    requests_are_let_through_while_an_authorization_service_over_http_is_away,
    connections_are_closed_while_an_authorization_service_is_away,
    connections_are_let_through_while_an_authorization_service_is_away,
    requests_are_refused_while_a_rate_limit_service_is_away,
    requests_are_let_through_while_a_rate_limit_service_is_away,
);

/// How long a service may take.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What is not decided about waits for the timeout, and no longer than a busy machine makes it.
fn assert_in_time(taken: &Taken) {
    let waited = taken.hanging.median;
    assert!(waited + Duration::from_millis(10) >= TIMEOUT, "{waited:?}");
    assert!(waited < TIMEOUT * 8, "{waited:?}");
    assert!(taken.killed.median < TIMEOUT, "{:?}", taken.killed);
}

fn asking(service: (&str, Value), allow: bool) -> (&'static str, Value) {
    let mut fields = json!({
        "transport_api_version": "V3",
        "failure_mode_allow": allow,
        "failure_mode_allow_header_add": true,
        "status_on_error": {"code": "BadGateway"},
    });
    fields[service.0] = service.1;
    ("ext_authz.v3.ExtAuthz", fields)
}

async fn authorizing(program: Program, allow: bool, away: &'static str) {
    let (app, authz) = (app().await, AuthzServer::as_asked().await);
    let mut relay = Relay::to(&authz).await;
    let service = json!({"envoy_grpc": {"cluster_name": "authz"}, "timeout": "1s"});
    let filter = asking(("grpc_service", service), allow);
    let cluster = Cluster::new("authz").endpoint(&relay).http2();
    let mut proxy = filtering(program, &app, filter, [cluster]).await;
    let traffic = Traffic::of(users(&proxy), |client| client.get("/"), verdict);
    let verdicts = Verdicts { up: "200", killed: away, hanging: away };
    assert_in_time(&survives(&mut proxy, &mut relay, traffic, verdicts).await);
    proxy.until_stat("cluster.authz.upstream_rq_active", |active| active == 0).await;
    let allowed = proxy.stat("http.main.ext_authz.failure_mode_allowed").await;
    let failed = proxy.stat("http.main.ext_authz.error").await;
    assert!(failed > 0 && allowed == if allow { failed } else { 0 }, "{allowed} of {failed}");
}

async fn requests_are_denied_while_an_authorization_service_is_away(program: Program) {
    authorizing(program, false, "502").await;
}

async fn requests_are_let_through_while_an_authorization_service_is_away(program: Program) {
    authorizing(program, true, "200 unchecked").await;
}

async fn authorizing_over_http(program: Program, allow: bool, away: &'static str) {
    let app = app().await;
    let authz = Backend::scripted("authz", |_| Answer::status(200)).await;
    let mut relay = Relay::to(&authz).await;
    let uri = json!({"uri": "http://authz.test", "cluster": "authz", "timeout": "1s"});
    let filter = asking(("http_service", json!({"server_uri": uri})), allow);
    let cluster = Cluster::new("authz").endpoint(&relay);
    let mut proxy = filtering(program, &app, filter, [cluster]).await;
    let traffic = Traffic::of(users(&proxy), |client| client.get("/"), verdict);
    let verdicts = Verdicts { up: "200", killed: away, hanging: away };
    assert_in_time(&survives(&mut proxy, &mut relay, traffic, verdicts).await);
    proxy.until_stat("cluster.authz.upstream_rq_active", |active| active == 0).await;
    // None is left of those that were never answered.
    assert!(proxy.stat("cluster.authz.upstream_cx_active").await <= 8);
}

async fn requests_are_denied_while_an_authorization_service_over_http_is_away(program: Program) {
    authorizing_over_http(program, false, "502").await;
}

async fn requests_are_let_through_while_an_authorization_service_over_http_is_away(
    program: Program,
) {
    authorizing_over_http(program, true, "200 unchecked").await;
}

async fn authorizing_connections(program: Program, allow: bool, away: &'static str) {
    let (app, authz) = (app().await, AuthzServer::as_asked().await);
    let mut relay = Relay::to(&authz).await;
    let config = json!({
        "stat_prefix": "conn",
        "transport_api_version": "V3",
        "failure_mode_allow": allow,
        "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "1s"},
    });
    let http = Http::routing([Route::prefix("/").to("app")]);
    let filters = Filters::from(http).after("ext_authz", "ExtAuthz", config);
    let mut proxy = Bootstrap::new()
        .listener(Listener::new("main", filters))
        .cluster(Cluster::new("app").endpoint(&app))
        .cluster(Cluster::new("authz").endpoint(&relay).http2())
        .start(program)
        .await;
    let traffic = Traffic::of_connections(users(&proxy), |client| client.get("/"), verdict);
    let verdicts = Verdicts { up: "200", killed: away, hanging: away };
    assert_in_time(&survives(&mut proxy, &mut relay, traffic, verdicts).await);
    proxy.until_stat("ext_authz.conn.active", |active| active == 0).await;
}

async fn connections_are_closed_while_an_authorization_service_is_away(program: Program) {
    authorizing_connections(program, false, "none").await;
}

async fn connections_are_let_through_while_an_authorization_service_is_away(program: Program) {
    authorizing_connections(program, true, "200").await;
}

async fn limiting(program: Program, deny: bool, away: &'static str) {
    let (app, limits) = (app().await, RateLimitServer::as_asked().await);
    let mut relay = Relay::to(&limits).await;
    let fields = json!({
        "domain": "shop",
        "timeout": "1s",
        "failure_mode_deny": deny,
        "status_on_error": {"code": "BadGateway"},
        "rate_limit_service": {
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "limits"}},
        },
    });
    let actions = json!([{"actions": [{"generic_key": {"descriptor_value": "a"}}]}]);
    let route = Route::prefix("/").to("app").with("route.rate_limits", actions);
    let http = Http::routing([route]).filter("limit", "ratelimit.v3.RateLimit", fields);
    let cluster = Cluster::new("limits").endpoint(&relay).http2();
    let mut proxy = super::serving(program, &app, http, [cluster]).await;
    let traffic = Traffic::of(users(&proxy), |client| client.get("/"), verdict);
    let verdicts = Verdicts { up: "200", killed: away, hanging: away };
    assert_in_time(&survives(&mut proxy, &mut relay, traffic, verdicts).await);
    proxy.until_stat("cluster.limits.upstream_rq_active", |active| active == 0).await;
    let allowed = proxy.stat("cluster.app.ratelimit.failure_mode_allowed").await;
    let failed = proxy.stat("cluster.app.ratelimit.error").await;
    assert!(failed > 0 && allowed == if deny { 0 } else { failed }, "{allowed} of {failed}");
}

async fn requests_are_refused_while_a_rate_limit_service_is_away(program: Program) {
    limiting(program, true, "502").await;
}

async fn requests_are_let_through_while_a_rate_limit_service_is_away(program: Program) {
    limiting(program, false, "200").await;
}
