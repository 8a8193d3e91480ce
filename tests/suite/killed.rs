//! What a proxy needs besides its upstreams is killed and hangs while requests keep coming: each is answered as the
//! configuration says, and all is well again when it is back.

mod collectors;
mod deciders;
mod keys;

use std::time::Duration;

use harness::bootstrap::typed;
use harness::traffic::Figures;
use harness::{
    Answer, Backend, Bootstrap, Client, Cluster, Http, Listener, Program, Proxy, Relay, Reply,
    Route, Traffic, Value, json,
};

/// For how long a state lasts: a moment in every run, longer with `LOAD=full`.
fn a_while() -> Duration {
    let full = std::env::var("LOAD").is_ok_and(|load| load == "full");
    Duration::from_millis(if full { 10_000 } else { 300 })
}

/// Eight users: half of them speak HTTP/1.1, half HTTP/2.
fn users(proxy: &Proxy) -> impl Iterator<Item = Client> {
    let address = proxy.address("main");
    [Client::http1(address), Client::http2(address)].into_iter().cycle().take(8)
}

/// How many requests of each state are looked at.
const ENOUGH: usize = 40;
/// How many good answers in a row say that all is well again.
const IN_A_ROW: usize = 16;
/// Memory may move this much between one state and another, in bytes.
const FLAT: u64 = 24 << 20;

/// What requests are answered with while a companion is there, killed, and hanging.
struct Verdicts {
    up: &'static str,
    killed: &'static str,
    hanging: &'static str,
}

/// What requests took in the states of a companion.
struct Taken {
    up: Figures,
    killed: Figures,
    hanging: Figures,
}

/// Kills what `relay` stands for, starts it again, lets it hang, and starts it again; each answer has to be as it
/// should in that state. The proxy survives, does not grow, and needs no help to recover.
async fn survives(
    proxy: &mut Proxy,
    relay: &mut Relay,
    mut traffic: Traffic,
    verdicts: Verdicts,
) -> Taken {
    let Verdicts { up, killed, hanging } = verdicts;
    traffic.may_be(&[up]);
    let before = traffic.until(ENOUGH, a_while()).await;
    let memory = proxy.resident();

    traffic.may_be(&[up, killed]);
    relay.kill().await;
    traffic.may_be(&[killed]);
    let while_killed = traffic.until(ENOUGH, a_while()).await;
    traffic.may_be(&[killed, up]);
    relay.restart().await;
    let first = traffic.settled(IN_A_ROW, up).await;
    traffic.may_be(&[up]);
    traffic.until(ENOUGH, Duration::ZERO).await;

    traffic.may_be(&[up, hanging]);
    relay.hang().await;
    traffic.may_be(&[hanging]);
    // Some of these wait until they are given up.
    let while_hanging = traffic.until(IN_A_ROW, a_while()).await;
    traffic.may_be(&[hanging, killed, up]);
    relay.restart().await;
    let second = traffic.settled(IN_A_ROW, up).await;
    traffic.may_be(&[up]);
    traffic.until(ENOUGH, a_while()).await;
    traffic.end().await;

    assert!(proxy.is_running());
    let grown = proxy.resident().saturating_sub(memory);
    println!(
        "{:?}: up {before:?}, killed {while_killed:?}, hanging {while_hanging:?}; recovered in {first:?} and {second:?}; \
         memory +{} KiB",
        proxy.program(),
        grown >> 10
    );
    assert!(grown < FLAT, "{grown} bytes more");
    proxy.until_stat("http.main.downstream_rq_active", |active| active == 0).await;
    Taken { up: before, killed: while_killed, hanging: while_hanging }
}

/// A backend that says what the filters before it have said of a request.
async fn app() -> Backend {
    Backend::scripted("app", |call| {
        let told = call.header("x-envoy-auth-failure-mode-allowed").unwrap_or("no");
        Answer::status(200).header("x-failure-allowed", told)
    })
    .await
}

/// Its status, and whether it was let through because nobody decided.
fn verdict(reply: &Reply) -> String {
    match reply.header("x-failure-allowed").as_deref() {
        Some("true") => format!("{} unchecked", reply.status),
        _ => reply.status.to_string(),
    }
}

/// A proxy in front of `app` with this filter, and these other clusters.
async fn filtering(
    program: Program,
    app: &Backend,
    filter: (&str, Value),
    clusters: impl IntoIterator<Item = Cluster>,
) -> Proxy {
    let (message, fields) = filter;
    let http = Http::routing([Route::prefix("/").to("app")]).filter("it", message, fields);
    serving(program, app, http, clusters).await
}

/// A proxy in front of `app`, and these other clusters.
async fn serving(
    program: Program,
    app: &Backend,
    http: Http,
    clusters: impl IntoIterator<Item = Cluster>,
) -> Proxy {
    let bootstrap = Bootstrap::new()
        .listener(Listener::new("main", http))
        .cluster(Cluster::new("app").endpoint(app));
    clusters.into_iter().fold(bootstrap, Bootstrap::cluster).start(program).await
}
