//! What is given up first when memory or connections run out, and that a slow peer never costs memory.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use harness::client::Connection;
use harness::{
    Answer, Backend, Bootstrap, Client, Cluster, Http, Listener, Program, Proxy, RawConnection,
    Route, Value, eventually, json,
};

use crate::differences::{Differs, OVERLOAD_FLAG};

on_both!(
    requests_are_refused_when_memory_runs_out,
    a_listener_that_bypasses_the_overload_manager_serves,
    connections_wait_when_memory_runs_out,
    connections_are_rejected_when_memory_runs_out,
    a_heap_that_is_shrunk_serves_on,
    the_memory_of_the_cgroup_is_watched,
    a_monitor_is_called_by_its_name,
    connections_end_with_the_request_when_memory_runs_out,
    idle_connections_close_sooner_under_pressure,
    a_listener_has_a_limit_of_connections,
    all_listeners_share_a_limit_of_connections,
    a_client_that_does_not_read_costs_no_memory,
    an_upstream_that_does_not_read_costs_no_memory,
);

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A proxy that answers by itself, with pressure beyond all thresholds and one action that follows.
fn under_pressure(action: Value) -> Bootstrap {
    watching(heap(), action)
}

fn heap() -> Value {
    json!({
        "name": "envoy.resource_monitors.fixed_heap",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
            "max_heap_size_bytes": 1000,
        },
    })
}

/// A proxy that answers by itself, with one action that follows when `monitor` says so.
fn watching(monitor: Value, action: Value) -> Bootstrap {
    let mut action = action;
    action["triggers"] = json!([{"name": monitor["name"], "threshold": {"value": 0.95}}]);
    Bootstrap::routing([Route::prefix("/").direct(200, "served")]).with(
        "overload_manager",
        json!({"refresh_interval": "0.1s", "resource_monitors": Value::Array(vec![monitor]), "actions": [action]}),
    )
}

fn action(name: &str) -> Value {
    json!({"name": format!("envoy.overload_actions.{name}")})
}

async fn until_active(proxy: &Proxy, action: &str) {
    let name = format!("overload.envoy.overload_actions.{action}.active");
    proxy.until_stat(&name, |active| active == 1).await;
}

