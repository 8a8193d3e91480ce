//! TLS on both sides: who may connect, which certificate is shown, what the backend learns of it.

use certs::{Request, Usage, Validity};
use harness::pki::{Identity, SERVER_NAME};
use harness::{
    Backend, Bootstrap, Client, Cluster, Http, Listener, Pki, Program, Proxy, RawConnection, Route,
    Value, json,
};
use std::time::{Duration, SystemTime};

on_both!(
    only_clients_of_the_authority_get_in,
    a_client_must_have_the_expected_name,
    every_mode_of_forwarding_the_client_certificate,
    the_certificate_details_are_those_asked_for,
    a_chain_is_chosen_by_server_name,
    a_chain_is_chosen_by_application_protocol,
    a_certificate_is_chosen_by_server_name,
    plain_text_is_refused_on_a_tls_port,
    a_client_certificate_may_be_optional,
    a_hop_between_two_proxies_is_mutual,
    an_unexpected_upstream_identity_is_refused,
    the_upstream_name_follows_the_host,
    endpoints_choose_their_transport_socket,
    both_protocols_are_offered_by_alpn,
);

const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/client";

struct Tls {
    pki: Pki,
    server: Identity,
    client: Identity,
    app: Backend,
}

impl Tls {
    async fn new() -> Self {
        let pki = Pki::new();
        let (server, client) = (pki.workload("server"), pki.workload("client"));
        Self { pki, server, client, app: Backend::echo("app").await }
    }

    /// A proxy to the backend whose listener has this TLS context.
    async fn proxy(&self, program: Program, context: Value, http: Http) -> Proxy {
        Bootstrap::new()
            .listener(Listener::new("main", http).tls(context))
            .cluster(Cluster::new("app").endpoint(&self.app))
            .start(program)
            .await
    }

    fn with_certificate(&self, proxy: &Proxy) -> Client {
        proxy.client().tls(self.pki.client(Some(&self.client)))
    }
}

fn to_app() -> Http {
    Http::routing([Route::prefix("/").to("app")])
}

/// Whether a request with this identity gets through.
async fn admits(proxy: &Proxy, pki: &Pki, identity: Option<&Identity>) -> bool {
    let client = proxy.client().tls(pki.client(identity));
    client.get("/").try_send().await.is_ok_and(|reply| reply.status == 200)
}

async fn only_clients_of_the_authority_get_in(program: Program) {
    let tls = Tls::new().await;
    let proxy = tls.proxy(program, tls.pki.mutual(&tls.server), to_app()).await;
    assert!(admits(&proxy, &tls.pki, Some(&tls.client)).await);
    assert!(!admits(&proxy, &tls.pki, None).await, "no certificate");

    let uri = || Request::default().uri(CLIENT);
    let day = Duration::from_secs(24 * 60 * 60);
    let long_ago = SystemTime::now() - 30 * day;
    let expired = tls.pki.issue("expired", &uri().validity(Validity::from(long_ago, day)));
    assert!(!admits(&proxy, &tls.pki, Some(&expired)).await, "expired");
    let later = SystemTime::now() + 30 * day;
    let early = tls.pki.issue("early", &uri().validity(Validity::from(later, day)));
    assert!(!admits(&proxy, &tls.pki, Some(&early)).await, "not yet valid");
    let server_only = tls.pki.issue("server-only", &uri().usage(Usage::Server));
    assert!(!admits(&proxy, &tls.pki, Some(&server_only)).await, "not for clients");

    let stranger = Pki::new().workload("client");
    assert!(!admits(&proxy, &tls.pki, Some(&stranger)).await, "another authority");
    assert_eq!(tls.app.count(), 1);
    assert!(admits(&proxy, &tls.pki, Some(&tls.client)).await, "refusals harm nobody else");
}

async fn a_client_must_have_the_expected_name(program: Program) {
    let tls = Tls::new().await;
    let other = tls.pki.workload("other");
    for (matcher, admitted) in [
        (json!({"exact": CLIENT}), [true, false]),
        (json!({"prefix": "spiffe://cluster.local/"}), [true, true]),
        (json!({"suffix": "/sa/client"}), [true, false]),
        (
            json!({"safe_regex": {"regex": "spiffe://cluster.local/ns/[a-z]+/sa/o.*"}}),
            [false, true],
        ),
        (json!({"contains": "/sa/o"}), [false, true]),
    ] {
        let mut context = tls.pki.mutual(&tls.server);
        context["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"] =
            json!([{"san_type": "URI", "matcher": matcher}]);
        let proxy = tls.proxy(program, context, to_app()).await;
        let seen = [
            admits(&proxy, &tls.pki, Some(&tls.client)).await,
            admits(&proxy, &tls.pki, Some(&other)).await,
        ];
        assert_eq!(seen, admitted, "{matcher}");
    }
}

