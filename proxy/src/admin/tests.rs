//! The API over a real socket, held against what a real Envoy 1.40 answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::server_info::CommandLine;
use super::*;
use crate::config::address::HostAddress;
use crate::config::bootstrap::Node;
use crate::discovery::{Assembler, Sources};
use crate::snapshot::Snapshot;
use crate::telemetry::logging::Level;

/// A proxy with one listener and one cluster that remembers what it was told.
#[derive(Default)]
struct Proxy {
    failing: AtomicBool,
    told: parking_lot::Mutex<Vec<String>>,
}

impl Control for Proxy {
    fn state(&self) -> State {
        if self.failing.load(Ordering::Relaxed) { State::Draining } else { State::Live }
    }

    fn listeners(&self) -> Vec<(Name, HostAddress)> {
        vec![("l1".into(), HostAddress::parse("127.0.0.1:19802"))]
    }

    fn drain_listeners(&self, drain: Drain) {
        self.told.lock().push(format!("{drain:?}"));
    }

    fn quit(&self) {
        self.told.lock().push("quit".to_owned());
    }

    fn fail_health_checks(&self, fail: bool) {
        self.failing.store(fail, Ordering::Relaxed);
    }
}

/// The API on a socket of its own; it ends with the test's runtime.
struct Api {
    address: SocketAddr,
    proxy: Arc<Proxy>,
    metrics: Arc<Metrics>,
}

async fn api() -> Api {
    let proxy = Arc::new(Proxy::default());
    let metrics = Arc::new(Metrics::default());
    let info = ServerInfo {
        started: Instant::now(),
        node: Node { id: "sidecar".to_owned(), ..Node::default() },
        options: CommandLine { concurrency: 2, mode: "Serve".to_owned(), ..Default::default() },
    };
    let state = AdminState {
        info: Arc::new(info),
        metrics: Arc::clone(&metrics),
        shown_stats: Arc::default(),
        logging: Logging::detached(Level::Info),
        access_logs: AccessLogger::start(Arc::clone(&metrics)).unwrap(),
        control: proxy.clone(),
        clusters: Arc::new(Clusters::new(Arc::clone(&metrics))),
        snapshots: Arc::new(SnapshotCell::new(Snapshot::default())),
        configuration: configuration(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let log = AdminLog { logs: Arc::default(), writer: state.access_logs.clone() };
    tokio::spawn(serve(listener, state, log, std::future::pending()));
    Api { address, proxy, metrics }
}

/// What a real Envoy dumped, without times and without what only Envoy has.
fn reference() -> Value {
    serde_json::from_str(include_str!("reference/config_dump.json")).unwrap()
}

/// The bootstrap that Envoy ran on, and a secret.
fn configuration() -> Arc<ConfigDump> {
    let mut bootstrap = reference()["configs"][0]["bootstrap"].clone();
    let key = json!({"inline_string": "SECRET"});
    let certificate = json!({"certificate_chain": key, "private_key": key});
    let secret = json!({"name": "s1", "tls_certificate": certificate});
    bootstrap["static_resources"]["secrets"] = json!([secret]);
    let sources = Sources { config_path: None, config_yaml: Some(bootstrap.to_string()) };
    Assembler::load(sources, Arc::default()).unwrap().dump()
}

/// Status, head and body of an answer.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert!(self.head.contains("content-type: application/json"), "{}", self.head);
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Api {
    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "").await
    }

    async fn post(&self, path: &str) -> Answer {
        self.send("POST", path, "").await
    }

    async fn send(&self, method: &str, path: &str, headers: &str) -> Answer {
        let mut stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let host = self.address;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }
}

#[tokio::test]
async fn help_says_what_envoys_does_of_what_is_here() {
    let api = api().await;
    let help = api.get("/help").await.body;
    let reference = include_str!("reference/help.txt");
    for line in help.lines().filter(|line| line.starts_with("  /") || !line.starts_with(' ')) {
        assert!(reference.lines().any(|known| known == line), "{line}");
    }
    let unknown = api.get("/nope").await;
    assert_eq!((unknown.status, unknown.body), (404, format!("invalid path. {help}")));
    let page = api.get("/").await;
    assert!(page.head.contains("text/html") && page.body.contains("action=\"/quitquitquit\""));
}

