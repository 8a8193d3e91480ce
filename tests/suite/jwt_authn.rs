//! The `jwt_authn` filter: who needs a token, which tokens are good, and what becomes of what they say.

mod chosen;
mod istio;
mod keys;
mod places;

use harness::bootstrap::typed;
use harness::issuer::now;
use harness::port::Port;
use harness::{
    Backend, Bootstrap, Cluster, Http, Issuer, Listener, Program, Proxy, Reply, Route, Value, json,
};

use crate::differences::{Differs as _, NO_BAD_TOKEN_PASSES};

on_both!(
    tokens_have_to_be_good,
    every_algorithm_is_verified,
    keys_are_chosen_by_id_and_algorithm,
    all_tokens_of_a_request_have_to_be_good,
    requirements_are_combined,
    routes_say_what_is_needed,
    rules_are_asked_in_order,
    subjects_and_lifetimes_are_limited,
);

/// A provider of `issuer`'s tokens, with more `fields`.
fn provider(issuer: &Issuer, fields: &Value) -> Value {
    let mut provider = json!({"issuer": "i", "local_jwks": {"inline_string": issuer.jwks()}});
    provider.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    provider
}

/// A rule that everything below `prefix` has to meet.
fn rule(prefix: &str, requires: impl Into<Value>) -> Value {
    json!({"match": {"prefix": prefix}, "requires": requires.into()})
}

/// A connection manager with such a filter, for `routes`.
fn filtering(filter: Value, routes: impl IntoIterator<Item = Route>) -> Http {
    let filter = typed("envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication", filter);
    let router = typed("envoy.extensions.filters.http.router.v3.Router", json!({}));
    Http::routing(routes).with("stat_prefix", "ing").with(
        "http_filters",
        json!([
            {"name": "jwt", "typed_config": filter},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ]),
    )
}

/// A proxy in front of `app`, and of a key server at `keys`.
async fn start(program: Program, app: &Backend, http: Http, keys: Option<&Port>) -> Proxy {
    let mut bootstrap = Bootstrap::new().listener(Listener::new("main", http));
    bootstrap = bootstrap.cluster(Cluster::new("app").endpoint(app));
    if let Some(keys) = keys {
        bootstrap = bootstrap.cluster(Cluster::new("keys").endpoint(keys));
    }
    bootstrap.start(program).await
}

/// A proxy that needs for each path what `providers` of the same name accept.
async fn with_providers(program: Program, app: &Backend, providers: Value) -> Proxy {
    let names = providers.as_object().unwrap().keys();
    let rules: Vec<_> =
        names.map(|name| rule(&format!("/{name}/"), json!({"provider_name": name}))).collect();
    let filter = json!({"providers": providers, "rules": rules});
    start(program, app, filtering(filter, [Route::prefix("/").to("app")]), None).await
}

async fn get(proxy: &Proxy, path: &str, token: &str) -> Reply {
    proxy.get(path).header("authorization", &format!("Bearer {token}")).send().await
}

/// Status and body; nothing for what the upstream has answered.
fn verdict(reply: &Reply) -> (u16, String) {
    (reply.status, if reply.status == 200 { String::new() } else { reply.text() })
}

fn denied(text: &str) -> (u16, String) {
    (401, text.to_owned())
}

fn good() -> (u16, String) {
    (200, String::new())
}

