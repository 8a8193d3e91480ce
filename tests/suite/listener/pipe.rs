//! Listeners on Unix sockets.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use harness::discovery_files::DiscoveryFile;
use harness::{
    Backend, Bootstrap, Cluster, Http, Listener, Program, Proxy, Route, Tcp, TcpBackend, Value,
    eventually, json,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

on_both!(
    http_is_served_on_a_unix_socket,
    a_connection_over_a_unix_socket_has_no_address,
    a_unix_socket_may_count_as_internal,
    bytes_are_carried_from_a_unix_socket,
    a_listener_may_have_a_port_and_a_path,
    a_stale_socket_is_replaced,
    a_name_may_be_abstract,
    a_listener_on_a_path_comes_and_goes,
    a_path_that_cannot_be_bound_is_an_error,
    policies_know_no_address_of_a_unix_socket,
);

/// `listener` at a path instead of a port.
fn at(listener: Listener, path: &Path) -> Listener {
    listener.with("address", json!({"pipe": {"path": path}}))
}

/// What comes back for a request over HTTP/1.1 with `lines` for headers: the whole response.
async fn ask(path: impl AsRef<Path>, lines: &str) -> String {
    let mut stream = UnixStream::connect(path.as_ref()).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

fn status(response: &str) -> &str {
    response.get(9..12).unwrap_or_default()
}

async fn http_is_served_on_a_unix_socket(program: Program) {
    let app = Backend::echo("app").await;
    let bootstrap = Bootstrap::new().cluster(Cluster::new("app").endpoint(&app));
    let path = bootstrap.dir().join("in.sock");
    let http = Http::routing([Route::prefix("/").to("app")]);
    let listener =
        Listener::new("main", http).with("address", json!({"pipe": {"path": path, "mode": 0o640}}));
    let proxy = bootstrap.listener(listener).start(program).await;
    for _ in 0..8 {
        let response = ask(&path, "").await;
        assert_eq!(status(&response), "200", "{response}");
    }
    let file = std::fs::metadata(&path).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o640);

    let shown = path.display();
    let text = proxy.admin().get("/listeners").send().await.text();
    assert_eq!(text, format!("main::{shown}\n"));
    let json = proxy.admin().get("/listeners?format=json").send().await.json();
    let expected = json!([{"name": "main", "local_address": {"pipe": {"path": path}}}]);
    assert_eq!(json["listener_statuses"], expected);
    proxy.until_stat(&format!("listener.{shown}.downstream_cx_total"), |count| count == 8).await;
    proxy.until_stat(&format!("listener.{shown}.downstream_cx_active"), |count| count == 0).await;
}

async fn a_connection_over_a_unix_socket_has_no_address(program: Program) {
    const FORMAT: &str = "%DOWNSTREAM_LOCAL_ADDRESS% (%DOWNSTREAM_LOCAL_PORT%) \
        %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_ADDRESS% \
        %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% (%DOWNSTREAM_REMOTE_PORT%) \
        %DOWNSTREAM_DIRECT_REMOTE_ADDRESS% (%DOWNSTREAM_DIRECT_REMOTE_PORT%)";
    let app = Backend::echo("app").await;
    for trusts_peer in [true, false] {
        let bootstrap = Bootstrap::new().cluster(Cluster::new("app").endpoint(&app));
        let path = bootstrap.dir().join("in.sock");
        let everybody = json!({"cidr_ranges": [{"address_prefix": "0.0.0.0", "prefix_len": 0}]});
        let http = Http::routing([Route::prefix("/").to("app")])
            .with("use_remote_address", trusts_peer)
            .with("internal_address_config", everybody)
            .text_log(&bootstrap.dir().join("access.log"), FORMAT);
        let proxy = bootstrap.listener(at(Listener::new("main", http), &path)).start(program).await;
        let seen = app.count();
        assert_eq!(status(&ask(&path, "").await), "200");
        assert_eq!(status(&ask(&path, "x-forwarded-for: 10.1.1.1\r\n").await), "200");
        let calls = app.calls().split_off(seen);
        let said = |name: &str| calls.iter().map(|it| it.header(name)).collect::<Vec<_>>();
        assert_eq!(said("x-forwarded-for"), [None, Some("10.1.1.1")]);
        assert_eq!(said("x-envoy-external-address"), [None, None]);
        let internal = if trusts_peer { [None, None] } else { [None, Some("true")] };
        assert_eq!(said("x-envoy-internal"), internal, "{trusts_peer}");
        let lines = logged(&proxy, 2).await;
        let path = path.display();
        assert_eq!(lines[0], format!("{path} () {path} {path} {path} () {path} ()"));
        let client = match trusts_peer {
            true => format!("{path} {path} ()"),
            false => "10.1.1.1:0 10.1.1.1 (0)".to_owned(),
        };
        assert_eq!(lines[1], format!("{path} () {path} {client} {path} ()"));
    }
}

async fn a_unix_socket_may_count_as_internal(program: Program) {
    let app = Backend::echo("app").await;
    let bootstrap = Bootstrap::new().cluster(Cluster::new("app").endpoint(&app));
    let path = bootstrap.dir().join("in.sock");
    let http = Http::routing([Route::prefix("/").to("app")])
        .with("use_remote_address", true)
        .with("internal_address_config", json!({"unix_sockets": true}));
    let _proxy = bootstrap.listener(at(Listener::new("main", http), &path)).start(program).await;
    assert_eq!(status(&ask(&path, "").await), "200");
    assert_eq!(app.calls()[0].header("x-envoy-internal"), Some("true"));
}

async fn logged(proxy: &Proxy, lines: usize) -> Vec<String> {
    eventually(&format!("{lines} lines in the log"), async || {
        let text = std::fs::read_to_string(proxy.file("access.log")).ok()?;
        let found: Vec<String> = text.lines().map(str::to_owned).collect();
        (found.len() >= lines).then_some(found)
    })
    .await
}

async fn bytes_are_carried_from_a_unix_socket(program: Program) {
    const MANY: usize = 4 << 20;
    let app = TcpBackend::echo().await;
    let bootstrap = Bootstrap::new().cluster(Cluster::new("app").endpoint(&app));
    let path = bootstrap.dir().join("in.sock");
    let log = bootstrap.dir().join("access.log");
    let tcp = Tcp::to("app")
        .with("hash_policy", json!([{"source_ip": {}}]))
        .text_log(&log, "%DOWNSTREAM_REMOTE_ADDRESS% %BYTES_RECEIVED% %BYTES_SENT%");
    let proxy = bootstrap.listener(at(Listener::new("main", tcp), &path)).start(program).await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let sent: Vec<u8> = (0..MANY).map(|at| (at % 251) as u8).collect();
    let (mut input, mut output) = stream.split();
    let mut got = vec![0; MANY];
    let (wrote, read) = tokio::join!(output.write_all(&sent), input.read_exact(&mut got));
    wrote.unwrap();
    read.unwrap();
    assert!(got == sent, "what comes back is what was sent");
    drop(stream);
    assert_eq!(logged(&proxy, 1).await[0], format!("{} {MANY} {MANY}", path.display()));
}

async fn a_listener_may_have_a_port_and_a_path(program: Program) {
    let bootstrap = Bootstrap::new();
    let path = bootstrap.dir().join("in.sock");
    let http = Http::routing([Route::prefix("/").direct(200, "here")]);
    let also = json!([{"address": {"pipe": {"path": path}}}]);
    let listener = Listener::new("main", http).with("additional_addresses", also);
    let proxy = bootstrap.listener(listener).start(program).await;
    assert_eq!(proxy.get("/").send().await.text(), "here");
    assert!(ask(&path, "").await.ends_with("here"));
}

async fn a_stale_socket_is_replaced(program: Program) {
    let bootstrap = Bootstrap::new();
    let path = bootstrap.dir().join("in.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    UnixStream::connect(&path).await.unwrap_err();
    let http = Http::routing([Route::prefix("/").direct(200, "")]);
    let mut proxy = bootstrap.listener(at(Listener::new("main", http), &path)).start(program).await;
    assert_eq!(status(&ask(&path, "").await), "200");
    proxy.signal("TERM");
    proxy.exit_status().await;
    assert!(path.exists(), "the file stays");
}

async fn a_name_may_be_abstract(program: Program) {
    use std::os::linux::net::SocketAddrExt as _;
    let name = format!("outrigger-listener-{}-{program:?}", std::process::id());
    let http = Http::routing([Route::prefix("/").direct(200, "")]);
    let path = PathBuf::from(format!("@{name}"));
    let bootstrap = Bootstrap::new();
    let proxy = bootstrap.listener(at(Listener::new("main", http), &path)).start(program).await;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
    let stream = std::os::unix::net::UnixStream::connect_addr(&address).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut stream = UnixStream::from_std(stream).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    assert_eq!(status(&response), "200");
    let text = proxy.admin().get("/listeners").send().await.text();
    assert_eq!(text, format!("main::{}\n", path.display()));
}

async fn a_listener_on_a_path_comes_and_goes(program: Program) {
    let mut bootstrap = Bootstrap::new();
    let path = bootstrap.dir().join("in.sock");
    let mut listener = |body: &str| {
        let http = Http::routing([Route::prefix("/").direct(200, body)]);
        bootstrap.reserve_for(at(Listener::new("moving", http), &path))
    };
    let (one, two) = (listener("one"), listener("two"));
    let file = DiscoveryFile::listeners(bootstrap.dir());
    file.publish([one]);
    let proxy = bootstrap.with("dynamic_resources.lds_config", file.source()).start(program).await;
    assert!(ask(&path, "").await.ends_with("one"));
    file.publish([two]);
    eventually("the other answer", async || ask(&path, "").await.ends_with("two").then_some(()))
        .await;
    file.publish([]);
    eventually("nobody listens", async || UnixStream::connect(&path).await.err().map(drop)).await;
    proxy.until_stat("listener_manager.listener_removed", |count| count == 1).await;
}

async fn a_path_that_cannot_be_bound_is_an_error(program: Program) {
    let http = Http::routing([Route::prefix("/").direct(200, "")]);
    let path = Path::new("/nowhere/in.sock");
    let bootstrap = Bootstrap::new().listener(at(Listener::new("main", http), path));
    let file = bootstrap.file("bootstrap.yaml", bootstrap.to_yaml());
    let output = harness::proxy::command(program)
        .args(["--use-dynamic-base-id", "-c"])
        .arg(file)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/nowhere/in.sock"), "{said}");
}

async fn policies_know_no_address_of_a_unix_socket(program: Program) {
    let bootstrap = Bootstrap::new();
    let path = bootstrap.dir().join("in.sock");
    let anywhere = json!({"address_prefix": "0.0.0.0", "prefix_len": 0});
    let policy = |principal: &str| -> Value {
        json!({"rules": {"action": "ALLOW", "policies": {"all": {
            "permissions": [{"any": true}], "principals": [{principal: anywhere}]}}}})
    };
    let chain = |principal: &str| {
        let http = Http::routing([Route::prefix("/").direct(200, "")]);
        http.filter("rbac", "rbac.v3.RBAC", policy(principal))
    };
    let port = at(Listener::new("direct", chain("direct_remote_ip")), &path);
    let remote = bootstrap.dir().join("remote.sock");
    let other = at(Listener::new("remote", chain("remote_ip")), &remote);
    let _proxy = bootstrap.listener(port).listener(other).start(program).await;
    for path in [path, remote] {
        assert_eq!(status(&ask(&path, "").await), "403");
    }
}