#[tokio::test]
async fn nothing_changes_by_get_or_for_another_site() {
    let api = api().await;
    for endpoint in endpoints::ENDPOINTS.iter().filter(|endpoint| endpoint.changes) {
        let answer = api.get(endpoint.path).await;
        assert_eq!(answer.status, 405, "{}", endpoint.path);
        assert_eq!(answer.body, "Method GET not allowed, POST required.");
        let foreign = api.send("POST", endpoint.path, "origin: http://evil.example\r\n").await;
        assert_eq!(foreign.status, 403, "{}", endpoint.path);
    }
    assert!(api.proxy.told.lock().is_empty());
    assert!(!api.proxy.failing.load(Ordering::Relaxed));
}

#[tokio::test]
async fn posts_reach_the_proxy() {
    let api = api().await;
    assert_eq!(api.get("/ready").await.body, "LIVE\n");
    assert_eq!(api.post("/healthcheck/fail").await.body, "OK\n");
    let ready = api.get("/ready").await;
    assert_eq!((ready.status, &*ready.body), (503, "DRAINING\n"));
    assert_eq!(api.post("/healthcheck/ok").await.body, "OK\n");
    assert_eq!(api.get("/ready").await.status, 200);
    api.post("/drain_listeners?graceful&inboundonly").await;
    api.post("/quitquitquit").await;
    let drain = Drain { graceful: true, inbound_only: true, skip_exit: false };
    assert_eq!(*api.proxy.told.lock(), [format!("{drain:?}"), "quit".to_owned()]);
    let shard = api.metrics.cluster("c1");
    shard.upstream_rq_total.add(3);
    api.post("/reset_counters").await;
    let stats = api.get("/stats?filter=c1.upstream_rq_total").await;
    assert_eq!(stats.body, "cluster.c1.upstream_rq_total: 0\n");
    assert_eq!(api.post("/reopen_logs").await.body, "OK\n");
}

#[tokio::test]
async fn statistics_are_selected_and_formatted() {
    let api = api().await;
    let (shard, _unused) = (api.metrics.cluster("c1"), api.metrics.http("ing"));
    shard.upstream_rq_total.inc();
    shard.upstream_rq_active.inc();
    let used = api.get("/stats?usedonly&filter=upstream_rq").await.body;
    assert_eq!(used, "cluster.c1.upstream_rq_active: 1\ncluster.c1.upstream_rq_total: 1\n");
    let gauges = api.get("/stats?type=Gauges&usedonly&filter=c1").await.body;
    assert_eq!(gauges, "cluster.c1.upstream_rq_active: 1\n");
    let json = api.get("/stats?format=json&filter=c1.upstream_rq_total").await.body;
    assert_eq!(json, r#"{"stats":[{"name":"cluster.c1.upstream_rq_total","value":1}]}"#);
    let days = api.get("/stats?filter=days_until").await.body;
    assert_eq!(days, "server.days_until_first_cert_expiring: 4294967295\n");
    let prometheus = api.get("/stats/prometheus?filter=c1.upstream_rq_total").await;
    assert!(prometheus.head.contains("content-type: text/plain; version=0.0.4"));
    assert!(
        prometheus.body.ends_with("envoy_cluster_upstream_rq_total{envoy_cluster_name=\"c1\"} 1\n")
    );
    let other = api.get("/stats?format=prometheus&filter=c1.upstream_rq_total").await;
    assert_eq!(prometheus.body, other.body);
    for bad in ["format=xml", "type=Bad", "filter=[", "histogram_buckets=bad"] {
        assert_eq!(api.get(&format!("/stats?{bad}")).await.status, 400, "{bad}");
    }
}

fn without_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("last_updated");
            fields.values_mut().for_each(without_times);
        }
        Value::Array(items) => items.iter_mut().for_each(without_times),
        _ => {}
    }
}

#[tokio::test]
async fn a_dump_is_the_one_envoy_made_of_the_same_bootstrap() {
    let api = api().await;
    let answer = api.get("/config_dump").await;
    assert!(answer.body.starts_with("{\n \"configs\": [\n  {\n   \"@type\": "));
    let mut ours = answer.json();
    without_times(&mut ours);
    ours["configs"][0]["bootstrap"]["static_resources"].as_object_mut().unwrap().remove("secrets");
    ours["configs"][5].as_object_mut().unwrap().remove("static_secrets");
    let reference = reference();
    for (ours, envoys) in
        ours["configs"].as_array().unwrap().iter().zip(reference["configs"].as_array().unwrap())
    {
        assert_eq!(ours, envoys, "{ours:#}\n{envoys:#}");
    }
    assert_eq!(ours, reference);
}