async fn tokens_have_to_be_good(program: Program) {
    let app = Backend::echo("app").await;
    let issuer = Issuer::new("i");
    let mut bootstrap = Bootstrap::new();
    let filter = json!({
        "providers": {"p": provider(&issuer, &json!({"audiences": ["https://a/", "b"]}))},
        "rules": [rule("/", json!({"provider_name": "p"}))],
    });
    let format = "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS%";
    let http = filtering(filter, [Route::prefix("/").to("app")]);
    let http = http.text_log(&bootstrap.dir().join("access.log"), format);
    bootstrap = bootstrap.listener(Listener::new("main", http));
    let proxy = bootstrap.cluster(Cluster::new("app").endpoint(&app)).start(program).await;
    let cases = verdicts(&issuer);
    for (token, expected) in &cases {
        let reply = get(&proxy, "/a?b=c", token).await;
        assert_eq!(verdict(&reply), *expected, "{token}");
        let challenge = reply.header("www-authenticate");
        let realm =
            "Bearer realm=\"http://test.example/a?b=c\", error=\"invalid_token\"".to_owned();
        assert_eq!(challenge, (reply.status != 200).then_some(realm), "{token}");
    }
    let reply = proxy.get("/").send().await;
    assert_eq!(verdict(&reply), denied("Jwt is missing"));
    let challenge = reply.header("www-authenticate");
    assert_eq!(challenge.as_deref(), Some("Bearer realm=\"http://test.example/\""));
    proxy.until_stats([("http.ing.jwt_authn.allowed", 4), ("http.ing.jwt_authn.denied", 12)]).await;
    assert_eq!(app.count(), 4);
    let log = harness::eventually("all lines", async || {
        let text = std::fs::read_to_string(proxy.file("access.log")).ok()?;
        (text.lines().count() == 16).then_some(text)
    });
    let log = log.await;
    for line in [
        "401 jwt_authn_access_denied{Jwt_is_missing}",
        "401 jwt_authn_access_denied{Jwt_header_[alg]_is_not_supported}",
        "403 jwt_authn_access_denied{Audiences_in_Jwt_are_not_allowed}",
    ] {
        assert!(log.lines().any(|it| it == line), "{line} in {log}");
    }
}

/// Tokens, and what each comes to where `issuer` is to say that it is for `a` or `b`.
fn verdicts(issuer: &Issuer) -> Vec<(String, (u16, String))> {
    let ours = |claims: Value| {
        let mut claims = claims;
        claims["aud"] = "a".into();
        issuer.token(claims)
    };
    let mut altered = ours(json!({}));
    altered.replace_range(altered.len() - 8.., "AAAAAAAA");
    let shape = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections";
    let audiences = (403, "Audiences in Jwt are not allowed".to_owned());
    vec![
        (ours(json!({})), good()),
        (issuer.token(json!({"aud": ["x", "http://b/"]})), good()),
        (ours(json!({"exp": now() - 30, "nbf": now() + 30})), good()),
        (ours(json!({"exp": null})), good()),
        (ours(json!({"exp": now() - 90})), denied("Jwt is expired")),
        (ours(json!({"nbf": now() + 90})), denied("Jwt not yet valid")),
        (ours(json!({"iss": "other"})), denied("Jwt issuer is not configured")),
        (ours(json!({"iss": null})), denied("Jwt issuer is not configured")),
        (issuer.token(json!({"aud": "c"})), audiences.clone()),
        (issuer.token(json!({})), audiences),
        (altered, denied("Jwt verification fails")),
        (Issuer::new("i").token(json!({"aud": "a"})), denied("Jwt verification fails")),
        ("x".to_owned(), denied(shape)),
        (
            "e30.e30.AAAA".to_owned(),
            denied("Jwt header [alg] field is required and must be a string"),
        ),
        (
            issuer.token_with(json!({"alg": "none"}), json!({"aud": "a"})),
            denied("Jwt header [alg] is not supported"),
        ),
    ]
}

