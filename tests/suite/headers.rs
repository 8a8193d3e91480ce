//! Headers that say where a request came from, and those that must not cross the proxy.

use harness::{
    Backend, Bootstrap, Cluster, Http, Program, Proxy, RawConnection, Reply, Route, json,
};

on_both!(
    the_peer_is_appended_when_the_remote_address_is_used,
    trusted_hops_are_left_alone,
    an_internal_proxy_passes_forwarded_headers_on,
    a_request_id_is_made_kept_or_returned,
    headers_of_the_proxys_own_are_removed_from_external_requests,
    hop_by_hop_headers_stay_on_their_hop,
    the_server_header_is_set,
    upstream_service_time_is_reported,
    the_attempt_count_is_reported,
    the_via_header_is_appended,
    trace_headers_are_passed_on,
    client_certificate_headers_are_not_believed_in_plain_text,
    headers_beyond_the_limits_are_refused,
    header_values_keep_their_bytes,
    repeated_headers_stay_apart,
);

/// A proxy to one echoing backend, with these changes of the connection manager.
async fn echoing(program: Program, backend: &Backend, change: fn(Http) -> Http) -> Proxy {
    let http = Http::routing([Route::prefix("/").to("app")]);
    Bootstrap::http(change(http))
        .cluster(Cluster::new("app").endpoint(backend))
        .start(program)
        .await
}

async fn the_peer_is_appended_when_the_remote_address_is_used(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = echoing(program, &app, |http| http.with("use_remote_address", true)).await;
    let plain = proxy.get("/").send().await.echo();
    // A peer on the loopback interface is written as the machine's own address.
    let own = plain.header("x-forwarded-for").unwrap();
    assert!(own.parse::<std::net::IpAddr>().is_ok(), "{own}");
    assert_eq!(plain.header("x-forwarded-proto").as_deref(), Some("http"));
    let claimed = proxy.get("/").header("x-forwarded-for", "1.2.3.4").send().await.echo();
    assert_eq!(claimed.header("x-forwarded-for"), Some(format!("1.2.3.4,{own}")));
    assert_eq!(claimed.header("x-envoy-external-address").as_deref(), Some("127.0.0.1"));
}

async fn trusted_hops_are_left_alone(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = echoing(program, &app, |http| {
        http.with("use_remote_address", true).with("xff_num_trusted_hops", 1)
    })
    .await;
    let echo = proxy
        .get("/")
        .header("x-forwarded-for", "203.0.113.9, 198.51.100.7")
        .header("x-forwarded-proto", "https")
        .send()
        .await
        .echo();
    let seen = echo.header("x-forwarded-for").unwrap();
    let (claimed, last) = seen.rsplit_once(',').unwrap();
    assert_eq!(claimed, "203.0.113.9, 198.51.100.7");
    assert!(last.parse::<std::net::IpAddr>().is_ok(), "{last}");
    assert_eq!(echo.header("x-envoy-external-address").as_deref(), Some("198.51.100.7"));
    assert_eq!(echo.header("x-forwarded-proto").as_deref(), Some("https"));
}

async fn an_internal_proxy_passes_forwarded_headers_on(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = echoing(program, &app, |http| http.with("use_remote_address", false)).await;
    let echo = proxy
        .get("/")
        .header("x-forwarded-for", "10.0.0.1")
        .header("x-forwarded-proto", "https")
        .send()
        .await
        .echo();
    assert_eq!(echo.header("x-forwarded-for").as_deref(), Some("10.0.0.1"));
    assert_eq!(echo.header("x-forwarded-proto").as_deref(), Some("https"));
    let plain = proxy.get("/").send().await.echo();
    assert_eq!(plain.header("x-forwarded-for"), None);
    assert_eq!(plain.header("x-forwarded-proto").as_deref(), Some("http"));
}

