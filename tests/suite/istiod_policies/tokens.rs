//! Who calls, by their tokens: RequestAuthentication, what policies ask of claims, and CUSTOM.

use harness::backend::answer::Answer;
use harness::client::Call;
use harness::{Backend, Program, Value, json};

use super::mesh::{Mesh, asking_for, client};
use super::{CALLER, DENIED, PRODUCTPAGE, verdict};

on_both!(
    tokens_are_good_or_refused,
    a_token_may_be_in_several_places_and_is_passed_on,
    a_policy_reads_what_a_token_says,
    requests_without_a_token_are_let_in_as_the_policy_says,
    a_service_decides_about_one_path,
);

/// Adds a token where the policy looks for it: that of the first issuer in its own header, others where all are.
fn bearing(call: Call, token: &str, is_first: bool) -> Call {
    let header = if is_first { "x-jwt" } else { "authorization" };
    call.header(header, &format!("Bearer {token}"))
}

async fn tokens_are_good_or_refused(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let _app = Backend::echo_at("app", PRODUCTPAGE).await;
    mesh.redirect(PRODUCTPAGE);
    let _proxy = mesh.node("sidecar-productpage").only_inbound().start(program).await;
    // A policy lets everybody in who has a certificate of the mesh, so that only the token counts.
    let workload = mesh.workload("default/bookinfo-reviews");
    let client = client(CALLER, Some(&workload), PRODUCTPAGE);
    let (first, second) = (&mesh.first, &mesh.second);
    let other = harness::Issuer::signing("https://issuer.example.com", "RS256");
    let ours = |changes: Value| {
        let mut claims = json!({"aud": "bookinfo", "sub": "me"});
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        claims
    };
    let wrong_audience = "403 Audiences in Jwt are not allowed";
    for (what, token, is_first, expected) in [
        ("good", first.token(ours(json!({}))), true, "200"),
        ("for several", first.token(ours(json!({"aud": ["x", "bookinfo"]}))), true, "200"),
        ("expired", first.token(ours(json!({"exp": 1}))), true, "401 Jwt is expired"),
        (
            "not yet good",
            first.token(ours(json!({"nbf": harness::issuer::now() + 3600}))),
            true,
            "401 Jwt not yet valid",
        ),
        (
            "of somebody else",
            first.token(ours(json!({"iss": "https://x.example.com"}))),
            true,
            "401 Jwt issuer is not configured",
        ),
        ("for another", first.token(ours(json!({"aud": "other"}))), true, wrong_audience),
        ("for nobody", first.token(ours(json!({"aud": null}))), true, wrong_audience),
        ("forged", other.token(ours(json!({}))), true, "401 Jwt verification fails"),
        (
            "no token",
            "x.y".to_owned(),
            true,
            "401 Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
        ),
        ("of the second", second.token(json!({"sub": "you"})), false, "200"),
        ("of the second, expired", second.token(json!({"exp": 1})), false, "401 Jwt is expired"),
        (
            "in the wrong place",
            first.token(ours(json!({}))),
            false,
            "401 Jwt issuer is not configured",
        ),
    ] {
        let call = bearing(client.get("/"), &token, is_first);
        assert_eq!(verdict(call).await, expected, "{what}");
    }
    assert_eq!(verdict(client.get("/")).await, "200", "none at all");
}

async fn a_token_may_be_in_several_places_and_is_passed_on(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let app = Backend::echo_at("app", PRODUCTPAGE).await;
    mesh.redirect(PRODUCTPAGE);
    let _proxy = mesh.node("sidecar-productpage").only_inbound().start(program).await;
    let workload = mesh.workload("default/bookinfo-reviews");
    let client = client(CALLER, Some(&workload), PRODUCTPAGE);
    let token = mesh.first.token(json!({"aud": "bookinfo", "sub": "me"}));
    let cookie = client.get("/").header("cookie", &format!("a=b; sess={token}"));
    assert_eq!(verdict(cookie).await, "200");
    assert_eq!(verdict(client.get(&format!("/?token={token}"))).await, "200");
    let echo = bearing(client.get("/"), &token, true).send().await.echo();
    assert_eq!(app.count(), 3);
    assert_eq!(echo.header("x-sub").as_deref(), Some("me"));
    assert_eq!(echo.header("x-jwt"), Some(format!("Bearer {token}")));
    assert!(echo.header("x-payload").is_some());
}

/// What the first rule of the policy `jwt-productpage` asks for, with changes.
fn claims(changes: &Value) -> Value {
    let mut claims = json!({
        "aud": "bookinfo",
        "sub": "me",
        "groups": ["x", "ops"],
        "realm": {"role": "reader"},
        "azp": "p",
    });
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    claims
}

