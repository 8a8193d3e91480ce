//! At the edge: the tokens and the service that decide about what a gateway lets in.

use std::net::SocketAddr;

use harness::{AuthzServer, Backend, Client, Program, Value, json};
use xds::envoy::service::auth::v3::CheckResponse;
use xds::yaml::Document;

use super::mesh::{Mesh, asking_for, client};
use super::{pod, verdict};

on_both!(routes_follow_what_tokens_say, a_service_decides_and_may_be_away);

/// Where it speaks TLS.
const GATEWAY: SocketAddr = pod(5, 8443);

/// A client from outside.
fn outsider(mesh: &Mesh) -> Client {
    let tls = asking_for("app.example.com", mesh.pki.client(None));
    client("192.0.2.9", Some(&tls), GATEWAY)
}

async fn routes_follow_what_tokens_say(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let _reviews = Backend::echo_at("reviews", pod(27, 9080)).await;
    let _proxy = mesh.node("router-ingressgateway").with_plain_endpoints().start(program).await;
    let client = outsider(&mesh);
    let asks = |path: &str, claims: Option<Value>| {
        let call = client.get(path).host("app.example.com");
        match claims {
            Some(claims) => {
                let token = mesh.first.token(claims);
                call.header("authorization", &format!("Bearer {token}"))
            }
            None => call,
        }
    };
    let admins = json!({"groups": ["x", "admins"]});
    for (path, claims, expected) in [
        ("/", Some(admins), "200"),
        ("/", Some(json!({"groups": "admins"})), "200"),
        ("/", Some(json!({"groups": ["admin"]})), "503"),
        ("/", None, "503"),
        ("/", Some(json!({"groups": "admins", "exp": 1})), "401 Jwt is expired"),
        (
            "/",
            Some(json!({"iss": "https://second.example.com"})),
            "401 Jwt issuer is not configured",
        ),
    ] {
        let what = format!("{path} {claims:?}");
        assert_eq!(verdict(asks(path, claims)).await, expected, "{what}");
    }
    let echo = asks("/", Some(json!({"groups": "admins"}))).send().await.echo();
    assert_eq!(echo.backend(), "reviews");
}

async fn a_service_decides_and_may_be_away(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let app = Backend::echo_at("reviews", pod(27, 9080)).await;
    let service = AuthzServer::authorizing(|request| {
        let http = harness::grpc::http(request)?;
        let text = match http.headers.get("x-user").map(String::as_str) {
            Some("good") => "ok_response: {headers: [{header: {key: x-by, value: authz}}]}",
            _ => "status: {code: 7}\ndenied_response: {status: {code: 401}, body: nobody}",
        };
        let answer: CheckResponse = Document::new("answer", text).read().unwrap();
        Some(Ok(answer))
    })
    .await;
    let cluster = "outbound|9000||ext-authz.istio-system.svc.cluster.local";
    let node = mesh.node("router-ingressgateway").with_plain_endpoints();
    let _proxy = node.endpoint(cluster, service.address()).start(program).await;
    let client = outsider(&mesh);
    let token = mesh.first.token(json!({"groups": "admins"}));
    let asks = |path: &str, user: &str| {
        let call = client.get(path).host("app.example.com").header("x-user", user);
        call.header("authorization", &format!("Bearer {token}"))
    };
    let echo = asks("/secure/x", "good").send().await.echo();
    assert_eq!(echo.header("x-by").as_deref(), Some("authz"));
    assert_eq!(verdict(asks("/secure/x", "bad")).await, "401 nobody");
    assert_eq!(verdict(asks("/insecure", "bad")).await, "200");
    assert_eq!((service.count(), app.count()), (2, 2));
    drop(service);
    assert_eq!(verdict(asks("/secure/x", "bad")).await, "200");
}
