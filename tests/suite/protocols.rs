//! HTTP/1.0, 1.1 and 2 on either side, and what must survive the way between them.

use harness::{
    Answer, Backend, Bootstrap, Client, Cluster, FaultyBackend, Http, Program, Proxy,
    RawConnection, Route, json,
};

on_both!(
    either_protocol_on_either_side,
    large_bodies_pass_both_ways,
    trailers_pass,
    grpc_status_passes_in_trailers,
    a_grpc_call_gets_its_errors_as_grpc_status,
    responses_without_a_body,
    expect_continue_is_answered,
    http_1_0_is_served_where_it_is_accepted,
    http_1_0_is_refused_otherwise,
    pipelined_requests_are_answered_in_order,
    connection_close_is_honoured,
    ambiguous_framing_is_refused,
    malformed_requests_are_refused,
    an_upstream_that_talks_garbage_gets_502,
    a_truncated_response_is_truncated_for_the_client,
    upstream_connections_are_reused,
    upstream_connections_end_after_their_last_request,
    many_streams_share_one_connection,
    a_reset_stream_leaves_the_others_alone,
);

async fn to_app(program: Program, http: Http, cluster: Cluster) -> Proxy {
    Bootstrap::http(http).cluster(cluster).start(program).await
}

fn plain() -> Http {
    Http::routing([Route::prefix("/").to("app")])
}

/// A client per protocol.
fn clients(proxy: &Proxy) -> [Client; 2] {
    [Client::http1(proxy.address("main")), Client::http2(proxy.address("main"))]
}

async fn either_protocol_on_either_side(program: Program) {
    let app = Backend::echo("app").await;
    for (cluster, upstream) in
        [(Cluster::new("app"), "HTTP/1.1"), (Cluster::new("app").http2(), "HTTP/2.0")]
    {
        let proxy = to_app(program, plain(), cluster.endpoint(&app)).await;
        for client in clients(&proxy) {
            let call = client.post("/path?query=1").host("a.test").header("x-a", "b").body("hello");
            let echo = call.send().await.echo();
            assert_eq!(echo.version(), upstream);
            assert_eq!((echo.method(), echo.path()), ("POST", "/path?query=1"));
            assert_eq!((echo.host(), echo.body()), ("a.test", "hello"));
            assert_eq!(echo.header("x-a").as_deref(), Some("b"));
        }
    }
}

async fn large_bodies_pass_both_ways(program: Program) {
    let app = Backend::scripted("app", |call| Answer::status(200).body(call.body.clone())).await;
    let body: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    for cluster in [Cluster::new("app"), Cluster::new("app").http2()] {
        let proxy = to_app(program, plain(), cluster.endpoint(&app)).await;
        for client in clients(&proxy) {
            let whole = client.post("/").body(body.clone()).send().await;
            assert!(whole.body == body, "{} bytes came back", whole.body.len());
            let pieces = body.chunks(100_000).fold(client.post("/"), |call, piece| {
                call.body_after(std::time::Duration::ZERO, piece.to_vec())
            });
            assert!(pieces.send().await.body == body);
        }
    }
}

async fn trailers_pass(program: Program) {
    let app = Backend::scripted("app", |call| {
        let sent = call.trailers.get("x-sum").map_or("none", |value| value.to_str().unwrap());
        Answer::status(200).header("trailer", "x-end").body(sent.to_owned()).trailer("x-end", "yes")
    })
    .await;
    let http = plain().with("http_protocol_options.enable_trailers", true);
    let http1 = Cluster::new("app")
        .http_option("explicit_http_config.http_protocol_options.enable_trailers", true);
    for cluster in [http1, Cluster::new("app").http2()] {
        let proxy = to_app(program, http.clone(), cluster.endpoint(&app)).await;
        for client in clients(&proxy) {
            // HTTP/1 carries only trailers that were announced (RFC 9110, section 6.6.2).
            let call = client.post("/").header("te", "trailers").header("trailer", "x-sum");
            let call = call.body("x").trailer("x-sum", "42");
            let reply = call.send().await;
            assert_eq!(reply.text(), "42", "request trailer to {:?}", reply.version);
            assert_eq!(reply.trailer("x-end").as_deref(), Some("yes"), "{:?}", reply.version);
        }
    }
}

