//! Who the client of a request is for `rbac`: by certificate, by address.

use certs::Request;
use harness::bootstrap::typed;
use harness::{Bootstrap, Client, Listener, Pki, Program, Proxy, RawConnection, Value, json};

use super::{may, object, policy, ruled, status, who};

on_both!(
    clients_are_known_by_their_certificates,
    a_certificate_may_have_to_be_verified,
    addresses_are_those_of_the_socket_of_a_header_or_of_a_proxy,
);

/// A client that presents a certificate with these names.
fn named(proxy: &Proxy, pki: &Pki, request: &Request) -> Client {
    proxy.client().tls(pki.client(Some(&pki.issue("client", request))))
}

pub(crate) fn authenticated(matcher: Value) -> Value {
    let name = object([("principal_name", matcher)]);
    vec![object([("authenticated", name)])].into()
}

async fn clients_are_known_by_their_certificates(program: Program) {
    let policies = json!({
        "uri": who(authenticated(json!({"exact": "spiffe://cluster.local/ns/a/sa/b"}))),
        "namespace": who(authenticated(json!({"safe_regex": {"regex": ".*/ns/ops/.*"}}))),
        "dns": who(authenticated(json!({"suffix": ".ops.test"}))),
        "subject": who(authenticated(json!({"exact": "CN=carl,O=Ops"}))),
        "anyone": {"permissions": [{"url_path": {"path": {"exact": "/tls"}}}], "principals": [{"authenticated": {}}]},
        "empty": {
            "permissions": [{"url_path": {"path": {"exact": "/empty"}}}],
            "principals": authenticated(json!({"exact": ""})),
        },
    });
    let pki = Pki::new();
    let server = pki.workload("server");
    let mut tls = pki.mutual(&server);
    tls["require_client_certificate"] = false.into();
    let http = ruled("ALLOW", policies);
    let proxy = Bootstrap::new()
        .listener(Listener::new("main", http.clone()).tls(tls))
        .listener(Listener::new("plain", http))
        .start(program)
        .await;
    let uri = |account: &str| Request::default().uri(account);
    for (request, expected) in [
        (uri("spiffe://cluster.local/ns/a/sa/b"), 200),
        (uri("spiffe://cluster.local/ns/a/sa/bb"), 403),
        (uri("spiffe://x/ns/ops/sa/any"), 200),
        (uri("spiffe://x/ns/other/sa/any").uri("spiffe://cluster.local/ns/a/sa/b"), 200),
        (uri("spiffe://x/ns/other/sa/any").dns("one.ops.test"), 200),
        (Request::default().dns("one.test").organization("Ops").common_name("carl"), 200),
        (Request::default().dns("one.test").organization("Dev").common_name("carl"), 403),
    ] {
        let reply = named(&proxy, &pki, &request).get("/").send().await;
        assert_eq!(reply.status, expected, "{request:?}");
    }
    let nobody = proxy.client().tls(pki.client(None));
    let plain = Client::http1(proxy.address("plain"));
    for (path, with_tls, without) in [("/", 403, 403), ("/tls", 200, 403), ("/empty", 200, 403)] {
        assert_eq!(nobody.get(path).send().await.status, with_tls, "{path}");
        assert_eq!(plain.get(path).send().await.status, without, "{path}");
    }
}

