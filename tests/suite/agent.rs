//! The proxy as its own agent: its certificate comes from an Istio CA, and its secrets from itself.

use std::time::Duration;

use harness::load::Load;
use harness::{
    Backend, Bootstrap, Cluster, Http, IstioCa, Listener, Program, Proxy, Route, Value, eventually,
    json,
};

on_outrigger_only!(
    the_certificate_is_renewed_under_load because AN_AGENT_INSIDE,
    the_last_certificate_stays_while_the_ca_is_gone because AN_AGENT_INSIDE,
    a_certificate_stands_in_for_a_token_that_is_gone because AN_AGENT_INSIDE,
    nothing_is_served_before_there_is_a_certificate because AN_AGENT_INSIDE,
    a_ca_of_another_root_is_refused because AN_AGENT_INSIDE,
    a_kept_certificate_outlives_a_restart_without_the_ca because AN_AGENT_INSIDE,
);

const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const CALLS: &str = "istio_agent.csr.num_outgoing_requests";
const FAILED: &str = "istio_agent.csr.num_failed_outgoing_requests";

/// Its certificate and roots, as Istio's configuration names them.
fn own_secrets() -> Value {
    let source = json!({"api_config_source": {"api_type": "GRPC", "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}]}});
    json!({
        "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": source}],
        "combined_validation_context": {
            "default_validation_context": {
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": ID}}]
            },
            "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": source},
        },
    })
}

/// A bootstrap whose listener wants a client certificate of the mesh.
fn sidecar(ca: &IstioCa, app: &Backend, extra: &[&str]) -> Bootstrap {
    let context = json!({"common_tls_context": own_secrets(), "require_client_certificate": true});
    // Many connections: each one has a handshake with the certificates of its time.
    let http = Http::routing([Route::prefix("/").to("app")])
        .with("forward_client_cert_details", "SANITIZE_SET")
        .with("set_current_client_cert_details.uri", true)
        .with("common_http_protocol_options.max_requests_per_connection", 5);
    let bootstrap = Bootstrap::new()
        .listener(Listener::new("main", http).tls(context))
        .cluster(Cluster::new("app").endpoint(app));
    let options = ca.agent_options();
    let extra = extra.iter().map(|option| (*option).to_owned());
    options.into_iter().chain(extra).fold(bootstrap, Bootstrap::argument)
}

/// A proxy in front of `sidecar`, which asks the same CA.
async fn edge(program: Program, ca: &IstioCa, sidecar: &Proxy, extra: &[&str]) -> Proxy {
    let cluster = Cluster::new("app").endpoint(sidecar.address("main"));
    let bootstrap = Bootstrap::routing([Route::prefix("/").to("app")])
        .cluster(cluster.tls(json!({"common_tls_context": own_secrets()})));
    let options = ca.agent_options();
    let extra = extra.iter().map(|option| (*option).to_owned());
    options.into_iter().chain(extra).fold(bootstrap, Bootstrap::argument).start(program).await
}

/// Due as soon as they are there: renewed about once a second.
const RESTLESS: [&str; 4] = ["--renew-at", "0", "--renew-jitter", "0"];

async fn the_certificate_is_renewed_under_load(program: Program) {
    let (ca, app) = (IstioCa::start().await, Backend::echo("app").await);
    let sidecar = sidecar(&ca, &app, &RESTLESS).start(program).await;
    let edge = edge(program, &ca, &sidecar, &RESTLESS).await;
    let load = Load::on(edge.client()).per_second(200).over(4).lasting(Duration::from_secs(4));
    load.run(|client| client.get("/")).await.assert_flawless();
    for proxy in [&sidecar, &edge] {
        proxy.until_stat(CALLS, |calls| calls >= 3).await;
        assert_eq!(proxy.stat(FAILED).await, 0);
        // An hour less than the day it was signed for, at least.
        let left = proxy.stat("istio_agent.default.cert_expiry_seconds").await;
        assert!((82_800..=86_400).contains(&left), "{left}");
        let root = proxy.stat("istio_agent.ROOTCA.cert_expiry_seconds").await;
        assert!(root > 3_000 * 86_400, "{root}");
    }
    let seen = app.calls();
    let client = seen.last().unwrap().header("x-forwarded-client-cert").unwrap();
    assert!(client.contains(&format!("URI={ID}")), "{client}");
    let shown = edge.admin().get("/certs").send().await.text();
    assert!(shown.contains(ID) && shown.contains("days_until_expiration"), "{shown}");
    let metrics = edge.admin().get("/stats/prometheus").send().await.text();
    assert!(metrics.contains("\nistio_agent_cert_expiry_seconds{resource_name=\"default\"} "));
    for text in [edge.log(), sidecar.log(), shown] {
        assert!(!text.contains("PRIVATE KEY") && !text.contains("open-sesame"), "{text}");
    }
}

