//! Upstreams that close kept-alive connections: no GET pays for it, no POST is delivered twice.

use harness::{Bootstrap, Close, Cluster, FaultyBackend, Program, Proxy, Route};

on_both!(the_faulty_backend_does_what_it_says);

on_outrigger_only!(
    no_get_fails_when_connections_close_after_an_answer because STALE_CONNECTIONS,
    no_get_fails_when_connections_close_on_the_next_request because STALE_CONNECTIONS,
    no_post_is_delivered_twice because STALE_CONNECTIONS,
);

/// Requests per kind of fault: a taste in every run, everything with `LOAD=full`.
fn requests() -> u32 {
    let full = std::env::var("LOAD").is_ok_and(|load| load == "full");
    if full { 10_000 } else { 300 }
}

async fn to(app: &FaultyBackend, program: Program) -> Proxy {
    Bootstrap::routing([Route::prefix("/").to("app")])
        .cluster(Cluster::new("app").endpoint(app))
        .start(program)
        .await
}

/// Sends requests one after the other on one connection and counts the answers that are not 200.
async fn failures(proxy: &Proxy, method: http::Method, count: u32) -> u32 {
    let client = proxy.client();
    let mut connection = client.connect().await.unwrap();
    let mut failures = 0;
    for nth in 0..count {
        let call = client.call(method.clone(), "/").header("x-delivery", &nth.to_string());
        let call = if method == http::Method::POST { call.body("once") } else { call };
        failures += u32::from(connection.send(call).await.unwrap().status != 200);
    }
    failures
}

async fn the_faulty_backend_does_what_it_says(program: Program) {
    let app = FaultyBackend::closing_after(1, Close::Fin).await;
    let proxy = to(&app, program).await;
    // A new downstream connection each time gives the proxy time to see the FIN.
    for nth in 0..5 {
        proxy.get("/").header("x-delivery", &nth.to_string()).send().await;
    }
    assert!(app.connections() >= 3, "{} connections", app.connections());
}

async fn no_get_fails_when_connections_close_after_an_answer(program: Program) {
    for how in [Close::Fin, Close::Rst] {
        for requests_each in [1, 2] {
            let app = FaultyBackend::closing_after(requests_each, how).await;
            let proxy = to(&app, program).await;
            let failed = failures(&proxy, http::Method::GET, requests()).await;
            assert_eq!(failed, 0, "{how:?} after {requests_each}");
        }
    }
}

async fn no_get_fails_when_connections_close_on_the_next_request(program: Program) {
    for how in [Close::Fin, Close::Rst] {
        for requests_each in [1, 2] {
            let app = FaultyBackend::closing_on_next_after(requests_each, how).await;
            let proxy = to(&app, program).await;
            let failed = failures(&proxy, http::Method::GET, requests()).await;
            assert_eq!(failed, 0, "{how:?} after {requests_each}");
        }
    }
}

async fn no_post_is_delivered_twice(program: Program) {
    for how in [Close::Fin, Close::Rst] {
        let apps = [
            FaultyBackend::closing_after(1, how).await,
            FaultyBackend::closing_on_next_after(1, how).await,
            FaultyBackend::closing_on_next_after(2, how).await,
        ];
        for app in apps {
            let proxy = to(&app, program).await;
            failures(&proxy, http::Method::POST, requests()).await;
            let repeated: Vec<_> =
                app.deliveries().into_iter().filter(|(_, times)| *times > 1).collect();
            assert!(repeated.is_empty(), "{how:?}: {repeated:?}");
            assert!(!app.deliveries().is_empty());
        }
    }
}