async fn a_request_id_is_made_kept_or_returned(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = echoing(program, &app, |http| http).await;
    let made = proxy.get("/").send().await.echo().header("x-request-id").unwrap();
    assert_eq!(made.len(), 36, "a UUID: {made}");
    assert_ne!(Some(made), proxy.get("/").send().await.echo().header("x-request-id"));
    // An internal request keeps its id; this one comes from no trusted address.
    let kept = echoing(program, &app, |http| {
        http.with("preserve_external_request_id", true)
            .with("always_set_request_id_in_response", true)
            .with("use_remote_address", true)
            .with("xff_num_trusted_hops", 1)
    })
    .await;
    let call = kept.get("/").header("x-request-id", "abc").header("x-forwarded-for", "8.8.8.8");
    let reply = call.send().await;
    assert_eq!(reply.echo().header("x-request-id").as_deref(), Some("abc"));
    assert_eq!(reply.header("x-request-id").as_deref(), Some("abc"));
    let off = echoing(program, &app, |http| http.with("generate_request_id", false)).await;
    assert_eq!(off.get("/").send().await.echo().header("x-request-id"), None);
}

async fn headers_of_the_proxys_own_are_removed_from_external_requests(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = echoing(program, &app, |http| {
        http.with("use_remote_address", true).with("xff_num_trusted_hops", 1)
    })
    .await;
    let echo = proxy
        .get("/")
        .header("x-forwarded-for", "8.8.8.8")
        .header("x-envoy-internal", "true")
        .header("x-envoy-retry-on", "5xx")
        .header("x-envoy-upstream-rq-timeout-ms", "1")
        .header("x-envoy-max-retries", "9")
        .header("x-envoy-decorator-operation", "x")
        .send()
        .await
        .echo();
    let leaked: Vec<_> = echo
        .header_names()
        .into_iter()
        .filter(|name| name.starts_with("x-envoy-"))
        .filter(|name| {
            !["x-envoy-expected-rq-timeout-ms", "x-envoy-external-address"].contains(name)
        })
        .collect();
    assert_eq!(leaked, Vec::<&str>::new());
}

async fn hop_by_hop_headers_stay_on_their_hop(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = echoing(program, &app, |http| http).await;
    let echo = proxy
        .get("/")
        .header("connection", "keep-alive")
        .header("keep-alive", "timeout=5")
        .header("proxy-connection", "keep-alive")
        .header("te", "gzip")
        .header("x-kept", "yes")
        .send()
        .await
        .echo();
    for name in ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding"] {
        assert_eq!(echo.header(name), None, "{name}");
    }
    assert_eq!(echo.header("x-kept").as_deref(), Some("yes"));
}

async fn the_server_header_is_set(program: Program) {
    let app =
        Backend::scripted("app", |_| harness::Answer::status(200).header("server", "app/1")).await;
    let server = async |change: fn(Http) -> Http| {
        let reply = echoing(program, &app, change).await.get("/").send().await;
        reply.header("server").unwrap_or_default()
    };
    assert_eq!(server(|http| http).await, "envoy");
    assert_eq!(server(|http| http.with("server_name", "edge")).await, "edge");
    let pass = server(|http| http.with("server_header_transformation", "PASS_THROUGH"));
    assert_eq!(pass.await, "app/1");
    let absent = server(|http| http.with("server_header_transformation", "APPEND_IF_ABSENT"));
    assert_eq!(absent.await, "app/1");
}

async fn upstream_service_time_is_reported(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = echoing(program, &app, |http| http).await;
    let time = proxy.get("/").send().await.header("x-envoy-upstream-service-time");
    assert!(time.as_deref().is_some_and(|ms| ms.parse::<u64>().is_ok()), "{time:?}");
}

async fn the_attempt_count_is_reported(program: Program) {
    let app = Backend::scripted("app", |call| match call.nth {
        0 => harness::Answer::status(503),
        _ => harness::Answer::echo(),
    })
    .await;
    let host = harness::VirtualHost::new(
        "all",
        ["*"],
        [Route::prefix("/").to("app").retry(json!({"retry_on": "5xx", "num_retries": 1}))],
    )
    .with("include_request_attempt_count", true)
    .with("include_attempt_count_in_response", true);
    let proxy = Bootstrap::http(Http::hosting([host]))
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    let reply = proxy.get("/").send().await;
    assert_eq!(reply.header("x-envoy-attempt-count").as_deref(), Some("2"));
    assert_eq!(reply.echo().header("x-envoy-attempt-count").as_deref(), Some("2"));
}