async fn every_algorithm_is_verified(program: Program) {
    let app = Backend::echo("app").await;
    let algorithms = [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "HS256",
        "HS384", "HS512", "EdDSA",
    ];
    let issuers: Vec<_> = algorithms.map(|it| Issuer::signing("i", it)).into();
    let keys: Vec<_> = issuers.iter().map(Issuer::jwk).collect();
    let jwks = json!({"keys": keys}).to_string();
    let providers = json!({
        "all": {"issuer": "i", "local_jwks": {"inline_string": jwks}},
        "none": provider(&Issuer::new("i"), &json!({})),
    });
    let proxy = with_providers(program, &app, providers).await;
    for (issuer, algorithm) in issuers.iter().zip(algorithms) {
        let token = issuer.token(json!({"sub": algorithm}));
        assert_eq!(verdict(&get(&proxy, "/all/", &token).await), good(), "{algorithm}");
        let reply = get(&proxy, "/none/", &token).await;
        assert_eq!(verdict(&reply), denied("Jwt verification fails"), "{algorithm}");
    }
}

async fn keys_are_chosen_by_id_and_algorithm(program: Program) {
    let app = Backend::echo("app").await;
    let (one, two) = (Issuer::new("i"), Issuer::new("i"));
    let with = |issuer: &Issuer, name: &str, value: &str| {
        let mut key = issuer.jwk();
        key[name] = value.into();
        json!({"issuer": "i", "local_jwks": {"inline_string": json!({"keys": [key]}).to_string()}})
    };
    let providers = json!({
        "id": with(&one, "kid", "k"),
        "algorithm": with(&two, "alg", "ES256"),
        "any": provider(&two, &json!({})),
    });
    let proxy = with_providers(program, &app, providers).await;
    let other = denied("Jwks doesn't have key to match kid or alg from Jwt");
    let rsa = Issuer::signing("i", "RS256");
    for (path, token, expected) in [
        ("/id/", one.token_with(json!({"kid": "k"}), json!({})), good()),
        ("/id/", one.token(json!({})), good()),
        ("/id/", one.token_with(json!({"kid": "x"}), json!({})), other.clone()),
        ("/any/", two.token_with(json!({"kid": "x"}), json!({})), good()),
        ("/algorithm/", two.token(json!({})), good()),
        ("/algorithm/", rsa.token(json!({})), other),
    ] {
        assert_eq!(verdict(&get(&proxy, path, &token).await), expected, "{path} {token}");
    }
}

async fn all_tokens_of_a_request_have_to_be_good(program: Program) {
    let app = Backend::echo("app").await;
    let issuer = Issuer::new("i");
    let filter = json!({
        "providers": {"p": provider(&issuer, &json!({}))},
        "rules": [
            rule("/need", json!({"provider_name": "p"})),
            rule("/missing", json!({"allow_missing": {}})),
            rule("/failed", json!({"allow_missing_or_failed": {}})),
        ],
    });
    let http = filtering(filter, [Route::prefix("/").to("app")]);
    let proxy = start(program, &app, http, None).await;
    let (ours, old) = (issuer.token(json!({})), issuer.token(json!({"exp": 1})));
    let path = |path: &str, token: &str| format!("{path}?access_token={token}");
    for requirement in ["/need", "/missing"] {
        let both = get(&proxy, &path(requirement, &ours), &ours).await;
        assert_eq!(verdict(&both), good(), "{requirement}");
        let reply = get(&proxy, &path(requirement, &ours), &old).await;
        assert_eq!(verdict(&reply), denied("Jwt is expired"), "{requirement}");
        if requirement == "/need" || !program.differs(NO_BAD_TOKEN_PASSES) {
            let reply = get(&proxy, &path(requirement, &old), &ours).await;
            assert_eq!(verdict(&reply), denied("Jwt is expired"), "{requirement}");
        }
    }
    assert_eq!(verdict(&get(&proxy, &path("/failed", &old), &ours).await), good());
}

