//! Configuration that changes while requests are on their way.

use harness::discovery_files::{DiscoveryFile, replace};
use harness::eventually::eventually_true;
use harness::pki::Identity;
use harness::{
    Answer, Backend, Bootstrap, Client, Cluster, Http, Listener, Pki, Program, Proxy, Route, Value,
    json,
};

mod under_load;

on_both!(
    routes_change_on_an_open_connection,
    clusters_come_and_go,
    endpoints_come_and_go,
    listeners_come_and_go,
    a_renamed_listener_keeps_its_socket,
    a_bad_file_changes_nothing,
    a_rotated_secret_is_used_by_new_connections,
    an_ejection_outlives_an_endpoint_change,
);

on_outrigger_only!(
    files_written_in_place_are_noticed because IN_PLACE_WRITES,
    the_bootstrap_is_taken_up_while_serving because BOOTSTRAP_IS_WATCHED,
    a_bad_bootstrap_changes_nothing because BOOTSTRAP_IS_WATCHED,
    certificate_files_are_taken_up because CERTIFICATE_FILES_ARE_WATCHED,
);

/// Envoy's `RouteConfiguration` with one virtual host for everything.
pub(crate) fn table(name: &str, routes: impl IntoIterator<Item = Route>) -> Value {
    let routes: Vec<Value> = routes.into_iter().map(Value::from).collect();
    json!({"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]})
}

/// Envoy's `ClusterLoadAssignment`.
pub(crate) fn assignment(cluster: &str, hosts: &[&Backend]) -> Value {
    let endpoints: Vec<Value> = hosts
        .iter()
        .map(|host| {
            let address = harness::bootstrap::socket_address(host.address());
            json!({"endpoint": {"address": address}})
        })
        .collect();
    json!({"cluster_name": cluster, "endpoints": [{"lb_endpoints": endpoints}]})
}

/// Envoy's `Secret` with a certificate.
pub(crate) fn certificate_secret(name: &str, identity: &Identity) -> Value {
    json!({"name": name, "tls_certificate": {
        "certificate_chain": {"inline_string": identity.chain_pem()},
        "private_key": {"inline_string": identity.key_pem()},
    }})
}

async fn until_answered_by(proxy: &Proxy, backend: &str) {
    eventually_true(&format!("answers of {backend}"), async || {
        proxy.get("/").send().await.header("x-backend").as_deref() == Some(backend)
    })
    .await;
}

async fn routes_change_on_an_open_connection(program: Program) {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let bootstrap = Bootstrap::new();
    let routes = DiscoveryFile::routes(bootstrap.dir());
    routes.publish([table("table", [Route::prefix("/").to("one")])]);
    let proxy = bootstrap
        .listener(Listener::new("main", Http::routes_from_file("table", routes.path())))
        .cluster(Cluster::new("one").endpoint(&one))
        .cluster(Cluster::new("two").endpoint(&two))
        .start(program)
        .await;
    for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
        let client = match version {
            http::Version::HTTP_11 => proxy.client(),
            _ => Client::http2(proxy.address("main")),
        };
        let mut connection = client.connect().await.unwrap();
        for backend in ["two", "one"] {
            routes.publish([table("table", [Route::prefix("/").to(backend)])]);
            eventually_true("the new route on the old connection", async || {
                let reply = connection.send(client.get("/")).await.unwrap();
                assert_eq!(reply.status, 200);
                reply.header("x-backend").as_deref() == Some(backend)
            })
            .await;
        }
    }
    assert_eq!(proxy.stat("listener_manager.listener_modified").await, 0);
}

async fn clusters_come_and_go(program: Program) {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let bootstrap = Bootstrap::new();
    let clusters = DiscoveryFile::clusters(bootstrap.dir());
    let cluster = |backend: &Backend| -> Value { Cluster::new("app").endpoint(backend).into() };
    clusters.publish([cluster(&one)]);
    let route = Route::prefix("/").with("route.cluster_header", "x-cluster");
    let proxy = bootstrap
        .with("dynamic_resources.cds_config", clusters.source())
        .listener(Listener::new("main", Http::routing([route])))
        .start(program)
        .await;
    let answer = async |cluster: &str| {
        let reply = proxy.get("/").header("x-cluster", cluster).send().await;
        reply.header("x-backend").unwrap_or_else(|| reply.status.to_string())
    };
    assert_eq!(answer("app").await, "one");
    clusters.publish([cluster(&two)]);
    eventually_true("the changed cluster", async || answer("app").await == "two").await;
    clusters.publish([cluster(&two), Cluster::new("more").endpoint(&one).into()]);
    eventually_true("the added cluster", async || answer("more").await == "one").await;
    clusters.publish([Cluster::new("more").endpoint(&one).into()]);
    eventually_true("the removed cluster", async || answer("app").await == "503").await;
    assert_eq!(answer("more").await, "one");
    proxy.until_stat("cluster_manager.active_clusters", |count| count == 1).await;
}

async fn endpoints_come_and_go(program: Program) {
    let (one, two) = (Backend::echo("one").await, Backend::echo("two").await);
    let bootstrap = Bootstrap::new();
    let endpoints = DiscoveryFile::endpoints(bootstrap.dir());
    endpoints.publish([assignment("app", &[&one])]);
    let cluster = Cluster::from_file("app", endpoints.path());
    let proxy = bootstrap
        .listener(Listener::new("main", Http::routing([Route::prefix("/").to("app")])))
        .cluster(cluster)
        .start(program)
        .await;
    until_answered_by(&proxy, "one").await;
    endpoints.publish([assignment("app", &[&two])]);
    until_answered_by(&proxy, "two").await;
    for _ in 0..10 {
        assert_eq!(proxy.get("/").send().await.echo().backend(), "two");
    }
    endpoints.publish([assignment("app", &[&one, &two])]);
    until_answered_by(&proxy, "one").await;
    proxy.until_stat("cluster.app.membership_total", |count| count == 2).await;
    endpoints.publish([assignment("app", &[])]);
    eventually_true("no endpoint", async || proxy.get("/").send().await.status == 503).await;
}

async fn listeners_come_and_go(program: Program) {
    let mut bootstrap = Bootstrap::new();
    let file = DiscoveryFile::listeners(bootstrap.dir());
    let answering = |body: &str| Http::routing([Route::prefix("/").direct(200, body)]);
    let first = bootstrap.reserve_for(Listener::new("main", answering("first")));
    let changed = bootstrap.reserve_for(Listener::new("main", answering("changed")));
    let second = bootstrap.reserve_for(Listener::new("second", answering("second")));
    file.publish([first]);
    let proxy = bootstrap.with("dynamic_resources.lds_config", file.source()).start(program).await;
    assert_eq!(proxy.get("/").send().await.text(), "first");

    file.publish([changed.clone(), second]);
    let other = Client::http1(proxy.address("second"));
    eventually_true("the second listener", async || {
        other.get("/").try_send().await.is_ok_and(|reply| reply.text() == "second")
    })
    .await;
    eventually_true("the changed listener", async || {
        proxy.get("/").send().await.text() == "changed"
    })
    .await;

    file.publish([changed]);
    eventually_true("the second listener's end", async || other.connect().await.is_err()).await;
    assert_eq!(proxy.get("/").send().await.text(), "changed");
    assert_eq!(proxy.stat("listener_manager.total_listeners_active").await, 1);
}

async fn a_renamed_listener_keeps_its_socket(program: Program) {
    let mut bootstrap = Bootstrap::new();
    let file = DiscoveryFile::listeners(bootstrap.dir());
    let mut named = |name: &str| {
        let http = Http::routing([Route::prefix("/").direct(200, name)]);
        let mut listener = bootstrap.reserve_for(Listener::new("main", http));
        listener["name"] = name.into();
        listener
    };
    let (old, new) = (named("old"), named("new"));
    file.publish([old.clone()]);
    let proxy = bootstrap.with("dynamic_resources.lds_config", file.source()).start(program).await;
    for (name, listener) in [("new", new), ("old", old)] {
        file.publish([listener]);
        // Every request is one connection, and none is refused.
        eventually_true("the renamed listener", async || {
            let reply = proxy.get("/").send().await;
            assert_eq!(reply.status, 200);
            reply.text() == name
        })
        .await;
    }
    assert_eq!(proxy.stat("listener_manager.total_listeners_active").await, 1);
}

async fn a_bad_file_changes_nothing(program: Program) {
    let app = Backend::echo("app").await;
    let bootstrap = Bootstrap::new();
    let routes = DiscoveryFile::routes(bootstrap.dir());
    routes.publish([table("table", [Route::prefix("/").to("app")])]);
    let proxy = bootstrap
        .listener(Listener::new("main", Http::routes_from_file("table", routes.path())))
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    let not_a_regex = Route::matching(json!({"safe_regex": {"regex": "("}})).direct(200, "never");
    let before = proxy.stat("http.main.rds.table.update_attempt").await;
    routes.publish([table("table", [not_a_regex])]);
    proxy.until_stat("http.main.rds.table.update_attempt", |count| count > before).await;
    proxy.until_stat("http.main.rds.table.update_rejected", |count| count == 1).await;
    assert_eq!(proxy.get("/").send().await.status, 200);

    routes.publish_text("resources: [");
    proxy.until_stat("http.main.rds.table.update_failure", |count| count == 1).await;
    assert_eq!(proxy.get("/").send().await.status, 200);

    routes.publish([table("table", [Route::prefix("/").direct(418, "good again")])]);
    eventually_true("the good file", async || proxy.get("/").send().await.status == 418).await;
}

async fn a_rotated_secret_is_used_by_new_connections(program: Program) {
    let pki = Pki::new();
    let (old, client) = (pki.workload("old"), pki.workload("client"));
    let bootstrap = Bootstrap::new();
    let own = DiscoveryFile::secret(bootstrap.dir(), "own");
    let trusted = DiscoveryFile::secret(bootstrap.dir(), "roots");
    let publish = |identity: &Identity, roots: String| {
        own.publish([certificate_secret("own", identity)]);
        let context = json!({"trusted_ca": {"inline_string": roots}});
        trusted.publish([json!({"name": "roots", "validation_context": context})]);
    };
    publish(&old, pki.root_pem().to_owned());
    let secret =
        |name: &str, file: &DiscoveryFile| json!({"name": name, "sds_config": file.source()});
    let context = json!({"require_client_certificate": true, "common_tls_context": {
        "tls_certificate_sds_secret_configs": [secret("own", &own)],
        "validation_context_sds_secret_config": secret("roots", &trusted)}});
    let http = Http::routing([Route::prefix("/").direct(200, "ok")]);
    let proxy = bootstrap.listener(Listener::new("main", http).tls(context)).start(program).await;
    let admitted = async |pki: &Pki, identity| {
        let client = proxy.client().tls(pki.client(Some(identity)));
        client.get("/").try_send().await.is_ok()
    };
    let with_old = proxy.client().tls(pki.client(Some(&client)));
    let mut open = with_old.connect().await.unwrap();
    assert_eq!(open.send(with_old.get("/")).await.unwrap().status, 200);

    // Another authority signs the new certificate; for now both authorities are trusted.
    let next = Pki::new();
    let (new, new_client) = (next.workload("new"), next.workload("client"));
    publish(&new, format!("{}{}", pki.root_pem(), next.root_pem()));
    eventually_true("the new certificate", async || admitted(&next, &new_client).await).await;
    assert!(!admitted(&pki, &client).await, "the old root does not vouch for the new server");
    assert_eq!(open.send(with_old.get("/")).await.unwrap().status, 200, "open ones stay");

    publish(&new, next.root_pem().to_owned());
    eventually_true("the old root's end", async || {
        let with_old_identity = proxy.client().tls(next.client(Some(&client)));
        with_old_identity.get("/").try_send().await.is_err()
    })
    .await;
    assert!(admitted(&next, &new_client).await);
}

async fn an_ejection_outlives_an_endpoint_change(program: Program) {
    let bad = Backend::scripted("bad", |_| Answer::status(500)).await;
    let (good, new) = (Backend::echo("good").await, Backend::echo("new").await);
    let bootstrap = Bootstrap::new();
    let endpoints = DiscoveryFile::endpoints(bootstrap.dir());
    endpoints.publish([assignment("app", &[&bad, &good])]);
    let cluster = Cluster::from_file("app", endpoints.path())
        .with("outlier_detection", json!({"consecutive_5xx": 2, "max_ejection_percent": 50}));
    let proxy = bootstrap
        .listener(Listener::new("main", Http::routing([Route::prefix("/").to("app")])))
        .cluster(cluster)
        .start(program)
        .await;
    eventually_true("the ejection", async || {
        proxy.get("/").send().await;
        proxy.stat("cluster.app.outlier_detection.ejections_active").await == 1
    })
    .await;
    endpoints.publish([assignment("app", &[&bad, &good, &new])]);
    until_answered_by(&proxy, "new").await;
    assert_eq!(proxy.stat("cluster.app.outlier_detection.ejections_active").await, 1);
    let before = bad.count();
    for _ in 0..12 {
        assert_eq!(proxy.get("/").send().await.status, 200);
    }
    assert_eq!(bad.count(), before);
    assert_eq!(good.connections(), 1, "the pool stays as well");
}

async fn files_written_in_place_are_noticed(program: Program) {
    let bootstrap = Bootstrap::new();
    let routes = DiscoveryFile::routes(bootstrap.dir());
    routes.publish([table("table", [Route::prefix("/").direct(200, "before")])]);
    let proxy = bootstrap
        .listener(Listener::new("main", Http::routes_from_file("table", routes.path())))
        .start(program)
        .await;
    let text = std::fs::read_to_string(routes.path()).unwrap();
    std::fs::write(routes.path(), text.replace("before", "after")).unwrap();
    eventually_true("the change", async || proxy.get("/").send().await.text() == "after").await;
}

async fn the_bootstrap_is_taken_up_while_serving(program: Program) {
    let app = Backend::echo("app").await;
    let bootstrap = Bootstrap::routing([Route::prefix("/").direct(200, "before")])
        .cluster(Cluster::new("app").endpoint(&app));
    let yaml = bootstrap.to_yaml();
    let proxy = bootstrap.start(program).await;
    let client = proxy.client();
    let mut connection = client.connect().await.unwrap();
    assert_eq!(connection.send(client.get("/")).await.unwrap().text(), "before");
    replace(&proxy.file("bootstrap.yaml"), yaml.replace("before", "after"));
    eventually_true("the change, on the same connection", async || {
        connection.send(client.get("/")).await.unwrap().text() == "after"
    })
    .await;
}

async fn a_bad_bootstrap_changes_nothing(program: Program) {
    let bootstrap = Bootstrap::routing([Route::prefix("/").direct(200, "before")]);
    let yaml = bootstrap.to_yaml();
    let proxy = bootstrap.start(program).await;
    let file = proxy.file("bootstrap.yaml");
    let half_written = yaml[..yaml.find("domains").unwrap()].to_owned() + "domains: [";
    for bad in [yaml.replace("stat_prefix", "stat_perfix"), String::new(), half_written] {
        let said = proxy.log().len();
        replace(&file, bad);
        eventually_true("a word in the log", async || {
            proxy.log().get(said..).is_some_and(|new| new.contains("bootstrap.yaml"))
        })
        .await;
        assert_eq!(proxy.get("/").send().await.text(), "before");
    }
    replace(&file, yaml.replace("before", "after"));
    eventually_true("the good file", async || proxy.get("/").send().await.text() == "after").await;
}

async fn certificate_files_are_taken_up(program: Program) {
    let pki = Pki::new();
    let server = pki.workload("server");
    let next = Pki::new();
    let http = Http::routing([Route::prefix("/").direct(200, "ok")]);
    let proxy = Bootstrap::new()
        .listener(Listener::new("main", http).tls(Pki::server_only(&server)))
        .start(program)
        .await;
    let trusting_next = proxy.client().tls(next.client(None));
    assert!(trusting_next.get("/").try_send().await.is_err());
    next.workload("server").replace(&server);
    eventually_true("the new certificate", async || {
        trusting_next.get("/").try_send().await.is_ok()
    })
    .await;
}
