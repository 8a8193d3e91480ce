//! How upstream connections are made: over Unix sockets, to addresses that requests name.

use std::net::SocketAddr;

use harness::bootstrap::{socket_address, typed};
use harness::eventually::eventually_true;
use harness::port::Port;
use harness::{
    Backend, Bootstrap, Client, Cluster, Http, Listener, Program, Proxy, RawConnection, Route, Tcp,
    Value, json,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

mod keepalive;

on_both!(
    an_endpoint_may_be_a_unix_socket,
    a_unix_socket_that_is_not_there_is_no_connection,
    a_header_names_the_endpoint,
    the_port_of_a_named_endpoint_can_be_fixed,
    endpoints_nobody_names_are_forgotten,
    the_next_address_is_tried_when_the_first_is_dead,
    the_next_address_is_tried_when_the_first_is_silent,
    families_are_tried_in_the_configured_order,
    our_end_is_bound_to_the_source_address,
    the_cluster_manager_has_a_source_address_for_all,
    our_end_that_cannot_be_bound_is_a_local_failure,
    endpoints_are_told_who_the_client_is,
    extensions_of_a_proxy_header_are_passed_on,
);

const FACTS: &str = "%UPSTREAM_HOST% %UPSTREAM_REMOTE_ADDRESS% \
                     %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% (%UPSTREAM_REMOTE_PORT%) \
                     %UPSTREAM_LOCAL_ADDRESS% %UPSTREAM_LOCAL_PORT% %UPSTREAM_HOST_NAME%";

async fn logged(program: Program, cluster: Cluster) -> Proxy {
    let bootstrap = Bootstrap::new();
    let log = bootstrap.dir().join("access.log");
    let http = Http::routing([Route::prefix("/").to("app")]).text_log(&log, FACTS);
    bootstrap.listener(Listener::new("main", http)).cluster(cluster).start(program).await
}

async fn to_app(program: Program, cluster: Cluster) -> Proxy {
    Bootstrap::routing([Route::prefix("/").to("app")]).cluster(cluster).start(program).await
}

async fn assert_logged(proxy: &Proxy, line: &str) {
    eventually_true(line, async || {
        let log = std::fs::read_to_string(proxy.file("access.log")).unwrap_or_default();
        log.lines().next().is_some_and(|first| {
            assert_eq!(first, line);
            true
        })
    })
    .await;
}

/// Envoy's `LbEndpoint` of several addresses.
fn at_all(addresses: &[SocketAddr]) -> Value {
    let further = addresses[1..].iter().map(|it| json!({"address": socket_address(*it)}));
    let further: Vec<_> = further.collect();
    let address = socket_address(addresses[0]);
    json!({"endpoint": {"address": address, "additional_addresses": further}})
}

fn pipe(path: &str) -> Value {
    json!({"endpoint": {"address": {"pipe": {"path": path}}}})
}

async fn an_endpoint_may_be_a_unix_socket(program: Program) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock").display().to_string();
    let name = format!("@outrigger-test-{}-{program:?}", std::process::id());
    for path in [path, name] {
        let app = Backend::echo_on_unix("app", &path).await;
        for (cluster, version) in
            [(Cluster::new("app"), "HTTP/1.1"), (Cluster::new("app").http2(), "HTTP/2.0")]
        {
            let proxy = logged(program, cluster.lb_endpoint(pipe(&path))).await;
            for n in 0..3 {
                let echo = proxy.get("/path").send().await.echo();
                assert_eq!((echo.version(), echo.path()), (version, "/path"), "request {n}");
            }
            assert_logged(&proxy, &format!("{path} {path} {path} () - - {path}")).await;
            let clusters = proxy.admin().get("/clusters").send().await.text();
            assert!(clusters.contains(&format!("app::{path}::cx_total::1\n")), "{clusters}");
        }
        assert_eq!(app.connections(), 2);
    }
}

