//! The admin API: what operators and their tools ask of a running proxy.

use std::io::Write;
use std::process::{Command, Stdio};

use harness::bootstrap::typed;
use harness::{Backend, Bootstrap, Cluster, Program, Proxy, Route, Value, eventually, json};

on_both!(
    ready_says_live,
    server_info_names_version_state_and_node,
    stats_come_as_text_json_and_filtered,
    prometheus_metrics_pass_promtool,
    clusters_shows_every_host,
    listeners_shows_every_address,
    config_dump_holds_every_resource,
    certs_shows_days_until_expiration,
    help_lists_the_endpoints,
    changes_need_post,
    the_log_level_changes,
    counters_can_be_reset,
    quitquitquit_ends_the_process,
    drain_listeners_closes_the_ports,
    requests_to_it_are_logged,
    it_takes_both_families_if_told_to,
);

async fn serving(program: Program, app: &Backend) -> Proxy {
    let proxy = Bootstrap::routing([Route::prefix("/").to("app")])
        .cluster(Cluster::new("app").endpoint(app))
        .start(program)
        .await;
    for _ in 0..4 {
        assert_eq!(proxy.get("/").send().await.status, 200);
    }
    proxy
}

async fn requests_to_it_are_logged(program: Program) {
    let bootstrap = Bootstrap::routing([Route::prefix("/").direct(200, "ok")]);
    let (log, old) = (bootstrap.dir().join("admin.log"), bootstrap.dir().join("old.log"));
    let format = "%REQ(:METHOD)% %PATH% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS% \
        %BYTES_SENT% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %RESP(CONTENT-TYPE)% %UPSTREAM_HOST%\n";
    let logger = typed(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        json!({"path": log, "log_format": {"text_format_source": {"inline_string": format}}}),
    );
    let proxy = bootstrap
        .with("admin.access_log", json!([{"name": "file", "typed_config": logger}]))
        .with("admin.access_log_path", old.display().to_string())
        .start(program)
        .await;
    let admin = proxy.admin();
    admin.get("/healthcheck/fail?now=1").send().await;
    admin.post("/healthcheck/ok").send().await;
    let lines = eventually("lines in the log", async || {
        let text = std::fs::read_to_string(&log).ok()?;
        let lines: Vec<String> =
            text.lines().filter(|line| line.contains("healthcheck")).map(str::to_owned).collect();
        (lines.len() == 2).then_some(lines)
    });
    let end = "127.0.0.1 text/plain; charset=UTF-8 -";
    assert_eq!(
        lines.await,
        [
            format!("GET /healthcheck/fail?now=1 HTTP/1.1 405 admin_filter_response - 38 {end}"),
            format!("POST /healthcheck/ok HTTP/1.1 200 admin_filter_response - 3 {end}"),
        ]
    );
    let old = eventually("lines in the other", async || {
        std::fs::read_to_string(&old).ok().filter(|text| text.contains("healthcheck/ok"))
    });
    assert!(old.await.contains("\"POST /healthcheck/ok HTTP/1.1\" 200 - 0 3 "));
}

async fn it_takes_both_families_if_told_to(program: Program) {
    // The harness asks over IPv4.
    let proxy = Bootstrap::routing([Route::prefix("/").direct(200, "ok")])
        .with("admin.address.socket_address.address", "::")
        .with("admin.address.socket_address.ipv4_compat", true)
        .start(program)
        .await;
    assert_eq!(proxy.admin().get("/ready").send().await.status, 200);
}

async fn ready_says_live(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = serving(program, &app).await;
    let reply = proxy.admin().get("/ready").send().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "LIVE\n"));
}

async fn server_info_names_version_state_and_node(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = serving(program, &app).await;
    let info = proxy.admin().get("/server_info").send().await.json();
    assert_eq!(info["state"], "LIVE");
    assert_eq!(info["node"]["id"], "test-node");
    assert_eq!(info["node"]["cluster"], "test-cluster");
    assert!(info["version"].as_str().is_some_and(|version| !version.is_empty()), "{info}");
    assert_eq!(info["command_line_options"]["concurrency"], 1);
    assert!(info["uptime_current_epoch"].as_str().unwrap().ends_with('s'), "{info}");
}

