//! What a running istiod makes of a RequestAuthentication.

use harness::{Backend, Issuer, Program, Route, Value, json};

use super::{denied, filtering, good, rule, start, verdict};

on_both!(what_istiod_makes_of_a_request_authentication_is_honoured);

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