async fn every_mode_of_forwarding_the_client_certificate(program: Program) {
    let tls = Tls::new().await;
    let sent = "URI=spiffe://before/ns/a/sa/b";
    for (mode, expected) in [
        ("SANITIZE", None),
        ("FORWARD_ONLY", Some("sent")),
        ("APPEND_FORWARD", Some("sent,own")),
        ("SANITIZE_SET", Some("own")),
        ("ALWAYS_FORWARD_ONLY", Some("sent")),
    ] {
        let http = to_app()
            .with("forward_client_cert_details", mode)
            .with("set_current_client_cert_details.uri", true);
        let proxy = tls.proxy(program, tls.pki.mutual(&tls.server), http).await;
        let call = tls.with_certificate(&proxy).get("/").header("x-forwarded-client-cert", sent);
        let seen = call.send().await.echo().header("x-forwarded-client-cert");
        let hash = seen.as_deref().and_then(|text| text.split("Hash=").nth(1)?.get(..64));
        let by = "spiffe://cluster.local/ns/default/sa/server";
        let own = format!("By={by};Hash={};URI={CLIENT}", hash.unwrap_or_default());
        let expected = expected.map(|text| text.replace("sent", sent).replace("own", &own));
        assert_eq!(seen, expected, "{mode}");
    }
}

async fn the_certificate_details_are_those_asked_for(program: Program) {
    let tls = Tls::new().await;
    let request = Request::default()
        .uri(CLIENT)
        .dns("one.test")
        .dns("two.test")
        .organization("Outriggers")
        .common_name("client, the");
    let client = tls.pki.issue("detailed", &request);
    let all = json!({"subject": true, "cert": true, "chain": true, "dns": true, "uri": true});
    let http = to_app()
        .with("forward_client_cert_details", "SANITIZE_SET")
        .with("set_current_client_cert_details", all);
    let proxy = tls.proxy(program, tls.pki.mutual(&tls.server), http).await;
    let with = proxy.client().tls(tls.pki.client(Some(&client)));
    let seen = with.get("/").send().await.echo().header("x-forwarded-client-cert").unwrap();
    let pem: String = client.chain_pem().bytes().map(url_encoded).collect();
    assert!(seen.contains(&format!(";Cert=\"{pem}\"")), "{seen}");
    assert!(seen.contains(&format!(";Chain=\"{pem}\"")), "{seen}");
    assert!(seen.contains(";Subject=\"CN=client\\, the,O=Outriggers\""), "{seen}");
    assert!(seen.ends_with(&format!(";URI={CLIENT};DNS=one.test;DNS=two.test")), "{seen}");
}

fn url_encoded(byte: u8) -> String {
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    }
}

async fn a_chain_is_chosen_by_server_name(program: Program) {
    let tls = Tls::new().await;
    let chain = |body: &str| Http::routing([Route::prefix("/").direct(200, body)]);
    let context = || Some(Pki::server_only(&tls.server));
    let names = |names: Value| json!({"server_names": names});
    let everything = ["exact.test", "*.wild.test", "*.deep.wild.test", "other.test"];
    let request = everything.into_iter().fold(Request::default(), Request::dns);
    tls.pki.issue("server", &request).replace(&tls.server);
    let listener = Listener::new("main", chain("default"))
        .tls(Pki::server_only(&tls.server))
        .chain(names(json!(["exact.test"])), context(), chain("exact"))
        .chain(names(json!(["*.wild.test"])), context(), chain("wild"))
        .tls_inspector();
    let proxy = Bootstrap::new().listener(listener).start(program).await;
    for (name, answered) in [
        ("exact.test", "exact"),
        ("a.wild.test", "wild"),
        ("a.deep.wild.test", "wild"),
        ("other.test", "default"),
    ] {
        let mut options = tls.pki.client(None);
        name.clone_into(&mut options.server_name);
        let reply = proxy.client().tls(options).get("/").send().await;
        assert_eq!(reply.text(), answered, "{name}");
    }
}

