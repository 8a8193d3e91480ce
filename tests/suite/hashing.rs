//! Requests that go where their hash says: sticky shares, consistent hashing, sessions.

mod tables;

use harness::{
    Backend, Bootstrap, Cluster, Everywhere, Program, Proxy, RawConnection, Route, Value, json,
};
use proxy::cluster::load_balancer::hash_table::{Entry, HashTable};
use proxy::config::cluster::{HashLb, HashTableKind};
use proxy::route::hash;

on_both!(
    users_stay_where_the_weights_sent_them,
    users_stay_where_they_were_sent_if_the_canary_comes_first,
    policies_decide_by_what_they_name,
    a_cookie_is_given_to_whoever_lacks_it,
    the_clients_address_may_decide,
    without_a_hash_chance_decides,
);

/// A proxy with eight endpoints balanced by MAGLEV for the requests of a route with `policies`.
async fn hashing(program: Program, app: &Everywhere, policies: Value) -> Proxy {
    let cluster =
        (1..=8).fold(Cluster::new("app"), |cluster, it| cluster.endpoint(app.address(it)));
    let route = Route::prefix("/").to("app").with("route.hash_policy", policies);
    let route = route
        .with("route.prefix_rewrite", "/rewritten/")
        .with("request_headers_to_remove", json!(["x-removed"]));
    Bootstrap::routing([route]).cluster(cluster.with("lb_policy", "MAGLEV")).start(program).await
}

/// The endpoint of a request with these headers.
async fn endpoint(proxy: &Proxy, path: &str, headers: &[(&str, &str)]) -> String {
    let call = headers.iter().fold(proxy.get(path), |call, (name, value)| call.header(name, value));
    let reply = call.send().await;
    assert_eq!(reply.status, 200);
    reply.text()
}

/// Where MAGLEV sends `hash` among those eight.
fn expected(app: &Everywhere, hash: u64) -> String {
    let entries =
        (1..=8).map(|it| Entry { key: app.address(it).to_string().into(), weight: 0.125 });
    let kind = HashTableKind::Maglev { size: 65_537 };
    let rules = HashLb { table: kind, use_hostname: false, balance_factor: None };
    let place = HashTable::new(entries.collect(), rules).pick(hash, 0, || 0, |_| 0).unwrap();
    app.address(u8::try_from(place).unwrap() + 1).ip().to_string()
}

async fn policies_decide_by_what_they_name(program: Program) {
    let app = Everywhere::start().await;
    let rewrite = json!({"pattern": {"regex": "^u-(.*)$"}, "substitution": "\\1"});
    let proxy = hashing(
        program,
        &app,
        json!([
            {"header": {"header_name": "x-first", "regex_rewrite": rewrite}, "terminal": true},
            {"header": {"header_name": "x-removed"}, "terminal": true},
            {"header": {"header_name": "X-Key"}},
            {"filter_state": {"key": "nobody.sets.it"}},
            {"query_parameter": {"name": "q"}},
            {"cookie": {"name": "c"}, "terminal": true},
            {"header": {"header_name": ":path"}},
        ]),
    )
    .await;
    let h = |text: &str| hash::bytes(text.as_bytes());
    let a_and_b = hash::chained([&b"a"[..], b"b"].into_iter());
    let all_three = (h("1").rotate_left(1) ^ h("3")).rotate_left(1) ^ h("4");
    type Case = (&'static str, &'static [(&'static str, &'static str)], u64);
    let cases: [Case; 9] = [
        ("/a", &[("x-first", "u-7"), ("x-key", "1")], h("7")),
        ("/a", &[("x-first", "u-b"), ("x-first", "u-a")], a_and_b),
        ("/a?q=3", &[("x-key", "1"), ("cookie", "c=4")], all_three),
        ("/a?q=", &[], h("")),
        ("/a?p=1&q=%31&q=2", &[("cookie", "b=1; c=\"2\"")], h("%31").rotate_left(1) ^ h("2")),
        ("/a?q", &[("cookie", "c=")], h("")),
        ("/b", &[("x-removed", "1")], h("/rewritten/b")),
        ("/a", &[("x-key", "b"), ("x-key", "a")], a_and_b),
        ("/a", &[("x-key", "")], h("")),
    ];
    for (path, headers, hash) in cases {
        assert_eq!(
            endpoint(&proxy, path, headers).await,
            expected(&app, hash),
            "{path} {headers:?}"
        );
    }
}