async fn the_last_certificate_stays_while_the_ca_is_gone(program: Program) {
    let (ca, app) = (IstioCa::start().await, Backend::echo("app").await);
    let sidecar = sidecar(&ca, &app, &RESTLESS).start(program).await;
    let edge = edge(program, &ca, &sidecar, &RESTLESS).await;
    ca.stop();
    for proxy in [&sidecar, &edge] {
        proxy.until_stat(FAILED, |failed| failed >= 2).await;
        assert!(proxy.log().contains("the last one stays"), "{}", proxy.log());
    }
    for _ in 0..20 {
        assert_eq!(edge.get("/").send().await.status, 200);
    }
}

async fn a_certificate_stands_in_for_a_token_that_is_gone(program: Program) {
    let (ca, app) = (IstioCa::start().await, Backend::echo("app").await);
    let sidecar = sidecar(&ca, &app, &RESTLESS).start(program).await;
    let signed = || ca.counted("success_cert_issuance_count");
    std::fs::write(ca.file("token"), "simsalabim").unwrap();
    let before = signed();
    eventually("renewals by certificate", async || (signed() >= before + 2).then_some(())).await;
    assert!(ca.counted("authentication_failure_count") > 0, "the token is tried first");
    std::fs::remove_file(ca.file("token")).unwrap();
    let before = signed();
    eventually("renewals without token", async || (signed() >= before + 2).then_some(())).await;
    drop(sidecar);
}

async fn nothing_is_served_before_there_is_a_certificate(program: Program) {
    let (ca, app) = (IstioCa::start().await, Backend::echo("app").await);
    std::fs::write(ca.file("token"), "simsalabim").unwrap();
    let bootstrap = sidecar(&ca, &app, &[]);
    let (admin, log) = (bootstrap.admin_address(), bootstrap.dir().join("proxy.log"));
    let give = async {
        let denied = || ca.counted("authentication_failure_count");
        eventually("a refusal", async || (denied() > 0).then_some(())).await;
        let ready = harness::Client::http1(admin).get("/ready").send().await;
        assert_eq!(ready.status, 503);
        let said = std::fs::read_to_string(log).unwrap();
        assert!(said.contains("--ca-token") && said.contains("not served"), "{said}");
        assert!(!said.contains("simsalabim"), "a token is nothing to print: {said}");
        std::fs::write(ca.file("token"), "open-sesame").unwrap();
    };
    let (sidecar, ()) = tokio::join!(bootstrap.start(program), give);
    let edge = edge(program, &ca, &sidecar, &[]).await;
    assert_eq!(edge.get("/").send().await.status, 200);
}

async fn a_ca_of_another_root_is_refused(program: Program) {
    let (ca, app) = (IstioCa::start().await, Backend::echo("app").await);
    let (good, other) = (ca.file("root.pem"), harness::Pki::new());
    let root = std::fs::read(&good).unwrap();
    std::fs::write(&good, other.root_pem()).unwrap();
    let bootstrap = sidecar(&ca, &app, &[]);
    let log = bootstrap.dir().join("proxy.log");
    let mend = async {
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        eventually("what to check", async || said().contains("CA_ROOT_CA").then_some(())).await;
        assert_eq!(ca.counted("csr_count"), 0, "nobody else gets to see the token");
        std::fs::write(&good, root).unwrap();
    };
    let (_sidecar, ()) = tokio::join!(bootstrap.start(program), mend);
    assert_eq!(ca.counted("success_cert_issuance_count"), 1);
}

async fn a_kept_certificate_outlives_a_restart_without_the_ca(program: Program) {
    let (ca, app) = (IstioCa::start().await, Backend::echo("app").await);
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path().join("certs");
    let options = ["--output-certs", certs.to_str().unwrap()];
    let mut sidecar = sidecar(&ca, &app, &options).start(program).await;
    let edge = edge(program, &ca, &sidecar, &[]).await;
    assert_eq!(edge.get("/").send().await.status, 200);
    let read = |name: &str| std::fs::read_to_string(certs.join(name)).unwrap();
    let first = read("key.pem");
    for name in ["cert-chain.pem", "root-cert.pem"] {
        assert!(read(name).contains("BEGIN CERTIFICATE"), "{name}");
    }
    // While the CA is there, a new process has a new key.
    sidecar.kill();
    sidecar.start_again().await;
    eventually("another key", async || (read("key.pem") != first).then_some(())).await;
    ca.stop();
    sidecar.kill();
    sidecar.start_again().await;
    eventually("the edge to be answered", async || {
        (edge.get("/").send().await.status == 200).then_some(())
    })
    .await;
    sidecar.until_stat(FAILED, |failed| failed >= 1).await;
    assert!(sidecar.log().contains("the last one stays"), "{}", sidecar.log());
}