async fn a_unix_socket_that_is_not_there_is_no_connection(program: Program) {
    let cluster = Cluster::new("app").lb_endpoint(pipe("/nowhere/app.sock"));
    let proxy = to_app(program, cluster).await;
    let reply = proxy.get("/").send().await;
    assert_eq!(reply.status, 503);
    let reason = "reset reason: remote connection failure";
    assert!(reply.text().contains(reason), "{}", reply.text());
}

const HEADER: &str = "x-envoy-original-dst-host";

async fn a_header_names_the_endpoint(program: Program) {
    let (a, b) = (Backend::echo("a").await, Backend::echo("b").await);
    let named =
        Cluster::original_dst("named").with("original_dst_lb_config.http_header_name", "x-to");
    let add =
        json!([{"header": {"key": "x-envoy-original-dst-host", "value": a.address().to_string()}}]);
    let routes = [
        Route::prefix("/named").to("named"),
        Route::prefix("/added").to("app").with("request_headers_to_add", add),
        Route::prefix("/").to("app"),
    ];
    let proxy = Bootstrap::routing(routes)
        .cluster(Cluster::original_dst("app"))
        .cluster(named)
        .start(program)
        .await;
    for client in [Client::http1(proxy.address("main")), Client::http2(proxy.address("main"))] {
        for (name, backend) in [("a", &a), ("b", &b), ("a", &a)] {
            let address = backend.address().to_string();
            let reply = client.get("/").header(HEADER, &address).send().await;
            assert_eq!(reply.echo().backend(), name);
            let reply = client.get("/named").header("x-to", &address).send().await;
            assert_eq!(reply.echo().backend(), name);
        }
    }
    assert_eq!((a.connections(), b.connections()), (2, 2), "one per cluster, kept");
    assert_eq!(proxy.get("/added").send().await.echo().backend(), "a");

    for bad in ["127.0.0.1", "a.test:80", ""] {
        let reply = proxy.get("/").header(HEADER, bad).send().await;
        assert_eq!((reply.status, reply.text().as_str()), (503, "no healthy upstream"), "{bad:?}");
    }
    assert_eq!(proxy.get("/").send().await.status, 503, "nothing was redirected");
    assert_eq!(proxy.stat("cluster.app.original_dst_host_invalid").await, 3);
    assert_eq!(proxy.stat("cluster.app.upstream_cx_none_healthy").await, 4);
    assert_eq!(proxy.stat("cluster.app.membership_total").await, 2);
    let clusters = proxy.admin().get("/clusters").send().await.text();
    let line = format!("app::{0}::hostname::app{0}\n", b.address());
    assert!(clusters.contains(&line), "{clusters}");
}

async fn the_port_of_a_named_endpoint_can_be_fixed(program: Program) {
    let app = Backend::echo("app").await;
    let port = app.address().port();
    let cluster =
        Cluster::original_dst("app").with("original_dst_lb_config.upstream_port_override", port);
    let proxy = to_app(program, cluster).await;
    let reply = proxy.get("/").header(HEADER, "127.0.0.1:1").send().await;
    assert_eq!(reply.echo().backend(), "app");
}

async fn endpoints_nobody_names_are_forgotten(program: Program) {
    let cluster = Cluster::original_dst("app")
        .with("cleanup_interval", "0.2s")
        .http_option("common_http_protocol_options.idle_timeout", "0.2s");
    let proxy = to_app(program, cluster).await;
    let app = Backend::echo("app").await;
    let named = proxy.get("/").header(HEADER, &app.address().to_string());
    assert_eq!(named.send().await.status, 200);
    assert_eq!(proxy.stat("cluster.app.membership_total").await, 1);
    proxy.until_stat("cluster.app.membership_total", |count| count == 0).await;
    assert_eq!(proxy.stat("cluster.app.membership_change").await, 2);
}

