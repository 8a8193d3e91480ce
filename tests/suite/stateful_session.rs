//! Stateful sessions: the requests of one go to the endpoint of its first one, whichever of the two programs has
//! answered that.

use harness::bootstrap::typed;
use harness::{Bootstrap, Cluster, Everywhere, Http, Listener, Program, Proxy, Route, Value, json};

on_both!(
    a_header_keeps_a_session_where_it_began,
    a_cookie_keeps_a_session_where_it_began,
    cookies_are_exchanged_with_envoy,
    health_decides_whether_a_session_can_stay,
    only_the_health_allowed_keeps_a_session,
    a_strict_session_goes_nowhere_else,
    a_session_goes_before_subset_and_policy,
    a_retry_may_leave_the_session,
    the_proxys_own_answers_carry_the_session_too,
    routes_have_sessions_of_their_own,
    a_filter_that_is_disabled_waits_for_its_route,
);

const FILTER: &str = "envoy.extensions.filters.http.stateful_session.v3.StatefulSession";
const PER_ROUTE: &str = "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute";

fn header_state(name: &str) -> Value {
    let message = "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState";
    json!({"name": "envoy.http.stateful_session.header", "typed_config": typed(message, json!({"name": name}))})
}

fn cookie_state(cookie: &Value) -> Value {
    let message = "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState";
    let config = typed(message, json!({"cookie": cookie}));
    json!({"name": "envoy.http.stateful_session.cookie", "typed_config": config})
}

/// A filter called `name`, which counts under its name.
fn filter(name: &str, state: &Value, strict: bool) -> Value {
    let config = json!({"session_state": state, "strict": strict, "stat_prefix": name});
    json!({"name": name, "typed_config": typed(FILTER, config)})
}

/// A connection manager with these filters.
fn filtering(routes: impl IntoIterator<Item = Route>, filters: &[Value]) -> Http {
    let router = typed("envoy.extensions.filters.http.router.v3.Router", json!({}));
    let router = json!({"name": "envoy.filters.http.router", "typed_config": router});
    let filters: Vec<_> = filters.iter().cloned().chain([router]).collect();
    Http::routing(routes).with("stat_prefix", "ing").with("http_filters", filters)
}

async fn start(
    program: Program,
    clusters: impl IntoIterator<Item = Cluster>,
    routes: impl IntoIterator<Item = Route>,
    filters: &[Value],
) -> Proxy {
    let listener = Listener::new("main", filtering(routes, filters));
    let bootstrap = Bootstrap::new().listener(listener);
    clusters.into_iter().fold(bootstrap, Bootstrap::cluster).start(program).await
}

/// A cluster `app` of four endpoints, the last two of which have this health.
fn four(app: &Everywhere, health: [&str; 2]) -> Cluster {
    let cluster = Cluster::new("app").endpoint(app.address(1)).endpoint(app.address(2));
    (3..).zip(health).fold(cluster, |cluster, (number, health)| {
        let address = harness::bootstrap::socket_address(app.address(number));
        cluster.lb_endpoint(json!({"endpoint": {"address": address}, "health_status": health}))
    })
}

fn to_app() -> Vec<Route> {
    vec![Route::prefix("/").to("app")]
}

/// Envoy's base64.
fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// What stands in a session header for endpoint `number`.
fn session_at(app: &Everywhere, number: u8) -> String {
    base64(&app.address(number).to_string())
}

/// Status, endpoint and `x-session` of the answer to a request with these headers.
async fn ask(proxy: &Proxy, path: &str, headers: &[(&str, &str)]) -> (u16, String, Option<String>) {
    let call = headers.iter().fold(proxy.get(path), |call, (name, value)| call.header(name, value));
    let reply = call.send().await;
    let session = reply.header("x-session");
    (reply.status, reply.text(), session)
}

/// The figures of the filter that counts under `scope`: routed, failed_open, failed_closed, no_session.
async fn figures(proxy: &Proxy, scope: &str) -> [u64; 4] {
    let mut figures = [0; 4];
    let names = ["routed", "failed_open", "failed_closed", "no_session"];
    for (figure, name) in figures.iter_mut().zip(names) {
        *figure = proxy.stat(&format!("{scope}.{name}")).await;
    }
    figures
}