async fn a_cookie_is_given_to_whoever_lacks_it(program: Program) {
    let app = Everywhere::start().await;
    let attributes = json!([{"name": "SameSite", "value": "Strict"}, {"name": "Secure"}]);
    let cookie = json!({"name": "sid", "ttl": "90s", "path": "/p", "attributes": attributes});
    let proxy = hashing(program, &app, json!([{"cookie": cookie}])).await;
    let address = proxy.address("main");
    let mut client = RawConnection::open(address).await;
    let value = hash::cookie_value(client.local_address(), address);
    client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let reply = client.read_response().await;
    let attributes = "Max-Age=90; Path=/p; SameSite=Strict; Secure; HttpOnly";
    let line = format!("\r\nset-cookie: sid=\"{value}\"; {attributes}\r\n");
    assert!(reply.contains(&line), "{line:?} in {reply:?}");
    let endpoint = expected(&app, hash::bytes(value.as_bytes()));
    assert!(reply.ends_with(&endpoint), "{endpoint} in {reply}");

    let reply = proxy.get("/").header("cookie", &format!("sid={value}")).send().await;
    assert_eq!((reply.text(), reply.header("set-cookie")), (endpoint, None));
}

async fn the_clients_address_may_decide(program: Program) {
    let app = Everywhere::start().await;
    let policies = json!([{"connection_properties": {"source_ip": true}}]);
    let proxy = hashing(program, &app, policies).await;
    for client in ["10.1.2.3", "10.1.2.4", "2001:db8::1"] {
        let headers = [("x-forwarded-for", client)];
        let hash = hash::address(client.parse().unwrap());
        assert_eq!(endpoint(&proxy, "/", &headers).await, expected(&app, hash), "{client}");
    }
}

async fn without_a_hash_chance_decides(program: Program) {
    let app = Everywhere::start().await;
    let policies = json!([{"header": {"header_name": "x-key"}}]);
    let proxy = hashing(program, &app, policies).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        seen.insert(endpoint(&proxy, "/", &[]).await);
    }
    assert!(seen.len() > 4, "{seen:?}");
}

/// Which of `users` the canary gets at `weight` percent, when it stands before the other cluster or after it.
async fn on_canary(program: Program, weight: u32, canary_first: bool, users: u32) -> Vec<bool> {
    let (stable, canary) = (Backend::echo("stable").await, Backend::echo("canary").await);
    let policies = json!([{"header": {"header_name": "x-user"}}]);
    let mut shares = [("stable", 100 - weight), ("canary", weight)];
    if canary_first {
        shares.reverse();
    }
    let proxy = Bootstrap::routing([Route::prefix("/")
        .to_weighted(shares)
        .with("route.weighted_clusters.use_hash_policy", true)
        .with("route.hash_policy", policies)])
    .cluster(Cluster::new("stable").endpoint(&stable))
    .cluster(Cluster::new("canary").endpoint(&canary))
    .start(program)
    .await;
    let client = proxy.client();
    let mut connection = client.connect().await.unwrap();
    let mut chosen = Vec::new();
    for user in 0..users {
        let call = client.get("/").header("x-user", &format!("user-{user}"));
        chosen.push(connection.send(call).await.unwrap().echo().backend() == "canary");
    }
    chosen
}

async fn users_only_move_to_the_cluster_whose_weight_rises(program: Program, canary_first: bool) {
    let users = if full_load() { 10_000 } else { 300 };
    let mut before = vec![false; users as usize];
    for weight in [5, 20, 50, 100] {
        let now = on_canary(program, weight, canary_first, users).await;
        let back = before.iter().zip(&now).filter(|(before, now)| **before && !**now).count();
        assert_eq!(back, 0, "users went back when the weight rose to {weight}");
        let weight = u64::from(weight);
        let expected = (0..users).map(|user| {
            let place = hash::bytes(format!("user-{user}").as_bytes()) % 100;
            if canary_first { place < weight } else { place >= 100 - weight }
        });
        assert!(now.iter().copied().eq(expected), "not by the hash at {weight}");
        // Few users are spread less evenly.
        let share = now.iter().filter(|canary| **canary).count() as f64;
        let share = 100.0 * share / f64::from(users);
        let allowed = if full_load() { 0.5 } else { 6.0 };
        assert!((share - weight as f64).abs() <= allowed, "{share} % of {weight} %");
        before = now;
    }
}

async fn users_stay_where_the_weights_sent_them(program: Program) {
    users_only_move_to_the_cluster_whose_weight_rises(program, false).await;
}

async fn users_stay_where_they_were_sent_if_the_canary_comes_first(program: Program) {
    users_only_move_to_the_cluster_whose_weight_rises(program, true).await;
}

fn full_load() -> bool {
    std::env::var("LOAD").is_ok_and(|load| load == "full")
}