async fn requests_are_refused_when_memory_runs_out(program: Program) {
    let bootstrap = under_pressure(action("stop_accepting_requests"));
    let log = bootstrap.dir().join("log");
    let http = Http::routing([Route::prefix("/").direct(200, "served")])
        .text_log(&log, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%");
    let proxy = bootstrap.listener(Listener::new("logged", http)).start(program).await;
    until_active(&proxy, "stop_accepting_requests").await;
    let reply = Client::http1(proxy.address("logged")).get("/").send().await;
    assert_eq!((reply.status, reply.text()), (503, "envoy overloaded".to_owned()));
    let flag = if program.differs(OVERLOAD_FLAG) { "-" } else { "OM" };
    let line = eventually("a line in the log", async || {
        std::fs::read_to_string(&log).ok().filter(|text| text.ends_with('\n'))
    });
    assert_eq!(line.await, format!("503 {flag} overload\n"));
    let pressure = proxy.stat("overload.envoy.resource_monitors.fixed_heap.pressure").await;
    assert!(pressure > 100, "{pressure}");
}

async fn a_listener_that_bypasses_the_overload_manager_serves(program: Program) {
    let http = Http::routing([Route::prefix("/").direct(200, "served")]);
    let proxy = under_pressure(action("stop_accepting_requests"))
        .listener(Listener::new("vital", http).with("bypass_overload_manager", true))
        .start(program)
        .await;
    until_active(&proxy, "stop_accepting_requests").await;
    assert_eq!(proxy.get("/").send().await.status, 503);
    let vital = Client::http1(proxy.address("vital"));
    assert_eq!(vital.get("/").send().await.status, 200);
}

async fn connections_wait_when_memory_runs_out(program: Program) {
    let proxy = under_pressure(action("stop_accepting_connections")).start(program).await;
    until_active(&proxy, "stop_accepting_connections").await;
    // A connection that was being waited for when it began may still be taken.
    let address = proxy.address("main");
    let mut waiting = 0;
    for _ in 0..8 {
        let mut connection = RawConnection::open(address).await;
        connection.write(GET).await;
        let answer = tokio::time::timeout(Duration::from_millis(300), connection.read_head());
        waiting += u32::from(answer.await.is_err());
    }
    assert!(waiting >= 4, "{waiting} of 8 wait");
    // Nobody has looked at them, which a proxy that is merely slow would have by now.
    let accepted = proxy.stat("http.main.downstream_cx_total").await;
    assert!(accepted <= 8 - u64::from(waiting), "{accepted} were accepted");
}

async fn connections_are_rejected_when_memory_runs_out(program: Program) {
    let proxy = under_pressure(action("reject_incoming_connections")).start(program).await;
    until_active(&proxy, "reject_incoming_connections").await;
    let mut connection = proxy.connect().await;
    let (answer, _) = connection.read_to_close().await;
    assert_eq!(answer, "");
    assert!(overflow(&proxy, "downstream_cx_overload_reject").await >= 1);
}

async fn a_heap_that_is_shrunk_serves_on(program: Program) {
    let proxy = under_pressure(action("shrink_heap")).start(program).await;
    until_active(&proxy, "shrink_heap").await;
    assert_eq!(proxy.get("/").send().await.status, 200);
}

async fn the_memory_of_the_cgroup_is_watched(program: Program) {
    let files = ["memory.current", "memory/memory.usage_in_bytes"];
    if !files.iter().any(|file| std::path::Path::new("/sys/fs/cgroup").join(file).exists()) {
        // Not eprintln!, which the test runner swallows when a test passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED: this machine's cgroups count no memory");
        return;
    }
    let monitor = json!({
        "name": "envoy.resource_monitors.cgroup_memory",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors.cgroup_memory.v3.CgroupMemoryConfig",
            "max_memory_bytes": 1000,
        },
    });
    let proxy = watching(monitor, action("stop_accepting_requests")).start(program).await;
    until_active(&proxy, "stop_accepting_requests").await;
    assert_eq!(proxy.get("/").send().await.status, 503);
}

async fn a_monitor_is_called_by_its_name(program: Program) {
    let mut monitor = heap();
    monitor["name"] = "the heap".into();
    let proxy = watching(monitor, action("stop_accepting_requests")).start(program).await;
    until_active(&proxy, "stop_accepting_requests").await;
    assert!(proxy.stat("overload.the heap.pressure").await > 100);
}

async fn connections_end_with_the_request_when_memory_runs_out(program: Program) {
    let proxy = under_pressure(action("disable_http_keepalive")).start(program).await;
    until_active(&proxy, "disable_http_keepalive").await;
    let reply = proxy.get("/").send().await;
    assert_eq!((reply.status, reply.header("connection").as_deref()), (200, Some("close")));
    proxy.until_stat("http.main.downstream_cx_overload_disable_keepalive", |it| it == 1).await;
}