async fn a_chain_is_chosen_by_application_protocol(program: Program) {
    let tls = Tls::new().await;
    let chain = |body: &str| Http::routing([Route::prefix("/").direct(200, body)]);
    let mut context = Pki::server_only(&tls.server);
    context["common_tls_context"]["alpn_protocols"] = json!(["h2", "http/1.1"]);
    let listener = Listener::new("main", chain("one"))
        .tls(context.clone())
        .chain(json!({"application_protocols": ["h2"]}), Some(context), chain("two"))
        .tls_inspector();
    let proxy = Bootstrap::new().listener(listener).start(program).await;
    let options = tls.pki.client(None);
    let http1 = proxy.client().tls(options.clone()).get("/").send().await;
    assert_eq!(http1.text(), "one");
    let http2 = Client::http2(proxy.address("main")).tls(options).get("/").send().await;
    assert_eq!((http2.text().as_str(), http2.version), ("two", http::Version::HTTP_2));
}

async fn a_certificate_is_chosen_by_server_name(program: Program) {
    let tls = Tls::new().await;
    let one = tls.pki.issue("one", &Request::default().dns("one.test"));
    let two = tls.pki.issue("two", &Request::default().dns("*.two.test"));
    let certificates = json!([one.certificate(), two.certificate()]);
    let context = json!({"common_tls_context": {"tls_certificates": certificates}});
    let proxy = tls.proxy(program, context, to_app()).await;
    for name in ["one.test", "a.two.test"] {
        let mut options = tls.pki.client(None);
        name.clone_into(&mut options.server_name);
        // The client verifies the name, so 200 says that the right certificate came.
        assert_eq!(proxy.client().tls(options).get("/").send().await.status, 200, "{name}");
    }
}

async fn plain_text_is_refused_on_a_tls_port(program: Program) {
    let tls = Tls::new().await;
    let proxy = tls.proxy(program, tls.pki.mutual(&tls.server), to_app()).await;
    let mut connection = RawConnection::open(proxy.address("main")).await;
    connection.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = connection.read_to_end().await;
    assert!(!answer.contains("HTTP"), "{answer}");
    assert_eq!(tls.app.count(), 0);
}

async fn a_client_certificate_may_be_optional(program: Program) {
    let tls = Tls::new().await;
    let mut context = tls.pki.mutual(&tls.server);
    context["require_client_certificate"] = false.into();
    let http = to_app()
        .with("forward_client_cert_details", "SANITIZE_SET")
        .with("set_current_client_cert_details.uri", true);
    let proxy = tls.proxy(program, context, http).await;
    let without = proxy.client().tls(tls.pki.client(None)).get("/").send().await.echo();
    assert_eq!(without.header("x-forwarded-client-cert"), None);
    let with = tls.with_certificate(&proxy).get("/").send().await.echo();
    let details = with.header("x-forwarded-client-cert").unwrap();
    assert!(details.ends_with(&format!("URI={CLIENT}")), "{details}");
    let stranger = Pki::new().workload("client");
    assert!(!admits(&proxy, &tls.pki, Some(&stranger)).await, "optional, but not arbitrary");
}

async fn a_hop_between_two_proxies_is_mutual(program: Program) {
    let tls = Tls::new().await;
    let http = to_app()
        .with("forward_client_cert_details", "SANITIZE_SET")
        .with("set_current_client_cert_details.uri", true);
    // Each program once with itself and once with the other as its peer.
    for peer in [Program::Outrigger, Program::Envoy] {
        if !peer.is_installed() {
            continue;
        }
        let sidecar = tls.proxy(peer, tls.pki.mutual(&tls.server), http.clone()).await;
        for cluster in [Cluster::new("app"), Cluster::new("app").http2()] {
            let mut context = tls.pki.common(&tls.client);
            context["validation_context"]["match_typed_subject_alt_names"] =
                json!([{"san_type": "URI", "matcher": {"suffix": "/sa/server"}}]);
            let context = json!({"common_tls_context": context, "sni": SERVER_NAME});
            let edge = Bootstrap::http(to_app())
                .cluster(cluster.endpoint(sidecar.address("main")).tls(context))
                .start(program)
                .await;
            let echo = edge.get("/hop").send().await.echo();
            let details = echo.header("x-forwarded-client-cert").unwrap();
            assert!(details.contains(&format!("URI={CLIENT}")), "{peer:?}: {details}");
            assert!(edge.stat("cluster.app.ssl.handshake").await > 0);
        }
    }
}

async fn an_unexpected_upstream_identity_is_refused(program: Program) {
    let tls = Tls::new().await;
    let sidecar = tls.proxy(program, Pki::server_only(&tls.server), to_app()).await;
    let trusting = |pki: &Pki, san: &str| {
        json!({"sni": SERVER_NAME, "common_tls_context": {"validation_context": {
            "trusted_ca": {"filename": pki.root()},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"suffix": san}}],
        }}})
    };
    let stranger = Pki::new();
    for (context, status) in [
        (trusting(&tls.pki, "/sa/server"), 200),
        (trusting(&tls.pki, "/sa/bank"), 503),
        (trusting(&stranger, "/sa/server"), 503),
    ] {
        let edge = Bootstrap::http(to_app())
            .cluster(Cluster::new("app").endpoint(sidecar.address("main")).tls(context))
            .start(program)
            .await;
        let reply = edge.get("/").send().await;
        assert_eq!(reply.status, status, "{}", reply.text());
    }
}