async fn grpc_status_passes_in_trailers(program: Program) {
    let app = Backend::scripted("app", |_| {
        Answer::status(200)
            .header("content-type", "application/grpc")
            .body(&b"\0\0\0\0\x02hi"[..])
            .trailer("grpc-status", "7")
    })
    .await;
    let proxy = to_app(program, plain(), Cluster::new("app").http2().endpoint(&app)).await;
    let client = Client::http2(proxy.address("main"));
    let call = client.post("/pkg.Greeter/Hello").header("content-type", "application/grpc");
    let reply = call.header("te", "trailers").body(&b"\0\0\0\0\0"[..]).send().await;
    assert_eq!((reply.status, reply.trailer("grpc-status").as_deref()), (200, Some("7")));
    assert_eq!(&reply.body[..], b"\0\0\0\0\x02hi");
    assert_eq!(app.calls()[0].header("te"), Some("trailers"));
}

async fn a_grpc_call_gets_its_errors_as_grpc_status(program: Program) {
    let proxy = Bootstrap::routing([Route::path("/down").to("nobody")])
        .cluster(Cluster::new("nobody"))
        .start(program)
        .await;
    let client = Client::http2(proxy.address("main"));
    for (path, status) in [("/missing", "12"), ("/down", "14")] {
        let call = client.post(path).header("content-type", "application/grpc");
        let reply = call.send().await;
        assert_eq!((reply.status, reply.header("grpc-status").as_deref()), (200, Some(status)));
    }
}

async fn responses_without_a_body(program: Program) {
    let app = Backend::scripted("app", |call| match call.path.as_str() {
        "/204" => Answer::status(204),
        "/304" => Answer::status(304).header("etag", "\"x\""),
        _ => Answer::status(200).body("body"),
    })
    .await;
    let proxy = to_app(program, plain(), Cluster::new("app").endpoint(&app)).await;
    for client in clients(&proxy) {
        let mut connection = client.connect().await.unwrap();
        for (path, status) in [("/204", 204), ("/304", 304)] {
            let reply = connection.send(client.get(path)).await.unwrap();
            assert_eq!((reply.status, reply.body.len()), (status, 0));
        }
        let head = connection.send(client.call(http::Method::HEAD, "/")).await.unwrap();
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("content-length").as_deref(), Some("4"));
        assert_eq!(connection.send(client.get("/")).await.unwrap().text(), "body");
    }
}

async fn expect_continue_is_answered(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = to_app(program, plain(), Cluster::new("app").endpoint(&app)).await;
    let mut connection = RawConnection::open(proxy.address("main")).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    connection.write(head).await;
    assert_eq!(connection.read_head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    connection.write("body").await;
    assert!(connection.read_response().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(app.calls()[0].body, "body");
    assert_eq!(app.calls()[0].header("expect"), None);
}

async fn http_1_0_is_served_where_it_is_accepted(program: Program) {
    let app = Backend::echo("app").await;
    let http = plain().with(
        "http_protocol_options",
        json!({"accept_http_10": true, "default_host_for_http_10": "old.test"}),
    );
    let proxy = to_app(program, http, Cluster::new("app").endpoint(&app)).await;
    let mut connection = RawConnection::open(proxy.address("main")).await;
    connection.write("GET /old HTTP/1.0\r\n\r\n").await;
    let answer = connection.read_to_end().await;
    assert!(answer.contains(" 200 OK\r\n"), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("transfer-encoding"), "{answer}");
    assert_eq!(app.calls()[0].host, "old.test");
}

async fn http_1_0_is_refused_otherwise(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = to_app(program, plain(), Cluster::new("app").endpoint(&app)).await;
    let mut connection = RawConnection::open(proxy.address("main")).await;
    connection.write("GET /old HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let answer = connection.read_to_end().await;
    assert!(answer.contains(" 426 Upgrade Required\r\n"), "{answer}");
    assert_eq!(app.count(), 0);
}

async fn pipelined_requests_are_answered_in_order(program: Program) {
    let app = Backend::scripted("app", |call| Answer::status(200).body(call.path.clone())).await;
    let proxy = to_app(program, plain(), Cluster::new("app").endpoint(&app)).await;
    let mut connection = RawConnection::open(proxy.address("main")).await;
    let requests: String =
        (0..5).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    connection.write(requests).await;
    for n in 0..5 {
        let response = connection.read_response().await;
        assert!(response.ends_with(&format!("\r\n\r\n/{n}")), "{response}");
    }
}

async fn connection_close_is_honoured(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = to_app(program, plain(), Cluster::new("app").endpoint(&app)).await;
    let mut connection = RawConnection::open(proxy.address("main")).await;
    connection.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let answer = connection.read_to_end().await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
}

async fn ambiguous_framing_is_refused(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = to_app(program, plain(), Cluster::new("app").endpoint(&app)).await;
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: 4, 5\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
    ] {
        let mut connection = RawConnection::open(proxy.address("main")).await;
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        connection.write(request).await;
        let answer = connection.read_to_end().await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["400", "501"].contains(&status), "{fields:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{fields:?}: one answer, then the end");
    }
    assert_eq!(app.count(), 0);
}

async fn malformed_requests_are_refused(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = to_app(program, plain(), Cluster::new("app").endpoint(&app)).await;
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nx: a\0b\r\n\r\n",
        "GET / HTTP/3.7\r\nHost: a\r\n\r\n",
        "BREW/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut connection = RawConnection::open(proxy.address("main")).await;
        connection.write(request).await;
        let answer = connection.read_to_end().await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{request:?}: {answer}");
    }
    assert_eq!(app.count(), 0);
    proxy.until_stat("http.main.downstream_cx_protocol_error", |count| count > 0).await;
}

