//! The `ext_authz` filter of connections: a service decides about them.

use harness::{
    AuthzServer, Backend, Bootstrap, Client, Cluster, Http, Listener, Pki, Program, Proxy,
    RawConnection, Route, Tcp, TcpBackend, Value, eventually, json,
};
use xds::envoy::service::auth::v3::{CheckRequest, CheckResponse};

on_both!(
    connections_go_on_or_are_closed,
    connections_that_are_not_decided_about_are_closed_unless_they_may_go_on,
    the_log_says_that_a_service_was_against_it,
    a_service_is_told_of_the_certificates,
    connections_that_need_no_check_go_on,
);

/// A service that answers with this status, if it answers.
async fn saying(code: Option<i32>) -> AuthzServer {
    AuthzServer::authorizing(move |_: &CheckRequest| {
        let status = xds::google::rpc::Status { code: code?, ..Default::default() };
        Some(Ok(CheckResponse { status: Some(status), ..CheckResponse::default() }))
    })
    .await
}

fn config(mut fields: Value) -> Value {
    fields["stat_prefix"] = "conn".into();
    fields["transport_api_version"] = "V3".into();
    if fields["grpc_service"].is_null() {
        fields["grpc_service"] = json!({"envoy_grpc": {"cluster_name": "authz"}, "timeout": "2s"});
    }
    fields
}

async fn start(program: Program, app: &TcpBackend, authz: &AuthzServer, fields: Value) -> Proxy {
    let filters = Tcp::to("app").after("ext_authz", "ExtAuthz", config(fields));
    Bootstrap::tcp(filters)
        .cluster(Cluster::new("app").endpoint(app))
        .cluster(Cluster::new("authz").endpoint(authz).http2())
        .start(program)
        .await
}

/// Whether what is said comes back.
async fn passes(proxy: &Proxy) -> bool {
    let mut connection = RawConnection::open(proxy.address("main")).await;
    connection.write("hello").await;
    connection.finish().await;
    connection.read_to_close().await.0 == "hello"
}

async fn connections_go_on_or_are_closed(program: Program) {
    let app = TcpBackend::echo().await;
    for (code, goes_on) in [(0, true), (7, false)] {
        let authz = saying(Some(code)).await;
        let proxy = start(program, &app, &authz, json!({})).await;
        assert_eq!(passes(&proxy).await, goes_on, "{code}");
        assert_eq!(authz.count(), 1);
        let (ok, denied) = if goes_on { (1, 0) } else { (0, 1) };
        proxy
            .until_stats([
                ("ext_authz.conn.total", 1),
                ("ext_authz.conn.ok", ok),
                ("ext_authz.conn.denied", denied),
                ("ext_authz.conn.cx_closed", denied),
                ("ext_authz.conn.error", 0),
                ("ext_authz.conn.active", 0),
            ])
            .await;
        let told = authz.told();
        assert!(told.request.is_none() && told.tls_session.is_none());
        assert!(told.source.unwrap().address.is_some());
    }
    // What stands behind it may be a connection manager.
    let (authz, app) = (saying(Some(7)).await, Backend::echo("app").await);
    let http = Http::routing([Route::prefix("/").to("app")]);
    let filters = harness::Filters::from(http).after("ext_authz", "ExtAuthz", config(json!({})));
    let proxy = Bootstrap::tcp(filters)
        .cluster(Cluster::new("app").endpoint(&app))
        .cluster(Cluster::new("authz").endpoint(&authz).http2())
        .start(program)
        .await;
    assert!(proxy.get("/").try_send().await.is_err());
    assert_eq!(app.count(), 0);
}

async fn connections_that_are_not_decided_about_are_closed_unless_they_may_go_on(program: Program) {
    let app = TcpBackend::echo().await;
    let authz = saying(None).await;
    for allow in [false, true] {
        let grpc = json!({"envoy_grpc": {"cluster_name": "authz"}, "timeout": "0.3s"});
        let fields = json!({"failure_mode_allow": allow, "grpc_service": grpc});
        let proxy = start(program, &app, &authz, fields).await;
        assert_eq!(passes(&proxy).await, allow);
        proxy
            .until_stats([
                ("ext_authz.conn.error", 1),
                ("ext_authz.conn.failure_mode_allowed", u64::from(allow)),
                ("ext_authz.conn.cx_closed", u64::from(!allow)),
            ])
            .await;
    }
}

async fn the_log_says_that_a_service_was_against_it(program: Program) {
    let app = TcpBackend::echo().await;
    for (code, expected) in [(Some(7), "UAEX ext_authz_denied -"), (None, "UAEX ext_authz_error -")]
    {
        let authz = saying(code).await;
        let grpc = json!({"envoy_grpc": {"cluster_name": "authz"}, "timeout": "0.3s"});
        let bootstrap = Bootstrap::new();
        let format = "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS%";
        let tcp = Tcp::to("app").text_log(&bootstrap.dir().join("access.log"), format);
        let filters = tcp.after("ext_authz", "ExtAuthz", config(json!({"grpc_service": grpc})));
        let proxy = bootstrap
            .listener(Listener::new("main", filters))
            .cluster(Cluster::new("app").endpoint(&app))
            .cluster(Cluster::new("authz").endpoint(&authz).http2())
            .start(program)
            .await;
        assert!(!passes(&proxy).await);
        let line = eventually("a line in the log", async || {
            let text = std::fs::read_to_string(proxy.file("access.log")).ok()?;
            text.ends_with('\n').then_some(text)
        });
        assert_eq!(line.await.trim_end(), expected);
    }
}

async fn a_service_is_told_of_the_certificates(program: Program) {
    let (app, authz) = (Backend::echo("app").await, saying(Some(0)).await);
    let pki = Pki::new();
    let (server, client) = (pki.workload("server"), pki.workload("client"));
    let fields = json!({"include_peer_certificate": true, "include_tls_session": true});
    let http = Http::routing([Route::prefix("/").to("app")]);
    let filters = harness::Filters::from(http).after("ext_authz", "ExtAuthz", config(fields));
    let proxy = Bootstrap::new()
        .listener(Listener::new("main", filters).tls(pki.mutual(&server)))
        .cluster(Cluster::new("app").endpoint(&app))
        .cluster(Cluster::new("authz").endpoint(&authz).http2())
        .start(program)
        .await;
    let options = pki.client(Some(&client));
    let name = options.server_name.clone();
    let client = Client::http1(proxy.address("main")).tls(options);
    assert_eq!(client.get("/").send().await.status, 200);
    let told = authz.told();
    let source = told.source.unwrap();
    assert!(source.principal.starts_with("spiffe://"), "{source:?}");
    assert!(source.certificate.starts_with("-----BEGIN%20CERTIFICATE-----%0A"), "{source:?}");
    assert_eq!(told.tls_session.unwrap().sni, name);
}

async fn connections_that_need_no_check_go_on(program: Program) {
    let (app, authz) = (TcpBackend::echo().await, saying(Some(7)).await);
    let key = json!([{"key": "shadow"}]);
    let says = json!({"filter": "rbac", "path": key, "value": {"string_match": {"prefix": "x"}}});
    let proxy = start(program, &app, &authz, json!({"filter_enabled_metadata": says})).await;
    assert!(passes(&proxy).await);
    proxy.until_stats([("ext_authz.conn.disabled", 1), ("ext_authz.conn.total", 0)]).await;
    assert_eq!(authz.count(), 0);
}
