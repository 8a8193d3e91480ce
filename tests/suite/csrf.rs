//! The `csrf` filter: who may have browsers change something.

use harness::client::Call;
use harness::{Backend, Bootstrap, Cluster, Http, Listener, Program, Proxy, Route, Value, json};
use http::Method;

on_both!(
    requests_of_other_origins_are_refused,
    only_requests_that_change_something_are_looked_at,
    routes_have_policies_of_their_own,
);

const MESSAGE: &str = "csrf.v3.CsrfPolicy";

fn share(percent: u32) -> Value {
    json!({"default_value": {"numerator": percent}})
}

async fn start(program: Program, app: &Backend, http: Http) -> Proxy {
    let bootstrap =
        Bootstrap::new().listener(Listener::new("main", http.with("stat_prefix", "ing")));
    bootstrap.cluster(Cluster::new("app").endpoint(app)).start(program).await
}

fn post(proxy: &Proxy, path: &str, name: &str, value: &str) -> Call {
    let call = proxy.client().post(path).host("a.test:80");
    if name.is_empty() { call } else { call.header(name, value) }
}

async fn requests_of_other_origins_are_refused(program: Program) {
    let app = Backend::echo("app").await;
    let policy = json!({
        "filter_enabled": share(100),
        "additional_origins": [{"exact": "b.test:81"}, {"suffix": ".ok"}],
    });
    let http = Http::routing([Route::prefix("/").to("app")]).filter("csrf", MESSAGE, policy);
    let proxy = start(program, &app, http).await;
    for (name, value, status) in [
        ("", "", 403),
        ("origin", "null", 403),
        ("origin", "http://a.test:80", 200),
        ("origin", "https://user@a.test:80", 200),
        ("origin", "a.test:80", 200),
        ("origin", "http://a.test", 403),
        ("origin", "http://b.test:81/x", 200),
        ("origin", "http://c.ok", 200),
        ("origin", "http://c.ok.test", 403),
        ("referer", "http://a.test:80/a/b?c", 200),
        ("referer", "http://c.test/", 403),
    ] {
        let reply = post(&proxy, "/", name, value).send().await;
        assert_eq!(reply.status, status, "{name} {value}");
        assert_eq!(reply.text() == "Invalid origin", status == 403, "{name} {value}");
    }
    for (name, count) in
        [("missing_source_origin", 2), ("request_invalid", 3), ("request_valid", 6)]
    {
        assert_eq!(proxy.stat(&format!("http.ing.csrf.{name}")).await, count, "{name}");
    }
}

async fn only_requests_that_change_something_are_looked_at(program: Program) {
    let app = Backend::echo("app").await;
    let policy = json!({"filter_enabled": share(100)});
    let http = Http::routing([Route::prefix("/").to("app")]).filter("csrf", MESSAGE, policy);
    let proxy = start(program, &app, http).await;
    for (method, status) in [
        (Method::GET, 200),
        (Method::OPTIONS, 200),
        (Method::POST, 403),
        (Method::PUT, 403),
        (Method::DELETE, 403),
        (Method::PATCH, 403),
    ] {
        let call = proxy.client().call(method.clone(), "/").header("origin", "http://c.test");
        assert_eq!(call.send().await.status, status, "{method}");
    }
}

async fn routes_have_policies_of_their_own(program: Program) {
    let app = Backend::echo("app").await;
    let shadow = json!({"filter_enabled": share(0), "shadow_enabled": share(100)});
    let routes = [
        Route::prefix("/shadow").to("app").tell("csrf", MESSAGE, shadow),
        Route::prefix("/off").to("app").tell("csrf", MESSAGE, json!({"filter_enabled": share(0)})),
        Route::prefix("/").to("app"),
    ];
    let policy = json!({"filter_enabled": share(100)});
    let proxy = start(program, &app, Http::routing(routes).filter("csrf", MESSAGE, policy)).await;
    for (path, status, counted) in [("/shadow", 200, 1), ("/off", 200, 1), ("/", 403, 2)] {
        let reply = post(&proxy, path, "origin", "http://c.test").send().await;
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(proxy.stat("http.ing.csrf.request_invalid").await, counted, "{path}");
    }
}
