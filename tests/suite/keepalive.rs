//! TCP keepalive on both sides, as the kernel tells of the proxy's sockets.

use std::net::SocketAddr;

use harness::bootstrap::socket_address;
use harness::{Backend, Bootstrap, Cluster, Http, Listener, Program, Proxy, Route, json};
use tokio::net::TcpStream;

on_both!(
    both_sides_are_kept_alive,
    socket_options_keep_clients_alive,
    nothing_is_kept_alive_unasked,
    a_time_of_zero_turns_it_off,
);

/// A connection from a client to the proxy.
async fn client(at: SocketAddr) -> TcpStream {
    TcpStream::connect(at).await.unwrap()
}

/// How many seconds the socket from `local` (if that is known) to `remote` has until a keepalive probe is due; none
/// if none will be.
fn probe_in(local: Option<SocketAddr>, remote: SocketAddr) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let hex = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let sockets = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut found = sockets.filter(|fields| {
        let [_, from, to, state, ..] = &fields[..] else { return false };
        *to == hex(remote) && *state == "01" && local.is_none_or(|local| *from == hex(local))
    });
    let socket = found.next().expect("the connection");
    assert!(found.next().is_none(), "one connection only");
    let (timer, due) = socket[5].split_once(':').unwrap();
    // In hundredths of a second.
    (timer == "02").then(|| u64::from_str_radix(due, 16).unwrap() / 100)
}

/// Of the connection from `client` as the proxy has it.
fn downstream(client: &TcpStream) -> Option<u64> {
    probe_in(Some(client.peer_addr().unwrap()), client.local_addr().unwrap())
}

fn is_about(seen: Option<u64>, seconds: u64) -> bool {
    seen.is_some_and(|seen| (seconds - 30..=seconds).contains(&seen))
}

fn listener() -> Listener {
    Listener::new("main", Http::routing([Route::prefix("/").to("app")]))
}

/// A request has gone through, so that there is one upstream connection.
async fn start(program: Program, listener: Listener, cluster: Cluster) -> Proxy {
    let proxy = Bootstrap::new().listener(listener).cluster(cluster).start(program).await;
    assert_eq!(proxy.get("/").send().await.status, 200);
    proxy
}

async fn both_sides_are_kept_alive(program: Program) {
    let app = Backend::echo("app").await;
    let mut bootstrap = Bootstrap::new();
    let (second, third) = (bootstrap.reserve("second"), bootstrap.reserve("third"));
    let listener = listener().with("tcp_keepalive", json!({"keepalive_time": 300})).with(
        "additional_addresses",
        json!([
            {"address": socket_address(second)},
            {"address": socket_address(third), "tcp_keepalive": {"keepalive_time": 400}},
        ]),
    );
    let options = json!({"keepalive_time": 200, "keepalive_probes": 4, "keepalive_interval": 5});
    let cluster = Cluster::new("app")
        .endpoint(&app)
        .with("upstream_connection_options.tcp_keepalive", options);
    let proxy = bootstrap.listener(listener).cluster(cluster).start(program).await;
    for (address, seconds) in [(proxy.address("main"), 300), (second, 300), (third, 400)] {
        let client = client(address).await;
        harness::eventually("the connection is accepted", async || {
            is_about(downstream(&client), seconds).then_some(())
        })
        .await;
    }
    assert_eq!(proxy.get("/").send().await.status, 200);
    let seen = probe_in(None, app.address());
    assert!(is_about(seen, 200), "{seen:?}");
}

async fn socket_options_keep_clients_alive(program: Program) {
    let app = Backend::echo("app").await;
    let option = |level: i32, name: i32, value: i32| json!({"level": level, "name": name, "int_value": value, "state": "STATE_PREBIND"});
    // SO_KEEPALIVE and TCP_KEEPIDLE.
    let listener = listener().with("socket_options", json!([option(1, 9, 1), option(6, 4, 300)]));
    let proxy = start(program, listener, Cluster::new("app").endpoint(&app)).await;
    let seen = downstream(&client(proxy.address("main")).await);
    assert!(is_about(seen, 300), "{seen:?}");
}

async fn nothing_is_kept_alive_unasked(program: Program) {
    let app = Backend::echo("app").await;
    let proxy = start(program, listener(), Cluster::new("app").endpoint(&app)).await;
    assert_eq!(downstream(&client(proxy.address("main")).await), None);
    assert_eq!(probe_in(None, app.address()), None);
}

async fn a_time_of_zero_turns_it_off(program: Program) {
    let app = Backend::echo("app").await;
    let off = json!({"keepalive_time": 0, "keepalive_probes": 3});
    let listener = listener().with("tcp_keepalive", off.clone());
    let cluster =
        Cluster::new("app").endpoint(&app).with("upstream_connection_options.tcp_keepalive", off);
    let proxy = start(program, listener, cluster).await;
    assert_eq!(downstream(&client(proxy.address("main")).await), None);
    assert_eq!(probe_in(None, app.address()), None);
}