async fn the_next_address_is_tried_when_the_first_is_dead(program: Program) {
    let app = Backend::echo("app").await;
    let dead = [Port::reserve(), Port::reserve()];
    let [first, second] = dead.each_ref().map(Port::address);
    let addresses = [first, SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 1)), second, app.address()];
    let proxy = logged(program, Cluster::new("app").lb_endpoint(at_all(&addresses))).await;
    for _ in 0..2 {
        assert_eq!(proxy.get("/").send().await.echo().backend(), "app");
    }
    for (name, count) in [("total", 4), ("active", 1), ("connect_fail", 0), ("destroy", 0)] {
        assert_eq!(proxy.stat(&format!("cluster.app.upstream_cx_{name}")).await, count, "{name}");
    }
    let clusters = proxy.admin().get("/clusters").send().await.text();
    assert!(clusters.contains(&format!("app::{first}::cx_total::4\n")), "{clusters}");
    eventually_true("a line", async || {
        let log = std::fs::read_to_string(proxy.file("access.log")).unwrap_or_default();
        let remote = app.address();
        let line = format!("{first} {remote} 127.0.0.1 ({}) 127.0.0.1:", remote.port());
        log.lines().next().is_some_and(|first| {
            assert!(first.starts_with(&line), "{first}, not {line}");
            true
        })
    })
    .await;

    drop(app);
    let proxy = to_app(program, Cluster::new("app").lb_endpoint(at_all(&addresses[..3]))).await;
    let reply = proxy.get("/").send().await;
    assert_eq!(reply.status, 503);
    let reason = "reset reason: remote connection failure";
    assert!(reply.text().contains(reason), "{}", reply.text());
    for (name, count) in [("total", 3), ("connect_fail", 1), ("destroy", 1)] {
        assert_eq!(proxy.stat(&format!("cluster.app.upstream_cx_{name}")).await, count, "{name}");
    }
}

async fn the_next_address_is_tried_when_the_first_is_silent(program: Program) {
    let app = Backend::echo("app").await;
    // Nobody takes connections from its queue, which is full: the kernel does not answer the next one.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    socket2::SockRef::from(&silent).listen(0).unwrap();
    let _queued = std::net::TcpStream::connect(address).unwrap();
    let addresses = [address, app.address()];
    let proxy = to_app(program, Cluster::new("app").lb_endpoint(at_all(&addresses))).await;
    let start = std::time::Instant::now();
    assert_eq!(proxy.get("/").send().await.echo().backend(), "app");
    let waited = start.elapsed();
    assert!(waited.as_millis() >= 300, "{waited:?}");
    assert!(waited.as_millis() < 4500, "{waited:?}: not before the connect timeout");
    assert_eq!(proxy.stat("cluster.app.upstream_cx_total").await, 2);
}

async fn families_are_tried_in_the_configured_order(program: Program) {
    let four = Backend::echo("4").await;
    let six = Backend::echo_at("6", SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0))).await;
    for (version, first) in [("DEFAULT", "4"), ("V4", "4"), ("V6", "6")] {
        let config = json!({"first_address_family_version": version});
        let cluster = Cluster::new("app")
            .lb_endpoint(at_all(&[four.address(), six.address()]))
            .with("upstream_connection_options.happy_eyeballs_config", config);
        let proxy = to_app(program, cluster).await;
        assert_eq!(proxy.get("/").send().await.echo().backend(), first, "{version}");
    }
}

/// A `BindConfig` of `address` with any port.
fn from_address(address: &str) -> Value {
    json!({"source_address": socket_address(SocketAddr::new(address.parse().unwrap(), 0))["socket_address"]})
}

async fn assert_logged_source(proxy: &Proxy, source: &str) {
    eventually_true("a line", async || {
        let log = std::fs::read_to_string(proxy.file("access.log")).unwrap_or_default();
        log.lines().next().is_some_and(|first| {
            let local = first.split(' ').nth(4).unwrap();
            assert!(local.starts_with(source), "{local}, not {source}");
            true
        })
    })
    .await;
}

