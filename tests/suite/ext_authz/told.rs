//! What a service is told of a request.

use harness::{
    AuthzServer, Backend, Bootstrap, Client, Cluster, Listener, Pki, Program, Route, json,
};

use super::{asking, filtering, guarding, to_app};

on_both!(
    a_service_is_told_of_the_request,
    only_the_headers_that_are_wanted_are_told,
    headers_may_be_told_as_bytes,
    a_body_is_told_up_to_its_limit,
    a_body_that_is_too_long_is_refused,
    metadata_of_the_route_is_told,
    a_service_is_told_of_the_certificates,
    a_service_gets_metadata_of_its_own,
);

async fn a_service_is_told_of_the_request(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let proxy = guarding(program, &app, &authz, json!({}), to_app()).await;
    let call = proxy.client().post("/a?b=c").host("a.test").body("body");
    let call = call.header("x-a", "1").header("x-a", "2");
    let reply = call.header("x-envoy-downstream-service-cluster", "caller").send().await;
    let told = authz.told();
    assert_eq!(reply.status, 200);
    let request = told.request.unwrap();
    let http = request.http.unwrap();
    assert_eq!(
        (&*http.method, &*http.path, &*http.host, &*http.scheme, &*http.protocol),
        ("POST", "/a?b=c", "a.test", "http", "HTTP/1.1")
    );
    assert_eq!((&*http.body, &*http.query, http.headers["x-a"].as_str()), ("", "", "1,2"));
    for (name, value) in
        [(":authority", "a.test"), (":path", "/a?b=c"), (":method", "POST"), (":scheme", "http")]
    {
        assert_eq!(http.headers[name], value);
    }
    let forwarded: Vec<_> = reply.json()["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| pair[0].as_str().unwrap().to_owned())
        .filter(|name| !["host", "x-envoy-expected-rq-timeout-ms"].contains(&&**name))
        .collect();
    for name in forwarded {
        assert!(http.headers.contains_key(&name), "{name} is not told");
    }
    assert!(request.time.is_some() && !http.id.is_empty());
    let (source, destination) = (told.source.unwrap(), told.destination.unwrap());
    assert_eq!((&*source.service, &*source.principal), ("caller", ""));
    let port = |address: Option<xds::envoy::config::core::v3::Address>| {
        let text = xds::json::to_json(&address.unwrap());
        text["socketAddress"]["portValue"]
            .as_u64()
            .or(text["socket_address"]["port_value"].as_u64())
    };
    assert_eq!(port(destination.address), Some(proxy.address("main").port().into()));
    assert!(told.tls_session.is_none());
}

async fn only_the_headers_that_are_wanted_are_told(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let fields = json!({
        "allowed_headers": {"patterns": [{"prefix": "x-a"}, {"exact": ":path"}]},
        "disallowed_headers": {"patterns": [{"exact": "x-ab"}]},
    });
    let proxy = guarding(program, &app, &authz, fields, to_app()).await;
    let call = proxy.get("/p").header("x-aa", "1").header("x-ab", "2").header("x-b", "3");
    assert_eq!(call.send().await.status, 200);
    let http = authz.told_of_request();
    assert_eq!(json!(http.headers), json!({"x-aa": "1", ":path": "/p"}));
    assert_eq!(http.host, "test.example");
}

async fn headers_may_be_told_as_bytes(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let fields = json!({
        "encode_raw_headers": true,
        "allowed_headers": {"patterns": [{"prefix": "x-a"}, {"exact": ":path"}]},
    });
    let proxy = guarding(program, &app, &authz, fields, to_app()).await;
    assert_eq!(proxy.get("/").header("x-a", "1").header("x-a", "2").send().await.status, 200);
    let http = authz.told_of_request();
    assert!(http.headers.is_empty());
    let headers = http.header_map.unwrap().headers.into_iter();
    let headers: Vec<_> =
        headers.map(|it| (it.key, String::from_utf8(it.raw_value).unwrap())).collect();
    let expected = [(":path", "/"), ("x-a", "1"), ("x-a", "2")];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

async fn a_body_is_told_up_to_its_limit(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    for as_bytes in [false, true] {
        let body = json!({"max_request_bytes": 4, "allow_partial_message": true, "pack_as_bytes": as_bytes});
        let fields = json!({"with_request_body": body});
        let proxy = guarding(program, &app, &authz, fields, to_app()).await;
        for (sent, part, partial) in
            [("12345", "1234", Some("true")), ("1234", "1234", Some("false")), ("", "", None)]
        {
            let reply = proxy.client().post("/").body(sent).send().await;
            assert_eq!(reply.echo().body(), sent);
            let http = authz.told_of_request();
            let (text, bytes) = if as_bytes { ("", part) } else { (part, "") };
            assert_eq!((&*http.body, &*http.raw_body), (text, bytes.as_bytes()), "{sent}");
            let said = http.headers.get("x-envoy-auth-partial-body").map(String::as_str);
            assert_eq!((said, http.size), (partial, i64::try_from(sent.len()).unwrap()), "{sent}");
            assert_eq!(reply.echo().header("x-envoy-auth-partial-body"), None);
        }
    }
    // What is denied need not arrive whole.
    let body = json!({"max_request_bytes": 4, "allow_partial_message": true});
    let proxy = guarding(program, &app, &authz, json!({"with_request_body": body}), to_app()).await;
    let call = proxy.client().post("/").header("x-verdict", "status: {code: 7}").body("12345");
    let endless = call.body_after(harness::PATIENCE * 2, "6");
    assert_eq!(endless.send().await.status, 403);
}

async fn a_body_that_is_too_long_is_refused(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let fields = json!({"with_request_body": {"max_request_bytes": 4}, "failure_mode_allow": true});
    let proxy = guarding(program, &app, &authz, fields, to_app()).await;
    let reply = proxy.client().post("/").body("12345").send().await;
    assert_eq!((reply.status, reply.text()), (413, "Payload Too Large".to_owned()));
    super::logged(&proxy, "413 - request_payload_too_large").await;
    assert_eq!(proxy.client().post("/").body("1234").send().await.status, 200);
    assert_eq!((authz.count(), app.count()), (1, 1));
    proxy.until_stats([("http.ing.downstream_rq_too_large", 1)]).await;
}

async fn metadata_of_the_route_is_told(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let metadata =
        json!({"filter_metadata": {"said": {"a": [1, "b", true, null]}, "other": {"c": 1}}});
    let routes = [Route::prefix("/").to("app").with("metadata", metadata)];
    let fields = json!({
        "route_metadata_context_namespaces": ["said", "none"],
        "metadata_context_namespaces": ["said"],
    });
    let proxy = guarding(program, &app, &authz, fields, routes).await;
    assert_eq!(proxy.get("/").send().await.status, 200);
    let told = authz.told();
    let route = xds::json::to_json(&told.route_metadata_context.unwrap()).to_string();
    assert!(
        route.contains("said") && route.contains("\"b\"") && !route.contains("other"),
        "{route}"
    );
    assert!(told.metadata_context.unwrap().filter_metadata.is_empty());
}

async fn a_service_is_told_of_the_certificates(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let pki = Pki::new();
    let (server, client) = (pki.workload("server"), pki.workload("client"));
    let fields = json!({"include_peer_certificate": true, "include_tls_session": true});
    let listener = Listener::new("main", filtering(asking(fields), to_app()));
    let proxy = Bootstrap::new()
        .listener(listener.tls(pki.mutual(&server)))
        .cluster(Cluster::new("app").endpoint(&app))
        .cluster(Cluster::new("authz").endpoint(&authz).http2())
        .start(program)
        .await;
    let options = pki.client(Some(&client));
    let name = options.server_name.clone();
    let client = Client::http1(proxy.address("main")).tls(options);
    assert_eq!(client.get("/").send().await.status, 200);
    let told = authz.told();
    let (source, destination) = (told.source.unwrap(), told.destination.unwrap());
    assert!(source.principal.starts_with("spiffe://"), "{source:?}");
    assert!(source.certificate.starts_with("-----BEGIN%20CERTIFICATE-----%0A"), "{source:?}");
    assert!(!destination.principal.is_empty() && destination.certificate.is_empty());
    assert_eq!(told.tls_session.unwrap().sni, name);
}

async fn a_service_gets_metadata_of_its_own(program: Program) {
    let (app, authz) = (Backend::echo("app").await, AuthzServer::as_asked().await);
    let grpc = json!({
        "envoy_grpc": {"cluster_name": "authz", "authority": "authz.test"},
        "initial_metadata": [{"key": "x-token", "value": "t"}],
        "timeout": "2s",
    });
    let proxy = guarding(program, &app, &authz, json!({"grpc_service": grpc}), to_app()).await;
    assert_eq!(proxy.get("/").send().await.status, 200);
    let headers = authz.last().headers;
    assert_eq!(headers["x-token"], "t");
}
