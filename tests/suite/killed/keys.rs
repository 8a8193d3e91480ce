//! Servers of the keys that tokens are signed with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use harness::Issuer;

use super::{
    Answer, Backend, Client, Cluster, Program, Proxy, Relay, Traffic, Value, Verdicts, app,
    filtering, json, survives, users, verdict,
};

on_both!(
    known_keys_are_good_while_their_server_is_away,
    tokens_are_refused_until_their_keys_were_ever_there,
);

on_outrigger_only!(
    keys_that_are_old_are_good_while_their_server_is_away because KEYS_OUTLIVE_THEIR_SERVER,
);

/// A server that publishes the keys of `issuer`.
async fn key_server(issuer: &Issuer) -> Backend {
    let jwks = issuer.jwks();
    Backend::scripted("keys", move |_| Answer::status(200).body(jwks.clone())).await
}

/// A proxy that needs tokens signed with the keys behind `relay`.
async fn requiring(program: Program, app: &Backend, relay: &Relay, mut remote: Value) -> Proxy {
    remote["http_uri"] = json!({"uri": "http://keys.test/", "cluster": "keys", "timeout": "1s"});
    let fields = json!({
        "providers": {"r": {"issuer": "i", "remote_jwks": remote}},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "r"}}],
    });
    let filter = ("jwt_authn.v3.JwtAuthentication", fields);
    filtering(program, app, filter, [Cluster::new("keys").endpoint(relay)]).await
}

/// Requests of users whose tokens are all new, so that nothing but the keys can tell that they are good.
fn traffic(proxy: &Proxy, issuer: Issuer) -> Traffic {
    let (issuer, numbers) = (Arc::new(issuer), Arc::new(AtomicU64::new(0)));
    let ask = move |client: &Client| {
        let number = numbers.fetch_add(1, Relaxed);
        let token = issuer.token(json!({"jti": number.to_string()}));
        client.get("/").header("authorization", &format!("Bearer {token}"))
    };
    Traffic::of(users(proxy), ask, verdict)
}

async fn going_on(program: Program, remote: Value) -> Proxy {
    let (app, issuer) = (app().await, Issuer::new("i"));
    let server = key_server(&issuer).await;
    let mut relay = Relay::to(&server).await;
    let mut proxy = requiring(program, &app, &relay, remote).await;
    let verdicts = Verdicts { up: "200", killed: "200", hanging: "200" };
    let traffic = traffic(&proxy, issuer);
    survives(&mut proxy, &mut relay, traffic, verdicts).await;
    proxy
}

async fn known_keys_are_good_while_their_server_is_away(program: Program) {
    going_on(program, json!({"cache_duration": "600s"})).await;
}

async fn keys_that_are_old_are_good_while_their_server_is_away(program: Program) {
    let proxy = going_on(program, json!({"cache_duration": "0.1s"})).await;
    assert!(proxy.stat("http.main.jwt_authn.jwks_fetch_failed").await > 0);
}

async fn tokens_are_refused_until_their_keys_were_ever_there(program: Program) {
    let (app, issuer) = (app().await, Issuer::new("i"));
    let server = key_server(&issuer).await;
    let mut relay = Relay::without(&server);
    let mut proxy = requiring(program, &app, &relay, json!({})).await;
    let mut traffic = traffic(&proxy, issuer);
    traffic.may_be(&["401"]);
    traffic.until(super::ENOUGH, super::a_while()).await;
    relay.hang().await;
    traffic.until(super::ENOUGH * 2, super::a_while()).await;
    traffic.may_be(&["401", "200"]);
    relay.restart().await;
    let recovered = traffic.settled(super::IN_A_ROW, "200").await;
    traffic.may_be(&["200"]);
    traffic.until(super::ENOUGH, super::a_while()).await;
    traffic.end().await;
    println!("recovered in {recovered:?}");
    assert!(proxy.is_running());
}