async fn our_end_is_bound_to_the_source_address(program: Program) {
    let four = Backend::echo("4").await;
    let six = Backend::echo_at("6", SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0))).await;
    let mut bind = from_address("127.0.0.2");
    let extra = socket_address("[::1]:0".parse().unwrap());
    bind["extra_source_addresses"] = json!([{"address": extra["socket_address"]}]);
    for (app, source) in [(&four, "127.0.0.2:"), (&six, "[::1]:")] {
        let cluster = Cluster::new("app").endpoint(app).with("upstream_bind_config", bind.clone());
        let proxy = logged(program, cluster).await;
        assert_eq!(proxy.get("/").send().await.status, 200);
        assert_logged_source(&proxy, source).await;
    }
}

async fn the_cluster_manager_has_a_source_address_for_all(program: Program) {
    let app = Backend::echo("app").await;
    for (own, source) in [(None, "127.0.0.3:"), (Some("127.0.0.4"), "127.0.0.4:")] {
        let mut cluster = Cluster::new("app").endpoint(&app);
        if let Some(own) = own {
            cluster = cluster.with("upstream_bind_config", from_address(own));
        }
        let bootstrap = Bootstrap::new();
        let log = bootstrap.dir().join("access.log");
        let http = Http::routing([Route::prefix("/").to("app")]).text_log(&log, FACTS);
        let proxy = bootstrap
            .listener(Listener::new("main", http))
            .cluster(cluster)
            .with("cluster_manager.upstream_bind_config", from_address("127.0.0.3"))
            .start(program)
            .await;
        assert_eq!(proxy.get("/").send().await.status, 200);
        assert_logged_source(&proxy, source).await;
    }
}

async fn our_end_that_cannot_be_bound_is_a_local_failure(program: Program) {
    let app = Backend::echo("app").await;
    // From the block for documentation: no machine has it.
    let cluster = Cluster::new("app").endpoint(&app);
    let mut bind = from_address("192.0.2.1");
    let proxy = to_app(program, cluster.clone().with("upstream_bind_config", bind.clone())).await;
    let reply = proxy.get("/").send().await;
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("reset reason: local connection failure"), "{}", reply.text());
    let counts =
        [("bind_errors", 1), ("upstream_cx_connect_fail", 1), ("upstream_cx_destroy_local", 1)];
    for (name, count) in counts {
        assert_eq!(proxy.stat(&format!("cluster.app.{name}")).await, count, "{name}");
    }

    // It can be bound if it need not be there.
    bind["freebind"] = true.into();
    let cluster = cluster.with("upstream_bind_config", bind).with("connect_timeout", "0.2s");
    let proxy = to_app(program, cluster).await;
    assert_eq!(proxy.get("/").send().await.status, 503);
    assert_eq!(proxy.stat("cluster.app.bind_errors").await, 0);
}

/// The transport socket that begins connections with a PROXY header.
fn proxy_protocol(config: &Value) -> Value {
    let raw = typed("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer", json!({}));
    let inner = json!({"name": "envoy.transport_sockets.raw_buffer", "typed_config": raw});
    let outer = typed(
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        json!({"config": config, "transport_socket": inner}),
    );
    json!({"name": "envoy.transport_sockets.upstream_proxy_protocol", "typed_config": outer})
}

/// Answers every request with the beginning of its connection, up to the first `GET`, in hexadecimal.
async fn telling_its_header() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut seen = Vec::new();
                let mut header = None;
                while stream.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {
                    if !seen.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let begin = seen.windows(4).position(|four| four == b"GET ").unwrap();
                    let told: String = seen[..begin].iter().map(|b| format!("{b:02x}")).collect();
                    seen.clear();
                    let told = header.get_or_insert(told);
                    let answer =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{told}", told.len());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    address
}