async fn stats_come_as_text_json_and_filtered(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = serving(program, &app).await;
    proxy.until_stat("cluster.app.upstream_rq_completed", |count| count == 4).await;
    let expected = [
        ("cluster.app.upstream_rq_total", 4),
        ("cluster.app.upstream_rq_2xx", 4),
        ("cluster.app.upstream_rq_200", 4),
        ("cluster.app.upstream_rq_active", 0),
        ("cluster.app.upstream_cx_total", 1),
        ("cluster.app.upstream_cx_http1_total", 1),
        ("cluster.app.membership_total", 1),
        ("cluster.app.membership_healthy", 1),
        ("cluster.app.circuit_breakers.default.rq_open", 0),
        ("http.main.downstream_rq_total", 4),
        ("http.main.downstream_rq_2xx", 4),
        ("http.main.downstream_cx_total", 4),
        ("http.main.downstream_cx_http1_total", 4),
        ("listener_manager.listener_create_success", 1),
        ("listener_manager.total_listeners_active", 1),
        ("cluster_manager.active_clusters", 1),
        ("server.live", 1),
        ("server.concurrency", 1),
    ];
    let text = proxy.admin().get("/stats").send().await.text();
    for (name, value) in expected {
        assert!(text.contains(&format!("\n{name}: {value}\n")), "{name}: {value} not in\n{text}");
    }
    let json = proxy.admin().get("/stats?format=json").send().await.json();
    let stats = json["stats"].as_array().unwrap();
    for (name, value) in expected {
        assert!(stats.contains(&json!({"name": name, "value": value})), "{name} not in {json}");
    }
    let filtered = proxy.admin().get("/stats?filter=%5Ecluster.app.upstream_rq_2").send().await;
    assert_eq!(filtered.text(), "cluster.app.upstream_rq_200: 4\ncluster.app.upstream_rq_2xx: 4\n");
}

async fn prometheus_metrics_pass_promtool(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = serving(program, &app).await;
    proxy.until_stat("cluster.app.upstream_rq_completed", |count| count == 4).await;
    let text = proxy.admin().get("/stats/prometheus").send().await.text();
    for line in [
        "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"app\"} 4",
        "envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"app\"} 4",
        "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"app\"} 4",
        "envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix=\"main\"} 4",
        "envoy_server_live{} 1",
    ] {
        let found = text.lines().any(|found| same_series(found, line));
        assert!(found, "{line} not in\n{text}");
    }
    assert!(text.contains("# TYPE envoy_cluster_upstream_rq_total counter\n"));
    assert!(text.contains("# TYPE envoy_cluster_upstream_rq_time histogram\n"));
    if program == Program::Outrigger {
        promtool_check(&text);
    }
}

/// Whether two lines of the exposition format are the same sample: the order of labels is free.
fn same_series(one: &str, other: &str) -> bool {
    let parts = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.trim_end_matches('}').split_once('{').unwrap_or((series, ""));
        let mut labels: Vec<_> = labels.split(',').map(str::to_owned).collect();
        labels.sort();
        Some((name.to_owned(), labels, value.to_owned()))
    };
    parts(one) == parts(other)
}

fn promtool_check(text: &str) {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = spawned else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: no promtool (Debian package prometheus)");
        return;
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    // Exit code 3 stands for remarks on names, which are Envoy's.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
}

async fn clusters_shows_every_host(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = serving(program, &app).await;
    let text = proxy.admin().get("/clusters").send().await.text();
    let at = app.address();
    for line in [
        "app::observability_name::app".to_owned(),
        "app::default_priority::max_connections::1024".to_owned(),
        "app::high_priority::max_retries::3".to_owned(),
        "app::added_via_api::false".to_owned(),
        format!("app::{at}::cx_total::1"),
        format!("app::{at}::rq_total::4"),
        format!("app::{at}::rq_success::4"),
        format!("app::{at}::rq_error::0"),
        format!("app::{at}::health_flags::healthy"),
        format!("app::{at}::weight::1"),
        format!("app::{at}::priority::0"),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
    }
    let json = proxy.admin().get("/clusters?format=json").send().await.json();
    let cluster = &json["cluster_statuses"][0];
    assert_eq!(cluster["name"], "app");
    let address = &cluster["host_statuses"][0]["address"]["socket_address"];
    assert_eq!(address["port_value"], at.port());
}

async fn listeners_shows_every_address(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = serving(program, &app).await;
    let text = proxy.admin().get("/listeners").send().await.text();
    assert!(text.contains(&format!("main::{}\n", proxy.address("main"))), "{text}");
    let json = proxy.admin().get("/listeners?format=json").send().await.json();
    let listener = &json["listener_statuses"][0];
    assert_eq!(listener["name"], "main");
    let port = &listener["local_address"]["socket_address"]["port_value"];
    assert_eq!(*port, proxy.address("main").port());
}

