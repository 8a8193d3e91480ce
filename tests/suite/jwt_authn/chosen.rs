//! What is needed as filters before say it, tokens that are only read, and keys that are not good enough.

use harness::{Backend, Http, Issuer, Program, Route, json};

use super::{denied, filtering, get, good, provider, rule, start, verdict};
use crate::differences::{Differs as _, STRONG_KEYS};

on_both!(
    what_is_needed_may_be_said_by_filters_before,
    bad_tokens_may_be_told_of,
    weak_keys_are_not_used,
);

const FILTER: &str = "jwt_authn.v3.JwtAuthentication";

async fn what_is_needed_may_be_said_by_filters_before(program: Program) {
    let app = Backend::echo("app").await;
    let (one, two) = (Issuer::new("one"), Issuer::new("two"));
    let named = |name: &str, issuer: &Issuer| provider(issuer, &json!({"issuer": name}));
    let header = json!({"header": {"key": "x-who", "value": "%REQ(x-asked)%"}});
    let mutations = json!({"mutations": {"request_mutations": [{"append": header}]}});
    let state = json!({"on_request_headers": [{
        "object_key": "selector",
        "factory_key": "envoy.string",
        "format_string": {"text_format_source": {"inline_string": "%REQ(x-who)%"}},
    }]});
    let tokens = json!({
        "providers": {"one": named("one", &one), "two": named("two", &two)},
        "rules": [rule("/open", json!({}))],
        "filter_state_rules": {"name": "selector", "requires": {
            "first": {"provider_name": "one"},
            "second": {"provider_name": "two"},
        }},
    });
    let http = Http::routing([Route::prefix("/").to("app")])
        .filter("mutation", "header_mutation.v3.HeaderMutation", mutations)
        .filter("state", "set_filter_state.v3.Config", state)
        .filter("jwt", FILTER, tokens);
    let proxy = start(program, &app, http, None).await;
    for (path, asked, token, expected) in [
        ("/", "first", one.token(json!({})), good()),
        ("/", "first", two.token(json!({})), denied("Jwt issuer is not configured")),
        ("/", "second", two.token(json!({})), good()),
        ("/", "third", String::new(), good()),
        ("/open", "first", String::new(), good()),
    ] {
        let call = proxy.get(path).header("x-asked", asked);
        let call = match &*token {
            "" => call,
            token => call.header("authorization", &format!("Bearer {token}")),
        };
        assert_eq!(verdict(&call.send().await), expected, "{path} {asked}");
    }
    let reply = proxy.get("/").header("x-asked", "first").send().await;
    assert_eq!(verdict(&reply), denied("Jwt is missing"));
}

async fn bad_tokens_may_be_told_of(program: Program) {
    let app = Backend::echo("app").await;
    let issuer = Issuer::new("i");
    let fields = json!({"claim_to_headers": [{"header_name": "x-sub", "claim_name": "sub"}]});
    let told = |name: &str| json!({"extract_only_without_validation": {"verification_status_header": name}});
    let filter = json!({
        "providers": {"p": provider(&issuer, &fields)},
        "rules": [
            rule("/named", told("x-good")),
            rule("/silent", told("-")),
            rule("/any", json!({"requires_any": {"requirements": [{"provider_name": "p"}, told("")]}})),
            rule("/all", json!({"requires_all": {"requirements": [told(""), {"provider_name": "p"}]}})),
            rule("/", json!({"extract_only_without_validation": {}})),
        ],
    });
    let proxy = start(program, &app, filtering(filter, [Route::prefix("/").to("app")]), None).await;
    let ours = issuer.token(json!({"sub": "me"}));
    let (expired, forged) = (
        issuer.token(json!({"sub": "me", "exp": 1})),
        Issuer::new("i").token(json!({"sub": "me"})),
    );
    let default = "x-jwt-signature-verified";
    for (path, token, header, said, subject) in [
        ("/", &*ours, default, None, Some("me")),
        ("/", &*expired, default, Some("false"), None),
        ("/", &*forged, default, Some("false"), None),
        ("/", "x.y", default, Some("false"), None),
        ("/named", &*forged, "x-good", Some("false"), None),
        ("/named", &*forged, default, None, None),
        ("/silent", &*forged, default, None, None),
        ("/any", &*ours, default, None, Some("me")),
        ("/any", &*forged, default, Some("false"), None),
    ] {
        let echo = get(&proxy, path, token).await.echo();
        let found = (echo.header(header), echo.header("x-sub"));
        assert_eq!(found, (said.map(str::to_owned), subject.map(str::to_owned)), "{path} {token}");
    }
    let reply = get(&proxy, "/all", &forged).await;
    assert_eq!(verdict(&reply), denied("Jwt verification fails"));
    let echo = proxy.get("/").header("x-sub", "evil").send().await.echo();
    assert_eq!((echo.header(default), echo.header("x-sub")), (None, None));
}

/// Keys that nobody should use, each with a token of the issuer `i` that it has signed.
const WEAK: [(&str, &str); 2] = [
    // RSA of 1024 bits.
    (
        r#"{"kty": "RSA", "e": "AQAB", "n": "xsjzOJqk_LvNm3VcL_r_qhH7WOHkPSbT8An_h5ppq0_mq_5kO8ZEW4Sa1EcbhdXrEIX78DV0C1XD-fktn6GSw0gndr-wXN4v7PKL6Wi4ESF08TjVgjyc3-j_8fbGUjYmYPSqK7bn-2IwTdPnjmnW3lPYXmgcPkGXlhovvM0CALU"}"#,
        "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJpIn0.H1fCWWfD3CCqwjndTdUgqbCV9MnBud_36X-ukNGHYuZclxcCur3qIA4snQ3Agil4amvTnr1Tnyekr6NXTLQJEuUosfQyVQVUAtOOy6Sep_pBstdXxPP-CrvNKusbyTqypl3Dn2QJBI6AMr5Bjn8KE_GyGuMfm0lMLlBApGCAcJU",
    ),
    // P-384 with SHA-256.
    (
        r#"{"kty": "EC", "crv": "P-384", "x": "yjD3XT5Jadj6CDo6t64NSLe8v5_BbYyZ9KF_7anMzqvigsSUBpLsBZWGCfWxTiOD", "y": "yaxFfjN_10RzDKRjE9Y4FLu4K_WnSHUBDYdZJBA23eJ65ymKuctc1HpYL4oRNq4p"}"#,
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJpIn0.SRftGVATCNFF1hwjwQpC70aUd2M9gdjqJhYvujmEzvmiTvap9rcAn3CoDRHIj66aBRuWDLIzCZSCd1TTnR_epGPK3TFRD0DKwvQ8va8rnE-16uxxMJKzps7cGGWdLn7d",
    ),
];

async fn weak_keys_are_not_used(program: Program) {
    let app = Backend::echo("app").await;
    let good = Issuer::new("i");
    for (key, token) in WEAK {
        let keys = format!("{{\"keys\": [{}, {key}]}}", good.jwk());
        let filter = json!({
            "providers": {"p": {"issuer": "i", "local_jwks": {"inline_string": keys}}},
            "rules": [rule("/", json!({"provider_name": "p"}))],
        });
        let proxy =
            start(program, &app, filtering(filter, [Route::prefix("/").to("app")]), None).await;
        assert_eq!(get(&proxy, "/", &good.token(json!({}))).await.status, 200);
        let expected = if program.differs(STRONG_KEYS) { 200 } else { 401 };
        assert_eq!(get(&proxy, "/", token).await.status, expected, "{key}");
    }
}
