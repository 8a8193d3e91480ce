//! What istiod sends besides Envoy's own extensions: Istio's filters, messages written out field by field, and Wasm.

use harness::bootstrap::typed;
use harness::{
    Backend, Bootstrap, Cluster, Filters, Http, Listener, Pki, Program, Proxy, Route, Tcp, Value,
    json,
};

on_both!(messages_may_be_written_out, mongo_is_carried_as_tcp);

on_outrigger_only!(
    the_sidecar_of_an_endpoint_sees_a_caller_of_the_mesh because ISTIO_FILTERS,
    a_cluster_may_keep_its_own_alpn because ISTIO_FILTERS,
    what_peers_say_of_themselves_goes_no_further because ISTIO_FILTERS,
    istios_bookkeeping_changes_nothing because ISTIO_FILTERS,
    plugins_that_cannot_run_fail_as_they_say because ISTIO_FILTERS,
);

const ALPN: &str = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";

fn filter(name: &str, config: impl Into<Value>) -> Value {
    json!({"name": name, "typed_config": config.into()})
}

fn filtering(routes: impl IntoIterator<Item = Route>, filters: &[Value]) -> Http {
    let router = typed("envoy.extensions.filters.http.router.v3.Router", json!({}));
    let router = filter("envoy.filters.http.router", router);
    let filters: Vec<_> = filters.iter().cloned().chain([router]).collect();
    Http::routing(routes).with("http_filters", filters)
}

/// A message as `TypedStruct`.
fn written_out(name: &str, value: impl Into<Value>) -> Value {
    let type_url = format!("type.googleapis.com/{name}");
    typed("udpa.type.v1.TypedStruct", json!({"type_url": type_url, "value": value.into()}))
}

