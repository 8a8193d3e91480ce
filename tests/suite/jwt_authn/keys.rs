//! Keys that are fetched from a server, which comes and goes.

use harness::eventually::eventually_true;
use harness::port::Port;
use harness::{Answer, Backend, Issuer, Program, Route, Value, json};

use super::{denied, filtering, get, good, rule, start, verdict};

on_both!(
    keys_are_fetched_when_they_are_needed,
    keys_are_fetched_ahead,
    a_key_server_that_is_away_is_asked_again,
);

on_outrigger_only!(
    keys_survive_their_server because KEYS_OUTLIVE_THEIR_SERVER,
);

/// A server that publishes the keys of `issuer`.
async fn key_server(issuer: &Issuer, at: &Port) -> Backend {
    // One that was there before may still be closing.
    let is_free = async || std::net::TcpListener::bind(at.address()).is_ok();
    eventually_true("a free port", is_free).await;
    let jwks = issuer.jwks();
    Backend::scripted_at("keys", at.address(), move |_| Answer::status(200).body(jwks.clone()))
        .await
}

fn remote(fields: &Value) -> Value {
    let mut remote = json!({
        "http_uri": {"uri": "http://keys.example:1/all?x=1", "cluster": "keys", "timeout": "5s"},
    });
    remote.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({"providers": {"r": {"issuer": "i", "remote_jwks": remote}}, "rules": [rule("/", json!({"provider_name": "r"}))]})
}

async fn keys_are_fetched_when_they_are_needed(program: Program) {
    let app = Backend::echo("app").await;
    let (issuer, port) = (Issuer::new("i"), Port::reserve());
    let server = key_server(&issuer, &port).await;
    let http = filtering(remote(&json!({})), [Route::prefix("/").to("app")]);
    let proxy = start(program, &app, http, Some(&port)).await;
    let missing = proxy.get("/").send().await;
    assert_eq!((verdict(&missing), server.count()), (denied("Jwt is missing"), 0));
    // Both programs have one worker at least; each of Envoy's fetches for itself.
    for number in 0..3 {
        let token = issuer.token(json!({"jti": number.to_string()}));
        assert_eq!(verdict(&get(&proxy, "/", &token).await), good());
    }
    let calls = server.calls();
    assert!(!calls.is_empty() && calls.len() <= 3, "{}", calls.len());
    assert_eq!((calls[0].host.as_str(), calls[0].path.as_str()), ("keys.example:1", "/all?x=1"));
    assert_eq!(calls[0].method, http::Method::GET);
    let fetched = u64::try_from(calls.len()).unwrap();
    proxy.until_stats([("http.ing.jwt_authn.jwks_fetch_success", fetched)]).await;
}

async fn keys_are_fetched_ahead(program: Program) {
    let app = Backend::echo("app").await;
    let (issuer, port) = (Issuer::new("i"), Port::reserve());
    let server = key_server(&issuer, &port).await;
    let filter = remote(&json!({"async_fetch": {}, "cache_duration": "1s"}));
    let http = filtering(filter, [Route::prefix("/").to("app")]);
    let proxy = start(program, &app, http, Some(&port)).await;
    eventually_true("three fetches", async || server.count() >= 3).await;
    assert_eq!(verdict(&get(&proxy, "/", &issuer.token(json!({}))).await), good());
    // New keys are taken over.
    drop(server);
    let next = Issuer::new("i");
    let _server = key_server(&next, &port).await;
    eventually_true("the new keys", async || {
        get(&proxy, "/", &next.token(json!({}))).await.status == 200
    })
    .await;
    let reply = get(&proxy, "/", &issuer.token(json!({"jti": "2"}))).await;
    assert_eq!(verdict(&reply), denied("Jwt verification fails"));
}

async fn a_key_server_that_is_away_is_asked_again(program: Program) {
    let app = Backend::echo("app").await;
    let (issuer, port) = (Issuer::new("i"), Port::reserve());
    let filter = remote(
        &json!({"retry_policy": {"num_retries": 1, "retry_back_off": {"base_interval": "0.01s"}}}),
    );
    let http = filtering(filter, [Route::prefix("/").to("app")]);
    let proxy = start(program, &app, http, Some(&port)).await;
    let token = issuer.token(json!({}));
    let reply = get(&proxy, "/", &token).await;
    assert_eq!(verdict(&reply), denied("Jwks remote fetch is failed"));
    proxy.until_stat("http.ing.jwt_authn.jwks_fetch_failed", |count| count >= 1).await;
    let _server = key_server(&issuer, &port).await;
    eventually_true("the keys", async || get(&proxy, "/", &token).await.status == 200).await;
}

async fn keys_survive_their_server(program: Program) {
    let app = Backend::echo("app").await;
    let (issuer, port) = (Issuer::new("i"), Port::reserve());
    let server = key_server(&issuer, &port).await;
    let filter = remote(&json!({"cache_duration": "0.1s"}));
    let http = filtering(filter, [Route::prefix("/").to("app")]);
    let proxy = start(program, &app, http, Some(&port)).await;
    assert_eq!(verdict(&get(&proxy, "/", &issuer.token(json!({}))).await), good());
    drop(server);
    // Each token is a new one, so that nothing but the keys can tell that it is good.
    let mut number = 0;
    eventually_true("failed fetches", async || {
        number += 1;
        let token = issuer.token(json!({"jti": number.to_string()}));
        assert_eq!(verdict(&get(&proxy, "/", &token).await), good());
        proxy.stat("http.ing.jwt_authn.jwks_fetch_failed").await >= 3
    })
    .await;
    // It comes back with other keys.
    let next = Issuer::new("i");
    let _server = key_server(&next, &port).await;
    eventually_true("the new keys", async || {
        get(&proxy, "/", &next.token(json!({}))).await.status == 200
    })
    .await;
}