async fn requirements_are_combined(program: Program) {
    let app = Backend::echo("app").await;
    let (one, two) = (Issuer::new("one"), Issuer::new("two"));
    let of = |issuer: &Issuer, name: &str, fields: Value| {
        let mut provider = provider(issuer, &fields);
        provider["issuer"] = name.into();
        provider
    };
    let own = |name: &str| json!({"from_headers": [{"name": name}]});
    let needs = |name: &str| json!({"provider_name": name});
    let any = |all: Value| json!({"requires_any": {"requirements": all}});
    let all = |all: Value| json!({"requires_all": {"requirements": all}});
    let filter = json!({
        "providers": {
            "one": of(&one, "one", json!({})),
            "two": of(&two, "two", json!({})),
            "x-one": of(&one, "one", own("x-one")),
            "x-two": of(&two, "two", own("x-two")),
        },
        "rules": [
            rule("/any", any(json!([needs("one"), needs("two")]))),
            rule("/all", all(json!([needs("x-one"), needs("x-two")]))),
            rule("/opt", any(json!([needs("one"), {"allow_missing": {}}]))),
            rule("/lax", any(json!([needs("one"), {"allow_missing_or_failed": {}}]))),
            rule("/aud", json!({"provider_and_audiences": {"provider_name": "one", "audiences": ["x"]}})),
            rule("/nothing", json!({})),
        ],
    });
    let http = filtering(filter, [Route::prefix("/").to("app")]);
    let proxy = start(program, &app, http, None).await;
    let (first, second) = (one.token(json!({})), two.token(json!({})));
    let (old, other) = (one.token(json!({"exp": 1})), Issuer::new("x").token(json!({})));
    let expired = denied("Jwt is expired");
    let unknown = denied("Jwt issuer is not configured");
    for (path, token, expected) in [
        ("/any", &first, good()),
        ("/any", &second, good()),
        ("/any", &old, expired.clone()),
        ("/any", &other, unknown.clone()),
        ("/opt", &first, good()),
        ("/opt", &old, expired),
        ("/opt", &other, unknown),
        ("/lax", &old, good()),
        ("/aud", &one.token(json!({"aud": "x"})), good()),
        ("/aud", &first, (403, "Audiences in Jwt are not allowed".to_owned())),
        ("/nothing", &old, good()),
        ("/elsewhere", &old, good()),
    ] {
        assert_eq!(verdict(&get(&proxy, path, token).await), expected, "{path}");
    }
    for path in ["/any", "/all", "/aud"] {
        assert_eq!(verdict(&proxy.get(path).send().await), denied("Jwt is missing"), "{path}");
    }
    for path in ["/opt", "/lax", "/nothing"] {
        assert_eq!(verdict(&proxy.get(path).send().await), good(), "{path}");
    }
    let call = || proxy.get("/all").header("x-one", &first);
    assert_eq!(verdict(&call().send().await), denied("Jwt is missing"));
    assert_eq!(verdict(&call().header("x-two", &second).send().await), good());
}

async fn routes_say_what_is_needed(program: Program) {
    let app = Backend::echo("app").await;
    let issuer = Issuer::new("i");
    let filter = json!({
        "providers": {"p": provider(&issuer, &json!({}))},
        "requirement_map": {"p": {"provider_name": "p"}, "q": {"allow_missing": {}}},
        "rules": [rule("/", json!({"provider_name": "p"}))],
        "stat_prefix": "own",
    });
    let said = |path: &str, fields: Value| {
        let message = typed("envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig", fields);
        Route::prefix(path).to("app").with("typed_per_filter_config", json!({"jwt": message}))
    };
    let routes = [
        said("/free", json!({"disabled": true})),
        said("/optional", json!({"requirement_name": "q"})),
        said("/wrong", json!({"requirement_name": "r"})),
        Route::prefix("/").to("app"),
    ];
    let proxy = start(program, &app, filtering(filter, routes), None).await;
    let unknown = "Failed JWT authentication: Wrong requirement_name: r. It should be one of [p,q]";
    for (path, expected) in [
        ("/free", good()),
        ("/optional", good()),
        ("/wrong", (403, unknown.to_owned())),
        ("/", denied("Jwt is missing")),
    ] {
        assert_eq!(verdict(&proxy.get(path).send().await), expected, "{path}");
    }
    let stats = [("http.ing.jwt_authn.own.allowed", 2), ("http.ing.jwt_authn.own.denied", 2)];
    proxy.until_stats(stats).await;
}