async fn a_policy_reads_what_a_token_says(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let _app = Backend::echo_at("app", PRODUCTPAGE).await;
    mesh.redirect(PRODUCTPAGE);
    // The third rule lets in whoever has a certificate, and the first asks for a name that only TLS tells.
    let third = "ns[default]-policy[jwt-productpage]-rule[2]";
    let node = mesh.node("sidecar-productpage").only_inbound().changed(|part| {
        if let Some(fields) = part.as_object_mut() {
            fields.remove(third);
        }
    });
    let _proxy = node.start(program).await;
    let workload = mesh.workload("default/bookinfo-reviews");
    let inside = client(CALLER, Some(&workload), PRODUCTPAGE);
    for (changes, expected) in [
        (json!({}), "200"),
        (json!({"groups": ["admins"]}), "200"),
        (json!({"groups": "admins"}), "200"),
        (json!({"groups": ["admin", "op"]}), DENIED),
        (json!({"groups": null}), DENIED),
        (json!({"realm": {"role": ["w", "r"]}}), "200"),
        (json!({"realm": {"role": "writer"}}), DENIED),
        (json!({"realm": "reader"}), DENIED),
        (json!({"realm": {"rule": "reader"}}), DENIED),
        (json!({"azp": "q"}), DENIED),
        (json!({"aud": ["x", "bookinfo"]}), "200"),
    ] {
        let token = mesh.first.token(claims(&changes));
        let call = bearing(inside.post("/private/x"), &token, true);
        assert_eq!(verdict(call).await, expected, "{changes}");
    }
    let token = mesh.first.token(claims(&json!({})));
    let elsewhere = asking_for("productpage.other", workload);
    let elsewhere = client(CALLER, Some(&elsewhere), PRODUCTPAGE);
    assert_eq!(verdict(bearing(elsewhere.get("/"), &token, true)).await, DENIED);
    let outside = client(CALLER, None, PRODUCTPAGE);
    assert_eq!(verdict(bearing(outside.get("/"), &token, true)).await, DENIED);
    let second = mesh.second.token(claims(&json!({})));
    assert_eq!(verdict(bearing(inside.get("/"), &second, false)).await, DENIED);
}

async fn requests_without_a_token_are_let_in_as_the_policy_says(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let _app = Backend::echo_at("app", PRODUCTPAGE).await;
    let _other = Backend::echo_at("other", (PRODUCTPAGE.ip(), 8000).into()).await;
    let _excepted = Backend::echo_at("excepted", (PRODUCTPAGE.ip(), 9999).into()).await;
    mesh.redirect(PRODUCTPAGE);
    let _proxy = mesh.node("sidecar-productpage").only_inbound().start(program).await;
    for (port, method, path, host, expected) in [
        (9080, "GET", "/", "productpage", "200"),
        (9080, "GET", "/public/private", "productpage", "200"),
        (9080, "POST", "/", "productpage", DENIED),
        (9080, "HEAD", "/", "productpage", "403"),
        (9080, "GET", "/private", "productpage", DENIED),
        (9080, "GET", "/private/x?y", "productpage", DENIED),
        (9080, "GET", "/x/../private", "productpage", DENIED),
        (9080, "GET", "/", "x.example.com", DENIED),
        (9080, "GET", "/", "X.EXAMPLE.com", DENIED),
        (9080, "GET", "/", "y.example.com", "200"),
        (8000, "GET", "/", "productpage", "200"),
        (8000, "POST", "/", "productpage", DENIED),
        (9999, "GET", "/", "productpage", DENIED),
    ] {
        let client = client(CALLER, None, (PRODUCTPAGE.ip(), port).into());
        let call = client.call(method.parse().unwrap(), path).host(host);
        assert_eq!(verdict(call).await, expected, "{method} {host}:{port}{path}");
    }
}

async fn a_service_decides_about_one_path(program: Program) {
    let Some(mesh) = Mesh::enter() else { return };
    let app = Backend::echo_at("app", PRODUCTPAGE).await;
    let service = Backend::scripted("authz", |call| match call.header("x-ext-authz") {
        Some("allow") => Answer::status(200).header("x-ext-authz-user", "u").header("x-other", "o"),
        _ => {
            Answer::status(401).header("content-type", "text/plain").header("x-no", "n").body("no")
        }
    })
    .await;
    mesh.redirect(PRODUCTPAGE);
    let cluster = "outbound|8000||ext-authz.istio-system.svc.cluster.local";
    let node = mesh.node("sidecar-productpage").only_inbound().endpoint(cluster, service.address());
    let _proxy = node.start(program).await;
    let client = client(CALLER, None, PRODUCTPAGE);
    let echo = client.get("/login").header("x-ext-authz", "allow").send().await.echo();
    assert_eq!(echo.header("x-ext-authz-user").as_deref(), Some("u"));
    assert_eq!(echo.header("x-other"), None);
    let asked = service.calls();
    assert_eq!((asked.len(), &*asked[0].path), (1, "/login"));
    assert_eq!(asked[0].header("x-ext-authz"), Some("allow"));
    let reply = client.get("/login").header("x-ext-authz", "deny").send().await;
    assert_eq!((reply.status, &*reply.text()), (401, "no"));
    assert_eq!(reply.header("content-type").as_deref(), Some("text/plain"));
    assert_eq!(reply.header("x-no"), None);
    for path in ["/logins", "/", "/login/x"] {
        assert_eq!(verdict(client.get(path).header("x-ext-authz", "deny")).await, "200", "{path}");
    }
    assert_eq!((service.count(), app.count()), (2, 4));
    drop(service);
    assert_eq!(verdict(client.get("/login").header("x-ext-authz", "allow")).await, "403");
}
