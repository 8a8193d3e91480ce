//! Ending without cutting anybody off.

use std::time::Duration;

use harness::{
    Answer, Backend, Bootstrap, Client, Cluster, Http, Listener, Program, Proxy, RawConnection,
    Route, json,
};

on_both!(sigterm_ends_an_idle_proxy_with_success);

on_outrigger_only!(
    sigterm_lets_requests_finish because GRACEFUL_SIGTERM,
    a_draining_proxy_says_so_and_accepts_nobody because GRACEFUL_SIGTERM,
    the_drain_time_is_the_longest_wait because GRACEFUL_SIGTERM,
    a_silent_client_does_not_keep_a_draining_proxy because GRACEFUL_SIGTERM,
);

async fn answering_after(delay: Duration, program: Program, drain_time: &str) -> (Backend, Proxy) {
    let app = Backend::scripted("app", move |_| Answer::echo().after(delay)).await;
    let proxy = Bootstrap::routing([Route::prefix("/").to("app")])
        .cluster(Cluster::new("app").endpoint(&app))
        .argument("--drain-time-s")
        .argument(drain_time)
        .start(program)
        .await;
    (app, proxy)
}

async fn sigterm_ends_an_idle_proxy_with_success(program: Program) {
    let (_app, mut proxy) = answering_after(Duration::ZERO, program, "30").await;
    assert_eq!(proxy.get("/").send().await.status, 200);
    let started = std::time::Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.exit_status().await.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(20), "it waits for nobody");
}

async fn sigterm_lets_requests_finish(program: Program) {
    const REQUESTS: usize = 100;
    let (app, mut proxy) = answering_after(Duration::from_secs(2), program, "30").await;
    let mut requests = tokio::task::JoinSet::new();
    for nth in 0..REQUESTS {
        let client = match nth % 2 {
            0 => proxy.client(),
            _ => Client::http2(proxy.address("main")),
        };
        requests.spawn(async move { client.get("/").try_send().await.map(|reply| reply.status) });
    }
    harness::eventually::eventually_true("all requests in flight", async || {
        app.count() == REQUESTS
    })
    .await;
    proxy.signal("TERM");
    while let Some(status) = requests.join_next().await {
        assert_eq!(status.unwrap().unwrap(), 200);
    }
    assert_eq!(proxy.exit_status().await.code(), Some(0));
}

async fn a_draining_proxy_says_so_and_accepts_nobody(program: Program) {
    let (app, mut proxy) = answering_after(Duration::from_secs(1), program, "30").await;
    let client = proxy.client();
    let mut connection = client.connect().await.unwrap();
    let request = tokio::spawn({
        let call = client.get("/");
        async move { connection.send(call).await.unwrap() }
    });
    harness::eventually::eventually_true("the request in flight", async || app.count() == 1).await;
    proxy.signal("TERM");
    harness::eventually::eventually_true("new connections being refused", async || {
        client.connect().await.is_err()
    })
    .await;
    let reply = request.await.unwrap();
    assert_eq!(reply.header("connection").as_deref(), Some("close"));
    assert_eq!(proxy.exit_status().await.code(), Some(0));
}

async fn the_drain_time_is_the_longest_wait(program: Program) {
    let (app, mut proxy) = answering_after(Duration::from_secs(3600), program, "1").await;
    let request = tokio::spawn(proxy.get("/").try_send());
    harness::eventually::eventually_true("the request in flight", async || app.count() == 1).await;
    proxy.signal("TERM");
    proxy.exit_status().await;
    assert!(request.await.unwrap().is_err(), "cut off at the deadline");
}

/// Not even while its first bytes are awaited without a limit.
async fn a_silent_client_does_not_keep_a_draining_proxy(program: Program) {
    let inspector = json!({
        "name": "inspector",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        },
    });
    let http = Http::routing([Route::prefix("/").direct(200, "served")]);
    let mut proxy = Bootstrap::new()
        .listener(
            Listener::new("main", http)
                .with("listener_filters", json!([inspector]))
                .with("listener_filters_timeout", "0s"),
        )
        .argument("--drain-time-s")
        .argument("1")
        .start(program)
        .await;
    let _silent = RawConnection::open(proxy.address("main")).await;
    let listener = proxy.address("main").to_string().replace(':', "_");
    let active = format!("listener.{listener}.downstream_pre_cx_active");
    proxy.until_stat(&active, |count| count == 1).await;
    let started = std::time::Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.exit_status().await.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}