const SESSIONS: &str = "http.ing.stateful_session.s";

async fn a_header_keeps_a_session_where_it_began(program: Program) {
    let app = Everywhere::start().await;
    let filters = [filter("s", &header_state("X-Session"), false)];
    let proxy = start(program, [four(&app, ["HEALTHY"; 2])], to_app(), &filters).await;
    let (status, first, session) = ask(&proxy, "/", &[]).await;
    let session = session.unwrap();
    assert_eq!((status, &session), (200, &base64(&format!("{first}:{}", app.address(1).port()))));
    for _ in 0..8 {
        let again = ask(&proxy, "/", &[("x-session", &session)]).await;
        assert_eq!(again, (200, first.clone(), None));
    }
    // Whatever is no address of the cluster is replaced.
    for strange in [session_at(&app, 9), base64("nonsense"), "%%%".into(), String::new()] {
        let (status, _, session) = ask(&proxy, "/", &[("x-session", &strange)]).await;
        assert!(status == 200 && session.is_some(), "{strange}");
    }
    let two = [("x-session", &*session_at(&app, 2)), ("x-session", &*session_at(&app, 1))];
    assert_eq!(ask(&proxy, "/", &two).await, (200, app.address(2).ip().to_string(), None));
    assert_eq!(figures(&proxy, SESSIONS).await, [9, 5, 0, 0]);
}

/// The value of `set-cookie`, taken apart at its first `;`.
fn set_cookie(reply: &harness::Reply) -> Option<(String, String)> {
    let cookie = reply.header("set-cookie")?;
    let (pair, attributes) = cookie.split_once("; ")?;
    let value = pair.strip_prefix("sid=\"")?.strip_suffix('"')?;
    Some((value.to_owned(), attributes.to_owned()))
}

async fn a_cookie_keeps_a_session_where_it_began(program: Program) {
    let app = Everywhere::start().await;
    let attributes = json!([{"name": "SameSite", "value": "Lax"}, {"name": "Secure"}]);
    let cookie = json!({"name": "sid", "path": "/c", "ttl": "90.5s", "attributes": attributes});
    let filters = [filter("s", &cookie_state(&cookie), false)];
    let proxy = start(program, [four(&app, ["HEALTHY"; 2])], to_app(), &filters).await;
    let reply = proxy.get("/c/1").send().await;
    let (value, attributes) = set_cookie(&reply).unwrap();
    assert_eq!(attributes, "Max-Age=90; Path=/c; SameSite=Lax; Secure; HttpOnly");
    let first = reply.text();
    for (path, header) in [
        ("/c", format!("sid={value}")),
        ("/c/2", format!("a=b; sid=\"{value}\"")),
        ("/c?q", format!("sid={value}; sid=none")),
        ("/c#f", format!("sid={}", base64(&format!("{first}:{}", app.address(1).port())))),
    ] {
        let reply = proxy.get(path).header("cookie", &header).send().await;
        assert_eq!((set_cookie(&reply), reply.text()), (None, first.clone()), "{path} {header}");
    }
    // Elsewhere there are no sessions.
    for path in ["/", "/cd", "/d"] {
        let reply = proxy.get(path).header("cookie", &format!("sid={value}")).send().await;
        assert_eq!((reply.status, set_cookie(&reply)), (200, None), "{path}");
    }
    assert_eq!(figures(&proxy, SESSIONS).await, [4, 1, 0, 3]);
}

/// What each program writes is read by both, to the last byte.
async fn cookies_are_exchanged_with_envoy(program: Program) {
    let app = Everywhere::start().await;
    for (ttl, lasts) in [("3600s", 3600), ("0s", 0)] {
        let filters = [filter("s", &cookie_state(&json!({"name": "sid", "ttl": ttl})), false)];
        let proxy = start(program, [four(&app, ["HEALTHY"; 2])], to_app(), &filters).await;
        let reply = proxy.get("/").send().await;
        let (value, _) = set_cookie(&reply).unwrap();
        let endpoint = format!("{}:{}", reply.text(), app.address(1).port());
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let possible: Vec<_> = (now - 9..=now)
            .map(|begin| cookie_value(&endpoint, if lasts == 0 { 0 } else { begin + lasts }))
            .collect();
        assert!(possible.contains(&value), "{value} of {endpoint}");
        for (expires, stays) in [(now + 60, true), (0, true), (now - 60, false), (1, false)] {
            let value = cookie_value(&app.address(3).to_string(), expires);
            let reply = proxy.get("/").header("cookie", &format!("sid={value}")).send().await;
            assert_eq!(set_cookie(&reply).is_none(), stays, "{expires}");
            assert!(!stays || reply.text() == app.address(3).ip().to_string());
        }
    }
}

