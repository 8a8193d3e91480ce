//! Envoy's own example bootstraps, served as they stand: ports and host names aside, which are those of this machine.
//!
//! They are not part of this repository: they are looked for in `SUITES_DIR`, else beside the workspace.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use harness::backend::upgrade::{SAMPLE_KEY, UpgradeBackend};
use harness::client::tls::TlsOptions;
use harness::eventually::eventually_true;
use harness::pki::Identity;
use harness::{
    Answer, AuthzServer, Backend, Bootstrap, Client, Cluster, Http, Listener, Pki, Program, Proxy,
    Route, TcpBackend, eventually, json,
};
use http::Version;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

on_both!(
    cors_lets_origins_in,
    csrf_keeps_other_sites_out,
    proxies_stand_before_proxies,
    services_authorize_requests,
    calls_are_told_from_other_requests,
    requests_are_limited,
    localities_stand_in_for_one_another,
    copies_are_sent,
    what_a_connection_speaks_is_seen,
    names_are_sent_to_endpoints,
    tls_begins_and_ends_anywhere,
    websockets_pass,
);

/// The examples that a scenario serves. The others ask for a management server.
const SERVED: [&str; 25] = [
    "cors__backend__envoy",
    "cors__frontend__envoy",
    "csrf__crosssite__envoy",
    "csrf__samesite__envoy",
    "double-proxy__envoy",
    "ext_authz__config__grpc-service__v3",
    "ext_authz__config__http-service",
    "ext_authz__config__opa-service__v3",
    "front-proxy__envoy",
    "front-proxy__service-envoy",
    "front-proxy__service-envoy-2",
    "grpc-bridge__server__envoy-proxy",
    "local_ratelimit__envoy",
    "locality-load-balancing__envoy",
    "route-mirror__envoy",
    "tls-inspector__envoy",
    "tls-sni__envoy-client",
    "tls__envoy-http-https",
    "tls__envoy-https-http",
    "tls__envoy-https-https",
    "tls__envoy-https-passthrough",
    "websocket__envoy-ws",
    "websocket__envoy-ws-route",
    "websocket__envoy-wss",
    "websocket__envoy-wss-passthrough",
];

#[test]
fn every_example_is_served_but_those_of_management_servers() {
    let Some(folder) = folder() else { return };
    let names = std::fs::read_dir(folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        path.file_stem().unwrap().to_string_lossy().into_owned()
    });
    let mut others: Vec<String> = names.filter(|it| !SERVED.contains(&it.as_str())).collect();
    others.sort();
    assert_eq!(others, ["dynamic-config-cp__envoy", "load-reporting-service__envoy"]);
}

fn folder() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/suites");
    let suites = std::env::var_os("SUITES_DIR").map_or_else(beside, PathBuf::from);
    let folder = suites.join("envoy-examples");
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("REQUIRE_SUITES").is_none(), "no {}", folder.display());
    // Not eprintln!, which the test runner swallows when a test passes.
    let skipped = format!("SKIPPED: no {}; set SUITES_DIR to where it is", folder.display());
    let _ = writeln!(std::io::stderr(), "{skipped}");
    None
}