async fn an_upstream_that_talks_garbage_gets_502(program: Program) {
    let app = FaultyBackend::talking_garbage().await;
    let proxy = to_app(program, plain(), Cluster::new("app").endpoint(&app)).await;
    let reply = proxy.get("/").send().await;
    assert_eq!(reply.status, 502, "{}", reply.text());
    proxy.until_stat("cluster.app.upstream_cx_protocol_error", |count| count == 1).await;
}

async fn a_truncated_response_is_truncated_for_the_client(program: Program) {
    let app = FaultyBackend::truncating().await;
    let proxy = to_app(program, plain(), Cluster::new("app").endpoint(&app)).await;
    for client in clients(&proxy) {
        let error = client.get("/").try_send().await.expect_err("not a whole response");
        assert!(format!("{error:#}").contains("cut short"), "{error:#}");
    }
}

async fn upstream_connections_are_reused(program: Program) {
    let app = Backend::echo("app").await;
    for cluster in [Cluster::new("app"), Cluster::new("app").http2()] {
        let before = app.connections();
        let proxy = to_app(program, plain(), cluster.endpoint(&app)).await;
        for _ in 0..20 {
            assert_eq!(proxy.get("/").send().await.status, 200);
        }
        assert_eq!(app.connections() - before, 1);
        assert_eq!(proxy.stat("cluster.app.upstream_cx_total").await, 1);
        assert_eq!(proxy.stat("cluster.app.upstream_rq_total").await, 20);
    }
}

async fn upstream_connections_end_after_their_last_request(program: Program) {
    let app = Backend::echo("app").await;
    for cluster in [Cluster::new("app"), Cluster::new("app").http2()] {
        let before = app.connections();
        let cluster = cluster
            .endpoint(&app)
            .http_option("common_http_protocol_options.max_requests_per_connection", 5);
        let proxy = to_app(program, plain(), cluster).await;
        for _ in 0..20 {
            assert_eq!(proxy.get("/").send().await.status, 200);
        }
        assert_eq!(app.connections() - before, 4);
    }
}

async fn many_streams_share_one_connection(program: Program) {
    let app =
        Backend::scripted("app", |_| Answer::echo().after(std::time::Duration::from_millis(200)))
            .await;
    let proxy = to_app(program, plain(), Cluster::new("app").http2().endpoint(&app)).await;
    let client = Client::http2(proxy.address("main"));
    let connection = client.connect().await.unwrap();
    let calls = (0..50).map(|n| {
        let mut handle = connection.another_handle();
        let call = client.get(&format!("/{n}"));
        async move { handle.send(call).await.unwrap().echo().path().to_owned() }
    });
    let paths = futures_util::future::join_all(calls).await;
    assert_eq!(paths, (0..50).map(|n| format!("/{n}")).collect::<Vec<_>>());
    assert_eq!(app.connections(), 1);
    assert_eq!(proxy.stat("http.main.downstream_cx_http2_total").await, 1);
}

async fn a_reset_stream_leaves_the_others_alone(program: Program) {
    let app = Backend::scripted("app", |call| match call.path.as_str() {
        "/abort" => Answer::abort(),
        _ => Answer::echo().after(std::time::Duration::from_millis(300)),
    })
    .await;
    let proxy = to_app(program, plain(), Cluster::new("app").http2().endpoint(&app)).await;
    let client = Client::http2(proxy.address("main"));
    let connection = client.connect().await.unwrap();
    let (mut one, mut two) = (connection.another_handle(), connection.another_handle());
    let (kept, broken) =
        tokio::join!(one.send(client.get("/kept")), two.send(client.get("/abort")));
    assert_eq!(kept.unwrap().status, 200);
    assert_eq!(broken.unwrap().status, 503);
    assert_eq!(app.connections(), 1);
}