async fn the_via_header_is_appended(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = echoing(program, &app, |http| http.with("via", "outrigger")).await;
    let reply = proxy.get("/").header("via", "1.0 before").send().await;
    assert_eq!(reply.echo().header("via").as_deref(), Some("1.0 before, outrigger"));
    assert_eq!(reply.header("via").as_deref(), Some("outrigger"));
}

async fn trace_headers_are_passed_on(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = echoing(program, &app, |http| http).await;
    let headers = [
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "vendor=value"),
        ("x-b3-traceid", "463ac35c9f6413ad48485a3953bb6124"),
        ("x-b3-spanid", "a2fb4a1d1a96d312"),
        ("x-b3-sampled", "1"),
        ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"),
    ];
    let call = headers.iter().fold(proxy.get("/"), |call, (name, value)| call.header(name, value));
    let echo = call.send().await.echo();
    for (name, value) in headers {
        assert_eq!(echo.header(name).as_deref(), Some(value), "{name}");
    }
}

async fn client_certificate_headers_are_not_believed_in_plain_text(program: Program) {
    let app = Backend::echo("app").await;
    let sent = "URI=spiffe://cluster.local/ns/bank/sa/admin";
    let proxy = echoing(program, &app, |http| http).await;
    let echo = proxy.get("/").header("x-forwarded-client-cert", sent).send().await.echo();
    assert_eq!(echo.header("x-forwarded-client-cert"), None);
    let proxy = echoing(program, &app, |http| {
        http.with("forward_client_cert_details", "ALWAYS_FORWARD_ONLY")
    })
    .await;
    let echo = proxy.get("/").header("x-forwarded-client-cert", sent).send().await.echo();
    assert_eq!(echo.header("x-forwarded-client-cert").as_deref(), Some(sent));
}

async fn headers_beyond_the_limits_are_refused(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = echoing(program, &app, |http| {
        http.with("max_request_headers_kb", 8)
            .with("common_http_protocol_options.max_headers_count", 20)
    })
    .await;
    assert_eq!(proxy.get("/").header("x-big", &"a".repeat(6 << 10)).send().await.status, 200);
    assert_eq!(proxy.get("/").header("x-big", &"a".repeat(9 << 10)).send().await.status, 431);
    let many = (0..30).fold(proxy.get("/"), |call, n| call.header(&format!("x-{n}"), "v"));
    assert_eq!(many.send().await.status, 431);
    assert_eq!(app.count(), 1);
}

async fn header_values_keep_their_bytes(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = echoing(program, &app, |http| http).await;
    let mut connection = RawConnection::open(proxy.address("main")).await;
    connection.write(b"GET / HTTP/1.1\r\nHost: a\r\nX-Latin: caf\xe9\r\nX-Tab: a\tb\r\n\r\n").await;
    connection.read_response().await;
    let call = &app.calls()[0];
    assert_eq!(call.headers["x-latin"].as_bytes(), b"caf\xe9");
    assert_eq!(call.headers["x-tab"].as_bytes(), b"a\tb");
}

async fn repeated_headers_stay_apart(program: Program) {
    let app = Backend::scripted("app", |_| {
        harness::Answer::status(200).header("set-cookie", "a=1").header("set-cookie", "b=2")
    })
    .await;
    let proxy = echoing(program, &app, |http| http).await;
    let reply: Reply = proxy.get("/").header("x-twice", "1").header("x-twice", "2").send().await;
    assert_eq!(reply.headers.get_all("set-cookie").iter().count(), 2);
    assert_eq!(app.calls()[0].headers.get_all("x-twice").iter().count(), 2);
}