/// Where the hosts of an example are.
type Hosts<'a> = &'a [(&'a str, SocketAddr)];

/// Starts an example whose names mean `hosts`. Its listeners are called by their ports, the first one `main`, too; none
/// if it is not there.
async fn serve(program: Program, name: &str, hosts: Hosts<'_>) -> Option<Proxy> {
    assert!(SERVED.contains(&name), "{name}");
    let text = std::fs::read_to_string(folder()?.join(format!("{name}.yaml"))).unwrap();
    let mut bootstrap = Bootstrap::new();
    let admin = bootstrap.admin_address();
    let mut yaml = String::new();
    let (mut section, mut host, mut found) = ("", "", None);
    let mut has_listener = false;
    for line in text.lines() {
        let word = line.trim_start();
        if !line.starts_with([' ', '#', '-']) && !line.is_empty() {
            section = line.trim_end_matches(':');
        }
        let indent = &line[..line.len() - word.len()];
        if let Some(address) = word.strip_prefix("address: ") {
            host = address;
            continue;
        }
        let Some(port) = word.strip_prefix("port_value: ") else {
            yaml += &format!("{line}\n");
            continue;
        };
        // A port that is checked is the one of the endpoint before it.
        let is_checked = host.is_empty();
        found = match host {
            "" => found,
            _ if section == "admin" => Some(admin),
            "127.0.0.1" => Some(admin),
            "0.0.0.0" => {
                let name = if has_listener { port } else { "main" };
                has_listener = true;
                Some(bootstrap.reserve(name))
            }
            name => hosts.iter().find(|(host, _)| *host == name).map(|(_, at)| *at),
        };
        let at = found.unwrap_or_else(|| panic!("{name}: where is {host}?"));
        if !is_checked {
            yaml += &format!("{indent}address: {}\n", at.ip());
        }
        yaml += &format!("{indent}port_value: {}\n", at.port());
        host = "";
    }
    if !text.lines().any(|line| line == "admin:") {
        let (ip, port) = (admin.ip(), admin.port());
        yaml += &format!(
            "admin: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}\n"
        );
    }
    // A busy machine takes longer than these companions are given.
    let yaml = yaml.replace("timeout: 0.250s", "timeout: 10s");
    Some(bootstrap.start_with_text(program, &yaml).await)
}

/// The example's listener, over TLS. Its certificate names no host.
fn over_tls(proxy: &Proxy, listener: &str) -> Client {
    Client::http1(proxy.address(listener)).tls(TlsOptions::trusting_anybody())
}

/// A proxy that ends TLS, and tells the name that was sent to it.
async fn tls_server(program: Program, identity: &Identity, upgrades: &UpgradeBackend) -> Proxy {
    let told = json!([{"header": {"key": "x-name", "value": "%REQUESTED_SERVER_NAME%"}}]);
    let upgraded = Route::path("/chat").to("app");
    let other = Route::prefix("/").direct(200, "secure").with("response_headers_to_add", told);
    let http = Http::routing([upgraded, other])
        .with("upgrade_configs", json!([{"upgrade_type": "websocket"}]));
    let listener = Listener::new("main", http).tls(Pki::server_only(identity)).tls_inspector();
    let cluster = Cluster::new("app").endpoint(upgrades);
    Bootstrap::new().listener(listener).cluster(cluster).start(program).await
}

async fn cors_lets_origins_in(program: Program) {
    let app = Backend::echo("app").await;
    let at = app.address();
    let Some(proxy) = serve(program, "cors__backend__envoy", &[("backend-service", at)]).await
    else {
        return;
    };
    let allowed = async |path: &str, origin: &str| {
        let reply = proxy.get(path).header("origin", origin).send().await;
        reply.header("access-control-allow-origin")
    };
    let ours = "https://www.envoyproxy.io";
    assert_eq!(allowed("/cors/restricted", ours).await.as_deref(), Some(ours));
    assert_eq!(allowed("/cors/restricted", "https://example.org").await, None);
    assert_eq!(allowed("/cors/disabled", ours).await, None);
    assert_eq!(allowed("/cors/open", "*").await.as_deref(), Some("*"));
    let hosts = [("frontend-service", at)];
    let proxy = serve(program, "cors__frontend__envoy", &hosts).await.unwrap();
    assert_eq!(proxy.get("/").send().await.echo().backend(), "app");
}

async fn csrf_keeps_other_sites_out(program: Program) {
    let app = Backend::echo("app").await;
    let hosts = [("service", app.address())];
    let Some(proxy) = serve(program, "csrf__samesite__envoy", &hosts).await else { return };
    let post = async |path: &str, origin: &str| {
        let call = proxy.client().post(path).host("shop.test").header("origin", origin);
        call.send().await.status
    };
    assert_eq!(post("/csrf/enabled", "http://attacker.test").await, 403);
    assert_eq!(post("/csrf/enabled", "http://shop.test").await, 200);
    for path in ["/csrf/disabled", "/csrf/shadow", "/csrf/additional_origin"] {
        assert_eq!(post(path, "http://attacker.test").await, 200, "{path}");
    }
    let proxy = serve(program, "csrf__crosssite__envoy", &hosts).await.unwrap();
    assert_eq!(proxy.client().post("/").send().await.echo().backend(), "app");
}

async fn proxies_stand_before_proxies(program: Program) {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let hosts = [("service1", one.address()), ("service2", two.address())];
    let Some(first) = serve(program, "front-proxy__service-envoy", &hosts).await else { return };
    let second = serve(program, "front-proxy__service-envoy-2", &hosts).await.unwrap();
    let hosts =
        [("service-envoy-1", first.address("main")), ("service-envoy-2", second.address("main"))];
    let front = serve(program, "front-proxy__envoy", &hosts).await.unwrap();
    let secure = over_tls(&front, "8443");
    for client in [front.client(), secure] {
        for (path, backend) in [("/service/1", "one"), ("/service/2", "two")] {
            assert_eq!(client.get(path).send().await.echo().backend(), backend);
        }
        assert_eq!(client.get("/service/3").send().await.status, 404);
    }
    let proxy = serve(program, "double-proxy__envoy", &[("app", one.address())]).await.unwrap();
    assert_eq!(proxy.get("/").send().await.echo().backend(), "one");
}

async fn services_authorize_requests(program: Program) {
    let app = Backend::echo("app").await;
    let authz = AuthzServer::as_asked().await;
    for (name, service) in [
        ("ext_authz__config__grpc-service__v3", "ext_authz-grpc-service"),
        ("ext_authz__config__opa-service__v3", "ext_authz-opa-service"),
    ] {
        let hosts = [("upstream-service", app.address()), (service, authz.address())];
        let Some(proxy) = serve(program, name, &hosts).await else { return };
        assert_eq!(proxy.get("/").send().await.echo().backend(), "app", "{name}");
        let denied = "{status: {code: 7}, denied_response: {status: {code: Unauthorized}}}";
        assert_eq!(proxy.get("/").header("x-verdict", denied).send().await.status, 401, "{name}");
    }
    let authz = Backend::scripted("authz", |call| match call.header("authorization") {
        Some("Bearer token1") => Answer::status(200).header("x-current-user", "user1"),
        _ => Answer::status(403),
    })
    .await;
    let hosts = [("upstream-service", app.address()), ("ext_authz-http-service", authz.address())];
    let proxy = serve(program, "ext_authz__config__http-service", &hosts).await.unwrap();
    assert_eq!(proxy.get("/").send().await.status, 403);
    let echo = proxy.get("/").header("authorization", "Bearer token1").send().await.echo();
    assert_eq!(echo.header("x-current-user").as_deref(), Some("user1"));
}

async fn calls_are_told_from_other_requests(program: Program) {
    let app = Backend::echo("grpc").await;
    let hosts = [("grpc-server", app.address())];
    let Some(proxy) = serve(program, "grpc-bridge__server__envoy-proxy", &hosts).await else {
        return;
    };
    let client = Client::http2(proxy.address("main"));
    let call = client.post("/kv.KV/Get").header("content-type", "application/grpc").body("x");
    let echo = call.send().await.echo();
    assert_eq!((echo.backend(), echo.version()), ("grpc", "HTTP/2.0"));
    assert_eq!(client.post("/kv.KV/Get").body("x").send().await.status, 404);
}

async fn requests_are_limited(program: Program) {
    let app = Backend::echo("app").await;
    let hosts = [("service", app.address())];
    let Some(proxy) = serve(program, "local_ratelimit__envoy", &hosts).await else { return };
    for (listener, path) in [("main", "/stats/prometheus"), ("10000", "/")] {
        let client = Client::http1(proxy.address(listener));
        assert_eq!(client.get(path).send().await.status, 200, "{listener}");
        // Two are let through, and two more after five seconds.
        eventually("one is refused", async || {
            let reply = client.get(path).send().await;
            (reply.status == 429).then_some(reply.header("x-local-rate-limit"))
        })
        .await
        .unwrap();
    }
}

async fn localities_stand_in_for_one_another(program: Program) {
    let names = ["local-1", "local-2", "remote-1", "remote-2"];
    let [first, second, third, fourth] = names;
    let first = Backend::echo(first).await;
    let (second, third) = (Backend::echo(second).await, Backend::echo(third).await);
    let fourth = Backend::echo(fourth).await;
    let hosts = [
        ("backend-local-1", first.address()),
        ("backend-local-2", second.address()),
        ("backend-remote-1", third.address()),
        ("backend-remote-2", fourth.address()),
    ];
    let Some(proxy) = serve(program, "locality-load-balancing__envoy", &hosts).await else {
        return;
    };
    for _ in 0..5 {
        assert_eq!(proxy.get("/").send().await.echo().backend(), "local-1");
    }
    drop(first);
    eventually_true("the next priority serves", async || {
        let reply = proxy.get("/").send().await;
        reply.status == 200 && ["local-2", "remote-1"].contains(&reply.echo().backend())
    })
    .await;
}

async fn copies_are_sent(program: Program) {
    let (one, copy) = (Backend::echo("service1").await, Backend::echo("service1-mirror").await);
    let (two, other) = (Backend::echo("service2").await, Backend::echo("service2-mirror").await);
    let hosts = [
        ("service1", one.address()),
        ("service1-mirror", copy.address()),
        ("service2", two.address()),
        ("service2-mirror", other.address()),
    ];
    let Some(proxy) = serve(program, "route-mirror__envoy", &hosts).await else { return };
    assert_eq!(proxy.get("/service/1").send().await.echo().backend(), "service1");
    let call = proxy.get("/service/2").header("x-mirror-cluster", "service2-mirror");
    assert_eq!(call.send().await.echo().backend(), "service2");
    eventually_true("copies", async || (copy.count(), other.count()) == (1, 1)).await;
    assert_eq!((one.count(), two.count()), (1, 1));
}

async fn what_a_connection_speaks_is_seen(program: Program) {
    let [h2, http1, plain] = [
        TcpBackend::named("h2").await,
        TcpBackend::named("http1").await,
        TcpBackend::named("plain").await,
    ];
    let hosts = [
        ("service-https1", h2.address()),
        ("service-https0", http1.address()),
        ("service-http", plain.address()),
    ];
    let Some(proxy) = serve(program, "tls-inspector__envoy", &hosts).await else { return };
    let tls = TlsOptions::trusting_anybody();
    for version in [Version::HTTP_2, Version::HTTP_11] {
        let stream = TcpStream::connect(proxy.address("main")).await.unwrap();
        // These backends speak no TLS: it is enough that they are asked.
        tls.handshake(stream, version).await.unwrap_err();
    }
    let mut connection = proxy.connect().await;
    connection.write("GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(connection.read_exactly(5).await, b"plain");
    // The plain one may have been asked ahead, in case it speaks first.
    assert_eq!([&h2, &http1].map(TcpBackend::connections), [1, 1]);
}

async fn names_are_sent_to_endpoints(program: Program) {
    let pki = Pki::new();
    let upgrades = UpgradeBackend::start().await;
    let server = tls_server(program, &pki.workload("server"), &upgrades).await;
    let hosts = [("proxy", server.address("main"))];
    let Some(proxy) = serve(program, "tls-sni__envoy-client", &hosts).await else { return };
    for domain in ["domain1", "domain2", "domain3"] {
        let reply = proxy.get(&format!("/{domain}")).send().await;
        assert_eq!(reply.header("x-name"), Some(format!("{domain}.example.com")));
    }
}

async fn tls_begins_and_ends_anywhere(program: Program) {
    let pki = Pki::new();
    let upgrades = UpgradeBackend::start().await;
    let server = tls_server(program, &pki.workload("server"), &upgrades).await;
    let app = Backend::echo("app").await;
    let hosts = [("service-https", server.address("main")), ("service-http", app.address())];
    let Some(proxy) = serve(program, "tls__envoy-http-https", &hosts).await else { return };
    assert_eq!(proxy.get("/").send().await.text(), "secure");
    let proxy = serve(program, "tls__envoy-https-http", &hosts).await.unwrap();
    assert_eq!(over_tls(&proxy, "main").get("/").send().await.echo().backend(), "app");
    let proxy = serve(program, "tls__envoy-https-https", &hosts).await.unwrap();
    assert_eq!(over_tls(&proxy, "main").get("/").send().await.text(), "secure");
    let proxy = serve(program, "tls__envoy-https-passthrough", &hosts).await.unwrap();
    let end_to_end = proxy.client().tls(pki.client(None));
    assert_eq!(end_to_end.get("/").send().await.text(), "secure");
}

/// Switches protocols over `stream`, and sees its bytes come back.
async fn chat(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: {SAMPLE_KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream.write_all(b"there and back").await.unwrap();
    let mut back = [0; 14];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"there and back");
}

async fn websockets_pass(program: Program) {
    let pki = Pki::new();
    let upgrades = UpgradeBackend::start().await;
    let server = tls_server(program, &pki.workload("server"), &upgrades).await;
    let hosts =
        [("service-ws", SocketAddr::from(&upgrades)), ("service-wss", server.address("main"))];
    for (name, path) in [("websocket__envoy-ws", "/chat"), ("websocket__envoy-ws-route", "/ws")] {
        let Some(proxy) = serve(program, name, &hosts).await else { return };
        chat(proxy.connect().await.into_stream(), path).await;
        if path == "/ws" {
            assert_eq!(proxy.get("/").send().await.text(), "NotWebSocket\n");
        }
    }
    let anybody = TlsOptions::trusting_anybody();
    for (name, trust) in
        [("websocket__envoy-wss", anybody), ("websocket__envoy-wss-passthrough", pki.client(None))]
    {
        let proxy = serve(program, name, &hosts).await.unwrap();
        let stream = proxy.connect().await.into_stream();
        chat(trust.handshake(stream, Version::HTTP_11).await.unwrap(), "/chat").await;
    }
}
