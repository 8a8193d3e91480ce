//! Services that are asked over plain HTTP.

use harness::{Answer, Backend, Cluster, Program, Value, json};

use super::{asking, filtering, logged, start, to_app};

on_both!(
    a_service_is_asked_with_the_request_itself,
    an_answer_other_than_200_denies,
    headers_of_the_answer_are_passed_on_as_configured,
    a_service_that_fails_has_not_decided,
);

fn service(mut fields: Value) -> Value {
    fields["server_uri"] =
        json!({"uri": "http://authz.test", "cluster": "authz", "timeout": "0.5s"});
    fields
}

async fn guarding(
    program: Program,
    app: &Backend,
    authz: &Backend,
    fields: Value,
) -> harness::Proxy {
    let clusters = [Cluster::new("app").endpoint(app), Cluster::new("authz").endpoint(authz)];
    start(program, filtering(asking(fields), to_app()), clusters).await
}

async fn a_service_is_asked_with_the_request_itself(program: Program) {
    let (app, authz) = (Backend::echo("app").await, Backend::echo("authz").await);
    let add = json!({"headers_to_add": [{"key": "x-add", "value": "%REQ(:path)%!"}]});
    let fields = json!({
        "http_service": service(json!({"path_prefix": "/check", "authorization_request": add})),
        "allowed_headers": {"patterns": [{"prefix": "x-a"}]},
        "with_request_body": {"max_request_bytes": 4, "allow_partial_message": true},
    });
    let proxy = guarding(program, &app, &authz, fields).await;
    let call = proxy.client().post("/a?b").host("a.test").body("12345");
    let call = call.header("x-a", "1").header("x-a", "2").header("x-b", "3");
    assert_eq!(call.header("authorization", "me").send().await.echo().body(), "12345");
    let asked = authz.calls().pop().unwrap();
    assert_eq!(
        (asked.method.as_str(), &*asked.path, &*asked.host),
        ("POST", "/check/a?b", "a.test")
    );
    assert_eq!(asked.body, "1234");
    for (name, value) in [
        ("x-a", Some("1,2")),
        ("x-b", None),
        ("authorization", Some("me")),
        ("content-length", Some("4")),
        ("content-type", None),
        ("user-agent", None),
        ("x-add", Some("/a?b!")),
        ("x-envoy-auth-partial-body", Some("true")),
    ] {
        assert_eq!(asked.header(name), value, "{name}");
    }
    assert_eq!(proxy.get("/").send().await.status, 200);
    let asked = authz.calls().pop().unwrap();
    assert_eq!((asked.header("content-length"), asked.method.as_str()), (Some("0"), "GET"));
}

async fn an_answer_other_than_200_denies(program: Program) {
    let app = Backend::echo("app").await;
    let authz = Backend::scripted("authz", |request| match &*request.path {
        "/redirect" => Answer::status(302).header("location", "/login"),
        "/empty" => Answer::status(204),
        _ => Answer::status(401)
            .header("x-d", "1")
            .header("x-d", "2")
            .header("set-cookie", "a=b")
            .header("content-type", "text/x")
            .header("www-authenticate", "basic")
            .body("denied"),
    })
    .await;
    let proxy = guarding(program, &app, &authz, json!({"http_service": service(json!({}))})).await;
    let reply = proxy.get("/").send().await;
    assert_eq!((reply.status, reply.text()), (401, "denied".to_owned()));
    for (name, value) in [
        ("x-d", "1,2"),
        ("set-cookie", "a=b"),
        ("content-type", "text/x"),
        ("www-authenticate", "basic"),
    ] {
        assert_eq!(reply.header(name).as_deref(), Some(value), "{name}");
    }
    logged(&proxy, "401 UAEX ext_authz_denied").await;
    let reply = proxy.get("/redirect").send().await;
    assert_eq!((reply.status, reply.header("location").as_deref()), (302, Some("/login")));
    assert_eq!(proxy.get("/empty").send().await.status, 204);
    assert_eq!(app.count(), 0);
    let response = json!({"allowed_client_headers": {"patterns": [{"exact": "x-other"}]}});
    let fields = json!({"http_service": service(json!({"authorization_response": response}))});
    let proxy = guarding(program, &app, &authz, fields).await;
    let reply = proxy.get("/").send().await;
    let headers =
        ["x-d", "set-cookie", "www-authenticate"].map(|name| reply.header(name).is_some());
    assert_eq!((reply.status, headers), (401, [false, false, true]));
}

async fn headers_of_the_answer_are_passed_on_as_configured(program: Program) {
    let app = Backend::echo("app").await;
    let authz = Backend::scripted("authz", |_| {
        Answer::status(200)
            .header("x-up", "1")
            .header("x-up", "2")
            .header("x-app", "3")
            .header("x-ok", "4")
            .header("x-none", "5")
            .header("x-envoy-auth-headers-to-remove", "x-k, x-j")
    })
    .await;
    let list = |exact: &str| json!({"patterns": [{"exact": exact}]});
    let response = json!({
        "allowed_upstream_headers": list("x-up"),
        "allowed_upstream_headers_to_append": list("x-app"),
        "allowed_client_headers_on_success": list("x-ok"),
    });
    let fields = json!({"http_service": service(json!({"authorization_response": response}))});
    let proxy = guarding(program, &app, &authz, fields).await;
    let call = proxy.get("/").header("x-up", "0").header("x-app", "0").header("x-k", "0");
    let reply = call.send().await;
    let echo = reply.echo();
    let headers = ["x-up", "x-app", "x-k", "x-none"].map(|name| echo.header(name));
    let expected = [Some("2"), Some("0,3"), None, None];
    assert_eq!(headers, expected.map(|it| it.map(ToOwned::to_owned)));
    assert_eq!((reply.header("x-ok").as_deref(), reply.header("x-up")), (Some("4"), None));
}

async fn a_service_that_fails_has_not_decided(program: Program) {
    let app = Backend::echo("app").await;
    let authz = Backend::scripted("authz", |request| match &*request.path {
        "/500" => Answer::status(500).body("wrong").header("x-a", "1"),
        "/hang" => Answer::hang(),
        _ => Answer::abort(),
    })
    .await;
    for allow in [false, true] {
        let fields = json!({"http_service": service(json!({})), "failure_mode_allow": allow});
        let proxy = guarding(program, &app, &authz, fields).await;
        for path in ["/500", "/hang", "/abort"] {
            let reply = proxy.get(path).send().await;
            let expected = if allow { (200, None) } else { (403, None) };
            assert_eq!((reply.status, reply.header("x-a")), expected, "{path}");
        }
        proxy.until_stats([("http.ing.ext_authz.error", 3)]).await;
    }
}
