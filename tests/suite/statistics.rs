//! What both programs count of the same requests is the same.

use std::collections::{BTreeMap, BTreeSet};

use harness::bootstrap::typed;
use harness::port::Port;
use harness::{
    Answer, Backend, Bootstrap, Client, Cluster, Http, Listener, Program, Proxy, Route, Value,
    VirtualHost, json,
};

#[tokio::test]
async fn both_programs_count_alike() {
    if !Program::Envoy.is_installed() {
        return;
    }
    let (app, mirror) = (app().await, Backend::scripted("mirror", |_| Answer::status(500)).await);
    let ours = start(Program::Outrigger, &app, &mirror).await;
    let envoys = start(Program::Envoy, &app, &mirror).await;
    for path in paths() {
        assert_eq!(ask(&ours, &path).await, ask(&envoys, &path).await, "{path}");
    }
    // Some things are counted a moment after the client has its answer.
    let mut last = Vec::new();
    let deadline = tokio::time::Instant::now() + harness::PATIENCE;
    while tokio::time::Instant::now() < deadline {
        last = differences(&counted(&ours).await, &counted(&envoys).await);
        if last.is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("(name, ours, Envoy's): {last:#?}");
}

type Counts = BTreeMap<String, u64>;

fn differences(ours: &Counts, envoys: &Counts) -> Vec<(String, u64, u64)> {
    let names: BTreeSet<_> = ours.keys().chain(envoys.keys()).cloned().collect();
    let of = |counts: &Counts, name: &str| counts.get(name).copied().unwrap_or(0);
    let both = names.into_iter().map(|name| (of(ours, &name), of(envoys, &name), name));
    both.filter(|(ours, envoys, _)| ours != envoys)
        .map(|(ours, envoys, name)| (name, ours, envoys))
        .collect()
}

/// What is counted of requests; of bytes, and of what codecs do, each program has its own.
async fn counted(proxy: &Proxy) -> Counts {
    let text = proxy.admin().get("/stats?usedonly&type=Counters").send().await.text();
    let is_wanted = |name: &str| {
        let parts = ["_bytes_", ".http2.", "total_match_count", "membership_change", "update_"];
        ["cluster.", "http.main.rq_", "http.main.no_"].iter().any(|it| name.starts_with(it))
            && !parts.iter().any(|it| name.contains(it))
    };
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    let wanted = lines.filter(|(name, _)| is_wanted(name));
    wanted.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

/// Asks from outside and from inside, with a body and over HTTP/2: the statuses.
async fn ask(proxy: &Proxy, path: &str) -> Vec<Option<u16>> {
    let http2 = Client::http2(proxy.address("main"));
    let mut statuses = Vec::new();
    for call in [
        proxy.get(path),
        proxy.get(path).header("x-forwarded-for", "10.0.0.1"),
        proxy.client().call(http::Method::PUT, path).body("body"),
        http2.get(path),
    ] {
        statuses.push(call.try_send().await.ok().map(|reply| reply.status));
    }
    statuses
}

async fn app() -> Backend {
    Backend::scripted("app", |call| match call.path.as_str() {
        "/retried" if call.header("x-envoy-attempt-count") == Some("1") => Answer::status(503),
        "/in-vain" | "/no-retries" => Answer::status(503),
        "/hangs" | "/hangs-2" | "/tries" | "/lasts" => Answer::hang(),
        "/resets" | "/resets-2" | "/resets-again" => Answer::abort(),
        "/canary" => Answer::status(200).header("x-envoy-upstream-canary", "true"),
        "/404" => Answer::status(404),
        "/elsewhere" => Answer::status(302).header("location", "http://test.example/ok"),
        "/nowhere" => Answer::status(302).header("location", "nowhere"),
        "/cut" | "/cut-2" => Answer::status(200).body("some").cut(),
        "/overloaded" => Answer::status(503).header("x-envoy-overloaded", "true"),
        _ => Answer::status(200).body("all"),
    })
    .await
}

/// One route for each situation, to a cluster of the same name if it has any.
fn routes() -> Vec<Route> {
    let retry = |number: u32| {
        json!({"retry_on": "5xx,reset,connect-failure", "num_retries": number,
            "retry_back_off": {"base_interval": "0.001s"}})
    };
    let to = |name: &str| Route::path(&format!("/{name}")).to(name);
    let again = |name: &str| to(name).retry(retry(1));
    let per_try = json!({"retry_on": "5xx,reset", "num_retries": 1, "per_try_timeout": "0.1s",
        "retry_back_off": {"base_interval": "0.001s"}});
    let always = json!({"numerator": 100});
    let limit = json!({
        "stat_prefix": "l",
        "token_bucket": {"max_tokens": 1, "fill_interval": "3600s"},
        "filter_enabled": {"default_value": always},
        "filter_enforced": {"default_value": always},
    });
    let fault = json!({"abort": {"http_status": 418, "percentage": always}});
    let mirror = json!([{"cluster": "mirror"}, {"cluster": "dead-mirror"}]);
    let redirects = json!({});
    let duration = json!({"max_stream_duration": "0.2s"});
    let ask = json!({"check_settings": {}});
    vec![
        to("ok"),
        to("404"),
        to("canary"),
        again("retried"),
        to("in-vain").retry(retry(2)),
        again("no-retries"),
        again("overloaded"),
        to("hangs").with("route.timeout", "0.2s"),
        to("hangs-2").with("route.timeout", "0.2s"),
        to("tries").retry(per_try),
        to("lasts").with("route.max_stream_duration", duration),
        to("resets"),
        to("resets-2"),
        again("resets-again"),
        to("cut"),
        to("cut-2"),
        to("dead"),
        again("dead-again"),
        to("nobody"),
        again("nobody-again"),
        again("full"),
        to("elsewhere").with("route.internal_redirect_policy", redirects.clone()),
        to("nowhere").with("route.internal_redirect_policy", redirects),
        to("mirrored").with("route.request_mirror_policies", mirror),
        to("denied"),
        to("limited").tell("limit", "local_ratelimit.v3.LocalRateLimit", limit),
        to("faulty").tell("fault", "fault.v3.HTTPFault", fault),
        to("unauthorized").tell("authz", "ext_authz.v3.ExtAuthzPerRoute", ask),
        Route::path("/direct").direct(200, "here"),
        Route::path("/away").redirect(json!({"path_redirect": "/"})),
    ]
}

fn paths() -> Vec<String> {
    let path = |route: Route| Value::from(route)["match"]["path"].as_str().unwrap().to_owned();
    routes().into_iter().map(path).chain(["/no-route".to_owned()]).collect()
}

fn http() -> Http {
    let off = typed(
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
        json!({"disabled": true}),
    );
    let host = VirtualHost::new("all", ["*"], routes())
        .with("include_request_attempt_count", true)
        .with("typed_per_filter_config", json!({"authz": off}));
    let denied = json!({"url_path": {"path": {"exact": "/denied"}}});
    let policy = json!({"permissions": [denied], "principals": [{"any": true}]});
    let uri = json!({"uri": "http://authz.test", "cluster": "404", "timeout": "5s"});
    let authz = json!({"transport_api_version": "V3", "http_service": {"server_uri": uri, "path_prefix": "/404?"}});
    let internal = json!({"cidr_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]});
    Http::hosting([host])
        .with("internal_address_config", internal)
        .filter("limit", "local_ratelimit.v3.LocalRateLimit", json!({"stat_prefix": "l"}))
        .filter("fault", "fault.v3.HTTPFault", json!({}))
        .filter("authz", "ext_authz.v3.ExtAuthz", authz)
        .filter(
            "rbac",
            "rbac.v3.RBAC",
            json!({"rules": {"action": "DENY", "policies": {"p": policy}}}),
        )
}

async fn start(program: Program, app: &Backend, mirror: &Backend) -> Proxy {
    let nobody = Port::reserve();
    let none = |limits: Value| json!({"thresholds": [limits]});
    let mut bootstrap = Bootstrap::new().listener(Listener::new("main", http()));
    for route in routes() {
        let route: Value = route.into();
        let Some(name) = route["route"]["cluster"].as_str() else { continue };
        let cluster = Cluster::new(name);
        bootstrap = bootstrap.cluster(match name {
            "dead" | "dead-again" => cluster.endpoint(&nobody),
            "nobody" | "nobody-again" => cluster,
            "hangs-2" | "resets-2" | "cut-2" => cluster.http2().endpoint(app),
            "full" => cluster
                .endpoint(app)
                .with("circuit_breakers", none(json!({"max_pending_requests": 0}))),
            "no-retries" => {
                cluster.endpoint(app).with("circuit_breakers", none(json!({"max_retries": 0})))
            }
            _ => cluster.endpoint(app),
        });
    }
    bootstrap
        .cluster(Cluster::new("mirror").endpoint(mirror))
        .cluster(Cluster::new("dead-mirror").endpoint(&nobody))
        .start(program)
        .await
}