async fn idle_connections_close_sooner_under_pressure(program: Program) {
    let mut reduce = action("reduce_timeouts");
    reduce["typed_config"] = json!({
        "@type": "type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
        "timer_scale_factors": [{"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "0.5s"}],
    });
    let proxy = under_pressure(reduce).start(program).await;
    until_active(&proxy, "reduce_timeouts").await;
    let mut connection = RawConnection::open(proxy.address("main")).await;
    connection.write(GET).await;
    // The configured idle timeout is an hour.
    let all = connection.read_to_end().await;
    assert!(all.starts_with("HTTP/1.1 200"), "{all}");
    proxy.until_stat("http.main.downstream_cx_idle_timeout", |count| count == 1).await;
}

/// Those of `count` connections that are served rather than closed.
async fn served(address: SocketAddr, count: usize) -> Vec<Connection> {
    let client = Client::http1(address);
    let mut open = Vec::new();
    for _ in 0..count {
        let Ok(mut connection) = client.connect().await else { continue };
        if connection.send(client.get("/")).await.is_ok() {
            open.push(connection);
        }
    }
    open
}

async fn a_listener_has_a_limit_of_connections(program: Program) {
    let layer = json!({"name": "s", "static_layer": {
        "envoy.resource_limits.listener.main.connection_limit": 2
    }});
    let proxy = Bootstrap::routing([Route::prefix("/").direct(200, "served")])
        .with("layered_runtime", json!({"layers": [layer]}))
        .start(program)
        .await;
    let open = served(proxy.address("main"), 4).await;
    assert_eq!(open.len(), 2);
    assert_eq!(overflow(&proxy, "downstream_cx_overflow").await, 2);
    drop(open);
    until_served(&proxy).await;
}

async fn all_listeners_share_a_limit_of_connections(program: Program) {
    let monitor = json!({
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": 3,
        },
    });
    let http = || Http::routing([Route::prefix("/").direct(200, "served")]);
    let proxy = Bootstrap::http(http())
        .listener(Listener::new("other", http()))
        .listener(Listener::new("free", http()).with("ignore_global_conn_limit", true))
        .with("overload_manager", json!({"resource_monitors": [monitor]}))
        // The admin API counts as well, unless told otherwise.
        .with("admin.ignore_global_conn_limit", true)
        .start(program)
        .await;
    let first = served(proxy.address("other"), 2).await;
    let second = served(proxy.address("main"), 2).await;
    assert_eq!((first.len(), second.len()), (2, 1));
    assert_eq!(served(proxy.address("free"), 2).await.len(), 2);
    assert_eq!(overflow(&proxy, "downstream_global_cx_overflow").await, 1);
    drop((first, second));
    until_served(&proxy).await;
}

async fn overflow(proxy: &Proxy, name: &str) -> u64 {
    let address = proxy.address("main").to_string().replace(':', "_");
    proxy.stat(&format!("listener.{address}.{name}")).await
}

async fn until_served(proxy: &Proxy) {
    eventually("room for a connection", async || {
        (!served(proxy.address("main"), 1).await.is_empty()).then_some(())
    })
    .await;
}

/// How much a peer that does not read may cost: buffers of both sides and then some, and far less than what
/// is on its way.
const SOME: u64 = 24 << 20;
const MUCH: usize = 256 << 20;

async fn a_client_that_does_not_read_costs_no_memory(program: Program) {
    let piece = Bytes::from(vec![b'x'; 1 << 20]);
    let app = Backend::scripted("app", move |_| {
        let pieces = (0..MUCH / piece.len()).map(|_| piece.clone());
        pieces.fold(Answer::status(200), |answer, it| answer.body_after(Duration::ZERO, it))
    });
    let app = app.await;
    let proxy = Bootstrap::routing([Route::prefix("/").to("app")])
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    assert_eq!(proxy.get("/none").host("warm").send().await.status, 200);
    let before = proxy.private_memory();
    let mut connections = Vec::new();
    for _ in 0..4 {
        let mut connection = RawConnection::open(proxy.address("main")).await;
        connection.write(GET).await;
        connection.read_head().await;
        connections.push(connection);
    }
    stays_below(&proxy, before + SOME).await;
}

async fn an_upstream_that_does_not_read_costs_no_memory(program: Program) {
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = deaf.local_addr().unwrap();
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = deaf.accept().await {
            held.push(connection);
        }
    });
    let proxy = Bootstrap::routing([Route::prefix("/").to("app").with("route.timeout", "0s")])
        .cluster(Cluster::new("app").endpoint(address))
        .start(program)
        .await;
    let before = proxy.private_memory();
    let mut senders = Vec::new();
    for _ in 0..4 {
        let mut connection = RawConnection::open(proxy.address("main")).await;
        connection
            .write(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {MUCH}\r\n\r\n"))
            .await;
        senders.push(tokio::spawn(async move {
            let piece = vec![b'x'; 1 << 20];
            for _ in 0..MUCH / piece.len() {
                connection.write(&piece).await;
            }
        }));
    }
    stays_below(&proxy, before + SOME).await;
    assert!(senders.iter().all(|sender| !sender.is_finished()), "all of it went somewhere");
    senders.iter().for_each(tokio::task::JoinHandle::abort);
    held.abort();
}

/// Looks for a while, since what grows may grow slowly.
async fn stays_below(proxy: &Proxy, limit: u64) {
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let memory = proxy.private_memory();
        assert!(memory < limit, "{memory} bytes, {limit} were to suffice");
    }
}