async fn the_upstream_name_follows_the_host(program: Program) {
    let tls = Tls::new().await;
    let names = tls.pki.issue("names", &Request::default().dns("one.test").dns("two.test"));
    let http = to_app();
    let listener = Listener::new("main", http)
        .tls(Pki::server_only(&names))
        .chain(
            json!({"server_names": ["two.test"]}),
            Some(Pki::server_only(&names)),
            Http::routing([Route::prefix("/").direct(200, "chain of two.test")]),
        )
        .tls_inspector();
    let sidecar = Bootstrap::new()
        .listener(listener)
        .cluster(Cluster::new("app").endpoint(&tls.app))
        .start(program)
        .await;
    let trust = json!({"common_tls_context":
        {"validation_context": {"trusted_ca": {"filename": tls.pki.root()}}}});
    let cluster =
        Cluster::new("app").endpoint(sidecar.address("main")).tls(trust.clone()).http_option(
            "upstream_http_protocol_options",
            json!({"auto_sni": true, "auto_san_validation": true}),
        );
    let edge = Bootstrap::http(to_app()).cluster(cluster).start(program).await;
    assert_eq!(edge.get("/").host("one.test").send().await.echo().backend(), "app");
    assert_eq!(edge.get("/").host("two.test").send().await.text(), "chain of two.test");
    assert_eq!(edge.get("/").host("three.test").send().await.status, 503, "not in the certificate");

    let options = json!({"auto_sni": true, "auto_san_validation": true,
        "override_auto_sni_header": "x-name"});
    let cluster = Cluster::new("app").endpoint(sidecar.address("main"));
    let cluster = cluster.tls(trust).http_option("upstream_http_protocol_options", options);
    let edge = Bootstrap::http(to_app()).cluster(cluster).start(program).await;
    let named = edge.get("/").host("three.test").header("x-name", "two.test:81");
    assert_eq!(named.send().await.text(), "chain of two.test");
    assert_eq!(edge.get("/").host("one.test").send().await.echo().backend(), "app");
}

async fn endpoints_choose_their_transport_socket(program: Program) {
    let tls = Tls::new().await;
    let sidecar = tls.proxy(program, tls.pki.mutual(&tls.server), to_app()).await;
    let context = json!({"sni": SERVER_NAME, "common_tls_context": tls.pki.common(&tls.client)});
    let upstream =
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    let mut typed = context;
    typed["@type"] = upstream.into();
    let raw = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
    let matches = json!([
        {"name": "mtls", "match": {"mtls": "yes"},
         "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": typed}},
        {"name": "plain", "match": {},
         "transport_socket": {"name": "envoy.transport_sockets.raw_buffer", "typed_config": {"@type": raw}}},
    ]);
    let at = |address: std::net::SocketAddr, mtls: &str| {
        let socket = harness::bootstrap::socket_address(address);
        json!({"endpoint": {"address": socket},
            "metadata": {"filter_metadata": {"envoy.transport_socket_match": {"mtls": mtls}}}})
    };
    let plain = Backend::echo("plain").await;
    let cluster = Cluster::new("app")
        .lb_endpoint(at(sidecar.address("main"), "yes"))
        .lb_endpoint(at(plain.address(), "no"))
        .with("transport_socket_matches", matches);
    let edge = Bootstrap::http(to_app()).cluster(cluster).start(program).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..10 {
        seen.insert(edge.get("/").send().await.echo().backend().to_owned());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["app", "plain"]);
}

async fn both_protocols_are_offered_by_alpn(program: Program) {
    let tls = Tls::new().await;
    let mut context = Pki::server_only(&tls.server);
    context["common_tls_context"]["alpn_protocols"] = json!(["h2", "http/1.1"]);
    let proxy = tls.proxy(program, context, to_app()).await;
    let options = tls.pki.client(None);
    let one = proxy.client().tls(options.clone()).get("/").send().await;
    assert_eq!((one.status, one.version), (200, http::Version::HTTP_11));
    assert_eq!(one.echo().header("x-forwarded-proto").as_deref(), Some("https"));
    let two = Client::http2(proxy.address("main")).tls(options).get("/").send().await;
    assert_eq!((two.status, two.version), (200, http::Version::HTTP_2));
}