async fn messages_may_be_written_out(program: Program) {
    let app = Backend::echo("app").await;
    let added = |value: &str| {
        json!({"append": {
            "header": {"key": "x-who", "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }})
    };
    let package = "envoy.extensions.filters.http.header_mutation.v3";
    let filters = [filter(
        "m",
        written_out(
            &format!("{package}.HeaderMutation"),
            json!({"mutations": {"request_mutations": [added("filter")]}}),
        ),
    )];
    let said = typed(
        "xds.type.v3.TypedStruct",
        json!({
            "type_url": format!("type.googleapis.com/{package}.HeaderMutationPerRoute"),
            "value": {"mutations": {"request_mutations": [added("route")]}},
        }),
    );
    let own = Route::prefix("/own").to("app").with("typed_per_filter_config", json!({"m": said}));
    let http = filtering([own, Route::prefix("/").to("app")], &filters);
    let proxy = start(program, http, &app).await;
    let who = async |path: &str| proxy.get(path).send().await.echo().header("x-who");
    assert_eq!(who("/").await.as_deref(), Some("filter"));
    assert_eq!(who("/own").await.as_deref(), Some("route"));
}

async fn start(program: Program, http: Http, app: &Backend) -> Proxy {
    let cluster = Cluster::new("app").endpoint(app);
    Bootstrap::new().listener(Listener::new("main", http)).cluster(cluster).start(program).await
}

async fn mongo_is_carried_as_tcp(program: Program) {
    let app = Backend::echo("app").await;
    let tcp = Tcp::to("app").after("mongo_proxy", "MongoProxy", json!({"stat_prefix": "m"}));
    let proxy = Bootstrap::tcp(tcp).cluster(Cluster::new("app").endpoint(&app)).start(program);
    let proxy = proxy.await;
    assert_eq!(proxy.get("/").send().await.status, 200);
}

/// Two proxies: the first calls the second over TLS, which tells how it was called.
struct Hop {
    pki: Pki,
    _far: Proxy,
    near: Proxy,
}

impl Hop {
    async fn new(cluster: impl Fn(Cluster) -> Cluster) -> Self {
        let pki = Pki::new();
        let (server, client) = (pki.workload("server"), pki.workload("client"));
        let chain = |body: &str| Http::routing([Route::prefix("/").direct(200, body)]);
        let mut context = Pki::server_only(&server);
        context["common_tls_context"]["alpn_protocols"] = json!(["istio", "h2", "http/1.1"]);
        let mesh = json!({"application_protocols": ["istio-http/1.1"]});
        let listener = Listener::new("main", chain("somebody"))
            .tls(context.clone())
            .chain(mesh, Some(context), chain("one of the mesh"))
            .tls_inspector();
        // A real Envoy, as in the sidecar of somebody else's workload.
        let far = Bootstrap::new().listener(listener).start(Program::Envoy).await;
        let overrides = json!({"alpn_override": [
            {"upstream_protocol": "HTTP11", "alpn_override": ["istio-http/1.1", "istio", "http/1.1"]},
            {"upstream_protocol": "HTTP2", "alpn_override": ["istio-h2", "istio", "h2"]},
        ]});
        let filters = [filter("istio.alpn", typed(ALPN, overrides))];
        let to_far = Cluster::new("app").endpoint(far.address("main"));
        let mut context = pki.common(&client);
        context["alpn_protocols"] = json!(["http/1.1"]);
        let to_far = cluster(to_far.tls(json!({"common_tls_context": context})));
        let near = Bootstrap::new()
            .listener(Listener::new("main", filtering([Route::prefix("/").to("app")], &filters)))
            .cluster(to_far)
            .start(Program::Outrigger)
            .await;
        Self { pki, _far: far, near }
    }
}

async fn the_sidecar_of_an_endpoint_sees_a_caller_of_the_mesh(_: Program) {
    let hop = Hop::new(|cluster| cluster).await;
    for _ in 0..3 {
        assert_eq!(hop.near.get("/").send().await.text(), "one of the mesh");
    }
    assert!(hop.pki.root().exists());
}

async fn a_cluster_may_keep_its_own_alpn(_: Program) {
    let own = json!({"filter_metadata": {"istio": {"alpn_override": "false"}}});
    let hop = Hop::new(|cluster| cluster.with("metadata", own.clone())).await;
    assert_eq!(hop.near.get("/").send().await.text(), "somebody");
    assert!(hop.pki.root().exists());
}

async fn what_peers_say_of_themselves_goes_no_further(program: Program) {
    let app = Backend::echo("app").await;
    let by_headers = json!([{"workload_discovery": {}}, {"istio_headers": {}}]);
    let config = json!({"downstream_discovery": by_headers, "upstream_propagation": [{"istio_headers": {}}]});
    let exchange = written_out("io.istio.http.peer_metadata.Config", config);
    let filters = [filter("istio.metadata_exchange", exchange)];
    let proxy = start(program, filtering([Route::prefix("/").to("app")], &filters), &app).await;
    let request = proxy.client().get("/").header("x-envoy-peer-metadata", "a");
    let echo = request.header("x-envoy-peer-metadata-id", "b").header("x-other", "c").send().await;
    let echo = echo.echo();
    assert_eq!(echo.header("x-envoy-peer-metadata"), None);
    assert_eq!(echo.header("x-envoy-peer-metadata-id"), None);
    assert_eq!(echo.header("x-other").as_deref(), Some("c"));
}

async fn istios_bookkeeping_changes_nothing(program: Program) {
    let app = Backend::echo("app").await;
    let stats = typed("stats.PluginConfig", json!({"disable_host_header_fallback": true}));
    let http = filtering([Route::prefix("/").to("app")], &[filter("istio.stats", stats.clone())]);
    let exchange = json!({"protocol": "istio-peer-exchange", "enable_discovery": true});
    let exchange = written_out("envoy.tcp.metadataexchange.config.MetadataExchange", exchange);
    let exchange = filter("istio.metadata_exchange", exchange);
    let filters = Filters::from(http).first(filter("istio.stats", stats)).first(exchange.clone());
    let listener = Listener::new("main", filters);
    let cluster = Cluster::new("app").endpoint(&app).with("filters", json!([exchange]));
    let proxy = Bootstrap::new().listener(listener).cluster(cluster).start(program).await;
    assert_eq!(proxy.get("/").send().await.status, 200);
}

async fn plugins_that_cannot_run_fail_as_they_say(program: Program) {
    let app = Backend::echo("app").await;
    for (policy, status) in [
        (json!({"failure_policy": "FAIL_OPEN"}), 200),
        (json!({"fail_open": true}), 200),
        (json!({"failure_policy": "FAIL_CLOSED"}), 503),
        (json!({}), 503),
    ] {
        let mut config = policy.clone();
        config["name"] = json!("demo");
        config["vm_config"] = json!({"runtime": "envoy.wasm.runtime.v8"});
        let wasm = typed("envoy.extensions.filters.http.wasm.v3.Wasm", json!({"config": config}));
        let http = filtering([Route::prefix("/").to("app")], &[filter("wasm", wasm)]);
        let proxy = start(program, http, &app).await;
        assert_eq!(proxy.get("/").send().await.status, status, "{policy}");
    }
}