/// A cookie of Envoy's: field 1 is the address, field 2 when it expires.
fn cookie_value(address: &str, mut expires: u64) -> String {
    use base64::Engine;
    let mut bytes = vec![0x0a, u8::try_from(address.len()).unwrap()];
    bytes.extend_from_slice(address.as_bytes());
    if expires > 0 {
        bytes.push(0x10);
        while expires > 0x7f {
            bytes.push(expires as u8 | 0x80);
            expires >>= 7;
        }
        bytes.push(expires as u8);
    }
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

async fn health_decides_whether_a_session_can_stay(program: Program) {
    let app = Everywhere::start().await;
    let filters = [filter("s", &header_state("x-session"), false)];
    for (health, stays) in [("UNKNOWN", true), ("HEALTHY", true), ("DEGRADED", true)]
        .into_iter()
        .chain([("UNHEALTHY", false), ("DRAINING", false), ("TIMEOUT", false)])
    {
        let cluster = four(&app, ["HEALTHY", health]);
        let proxy = start(program, [cluster], to_app(), &filters).await;
        let (status, endpoint, session) =
            ask(&proxy, "/", &[("x-session", &session_at(&app, 4))]).await;
        assert_eq!((status, session.is_none()), (200, stays), "{health}");
        assert_eq!(endpoint == app.address(4).ip().to_string(), stays, "{health}");
    }
}

async fn only_the_health_allowed_keeps_a_session(program: Program) {
    let app = Everywhere::start().await;
    let filters = [filter("s", &header_state("x-session"), true)];
    let all = ["UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"];
    for allowed in [&[][..], &["HEALTHY"], &["UNKNOWN"], &["UNHEALTHY", "DRAINING"], &["TIMEOUT"]] {
        let cluster = (1..).zip(all).fold(Cluster::new("app"), |cluster, (number, health)| {
            let address = harness::bootstrap::socket_address(app.address(number));
            cluster.lb_endpoint(json!({"endpoint": {"address": address}, "health_status": health}))
        });
        let cluster =
            cluster.with("common_lb_config.override_host_status", json!({"statuses": allowed}));
        let proxy = start(program, [cluster], to_app(), &filters).await;
        for (number, health) in (1..).zip(all) {
            let (status, _, _) =
                ask(&proxy, "/", &[("x-session", &session_at(&app, number))]).await;
            let expected = if allowed.contains(&health) { 200 } else { 503 };
            assert_eq!(status, expected, "{health} of {allowed:?}");
        }
    }
}

async fn a_strict_session_goes_nowhere_else(program: Program) {
    let app = Everywhere::start().await;
    let filters = [filter("s", &header_state("x-session"), true)];
    let routes = [Route::prefix("/dead").to("dead"), Route::prefix("/").to("app")];
    let clusters = [four(&app, ["UNHEALTHY", "DEGRADED"]), Cluster::new("dead")];
    let proxy = start(program, clusters, routes, &filters).await;
    for (number, status) in [(1, 200), (4, 200), (3, 503), (9, 503)] {
        let (answered, text, session) =
            ask(&proxy, "/", &[("x-session", &session_at(&app, number))]).await;
        assert_eq!((answered, session), (status, None), "{number}");
        assert_eq!(text == "no healthy upstream", status == 503);
    }
    assert!(ask(&proxy, "/", &[]).await.2.is_some());
    assert_eq!(ask(&proxy, "/dead", &[]).await.0, 503);
    assert_eq!(figures(&proxy, SESSIONS).await, [2, 0, 3, 0]);
    assert_eq!(proxy.stat("cluster.app.upstream_cx_none_healthy").await, 2);
}

async fn a_session_goes_before_subset_and_policy(program: Program) {
    let app = Everywhere::start().await;
    let endpoint = |number, stage: &str| {
        let address = harness::bootstrap::socket_address(app.address(number));
        let metadata = json!({"filter_metadata": {"envoy.lb": {"stage": stage}}});
        json!({"endpoint": {"address": address}, "metadata": metadata})
    };
    let cluster = Cluster::new("app")
        .lb_endpoint(endpoint(1, "one"))
        .lb_endpoint(endpoint(2, "two"))
        .with("lb_policy", "RING_HASH")
        .with("lb_subset_config.subset_selectors", json!([{"keys": ["stage"]}]));
    let wanted = json!({"filter_metadata": {"envoy.lb": {"stage": "one"}}});
    let route = Route::prefix("/").to("app").with("route.metadata_match", wanted);
    let filters = [filter("s", &header_state("x-session"), false)];
    let proxy = start(program, [cluster], [route], &filters).await;
    assert_eq!(ask(&proxy, "/", &[]).await.1, app.address(1).ip().to_string());
    let (_, endpoint, session) = ask(&proxy, "/", &[("x-session", &session_at(&app, 2))]).await;
    assert_eq!((endpoint, session), (app.address(2).ip().to_string(), None));
}

async fn a_retry_may_leave_the_session(program: Program) {
    let app = Everywhere::start().await;
    let filters = [filter("s", &header_state("x-session"), true)];
    let previous = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
    let route = Route::prefix("/").to("app").retry(json!({
        "retry_on": "5xx",
        "num_retries": 1,
        "retry_back_off": {"base_interval": "0.001s"},
        "host_selection_retry_max_attempts": 20,
        "retry_host_predicate": [{"name": "previous", "typed_config": typed(previous, json!({}))}],
    }));
    let proxy = start(program, [four(&app, ["HEALTHY"; 2])], [route], &filters).await;
    let (status, endpoint, session) =
        ask(&proxy, "/fail", &[("x-session", &session_at(&app, 3))]).await;
    let arrivals = app.arrivals();
    assert_eq!((status, arrivals[0]), (503, app.address(3).ip()));
    assert_eq!((arrivals.len(), arrivals[1].to_string()), (2, endpoint.clone()));
    assert_ne!(endpoint, arrivals[0].to_string());
    assert_eq!(session, Some(base64(&format!("{endpoint}:{}", app.address(1).port()))));
    assert_eq!(figures(&proxy, SESSIONS).await, [0, 0, 0, 0]);
}

async fn the_proxys_own_answers_carry_the_session_too(program: Program) {
    let app = Everywhere::start().await;
    let nobody = harness::port::Port::reserve();
    let filters = [filter("s", &header_state("x-session"), false)];
    let routes = [
        Route::prefix("/nobody").to("nobody"),
        Route::prefix("/gone")
            .to("gone")
            .with("route.cluster_not_found_response_code", "NOT_FOUND"),
        Route::prefix("/direct").direct(200, "direct"),
        Route::prefix("/app").to("app"),
    ];
    let http = filtering(routes, &filters).with("route_config.validate_clusters", false);
    let proxy = Bootstrap::new()
        .listener(Listener::new("main", http))
        .cluster(four(&app, ["HEALTHY"; 2]))
        .cluster(Cluster::new("nobody").endpoint(nobody.address()))
        .start(program)
        .await;
    let (status, _, session) = ask(&proxy, "/nobody", &[]).await;
    assert_eq!((status, session), (503, Some(base64(&nobody.address().to_string()))));
    for (path, status) in [("/gone", 404), ("/direct", 200), ("/nothing", 404)] {
        let reply = ask(&proxy, path, &[("x-session", &session_at(&app, 1))]).await;
        assert_eq!((reply.0, reply.2), (status, None), "{path}");
    }
    assert_eq!(figures(&proxy, SESSIONS).await, [0, 1, 0, 0]);
}

async fn routes_have_sessions_of_their_own(program: Program) {
    let app = Everywhere::start().await;
    let own = |config: Value| typed(PER_ROUTE, config);
    let state = |name: &str| json!({"stateful_session": {"session_state": header_state(name)}});
    let mut counted = state("x-own");
    counted["stateful_session"]["stat_prefix"] = "own".into();
    let said =
        |route: Route, config: Value| route.with("typed_per_filter_config", json!({"s": config}));
    let disabled = typed("envoy.config.route.v3.FilterConfig", json!({"disabled": true}));
    let enabled = typed("envoy.config.route.v3.FilterConfig", json!({"config": {}}));
    let wrapped = json!({"config": own(state("x-wrapped"))});
    let wrapped = typed("envoy.config.route.v3.FilterConfig", wrapped);
    let routes = [
        said(Route::prefix("/own").to("app"), own(counted)),
        said(Route::prefix("/none").to("app"), own(json!({"disabled": true}))),
        said(Route::prefix("/disabled").to("app"), disabled),
        said(Route::prefix("/enabled").to("app"), enabled),
        said(Route::prefix("/wrapped").to("app"), wrapped),
        said(Route::prefix("/stateless").to("app"), own(json!({"stateful_session": {}}))),
        Route::prefix("/weighted").to_weighted([("app", 1)]).with(
            "route.weighted_clusters.clusters.0.typed_per_filter_config",
            json!({"s": own(state("x-weighted"))}),
        ),
        Route::prefix("/").to("app"),
    ];
    let filters = [filter("s", &header_state("x-session"), false)];
    let http = filtering(routes, &filters)
        .with(
            "route_config.virtual_hosts.0.typed_per_filter_config",
            json!({"s": own(state("x-host"))}),
        )
        .with("route_config.typed_per_filter_config", json!({"s": own(state("x-table"))}));
    let bootstrap = Bootstrap::new().listener(Listener::new("main", http));
    let proxy = bootstrap.cluster(four(&app, ["HEALTHY"; 2])).start(program).await;
    for (path, header) in [
        ("/own", "x-own"),
        ("/none", ""),
        ("/disabled", ""),
        ("/enabled", "x-host"),
        ("/wrapped", "x-wrapped"),
        ("/stateless", ""),
        ("/weighted", "x-weighted"),
        ("/", "x-host"),
    ] {
        let reply = proxy.get(path).send().await;
        let names = ["x-own", "x-wrapped", "x-weighted", "x-host", "x-table", "x-session"];
        let given: Vec<_> = names.into_iter().filter(|name| reply.header(name).is_some()).collect();
        assert_eq!(given.join(" "), header, "{path}");
        assert_eq!(reply.status, 200);
    }
    // Routes count under a prefix of their own, or not at all.
    assert_eq!(figures(&proxy, "stateful_session.own").await, [0, 1, 0, 0]);
    assert_eq!(figures(&proxy, SESSIONS).await, [0, 0, 0, 0]);
}

async fn a_filter_that_is_disabled_waits_for_its_route(program: Program) {
    let app = Everywhere::start().await;
    let mut late = filter("late", &header_state("x-late"), false);
    late["disabled"] = true.into();
    let enabled = typed("envoy.config.route.v3.FilterConfig", json!({"config": {}}));
    let per_route =
        typed(PER_ROUTE, json!({"stateful_session": {"session_state": header_state("x-route")}}));
    let said = |path: &str, config: &Value| {
        Route::prefix(path).to("app").with("typed_per_filter_config", json!({"late": config}))
    };
    let routes =
        [said("/enabled", &enabled), said("/own", &per_route), Route::prefix("/").to("app")];
    let filters = [filter("s", &header_state("x-session"), false), late];
    let proxy = start(program, [four(&app, ["HEALTHY"; 2])], routes, &filters).await;
    for (path, header) in [("/enabled", Some("x-late")), ("/own", Some("x-route")), ("/", None)] {
        let reply = proxy.get(path).send().await;
        let given = ["x-late", "x-route"].into_iter().find(|name| reply.header(name).is_some());
        assert_eq!(given, header, "{path}");
        assert!(reply.header("x-session").is_some());
    }
    // Of two that know where to go, the later one is heard.
    let (one, two) = (session_at(&app, 1), session_at(&app, 2));
    let reply = proxy.get("/enabled").header("x-session", &one).header("x-late", &two);
    let reply = reply.send().await;
    assert_eq!(reply.text(), app.address(2).ip().to_string());
    assert_eq!((reply.header("x-session"), reply.header("x-late")), (Some(two), None));
}
