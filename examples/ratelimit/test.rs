//! Proxies that ask the rate limit service, with counts in memory and in Redis.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use harness::bootstrap::typed;
use harness::port::Port;
use harness::{
    Answer, Backend, Bootstrap, Client, Cluster, Http, Listener, Program, Proxy, Relay, Route,
    Traffic, eventually, json,
};

/// A process that ends with its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn service(at: SocketAddr, redis: Option<SocketAddr>) -> Process {
    let limits = Path::new(env!("CARGO_MANIFEST_DIR")).join("ratelimit/limits.yaml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ratelimit"));
    command.arg("--config").arg(limits).arg("--listen").arg(at.to_string());
    if let Some(redis) = redis {
        command.arg("--redis").arg(redis.to_string());
    }
    Process(command.stderr(Stdio::null()).spawn().unwrap())
}

/// A Redis that keeps nothing; none, said loudly, where it is not installed.
fn redis(at: SocketAddr) -> Option<Process> {
    let port = at.port().to_string();
    let command = ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"];
    match Command::new("redis-server").args(command).stdout(Stdio::null()).spawn() {
        Ok(child) => Some(Process(child)),
        Err(_) => {
            assert!(std::env::var_os("REQUIRE_REDIS").is_none(), "no redis-server");
            // Not eprintln!, which the test runner swallows when a test passes.
            let _ = writeln!(std::io::stderr(), "SKIPPED: no `redis-server` on PATH");
            None
        }
    }
}

async fn proxy(program: Program, app: &Backend, service: SocketAddr, deny: bool) -> Proxy {
    let filter = json!({
        "domain": "shop",
        "timeout": "2s",
        "failure_mode_deny": deny,
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        "rate_limit_service": {
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "ratelimit"}},
        },
    });
    let filter = typed("envoy.extensions.filters.http.ratelimit.v3.RateLimit", filter);
    let router = typed("envoy.extensions.filters.http.router.v3.Router", json!({}));
    let user = json!({"request_headers": {"header_name": "x-user", "descriptor_key": "user"}});
    let purchase = json!({"generic_key": {"descriptor_value": "purchase"}});
    let route = Route::prefix("/").to("app");
    let route = route.with("route.rate_limits", json!([{"actions": [purchase, user]}]));
    let http = Http::routing([route]).with(
        "http_filters",
        json!([
            {"name": "ratelimit", "typed_config": filter},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ]),
    );
    Bootstrap::new()
        .listener(Listener::new("main", http))
        .cluster(Cluster::new("app").endpoint(app))
        .cluster(Cluster::new("ratelimit").endpoint(service).http2())
        .start(program)
        .await
}

/// Status of a purchase, and how many are left.
async fn buy(proxy: &Proxy, user: &str) -> (u16, Option<String>) {
    let reply = proxy.get("/").header("x-user", user).send().await;
    (reply.status, reply.header("x-ratelimit-remaining"))
}

fn left(status: u16, left: &str) -> (u16, Option<String>) {
    (status, Some(left.to_owned()))
}

/// Waits until the service counts again, for a user of its own.
async fn until_counted(proxy: &Proxy, user: &str) {
    eventually("the service to be asked", async || {
        buy(proxy, user).await.1.is_some().then_some(())
    })
    .await;
}

fn programs() -> impl Iterator<Item = Program> {
    [Program::Outrigger, Program::Envoy].into_iter().filter(|program| program.is_installed())
}

#[tokio::test]
async fn counts_are_kept_in_memory() {
    for program in programs() {
        let app = Backend::echo("app").await;
        let port = Port::reserve();
        let running = service(port.address(), None);
        let proxy = proxy(program, &app, port.address(), false).await;
        until_counted(&proxy, "probe").await;
        for expected in [left(200, "2"), left(200, "1"), left(200, "0"), left(429, "0")] {
            assert_eq!(buy(&proxy, "ann").await, expected, "{program:?}");
        }
        assert_eq!(buy(&proxy, "bob").await, left(200, "2"));
        drop(running);
        assert_eq!(buy(&proxy, "ann").await, (200, None), "{program:?} fails open");
        let _running = service(port.address(), None);
        until_counted(&proxy, "probe").await;
        // What it counted is gone with it.
        assert_eq!(buy(&proxy, "ann").await, left(200, "2"));
    }
}

#[tokio::test]
async fn processes_share_their_counts_in_redis() {
    for program in programs() {
        let app = Backend::echo("app").await;
        let (store, first, second) = (Port::reserve(), Port::reserve(), Port::reserve());
        let Some(running) = redis(store.address()) else { return };
        let _first = service(first.address(), Some(store.address()));
        let _second = service(second.address(), Some(store.address()));
        let one = proxy(program, &app, first.address(), true).await;
        let other = proxy(program, &app, second.address(), true).await;
        until_counted(&one, "probe").await;
        until_counted(&other, "probe").await;
        assert_eq!(buy(&one, "ann").await, left(200, "2"));
        assert_eq!(buy(&other, "ann").await, left(200, "1"));
        assert_eq!(buy(&one, "ann").await, left(200, "0"));
        assert_eq!(buy(&other, "ann").await, left(429, "0"));
        drop(running);
        assert_eq!(buy(&one, "bob").await, (500, None), "{program:?} fails closed");
        let _running = redis(store.address()).expect("it was there");
        until_counted(&one, "probe").await;
        assert_eq!(buy(&one, "ann").await, left(200, "2"));
    }
}

#[tokio::test]
async fn requests_are_refused_while_redis_is_away() {
    for program in programs() {
        let app = Backend::scripted("app", |_| Answer::status(200)).await;
        let (store, at) = (Port::reserve(), Port::reserve());
        let Some(_redis) = redis(store.address()) else { return };
        let mut relay = Relay::to(&store).await;
        let _service = service(at.address(), Some((&relay).into()));
        let proxy = proxy(program, &app, at.address(), true).await;
        until_counted(&proxy, "probe").await;
        // Of users each of whom comes once.
        let came = Arc::new(AtomicU32::new(0));
        let ask = move |client: &Client| {
            client.get("/").header("x-user", &came.fetch_add(1, Relaxed).to_string())
        };
        let main = proxy.address("main");
        let users = [Client::http1(main), Client::http2(main)].into_iter().cycle().take(8);
        let mut traffic = Traffic::of(users, ask, |reply| reply.status.to_string());
        traffic.may_be(&["200"]);
        traffic.until(40, Duration::ZERO).await;
        for hangs in [false, true] {
            traffic.may_be(&["200", "500"]);
            if hangs {
                relay.hang().await;
            } else {
                relay.kill().await;
            }
            traffic.settled(4, "500").await;
            traffic.may_be(&["500"]);
            traffic.until(8, Duration::ZERO).await;
            traffic.may_be(&["500", "200"]);
            relay.restart().await;
            traffic.settled(16, "200").await;
            traffic.may_be(&["200"]);
            traffic.until(40, Duration::ZERO).await;
        }
        traffic.end().await;
    }
}
