//! Where requests carry tokens, and what becomes of them and of what they say.

use harness::{Backend, Issuer, Program, Route, Value, json};

use super::{denied, filtering, get, good, provider, rule, start, verdict, with_providers};
use crate::differences::{Differs as _, QUERIES_STAY_AS_THEY_ARE};

on_both!(
    tokens_come_from_headers_parameters_and_cookies,
    tokens_leave_the_request_unless_they_are_forwarded,
    claims_become_headers_that_nobody_else_sets,
    routes_are_found_by_what_tokens_say,
);

async fn tokens_come_from_headers_parameters_and_cookies(program: Program) {
    let app = Backend::echo("app").await;
    let issuer = Issuer::new("i");
    let headers = json!([{"name": "x-jwt", "value_prefix": "Tok "}, {"name": "x-raw"}]);
    let providers = json!({
        "default": provider(&issuer, &json!({})),
        "header": provider(&issuer, &json!({"from_headers": headers})),
        "parameter": provider(&issuer, &json!({"from_params": ["t", "u"]})),
        "cookie": provider(&issuer, &json!({"from_cookies": ["c"]})),
    });
    let proxy = with_providers(program, &app, providers).await;
    let token = issuer.token(json!({}));
    let (bearer, tok, raw) = (format!("Bearer {token}"), format!("Tok {token}"), token.clone());
    let cookie = format!("a=1; c={token}; d=2");
    let query = |path: &str, name: &str| format!("{path}?a=1&{name}={token}&b=2");
    let cases = [
        ("/default/".to_owned(), "authorization", &*bearer, true),
        ("/default/".to_owned(), "authorization", &*raw, false),
        ("/default/".to_owned(), "x-jwt", &*tok, false),
        (query("/default/", "access_token"), "x", "y", true),
        (query("/default/", "t"), "x", "y", false),
        ("/header/".to_owned(), "x-jwt", &*tok, true),
        ("/header/".to_owned(), "x-jwt", &*raw, false),
        ("/header/".to_owned(), "x-raw", &*raw, true),
        ("/header/".to_owned(), "authorization", &*bearer, false),
        (query("/parameter/", "t"), "x", "y", true),
        (query("/parameter/", "u"), "x", "y", true),
        (query("/parameter/", "access_token"), "x", "y", false),
        ("/cookie/".to_owned(), "cookie", &*cookie, true),
        ("/cookie/".to_owned(), "authorization", &*bearer, false),
    ];
    for (path, name, value, is_found) in cases {
        let reply = proxy.get(&path).header(name, value).send().await;
        let expected = if is_found { good() } else { denied("Jwt is missing") };
        assert_eq!(verdict(&reply), expected, "{path} {name}");
    }
}

async fn tokens_leave_the_request_unless_they_are_forwarded(program: Program) {
    let app = Backend::echo("app").await;
    let issuer = Issuer::new("i");
    let places = json!({
        "from_headers": [{"name": "x-jwt"}], "from_params": ["t"], "from_cookies": ["c"],
    });
    let mut kept = places.clone();
    kept["forward"] = true.into();
    let providers = json!({
        "take": provider(&issuer, &places), "keep": provider(&issuer, &kept),
    });
    let proxy = with_providers(program, &app, providers).await;
    let token = issuer.token(json!({}));
    let cookie = format!("c={token}");
    for (path, expected) in [("/take/", "/take/?a=1&b=2"), ("/keep/", "")] {
        let path = format!("{path}?a=1&t={token}&b=2");
        let expected = if expected.is_empty() { &*path } else { expected };
        let is_kept = expected == path;
        let call = proxy.get(&path).header("x-jwt", &token).header("cookie", &cookie);
        let echo = call.send().await.echo();
        assert_eq!(echo.path(), expected);
        assert_eq!(echo.header("x-jwt").is_some(), is_kept, "{path}");
        assert_eq!(echo.header("cookie").as_deref(), Some(&*cookie));
    }
    let echo = proxy.get(&format!("/take/?t={token}")).send().await.echo();
    assert_eq!(echo.path(), "/take/");
    if !program.differs(QUERIES_STAY_AS_THEY_ARE) {
        let echo = proxy.get(&format!("/take/?a=%20%26&t={token}")).send().await.echo();
        assert_eq!(echo.path(), "/take/?a=%20%26");
    }
}