async fn extensions_of_a_proxy_header_are_passed_on(program: Program) {
    // Kept by the listener: E1, E2, E4. Passed on: E1 and E2, of which E2 is one that we set ourselves.
    let kept = json!({"match_type": "INCLUDE", "tlv_type": [0xE1, 0xE2, 0xE4]});
    let config = json!({
        "version": "V2",
        "pass_through_tlvs": {"match_type": "INCLUDE", "tlv_type": [0xE1, 0xE2, 0xE3]},
        "added_tlvs": [{"type": 0xE2, "value": "aGk="}, {"type": 0xE5, "value": "aGk="}],
    });
    let app = telling_its_header().await;
    let cluster =
        Cluster::new("app").endpoint(app).with("transport_socket", proxy_protocol(&config));
    let filter = |listener: Listener| {
        let config = json!({"pass_through_tlvs": kept.clone()});
        listener.listener_filter("proxy_protocol", "ProxyProtocol", config)
    };
    let routed = Http::routing([Route::prefix("/").to("app")]);
    let proxy = Bootstrap::new()
        .listener(filter(Listener::new("http", routed)))
        .listener(filter(Listener::new("tcp", Tcp::to("app"))))
        .cluster(cluster)
        .start(program)
        .await;
    let ends = [1, 2, 3, 4, 5, 6, 7, 8, 4, 0x57, 0, 80];
    let tlvs = b"\xe1\x00\x01a\xe2\x00\x01b\xe3\x00\x01c\xe4\x00\x01d\xe1\x00\x01e";
    let length = u8::try_from(ends.len() + tlvs.len()).unwrap();
    let fixed = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"[..], &[length]].concat();
    let begin = [&fixed, &ends[..], &tlvs[..]].concat();
    // Ours first, then those of the client that are not ours.
    let told = "0d0a0d0a000d0a515549540a211100 1e 0102030405060708 0457 0050 e200026869 e500026869 \
        e1000161 e1000165";
    for listener in ["http", "tcp"] {
        let mut connection = RawConnection::open(proxy.address(listener)).await;
        connection.write(&begin).await;
        connection.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        connection.read_until("\r\n\r\n").await;
        let body = connection.read_exactly(2 * (16 + 0x1e)).await;
        assert_eq!(String::from_utf8(body).unwrap(), told.replace(' ', ""), "{listener}");
    }
}

async fn endpoints_are_told_who_the_client_is(program: Program) {
    let tlvs = json!([{"type": 0xE1, "value": "aGk="}]);
    for config in [json!({}), json!({"version": "V2", "added_tlvs": tlvs})] {
        let version_2 = config["version"] == "V2";
        let cluster = Cluster::new("app")
            .endpoint(telling_its_header().await)
            .with("transport_socket", proxy_protocol(&config));
        let proxy = to_app(program, cluster).await;
        let (client, main) = (proxy.client(), proxy.address("main"));
        let mut connections = Vec::new();
        for _ in 0..2 {
            connections.push(client.connect().await.unwrap());
        }
        let mut told = Vec::new();
        for round in 0..3 {
            for (index, connection) in connections.iter_mut().enumerate() {
                let header = connection.send(client.get("/")).await.unwrap().text();
                let expected = if version_2 {
                    assert_eq!(header.len(), 2 * (16 + 12 + 5), "{header}");
                    let begin =
                        "0d0a0d0a000d0a515549540a21110011 7f000001 7f000001".replace(' ', "");
                    assert!(header.starts_with(&begin), "{header}");
                    format!("{:04x}e100026869", main.port())
                } else {
                    let hex = |text: &str| -> String {
                        text.bytes().map(|b| format!("{b:02x}")).collect()
                    };
                    assert!(
                        header.starts_with(&hex("PROXY TCP4 127.0.0.1 127.0.0.1 ")),
                        "{header}"
                    );
                    hex(&format!(" {}\r\n", main.port()))
                };
                assert!(header.ends_with(&expected), "{header}");
                if round == 0 {
                    told.push(header);
                } else {
                    assert_eq!(header, told[index], "a connection tells of its own client only");
                }
            }
        }
        assert_ne!(told[0], told[1]);
        assert_eq!(proxy.stat("cluster.app.upstream_cx_total").await, 2);
    }
}
