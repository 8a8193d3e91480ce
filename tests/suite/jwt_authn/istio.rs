//! What a running istiod makes of a RequestAuthentication, and of policies that ask what its tokens say.

use harness::bootstrap::typed;
use harness::{Backend, Http, Issuer, Program, Route, Value, json};

use super::{denied, filtering, good, rule, start, verdict};

on_both!(what_istiod_makes_of_a_request_authentication_is_honoured, policies_read_what_tokens_say,);

async fn what_istiod_makes_of_a_request_authentication_is_honoured(program: Program) {
    let app = Backend::echo("app").await;
    let (first, second) = (
        Issuer::signing("https://issuer.example.com", "RS256"),
        Issuer::new("https://second.example.com"),
    );
    let filter = recorded(&first, &second);
    let http = filtering(filter, [Route::prefix("/").to("app")]);
    let proxy = start(program, &app, http, None).await;
    let ours = |claims: Value| {
        let mut claims = claims;
        claims["aud"] = "bookinfo".into();
        first.token(claims)
    };
    let header = |token: &str| ("x-jwt".to_owned(), format!("Bearer {token}"));
    let bearer = |token: &str| ("authorization".to_owned(), format!("Bearer {token}"));
    let cookie = |token: &str| ("cookie".to_owned(), format!("sess={token}"));
    let nothing = ("x".to_owned(), "y".to_owned());
    let parameter = format!("/?token={}", ours(json!({})));
    for (path, (name, value), expected) in [
        ("/", nothing.clone(), good()),
        ("/", header(&ours(json!({"sub": "me"}))), good()),
        ("/", cookie(&ours(json!({}))), good()),
        (&*parameter, nothing, good()),
        ("/", bearer(&second.token(json!({}))), good()),
        ("/", header(&ours(json!({"exp": 1}))), denied("Jwt is expired")),
        ("/", header(&ours(json!({"iss": "x"}))), denied("Jwt issuer is not configured")),
        (
            "/",
            header(&first.token(json!({"aud": "other"}))),
            (403, "Audiences in Jwt are not allowed".to_owned()),
        ),
        ("/", bearer(&ours(json!({}))), denied("Jwt issuer is not configured")),
        (
            "/",
            header("x.y"),
            denied(
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
            ),
        ),
    ] {
        let reply = proxy.get(path).header(&name, &value).send().await;
        assert_eq!(verdict(&reply), expected, "{path} {name}: {value}");
    }
    let (name, value) = header(&ours(json!({"sub": "me"})));
    let echo = proxy.get("/").header(&name, &value).header("x-sub", "evil").send().await.echo();
    assert_eq!((echo.header("x-sub").as_deref(), echo.header("x-jwt")), (Some("me"), Some(value)));
}

/// As recorded of istiod 1.30.3 for two `jwtRules`, the first with all their fields; with other keys.
fn recorded(first: &Issuer, second: &Issuer) -> Value {
    let normalize = json!({"space_delimited_claims": ["permission", "scope"]});
    json!({
        "providers": {
            "origins-0": {
                "issuer": "https://issuer.example.com",
                "audiences": ["bookinfo"],
                "local_jwks": {"inline_string": first.jwks()},
                "forward": true,
                "from_headers": [{"name": "x-jwt", "value_prefix": "Bearer "}],
                "from_params": ["token"],
                "from_cookies": ["sess"],
                "forward_payload_header": "x-payload",
                "payload_in_metadata": "payload",
                "claim_to_headers": [{"header_name": "x-sub", "claim_name": "sub"}],
                "normalize_payload_in_metadata": normalize,
            },
            "origins-1": {
                "issuer": "https://second.example.com",
                "local_jwks": {"inline_string": second.jwks()},
                "payload_in_metadata": "payload",
                "normalize_payload_in_metadata": normalize,
            },
        },
        "rules": [rule("/", json!({"requires_any": {"requirements": [
            {"provider_name": "origins-0"},
            {"provider_name": "origins-1"},
            {"requires_all": {"requirements": [
                {"requires_any": {"requirements": [{"provider_name": "origins-0"}, {"allow_missing": {}}]}},
                {"requires_any": {"requirements": [{"provider_name": "origins-1"}, {"allow_missing": {}}]}},
            ]}},
        ]}}))],
        "bypass_cors_preflight": true,
    })
}