async fn a_certificate_may_have_to_be_verified(program: Program) {
    let custom = |fields: Value| {
        let name = "envoy.extensions.rbac.principals.mtls_authenticated.v3.Config";
        json!([{"custom": {"name": "mtls", "typed_config": typed(name, fields)}}])
    };
    let at = |path: &str, principals: Value| {
        policy(json!([{"url_path": {"path": {"exact": path}}}]), principals)
    };
    let san =
        |kind: &str, matcher: Value| json!({"san_matcher": {"san_type": kind, "matcher": matcher}});
    let policies = json!({
        "any": at("/any", custom(json!({"any_validated_client_certificate": true}))),
        "uri": at("/uri", custom(san("URI", json!({"prefix": "spiffe://td/ns/a/"})))),
        "dns": at("/dns", custom(san("DNS", json!({"exact": "one.test"})))),
        "weak": at("/weak", authenticated(json!({"prefix": "spiffe://td/ns/a/"}))),
    });
    let pki = Pki::new();
    let server = pki.workload("server");
    let mut tls = pki.mutual(&server);
    tls["require_client_certificate"] = false.into();
    let mut lax = tls.clone();
    let validation = &mut lax["common_tls_context"]["validation_context"];
    validation["trust_chain_verification"] = "ACCEPT_UNTRUSTED".into();
    let http = ruled("ALLOW", policies);
    let proxy = Bootstrap::new()
        .listener(Listener::new("main", http.clone()).tls(tls))
        .listener(Listener::new("lax", http).tls(lax))
        .start(program)
        .await;
    let request = Request::default().uri("spiffe://td/ns/a/sa/b").dns("one.test");
    let known = pki.client(Some(&pki.issue("known", &request)));
    let stranger = pki.client(Some(&Pki::new().issue("stranger", &request)));
    let other = pki.client(Some(&pki.issue("other", &Request::default().dns("two.test"))));
    let nobody = pki.client(None);
    let lax = Client::http1(proxy.address("lax"));
    for (path, expected) in [
        ("/any", [200, 403, 200, 200, 403]),
        ("/uri", [200, 403, 403, 200, 403]),
        ("/dns", [200, 403, 403, 200, 403]),
        ("/weak", [200, 403, 403, 200, 200]),
    ] {
        let strictly = [&known, &nobody, &other].map(|it| proxy.client().tls(it.clone()));
        let laxly = [&known, &stranger].map(|it| lax.clone().tls(it.clone()));
        for (client, expected) in strictly.into_iter().chain(laxly).zip(expected) {
            assert_eq!(client.get(path).send().await.status, expected, "{path}");
        }
    }
}

async fn addresses_are_those_of_the_socket_of_a_header_or_of_a_proxy(program: Program) {
    let range = |ip: &str| json!({"address_prefix": ip, "prefix_len": 32});
    let at = |path: &str, principal: Value| json!({"permissions": [{"url_path": {"path": {"exact": path}}}], "principals": [principal]});
    let bootstrap = Bootstrap::new();
    let policies = json!({
        "remote": at("/remote", json!({"remote_ip": range("1.2.3.4")})),
        "source": at("/source", json!({"source_ip": range("5.6.7.8")})),
        "direct": at("/direct", json!({"direct_remote_ip": range("127.0.0.1")})),
        "to": may(json!([{"and_rules": {"rules": [
            {"url_path": {"path": {"exact": "/to"}}},
            {"destination_ip": range("9.9.9.9")},
            {"destination_port_range": {"start": 80, "end": 81}},
            {"not_rule": {"destination_port": 81}},
        ]}}])),
    });
    let http = ruled("ALLOW", policies);
    let behind = Listener::new("behind", http.clone()).listener_filter(
        "proxy_protocol",
        "ProxyProtocol",
        json!({}),
    );
    let proxy =
        bootstrap.listener(Listener::new("main", http)).listener(behind).start(program).await;
    let forwarded = [("x-forwarded-for", "1.2.3.4")];
    for (path, direct, with_header) in
        [("/remote", 403, 200), ("/source", 403, 403), ("/direct", 200, 200), ("/to", 403, 403)]
    {
        assert_eq!(status(&proxy, path, &[]).await, direct, "{path}");
        assert_eq!(status(&proxy, path, &forwarded).await, with_header, "{path}");
    }
    for (path, expected) in
        [("/remote", "403"), ("/source", "200"), ("/direct", "200"), ("/to", "200")]
    {
        let mut connection = RawConnection::open(proxy.address("behind")).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        connection.write(format!("PROXY TCP4 5.6.7.8 9.9.9.9 1000 80\r\n{request}")).await;
        let head = connection.read_head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {expected}")), "{path}: {head}");
    }
}
