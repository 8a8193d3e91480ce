//! Who may do what: ALLOW and DENY by principals, namespaces, paths, headers and addresses; dry runs; a local rate limit.

use harness::{Backend, Program, TcpBackend, json};

use super::mesh::{Mesh, client, for_bytes};
use super::{CALLER, DENIED, MYSQL, PRODUCTPAGE, REVIEWS, WEB, verdict};

on_both!(
    allowed_is_what_a_rule_says,
    denied_is_what_a_rule_says_and_no_more,
    dry_runs_are_only_counted,
    nothing_is_allowed_where_no_rule_is,
    connections_are_allowed_by_principal_address_and_port,
    requests_are_limited_by_the_minute,
);

/// Who asks whom for what, in which team.
type Asked = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

async fn allowed_is_what_a_rule_says(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let _app = Backend::echo_at("app", REVIEWS).await;
    mesh.redirect(REVIEWS);
    // It has more to say than it has tokens for.
    let node = mesh.node("sidecar-reviews-v2").only_inbound();
    let node = node.without_filters(|name| name == "envoy.filters.http.local_ratelimit");
    let proxy = node.start(program).await;
    let page = "default/bookinfo-productpage";
    let (there, one) = (CALLER, "/reviews/1");
    let table: &[(Asked, &str)] = &[
        ((there, page, "GET", "reviews", one, "blue"), "200"),
        ((there, page, "GET", "reviews", one, "green-1"), "200"),
        ((there, page, "HEAD", "reviews", one, "blue"), "200"),
        ((there, page, "GET", "Reviews.default:9080", one, "blue"), "200"),
        ((there, page, "GET", "api.example.com", one, "blue"), "200"),
        ((there, page, "GET", "reviews", "/x/health", "blue"), "200"),
        ((there, page, "GET", "reviews", "/exact?a=b", "blue"), "200"),
        ((there, page, "GET", "reviews", "/exact/", "blue"), DENIED),
        ((there, page, "GET", "reviews", "/reviews", "blue"), DENIED),
        ((there, page, "GET", "reviews", "/reviews/../other", "blue"), DENIED),
        ((there, page, "POST", "reviews", one, "blue"), DENIED),
        ((there, page, "GET", "other", one, "blue"), DENIED),
        ((there, page, "GET", "reviews", one, "bluer"), DENIED),
        ((there, page, "GET", "reviews", one, ""), DENIED),
        (("192.0.2.5", page, "GET", "reviews", one, "blue"), DENIED),
        (("10.9.1.1", page, "GET", "reviews", one, "blue"), "200"),
        ((there, "default/other", "GET", "reviews", one, "blue"), DENIED),
        ((there, "data/anybody", "GET", "reviews", one, "blue"), "200"),
        ((there, "data/bad-one", "GET", "reviews", one, "blue"), DENIED),
        ((there, "scoped/web", "GET", "reviews", one, "blue"), "200"),
        ((there, "scoped-too/web", "GET", "reviews", one, "blue"), "200"),
        ((there, "elsewhere/web", "GET", "reviews", one, "blue"), DENIED),
        ((there, "data/dbclient", "POST", "other", "/api/1/items/2/3", ""), "200"),
        ((there, "data/dbclient", "POST", "other", "/api/1/items/2", ""), "200"),
        ((there, "data/dbclient", "POST", "other", "/api/1/2/items/3", ""), DENIED),
        ((there, "data/dbclient", "POST", "other", "/api/1/item/2", ""), DENIED),
        ((there, "data/anybody", "POST", "other", "/api/1/items/2/3", ""), DENIED),
        ((there, "", "GET", "reviews", one, "blue"), DENIED),
        ((there, page, "GET", "reviews", "/shadow", "blue"), DENIED),
    ];
    for (asked, expected) in table {
        let (from, account, method, host, path, team) = *asked;
        let workload = (!account.is_empty()).then(|| mesh.workload(account));
        let client = client(from, workload.as_ref(), REVIEWS);
        let call = client.call(method.parse().unwrap(), path).host(host);
        let call = if team.is_empty() { call } else { call.header("x-team", team) };
        assert_eq!(verdict(call).await, *expected, "{asked:?}");
    }
    let asked = table.len() as u64;
    let count = |name: &str| format!("http.inbound_0.0.0.0_9080;.rbac.{name}");
    proxy.until_stat(&count("istio_dry_run_allow_.shadow_allowed"), |found| found == 1).await;
    let denied = count("istio_dry_run_allow_.shadow_denied");
    proxy.until_stat(&denied, |found| found == asked - 1).await;
    let refused = table.iter().filter(|(_, expected)| *expected == DENIED).count() as u64;
    proxy.until_stat(&count("denied"), |found| found == refused).await;
}