async fn policies_read_what_tokens_say(program: Program) {
    let app = Backend::echo("app").await;
    let (first, second) =
        (Issuer::new("https://issuer.example.com"), Issuer::new("https://second.example.com"));
    let router = typed("envoy.extensions.filters.http.router.v3.Router", json!({}));
    let filter = |name: &str, config: Value| json!({"name": name, "typed_config": config});
    let jwt = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
    let filters = json!([
        filter("jwt", typed(jwt, recorded(&first, &second))),
        filter("rbac", typed("envoy.extensions.filters.http.rbac.v3.RBAC", policies())),
        filter("envoy.filters.http.router", router),
    ]);
    let http = Http::routing([Route::prefix("/").to("app")]).with("http_filters", filters);
    let proxy = start(program, &app, http, None).await;
    let claims = |changes: Value| {
        let mut claims = json!({
            "aud": "bookinfo", "sub": "me", "groups": ["x", "ops"], "realm": {"role": "reader"}, "azp": "p",
        });
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        claims
    };
    for (changes, status) in [
        (json!({}), 200),
        (json!({"groups": "admins", "realm": {"role": ["w", "r"]}}), 200),
        (json!({"groups": ["others"]}), 403),
        (json!({"groups": null}), 403),
        (json!({"realm": "reader"}), 403),
        (json!({"azp": "q"}), 403),
        (json!({"aud": ["bookinfo", "x"]}), 200),
        // Without a subject there is no principal, which the other rule is for.
        (json!({"sub": null}), 200),
    ] {
        let token = first.token(claims(changes.clone()));
        let reply = proxy.get("/").header("x-jwt", &format!("Bearer {token}")).send().await;
        assert_eq!(reply.status, status, "{changes}");
    }
    let token = second.token(claims(json!({})));
    let call = proxy.get("/").header("authorization", &format!("Bearer {token}"));
    assert_eq!(call.send().await.status, 403);
    assert_eq!(proxy.get("/").send().await.status, 200);
    assert_eq!(proxy.get("/private/x").send().await.status, 403);
    assert_eq!(proxy.client().post("/").send().await.status, 403);
}

/// As recorded for two of a policy's rules: by what the token of the first issuer says, or without a principal.
fn policies() -> Value {
    let said = |path: &[&str], value: Value| {
        let path: Vec<_> = path.iter().map(|key| json!({"key": key})).collect();
        json!({"metadata": {"filter": "envoy.filters.http.jwt_authn", "path": path, "value": value}})
    };
    let text = |value: Value| json!({"string_match": value});
    let listed = |value: &Value| json!({"or_match": {"value_matchers": [{"list_match": {"one_of": value}}, value]}});
    let some = || text(json!({"safe_regex": {"regex": ".+"}}));
    let groups = json!({"or_match": {"value_matchers": [
        text(json!({"exact": "admins"})), text(json!({"exact": "ops"})),
    ]}});
    let by_claims = json!([{"and_ids": {"ids": [
        {"and_ids": {"ids": [
            said(&["payload", "iss"], text(json!({"exact": "https://issuer.example.com"}))),
            said(&["payload", "sub"], some()),
        ]}},
        said(&["payload", "groups"], listed(&groups)),
        said(&["payload", "realm", "role"], listed(&text(json!({"prefix": "r"})))),
        said(&["payload", "aud"], listed(&text(json!({"exact": "bookinfo"})))),
        said(&["payload", "azp"], listed(&text(json!({"exact": "p"})))),
    ]}}]);
    let without = json!([{"and_ids": {"ids": [{"not_id": {"and_ids": {"ids": [
        said(&["payload", "iss"], some()), said(&["payload", "sub"], some()),
    ]}}}]}}]);
    let gets = json!([{"and_rules": {"rules": [
        {"header": {"name": ":method", "string_match": {"exact": "GET"}}},
        {"not_rule": {"or_rules": {"rules": [{"url_path": {"path": {"prefix": "/private"}}}]}}},
    ]}}]);
    json!({"rules": {"policies": {
        "ns[default]-policy[jwt-productpage]-rule[0]": {"permissions": [{"any": true}], "principals": by_claims},
        "ns[default]-policy[jwt-productpage]-rule[1]": {"permissions": gets, "principals": without},
    }}})
}
