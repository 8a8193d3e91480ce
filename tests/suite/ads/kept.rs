//! The last good configuration on disk: a restart serves with it at once, the server's is taken up when that returns, and
//! what is of no use is left alone.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use harness::eventually::{eventually, eventually_true};
use harness::management::{ManagementServer, resource};
use harness::{Backend, Bootstrap, Client, Pki, Program, Proxy, Relay, Value, json};
use xds::envoy::config::listener::v3::Listener;
use xds::envoy::extensions::transport_sockets::tls::v3::Secret;
use xds::type_url::ResourceType;

use super::resources::{
    VARIANTS, ads, cluster, endpoints, listener, listener_value, managed, routes,
};

on_outrigger_only!(
    a_restart_without_the_server_serves_at_once because KEPT_ON_DISK,
    what_was_taken_away_does_not_come_back because KEPT_ON_DISK,
    what_is_of_no_use_is_left_alone because KEPT_ON_DISK,
    keys_are_not_kept because KEPT_ON_DISK,
);

/// Has the proxy keep what it is sent beside its bootstrap.
fn keeping(bootstrap: Bootstrap) -> Bootstrap {
    let directory = bootstrap.dir().join("kept").display().to_string();
    bootstrap.argument("--config-cache-dir").argument(directory)
}

fn kept(proxy: &Proxy) -> PathBuf {
    proxy.file("kept/last-good.xds")
}

/// Waits until everything is kept that is there, up to the table.
async fn until_all_is_kept(proxy: &Proxy) {
    eventually_true("everything to be kept", async || {
        let bytes = std::fs::read(kept(proxy)).unwrap_or_default();
        contains(&bytes, "v3.RouteConfiguration")
    })
    .await;
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

/// The dump's entry of a dynamic cluster.
async fn dumped(proxy: &Proxy, cluster: &str) -> Value {
    let dump = proxy.admin().get("/config_dump?resource=dynamic_active_clusters").send().await;
    let dump = dump.json();
    let entries = dump["configs"].as_array().unwrap();
    entries.iter().find(|it| it["cluster"]["name"] == cluster).unwrap().clone()
}

async fn a_restart_without_the_server_serves_at_once(program: Program) {
    for variant in VARIANTS {
        let (server, app) = (ManagementServer::start(), Backend::echo("app").await);
        let mut relay = Relay::to(&server).await;
        let mut bootstrap = Bootstrap::new();
        let main = bootstrap.reserve("main");
        let first = [cluster("one"), endpoints("one", &app), listener(main, "x"), routes("one")];
        server.publish(first, []);
        let bootstrap = keeping(managed(bootstrap, &relay, variant, &ads()));
        let mut proxy = bootstrap.start(program).await;
        assert_eq!(proxy.stat("config_cache.resources_in_use").await, 0);
        until_all_is_kept(&proxy).await;
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(kept(&proxy)), mode(proxy.file("kept"))], [0o600, 0o700]);

        relay.kill().await;
        proxy.kill();
        proxy.start_again().await;
        assert_eq!(proxy.get("/").send().await.status, 200);
        proxy
            .until_stats([
                ("server.live", 1),
                ("control_plane.connected_state", 0),
                ("config_cache.resources_in_use", 4),
                ("cluster_manager.cds.update_success", 0),
            ])
            .await;
        let one = dumped(&proxy, "one").await;
        assert_eq!(one["client_status"], "REQUESTED", "{one}");
        assert!(one["version_info"].as_str().is_some_and(|it| !it.is_empty()), "{one}");
        assert!(proxy.log().contains("the configuration of the last run is in use"));

        // Only what has changed meanwhile is sent.
        let other = Backend::echo("other").await;
        server.forget();
        server.publish([endpoints("one", &other)], []);
        relay.restart().await;
        eventually_true("what has changed meanwhile", async || {
            assert_eq!(proxy.get("/").send().await.status, 200);
            other.count() > 0
        })
        .await;
        let told = server.told();
        let said = told.said_of();
        assert!(said.contains(&ResourceType::Endpoints), "{variant}: {said:?}");
        // In the other variant, a version says nothing of single names.
        let tables = (variant == "DELTA_GRPC").then_some(ResourceType::Routes);
        for kind in [ResourceType::Cluster, ResourceType::Listener].into_iter().chain(tables) {
            assert!(!said.contains(&kind), "{variant}: {said:?}");
        }
        assert_eq!(told.nacks(), []);
        let left = if tables.is_some() { 3 } else { 2 };
        proxy.until_stat("config_cache.resources_in_use", |count| count == left).await;
    }
}

async fn what_was_taken_away_does_not_come_back(program: Program) {
    for variant in VARIANTS {
        let (server, app) = (ManagementServer::start(), Backend::echo("app").await);
        let mut relay = Relay::to(&server).await;
        let mut bootstrap = Bootstrap::new();
        let [main, early, late] = ["main", "early", "late"].map(|it| bootstrap.reserve(it));
        let named = |name: &str, address| {
            resource::<Listener>(&listener_value(name, address, name, "routes", &ads()))
        };
        server.publish([cluster("one"), endpoints("one", &app), routes("one")], []);
        let listeners = [named("main", main), named("early", early), named("late", late)];
        server.publish(listeners, []);
        let bootstrap = keeping(managed(bootstrap, &relay, variant, &ads()));
        let mut proxy = bootstrap.start(program).await;
        until_all_is_kept(&proxy).await;
        let answers = async |address| Client::http1(address).get("/").try_send().await.is_ok();
        // While the proxy runs, ...
        server.publish([], [(ResourceType::Listener, "early")]);
        eventually_true("the listener to be forgotten", async || {
            !contains(&std::fs::read(kept(&proxy)).unwrap(), "early")
        })
        .await;
        relay.kill().await;
        proxy.kill();
        proxy.start_again().await;
        assert!(answers(main).await && answers(late).await && !answers(early).await);
        // ... and while it is gone.
        server.publish([], [(ResourceType::Listener, "late")]);
        relay.restart().await;
        eventually_true("the listener to be closed", async || !answers(late).await).await;
        assert!(answers(main).await);
        assert_eq!(server.told().nacks(), []);
    }
}