async fn config_dump_holds_every_resource(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = serving(program, &app).await;
    let dump = proxy.admin().get("/config_dump").send().await.json();
    let section = |name: &str| -> Value {
        let url = format!("type.googleapis.com/envoy.admin.v3.{name}ConfigDump");
        let found = dump["configs"].as_array().unwrap().iter().find(|part| part["@type"] == *url);
        found.unwrap_or_else(|| panic!("no {name} in {dump}")).clone()
    };
    assert_eq!(section("Bootstrap")["bootstrap"]["node"]["id"], "test-node");
    assert_eq!(section("Clusters")["static_clusters"][0]["cluster"]["name"], "app");
    assert_eq!(section("Listeners")["static_listeners"][0]["listener"]["name"], "main");
    let routes = &section("Routes")["static_route_configs"][0]["route_config"];
    assert_eq!(routes["virtual_hosts"][0]["routes"][0]["route"]["cluster"], "app");
    let one = proxy.admin().get("/config_dump?resource=static_clusters").send().await.json();
    assert_eq!(one["configs"][0]["cluster"]["name"], "app");
}

async fn certs_shows_days_until_expiration(program: Program) {
    let pki = harness::Pki::new();
    let server = pki.workload("server");
    let http = harness::Http::routing([Route::prefix("/").direct(200, "ok")]);
    let proxy = Bootstrap::new()
        .listener(harness::Listener::new("main", http).tls(pki.mutual(&server)))
        .start(program)
        .await;
    let certs = proxy.admin().get("/certs").send().await.json();
    let certificate = &certs["certificates"][0];
    let chain = &certificate["cert_chain"][0];
    assert_eq!(chain["path"], server.chain.to_str().unwrap());
    let uri = "spiffe://cluster.local/ns/default/sa/server";
    let names = chain["subject_alt_names"].as_array().unwrap();
    assert!(names.contains(&json!({"uri": uri})), "{certs}");
    assert!(chain["days_until_expiration"].as_str().is_some(), "{certs}");
    assert_eq!(certificate["ca_cert"][0]["path"], pki.root().to_str().unwrap());
}

async fn help_lists_the_endpoints(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = serving(program, &app).await;
    let help = proxy.admin().get("/help").send().await.text();
    for endpoint in [
        "/certs",
        "/clusters",
        "/config_dump",
        "/drain_listeners",
        "/help",
        "/listeners",
        "/logging",
        "/quitquitquit",
        "/ready",
        "/reset_counters",
        "/server_info",
        "/stats",
        "/stats/prometheus",
    ] {
        assert!(help.contains(&format!("  {endpoint}")), "{endpoint} not in\n{help}");
    }
    assert_eq!(proxy.admin().get("/nonsense").send().await.status, 404);
}

async fn changes_need_post(program: Program) {
    let app = Backend::echo("app").await;
    let mut proxy = serving(program, &app).await;
    for path in ["/quitquitquit", "/drain_listeners", "/reset_counters", "/logging?level=debug"] {
        let reply = proxy.admin().get(path).send().await;
        assert_eq!(reply.status, 405, "{path}: {}", reply.text());
    }
    assert!(proxy.is_running());
    assert_eq!(proxy.get("/").send().await.status, 200);
}

async fn the_log_level_changes(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = serving(program, &app).await;
    let levels = async |query: &str| {
        let reply = proxy.admin().post(&format!("/logging{query}")).send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.text()
    };
    assert!(levels("").await.contains("  http: warning\n"));
    assert!(levels("?level=debug").await.contains("  http: debug\n"));
    let one = levels("?http=error").await;
    assert!(one.contains("  http: error\n") && one.contains("  admin: debug\n"), "{one}");
    let wrong = proxy.admin().post("/logging?level=loud").send().await;
    assert_eq!(wrong.status, 400, "{}", wrong.text());
}

async fn counters_can_be_reset(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = serving(program, &app).await;
    proxy.until_stat("cluster.app.upstream_rq_completed", |count| count == 4).await;
    assert_eq!(proxy.admin().post("/reset_counters").send().await.status, 200);
    assert_eq!(proxy.stat("cluster.app.upstream_rq_completed").await, 0);
    assert_eq!(proxy.stat("cluster.app.membership_total").await, 1, "gauges stay");
}

async fn quitquitquit_ends_the_process(program: Program) {
    let app = Backend::echo("app").await;
    let mut proxy = serving(program, &app).await;
    assert_eq!(proxy.admin().post("/quitquitquit").send().await.status, 200);
    assert_eq!(proxy.exit_status().await.code(), Some(0));
}

async fn drain_listeners_closes_the_ports(program: Program) {
    let app = Backend::echo("app").await;
    let mut proxy = serving(program, &app).await;
    assert_eq!(proxy.admin().post("/drain_listeners").send().await.status, 200);
    harness::eventually::eventually_true("new connections being refused", async || {
        proxy.client().connect().await.is_err()
    })
    .await;
    assert!(proxy.is_running());
    assert_eq!(proxy.admin().get("/ready").send().await.status, 200);
}