#[tokio::test]
async fn dumps_are_cut_to_what_was_asked_for_and_hold_no_keys() {
    let api = api().await;
    let secrets = api.get("/config_dump?resource=static_secrets").await.json();
    let certificate = &secrets["configs"][0]["secret"]["tls_certificate"];
    assert_eq!(certificate["private_key"], json!({"inline_string": "[redacted]"}));
    assert_eq!(certificate["certificate_chain"], json!({"inline_string": "SECRET"}));
    let with_eds = api.get("/config_dump?include_eds").await.json();
    assert_eq!(with_eds["configs"].as_array().unwrap().len(), 7);
    let masked = api.get("/config_dump?mask=bootstrap.node.id").await.json();
    let id = "sidecar~10.0.0.1~x.default~default.svc.cluster.local";
    let kind = "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump";
    let bootstrap = json!({"@type": kind, "bootstrap": {"node": {"id": id}}});
    assert_eq!(masked, json!({"configs": [bootstrap]}));
    let query = "resource=static_clusters&mask=cluster.name&name_regex=%5Ec1$";
    let resource = api.get(&format!("/config_dump?{query}")).await.json();
    let kind = "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster";
    let inner = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    let cluster = json!({"@type": kind, "cluster": {"@type": inner, "name": "c1"}});
    assert_eq!(resource, json!({"configs": [cluster]}));
    for nothing in ["resource=dynamic_listeners", "resource=static_listeners&name_regex=zzz"] {
        assert_eq!(api.get(&format!("/config_dump?{nothing}")).await.body, "{}\n");
    }
    for (query, status) in [
        ("resource=nope", 404),
        ("resource=bootstrap", 400),
        ("mask=nope", 400),
        ("name_regex=[", 400),
    ] {
        assert_eq!(api.get(&format!("/config_dump?{query}")).await.status, status, "{query}");
    }
}

#[tokio::test]
async fn log_levels_are_shown_and_set() {
    let api = api().await;
    let shown = api.post("/logging").await.body;
    assert!(shown.starts_with("active loggers:\n  admin: info\n") && shown.ends_with("\n\n"));
    assert!(api.post("/logging?level=warning").await.body.contains("  http: warning\n"));
    let one = api.post("/logging?http=debug").await.body;
    assert!(one.contains("  http: debug\n") && one.contains("  pool: warning\n"));
    assert!(api.post("/logging?paths=pool:off,http:trace").await.body.contains("  pool: off\n"));
    for bad in ["level=loud", "nope=info", "paths=nope:info", "a=info&b=info"] {
        let answer = api.post(&format!("/logging?{bad}")).await;
        assert_eq!(answer.status, 400, "{bad}");
        assert!(answer.body.contains("usage: /logging?level=<level>"));
    }
}

#[tokio::test]
async fn the_rest_has_envoys_shape() {
    let api = api().await;
    assert_eq!(api.get("/listeners").await.body, "l1::127.0.0.1:19802\n");
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": 19802}});
    assert_eq!(
        api.get("/listeners?format=json").await.json(),
        json!({"listener_statuses": [{"name": "l1", "local_address": address}]})
    );
    let info = api.get("/server_info").await.json();
    assert_eq!(info["state"], "LIVE");
    assert_eq!(info["node"]["id"], "sidecar");
    assert_eq!(info["command_line_options"]["concurrency"], 2);
    assert_eq!(info["version"].as_str().unwrap().split('/').count(), 5);
    assert_eq!(api.get("/certs").await.json(), json!({"certificates": []}));
    assert_eq!(api.get("/clusters").await.body, "");
    assert_eq!(api.get("/clusters?format=json").await.json(), json!({"cluster_statuses": []}));
    assert_eq!(api.get("/clusters?filter=[").await.status, 400);
    let memory = api.get("/memory").await.json();
    assert!(memory["total_physical_bytes"].as_str().unwrap().parse::<u64>().unwrap() > 1 << 20);
    assert_eq!(api.get("/runtime").await.json(), json!({"entries": {}, "layers": []}));
    assert_eq!(api.send("HEAD", "/ready", "").await.body, "");
}