async fn what_is_of_no_use_is_left_alone(program: Program) {
    let (server, app) = (ManagementServer::start(), Backend::echo("app").await);
    let mut bootstrap = Bootstrap::new();
    let main = bootstrap.reserve("main");
    let first = [cluster("one"), endpoints("one", &app), listener(main, "x"), routes("one")];
    server.publish(first, []);
    let bootstrap = keeping(managed(bootstrap, &server, "DELTA_GRPC", &ads()));
    let mut proxy = bootstrap.start(program).await;
    until_all_is_kept(&proxy).await;
    let good = std::fs::read(kept(&proxy)).unwrap();
    let flipped = {
        let mut bytes = good.clone();
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    let newer = String::from_utf8_lossy(&good).replacen("format 1", "format 9", 1).into_bytes();
    let cases = [
        (good[..good.len() / 2].to_vec(), "it is damaged"),
        (flipped, "it is damaged"),
        (Vec::new(), "no configuration kept by this version"),
        (newer, "no configuration kept by this version"),
    ];
    for (bytes, reason) in cases {
        proxy.kill();
        std::fs::write(kept(&proxy), bytes).unwrap();
        // What was being written when the machine stopped is nothing.
        std::fs::write(proxy.file("kept/last-good.xds.new"), "half").unwrap();
        proxy.start_again().await;
        assert_eq!(proxy.get("/").send().await.status, 200);
        assert_eq!(proxy.stat("config_cache.load_rejected").await, 1);
        assert!(proxy.log().contains(reason), "{reason}");
        eventually("a good file", async || {
            (std::fs::read(kept(&proxy)).unwrap().len() == good.len()).then_some(())
        })
        .await;
    }
    // Another node's, such as that of the pod that was here before.
    proxy.kill();
    let yaml = std::fs::read_to_string(proxy.file("bootstrap.yaml")).unwrap();
    std::fs::write(proxy.file("bootstrap.yaml"), yaml.replace("test-node", "other-node")).unwrap();
    proxy.start_again().await;
    assert_eq!(proxy.get("/").send().await.status, 200);
    assert!(proxy.log().contains("it was kept for node"), "{}", proxy.log());
    assert_eq!(server.told().nacks(), []);
}

async fn keys_are_not_kept(program: Program) {
    let (server, app, pki) = (ManagementServer::start(), Backend::echo("app").await, Pki::new());
    let identity = pki.workload("server");
    let mut relay = Relay::to(&server).await;
    let mut bootstrap = Bootstrap::new();
    let [main, inline, discovered] =
        ["main", "inline", "discovered"].map(|it| bootstrap.reserve(it));
    let certificate = json!({
        "certificate_chain": {"inline_string": identity.chain_pem()},
        "private_key": {"inline_string": identity.key_pem()},
    });
    let with_tls = |name: &str, address, common: Value| {
        let mut value = listener_value(name, address, name, "routes", &ads());
        let context = harness::bootstrap::typed(
            "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            json!({"common_tls_context": common}),
        );
        value["filter_chains"][0]["transport_socket"] =
            json!({"name": "tls", "typed_config": context});
        resource::<Listener>(&value)
    };
    let asks =
        json!({"tls_certificate_sds_secret_configs": [{"name": "secret", "sds_config": ads()}]});
    server.publish([cluster("one"), endpoints("one", &app), routes("one")], []);
    server.publish(
        [
            listener(main, "x"),
            with_tls("inline", inline, json!({"tls_certificates": [certificate]})),
            with_tls("discovered", discovered, asks),
            resource::<Secret>(&json!({"name": "secret", "tls_certificate": certificate})),
        ],
        [],
    );
    let bootstrap = keeping(managed(bootstrap, &relay, "GRPC", &ads()));
    let mut proxy = bootstrap.start(program).await;
    let secure = |address| Client::http1(address).tls(pki.client(None)).get("/").try_send();
    let answers = async |address| secure(address).await.is_ok();
    assert!(answers(inline).await && answers(discovered).await);
    until_all_is_kept(&proxy).await;
    let bytes = std::fs::read(kept(&proxy)).unwrap();
    assert!(contains(&bytes, "discovered") && !contains(&bytes, "PRIVATE KEY"));

    relay.kill().await;
    proxy.kill();
    proxy.start_again().await;
    assert_eq!(proxy.get("/").send().await.status, 200, "what needs no key is served");
    assert!(!answers(inline).await && !answers(discovered).await);
    relay.restart().await;
    eventually_true("the keys", async || answers(inline).await && answers(discovered).await).await;
    assert_eq!(server.told().nacks(), []);
}