async fn claims_become_headers_that_nobody_else_sets(program: Program) {
    let app = Backend::echo("app").await;
    let issuer = Issuer::new("i");
    let claim = |name: &str, claim: &str| json!({"header_name": name, "claim_name": claim});
    let claims = json!([
        claim("x-sub", "sub"),
        claim("x-n", "n"),
        claim("x-f", "f"),
        claim("x-b", "b"),
        claim("x-l", "l"),
        claim("x-deep", "o.k"),
        claim("x-dot", "a.b"),
    ]);
    let filter = json!({
        "providers": {
            "p": provider(&issuer, &json!({"claim_to_headers": claims, "forward_payload_header": "x-payload"})),
            "padded": provider(&issuer, &json!({
                "forward_payload_header": "x-payload", "pad_forward_payload_header": true, "from_params": ["t"],
            })),
        },
        "rules": [
            rule("/p", json!({"provider_name": "p"})),
            rule("/quoted", json!({"provider_name": "padded"})),
            rule("/maybe", json!({"requires_any": {"requirements": [{"provider_name": "p"}, {"allow_missing": {}}]}})),
        ],
    });
    let http = filtering(filter, [Route::prefix("/").to("app")]);
    let proxy = start(program, &app, http, None).await;
    let token = issuer.token(json!({
        "exp": null, "sub": "me", "n": 5, "f": 1.5, "b": false, "l": ["a", 1], "o": {"k": "v"}, "a.b": "no",
    }));
    let call = proxy.get("/p").header("authorization", &format!("Bearer {token}"));
    let echo = call.header("x-sub", "evil").header("x-payload", "evil").send().await.echo();
    let payload = token.split('.').nth(1).unwrap();
    for (name, expected) in [
        ("x-sub", Some("me")),
        ("x-n", Some("5")),
        ("x-f", Some("1.500000")),
        ("x-b", Some("false")),
        ("x-l", Some("WyJhIiwxXQ==")),
        ("x-deep", Some("v")),
        ("x-dot", None),
        ("x-payload", Some(payload)),
    ] {
        assert_eq!(echo.header(name).as_deref(), expected, "{name}");
    }
    let echo = proxy.get("/maybe").header("x-sub", "evil").send().await.echo();
    assert_eq!(echo.header("x-sub"), None);
    let token = issuer.token(json!({"exp": null, "s": "x"}));
    let payload = token.split('.').nth(1).unwrap();
    assert_eq!(payload.len() % 4, 2, "{payload}");
    let echo = proxy.get(&format!("/quoted?t={token}")).send().await.echo();
    assert_eq!(echo.header("x-payload"), Some(format!("{payload}==")));
}

async fn routes_are_found_by_what_tokens_say(program: Program) {
    let app = Backend::echo("app").await;
    let issuer = Issuer::new("i");
    let by_header = json!({
        "claim_to_headers": [{"header_name": "x-sub", "claim_name": "sub"}], "clear_route_cache": true,
    });
    let by_metadata = json!({
        "payload_in_metadata": "payload", "header_in_metadata": "head", "clear_route_cache": true,
        "normalize_payload_in_metadata": {"space_delimited_claims": ["scope"]},
    });
    let rules = ["header", "metadata", "once"]
        .map(|name| rule(&format!("/{name}"), json!({"provider_name": name})));
    let once = json!({"claim_to_headers": [{"header_name": "x-sub", "claim_name": "sub"}]});
    let filter = json!({
        "providers": {
            "header": provider(&issuer, &by_header),
            "metadata": provider(&issuer, &by_metadata),
            "once": provider(&issuer, &once),
        },
        "rules": rules,
    });
    let to = |name: &str, conditions: Value| {
        let mut matching = json!({"prefix": "/"});
        matching.as_object_mut().unwrap().extend(conditions.as_object().unwrap().clone());
        Route::matching(matching)
            .to("app")
            .with("request_headers_to_add", json!([{"header": {"key": "x-route", "value": name}}]))
    };
    let metadata = |path: &[&str], value: Value| {
        let path: Vec<_> = path.iter().map(|key| json!({"key": key})).collect();
        json!({"dynamic_metadata": [{"filter": "envoy.filters.http.jwt_authn", "path": path, "value": value}]})
    };
    let text = |value: &str| json!({"string_match": {"exact": value}});
    let routes = [
        to("admin", json!({"headers": [{"name": "x-sub", "string_match": {"exact": "admin"}}]})),
        to(
            "writer",
            metadata(&["payload", "scope"], json!({"list_match": {"one_of": text("write")}})),
        ),
        to("es", metadata(&["head", "alg"], text("ES256"))),
        to("rest", json!({})),
    ];
    let proxy = start(program, &app, filtering(filter, routes), None).await;
    for (path, claims, expected) in [
        ("/header", json!({"sub": "admin"}), "admin"),
        ("/header", json!({"sub": "me"}), "rest"),
        ("/metadata", json!({"scope": "read write"}), "writer"),
        ("/metadata", json!({"scope": "read"}), "es"),
        ("/once", json!({"sub": "admin"}), "rest"),
    ] {
        let reply = get(&proxy, path, &issuer.token(claims.clone())).await;
        assert_eq!(reply.echo().header("x-route").as_deref(), Some(expected), "{path} {claims}");
    }
}