async fn rules_are_asked_in_order(program: Program) {
    let app = Backend::echo("app").await;
    let issuer = Issuer::new("i");
    let filter = json!({
        "providers": {"p": provider(&issuer, &json!({}))},
        "requirement_map": {"p": {"provider_name": "p"}},
        "bypass_cors_preflight": true,
        "strip_failure_response": true,
        "rules": [
            {"match": {"path": "/exact"}},
            {"match": {"safe_regex": {"regex": "/re.*"}}, "requirement_name": "p"},
            {"match": {"prefix": "/h", "headers": [{"name": "x-a", "present_match": true}]}, "requirement_name": "p"},
            {"match": {"prefix": "/q", "query_parameters": [{"name": "x", "present_match": true}]}, "requirement_name": "p"},
            {"match": {"prefix": "/exact"}, "requirement_name": "p"},
        ],
    });
    let http = filtering(filter, [Route::prefix("/").to("app")]);
    let proxy = start(program, &app, http, None).await;
    for (path, status) in [
        ("/exact", 200),
        ("/exact?x=1", 200),
        ("/exactly", 401),
        ("/regular", 401),
        ("/h", 200),
        ("/q?x=1", 401),
        ("/q?y=1", 200),
        ("/other", 200),
    ] {
        let reply = proxy.get(path).send().await;
        assert_eq!(reply.status, status, "{path}");
        // Who is refused is not told why.
        if status == 401 {
            assert_eq!((reply.text(), reply.header("www-authenticate")), (String::new(), None));
        }
    }
    assert_eq!(proxy.get("/h").header("x-a", "").send().await.status, 401);
    let options = || proxy.client().call(http::Method::OPTIONS, "/regular");
    let preflight = options().header("origin", "x").header("access-control-request-method", "PUT");
    assert_eq!(preflight.send().await.status, 200);
    assert_eq!(options().header("origin", "x").send().await.status, 401);
    proxy.until_stats([("http.ing.jwt_authn.cors_preflight_bypassed", 1)]).await;
}

async fn subjects_and_lifetimes_are_limited(program: Program) {
    let app = Backend::echo("app").await;
    let issuer = Issuer::new("i");
    let providers = json!({
        "subject": provider(&issuer, &json!({"subjects": {"prefix": "spiffe://"}})),
        "limited": provider(&issuer, &json!({"require_expiration": true})),
        "hour": provider(&issuer, &json!({"max_lifetime": "3600s"})),
        "skewed": provider(&issuer, &json!({"clock_skew_seconds": 1000})),
        "anybody": provider(&issuer, &json!({"issuer": ""})),
    });
    let proxy = with_providers(program, &app, providers).await;
    let bad = denied("Jwt verification fails");
    for (path, claims, expected) in [
        ("/subject/", json!({"sub": "spiffe://a"}), good()),
        ("/subject/", json!({"sub": "a"}), bad.clone()),
        ("/subject/", json!({}), bad.clone()),
        ("/limited/", json!({}), good()),
        ("/limited/", json!({"exp": null}), bad.clone()),
        ("/hour/", json!({"exp": now() + 3000}), good()),
        ("/hour/", json!({"exp": now() + 4000}), bad.clone()),
        ("/hour/", json!({"exp": null}), bad),
        ("/skewed/", json!({"exp": now() - 900}), good()),
        ("/skewed/", json!({"exp": now() - 1100}), denied("Jwt is expired")),
        ("/anybody/", json!({"iss": "whoever"}), good()),
        ("/anybody/", json!({"iss": null}), good()),
    ] {
        let reply = get(&proxy, path, &issuer.token(claims.clone())).await;
        assert_eq!(verdict(&reply), expected, "{path} {claims}");
    }
}