async fn denied_is_what_a_rule_says_and_no_more(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let _app = Backend::echo_at("app", PRODUCTPAGE).await;
    mesh.redirect(PRODUCTPAGE);
    let _proxy = mesh.node("sidecar-productpage").only_inbound().start(program).await;
    let (listed, excepted) = ("198.51.100.9", "203.0.113.7");
    for (from, account, method, path, forwarded, expected) in [
        (listed, "data/dbclient", "POST", "/admin", "", DENIED),
        (listed, "data/dbclient", "PUT", "/administration/x", "", DENIED),
        (listed, "data/dbclient", "POST", "/x/..//admin", "", "200"),
        (listed, "data/dbclient", "POST", "/x/../admin", "", DENIED),
        (listed, "data/dbclient", "POST", "/other", "", "200"),
        (listed, "data/dbclient", "GET", "/admin", "", "200"),
        (listed, "default/other", "POST", "/admin", "", "200"),
        (CALLER, "data/dbclient", "POST", "/admin", "", "200"),
        (CALLER, "data/dbclient", "POST", "/admin", listed, DENIED),
        (CALLER, "data/dbclient", "POST", "/admin", "198.51.100.9, 10.0.0.1", "200"),
        (listed, "data/dbclient", "POST", "/admin", "10.0.0.1", "200"),
        (excepted, "data/dbclient", "POST", "/admin", listed, "200"),
        ("203.0.113.8", "data/dbclient", "POST", "/admin", listed, DENIED),
    ] {
        let client = client(from, Some(&mesh.workload(account)), PRODUCTPAGE);
        let call = client.call(method.parse().unwrap(), path);
        let call = match forwarded {
            "" => call,
            forwarded => call.header("x-forwarded-for", forwarded),
        };
        let what = format!("{from} {account} {method} {path} {forwarded}");
        assert_eq!(verdict(call).await, expected, "{what}");
    }
}

async fn dry_runs_are_only_counted(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let _app = Backend::echo_at("app", PRODUCTPAGE).await;
    mesh.redirect(PRODUCTPAGE);
    let proxy = mesh.node("sidecar-productpage").only_inbound().start(program).await;
    let client = client(CALLER, None, PRODUCTPAGE);
    for path in ["/headers", "/headers?a", "/header"] {
        assert_eq!(verdict(client.get(path)).await, "200", "{path}");
    }
    proxy
        .until_stats([
            ("http.inbound_0.0.0.0_9080;.rbac.istio_dry_run_deny_.shadow_denied", 2),
            ("http.inbound_0.0.0.0_9080;.rbac.istio_dry_run_deny_.shadow_allowed", 1),
            ("http.inbound_0.0.0.0_9080;.rbac.denied", 0),
        ])
        .await;
}

async fn nothing_is_allowed_where_no_rule_is(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let app = Backend::echo_at("app", WEB).await;
    mesh.redirect(WEB);
    let _proxy = mesh.node("sidecar-scoped-web").only_inbound().start(program).await;
    let workload = mesh.workload("scoped/web");
    for tls in [None, Some(&workload)] {
        assert_eq!(verdict(client(CALLER, tls, WEB).get("/")).await, DENIED);
    }
    assert_eq!(app.count(), 0);
}

async fn connections_are_allowed_by_principal_address_and_port(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let _app = TcpBackend::echo_at(MYSQL).await;
    mesh.redirect(MYSQL);
    let proxy = mesh.node("sidecar-mysqldb").only_inbound().start(program).await;
    // The policy asks for a principal at a port where, by another policy, nobody has one.
    for from in [CALLER, "10.9.0.1"] {
        assert!(!client(from, None, MYSQL).echoes(b"hello").await, "{from}");
    }
    proxy.until_stat("tcp.rbac.denied", |denied| denied == 2).await;
    drop(proxy);
    let node = mesh.node("sidecar-mysqldb").only_inbound().changed(|part| {
        if part.get("authenticated").is_some() {
            *part = json!({"any": true});
        }
    });
    let _proxy = node.start(program).await;
    let elsewhere = (MYSQL.ip(), 9999).into();
    let _other = TcpBackend::echo_at(elsewhere).await;
    let workload = for_bytes("mysqldb.data", mesh.workload("data/dbclient"));
    for (from, tls, to, passes) in [
        (CALLER, None, MYSQL, true),
        ("10.9.0.1", None, MYSQL, false),
        (CALLER, Some(&workload), elsewhere, false),
    ] {
        assert_eq!(client(from, tls, to).echoes(b"hello").await, passes, "{from} {to}");
    }
}

async fn requests_are_limited_by_the_minute(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let app = Backend::echo_at("app", REVIEWS).await;
    mesh.redirect(REVIEWS);
    let proxy = mesh.node("sidecar-reviews-v2").only_inbound().start(program).await;
    let workload = mesh.workload("default/bookinfo-productpage");
    let inside = client(CALLER, Some(&workload), REVIEWS);
    let ask = || inside.get("/reviews/1").host("reviews").header("x-team", "blue");
    for _ in 0..4 {
        assert_eq!(verdict(ask()).await, "200");
    }
    for _ in 0..2 {
        assert_eq!(verdict(ask()).await, "429 local_rate_limited");
    }
    // What comes without TLS goes through other filters, with tokens of their own.
    let outside = client(CALLER, None, REVIEWS);
    for _ in 0..4 {
        assert_eq!(verdict(outside.get("/")).await, DENIED);
    }
    assert_eq!(verdict(outside.get("/")).await, "429 local_rate_limited");
    assert_eq!(app.count(), 4);
    let limited = "http_local_rate_limiter.http_local_rate_limit.rate_limited";
    proxy.until_stat(limited, |found| found == 3).await;
}
