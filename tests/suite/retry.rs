//! When a failed attempt is repeated, how often, and with what.

use std::time::Duration;

use harness::port::Port;
use harness::{Answer, Backend, Bootstrap, Cluster, Program, Proxy, Route, Value, json};

on_both!(
    a_failed_attempt_is_repeated_on_5xx,
    retries_end_with_the_last_answer,
    listed_status_codes_are_retried,
    gateway_errors_alone_are_retried,
    a_refused_connection_is_retried_on_another_host,
    an_attempt_that_takes_too_long_is_repeated,
    the_body_is_sent_again,
    grpc_status_in_headers_is_retried,
    retries_are_limited_by_the_circuit_breaker,
    an_internal_caller_may_ask_for_retries,
    nothing_is_retried_without_a_policy,
    retriable_response_headers_are_retried,
    backoff_grows_between_attempts,
    only_requests_with_certain_headers_are_retried,
    an_answer_may_say_when_to_come_again,
    hosts_with_certain_metadata_are_not_tried_again,
    a_retry_says_whether_it_follows_a_timeout,
    a_retry_goes_to_another_priority,
);

async fn retrying(program: Program, app: &Backend, policy: Value) -> Proxy {
    Bootstrap::routing([Route::prefix("/").to("app").retry(policy)])
        .cluster(Cluster::new("app").endpoint(app))
        .start(program)
        .await
}

/// Fails with `status` until the third attempt.
async fn failing_twice(status: u16) -> Backend {
    Backend::scripted("app", move |call| match call.nth {
        0 | 1 => Answer::status(status),
        _ => Answer::echo(),
    })
    .await
}

async fn a_failed_attempt_is_repeated_on_5xx(program: Program) {
    let app = failing_twice(500).await;
    let proxy = retrying(program, &app, json!({"retry_on": "5xx", "num_retries": 3})).await;
    assert_eq!(proxy.get("/").send().await.status, 200);
    assert_eq!(app.count(), 3);
    proxy.until_stat("cluster.app.upstream_rq_retry", |count| count == 2).await;
    proxy.until_stat("cluster.app.upstream_rq_retry_success", |count| count == 1).await;
    let calls = app.calls();
    assert_eq!(calls[0].header("x-request-id"), calls[2].header("x-request-id"));
}

async fn retries_end_with_the_last_answer(program: Program) {
    let app = Backend::scripted("app", |call| Answer::status(500).body(call.nth.to_string())).await;
    let proxy = retrying(program, &app, json!({"retry_on": "5xx", "num_retries": 2})).await;
    let reply = proxy.get("/").send().await;
    assert_eq!((reply.status, reply.text().as_str()), (500, "2"));
    assert_eq!(app.count(), 3);
    proxy.until_stat("cluster.app.upstream_rq_retry_limit_exceeded", |count| count == 1).await;
}

async fn listed_status_codes_are_retried(program: Program) {
    let policy = json!({"retry_on": "retriable-status-codes", "retriable_status_codes": [409],
        "num_retries": 3});
    let app = failing_twice(409).await;
    let proxy = retrying(program, &app, policy.clone()).await;
    assert_eq!(proxy.get("/").send().await.status, 200);
    let app = failing_twice(500).await;
    let proxy = retrying(program, &app, policy).await;
    assert_eq!(proxy.get("/").send().await.status, 500);
}

async fn gateway_errors_alone_are_retried(program: Program) {
    let policy = json!({"retry_on": "gateway-error", "num_retries": 3});
    for (status, attempts) in [(502, 3), (503, 3), (504, 3), (500, 1), (404, 1)] {
        let app = failing_twice(status).await;
        let proxy = retrying(program, &app, policy.clone()).await;
        proxy.get("/").send().await;
        assert_eq!(app.count(), attempts, "{status}");
    }
}

async fn a_refused_connection_is_retried_on_another_host(program: Program) {
    let app = Backend::echo("app").await;
    let nobody = Port::reserve();
    let policy = json!({"retry_on": "connect-failure", "num_retries": 3,
        "retry_host_predicate": [previous_hosts()], "host_selection_retry_max_attempts": 5});
    let proxy = Bootstrap::routing([Route::prefix("/").to("app").retry(policy)])
        .cluster(Cluster::new("app").endpoint(&nobody).endpoint(&app))
        .start(program)
        .await;
    for _ in 0..10 {
        assert_eq!(proxy.get("/").send().await.status, 200);
        let posted = proxy.client().post("/").body("x").send().await;
        assert_eq!(posted.status, 200, "nothing was delivered, so a POST may be repeated as well");
    }
    proxy.until_stat("cluster.app.upstream_cx_connect_fail", |count| count > 0).await;
}

fn previous_hosts() -> Value {
    let name = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
    json!({"name": "envoy.retry_host_predicates.previous_hosts",
        "typed_config": {"@type": format!("type.googleapis.com/{name}")}})
}

async fn an_attempt_that_takes_too_long_is_repeated(program: Program) {
    let app = Backend::scripted("app", |call| match call.nth {
        0 => Answer::hang(),
        _ => Answer::echo(),
    })
    .await;
    let policy = json!({"retry_on": "5xx", "per_try_timeout": "0.2s", "num_retries": 1});
    let proxy = retrying(program, &app, policy).await;
    assert_eq!(proxy.get("/").send().await.status, 200);
    proxy.until_stat("cluster.app.upstream_rq_per_try_timeout", |count| count == 1).await;
}

async fn the_body_is_sent_again(program: Program) {
    let app = failing_twice(503).await;
    let proxy = retrying(program, &app, json!({"retry_on": "5xx", "num_retries": 3})).await;
    let body = "0123456789".repeat(1000);
    let call = proxy.client().post("/").body(body.clone());
    assert_eq!(call.send().await.echo().body(), body);
    let calls = app.calls();
    assert!(calls.len() == 3 && calls.iter().all(|call| call.body == body));
}

async fn grpc_status_in_headers_is_retried(program: Program) {
    let app = Backend::scripted("app", |call| {
        let grpc = Answer::status(200).header("content-type", "application/grpc");
        grpc.header("grpc-status", if call.nth < 1 { "14" } else { "0" })
    })
    .await;
    let policy = json!({"retry_on": "unavailable", "num_retries": 1});
    let proxy = Bootstrap::routing([Route::prefix("/").to("app").retry(policy)])
        .cluster(Cluster::new("app").http2().endpoint(&app))
        .start(program)
        .await;
    let client = harness::Client::http2(proxy.address("main"));
    let call = client.post("/pkg.Service/Method").header("content-type", "application/grpc");
    let reply = call.header("te", "trailers").send().await;
    assert_eq!(reply.header("grpc-status").as_deref(), Some("0"));
    assert_eq!(app.count(), 2);
}

async fn retries_are_limited_by_the_circuit_breaker(program: Program) {
    let app = Backend::scripted("app", |_| Answer::status(503)).await;
    let policy = json!({"retry_on": "5xx", "num_retries": 3});
    let proxy = Bootstrap::routing([Route::prefix("/").to("app").retry(policy)])
        .cluster(
            Cluster::new("app")
                .endpoint(&app)
                .with("circuit_breakers.thresholds", json!([{"max_retries": 0}])),
        )
        .start(program)
        .await;
    let reply = proxy.get("/").send().await;
    assert_eq!((reply.status, app.count()), (503, 1));
    proxy.until_stat("cluster.app.upstream_rq_retry_overflow", |count| count == 1).await;
}

async fn an_internal_caller_may_ask_for_retries(program: Program) {
    let app = failing_twice(503).await;
    let http = harness::Http::routing([Route::prefix("/").to("app")])
        .with("use_remote_address", true)
        // Only listed addresses are internal.
        .with(
            "internal_address_config.cidr_ranges",
            json!([{"address_prefix": "127.0.0.0", "prefix_len": 8}]),
        );
    let proxy =
        Bootstrap::http(http).cluster(Cluster::new("app").endpoint(&app)).start(program).await;
    let call = proxy.get("/").header("x-envoy-retry-on", "5xx").header("x-envoy-max-retries", "2");
    assert_eq!(call.send().await.status, 200);
    assert_eq!(app.count(), 3);
}

async fn nothing_is_retried_without_a_policy(program: Program) {
    let app = failing_twice(503).await;
    let proxy = Bootstrap::routing([Route::prefix("/").to("app")])
        .cluster(Cluster::new("app").endpoint(&app))
        .start(program)
        .await;
    assert_eq!(proxy.get("/").send().await.status, 503);
    assert_eq!(app.count(), 1);
}

async fn retriable_response_headers_are_retried(program: Program) {
    let app = Backend::scripted("app", |call| match call.nth {
        0 => Answer::status(200).header("x-try-again", "yes"),
        _ => Answer::echo(),
    })
    .await;
    let policy = json!({"retry_on": "retriable-headers", "num_retries": 1,
        "retriable_headers": [{"name": "x-try-again", "present_match": true}]});
    let proxy = retrying(program, &app, policy).await;
    assert_eq!(proxy.get("/").send().await.header("x-try-again"), None);
    assert_eq!(app.count(), 2);
}

async fn backoff_grows_between_attempts(program: Program) {
    let app = Backend::scripted("app", |_| Answer::status(503)).await;
    let policy = json!({"retry_on": "5xx", "num_retries": 4,
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"}});
    let proxy = retrying(program, &app, policy).await;
    let started = std::time::Instant::now();
    proxy.get("/").send().await;
    assert_eq!(app.count(), 5);
    assert!(started.elapsed() < Duration::from_secs(5), "back-off stays below its maximum");
    proxy.until_stat("cluster.app.upstream_rq_retry_backoff_exponential", |count| count == 4).await;
}

async fn only_requests_with_certain_headers_are_retried(program: Program) {
    let wanted = json!([{"name": "x-retry", "present_match": true},
        {"name": ":method", "string_match": {"exact": "PUT"}}]);
    let policy = json!({"retry_on": "5xx", "num_retries": 3, "retriable_request_headers": wanted});
    for (retried, header) in [(true, "x-retry"), (false, "x-other")] {
        let app = failing_twice(500).await;
        let proxy = retrying(program, &app, policy.clone()).await;
        let status = proxy.get("/").header(header, "1").send().await.status;
        assert_eq!((status, app.count()), if retried { (200, 3) } else { (500, 1) });
    }
}

async fn an_answer_may_say_when_to_come_again(program: Program) {
    let app = Backend::scripted("app", |call| match call.nth {
        0 => Answer::status(503).header("x-reset", "soon").header("retry-after", "1"),
        1 => Answer::status(503).header("retry-after", "9"),
        _ => Answer::echo(),
    })
    .await;
    let headers = json!([{"name": "x-reset", "format": "UNIX_TIMESTAMP"},
        {"name": "retry-after", "format": "SECONDS"}]);
    let back_off = json!({"reset_headers": headers, "max_interval": "2s"});
    let policy =
        json!({"retry_on": "5xx", "num_retries": 2, "rate_limited_retry_back_off": back_off});
    let proxy = retrying(program, &app, policy).await;
    let begin = std::time::Instant::now();
    assert_eq!(proxy.get("/").send().await.status, 200);
    let taken = begin.elapsed();
    assert!(taken >= Duration::from_secs(1) && taken < Duration::from_secs(8), "{taken:?}");
    proxy
        .until_stats([
            ("cluster.app.upstream_rq_retry_backoff_ratelimited", 1),
            ("cluster.app.upstream_rq_retry_backoff_exponential", 1),
        ])
        .await;
}

async fn hosts_with_certain_metadata_are_not_tried_again(program: Program) {
    let old = Backend::scripted("old", |_| Answer::status(500)).await;
    let new = Backend::scripted("new", |_| Answer::echo()).await;
    let at = |backend: &Backend, stage: &str| {
        json!({"endpoint": {"address": harness::bootstrap::socket_address(backend.address())},
            "metadata": {"filter_metadata": {"envoy.lb": {"stage": stage, "zone": "a"}}}})
    };
    let name = "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig";
    let omit = json!({"name": "omit", "typed_config": {
        "@type": format!("type.googleapis.com/{name}"),
        "metadata_match": {"filter_metadata": {"envoy.lb": {"stage": "old"}}}}});
    let policy = json!({"retry_on": "5xx", "num_retries": 1, "retry_host_predicate": [omit],
        "host_selection_retry_max_attempts": 50});
    let proxy = Bootstrap::routing([Route::prefix("/").to("app").retry(policy)])
        .cluster(Cluster::new("app").lb_endpoint(at(&old, "old")).lb_endpoint(at(&new, "new")))
        .start(program)
        .await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/").send().await.status, 200);
    }
    assert!(old.count() > 0, "first attempts go anywhere");
}

async fn a_retry_says_whether_it_follows_a_timeout(program: Program) {
    let app = Backend::scripted("app", |call| match call.nth {
        0 => Answer::hang(),
        1 => Answer::status(500),
        _ => Answer::echo(),
    })
    .await;
    let policy = json!({"retry_on": "5xx", "per_try_timeout": "0.3s", "num_retries": 3});
    let host =
        harness::VirtualHost::new("all", ["*"], [Route::prefix("/").to("app").retry(policy)]);
    let http = harness::Http::hosting([host.with("include_is_timeout_retry_header", true)]);
    let proxy =
        Bootstrap::http(http).cluster(Cluster::new("app").endpoint(&app)).start(program).await;
    assert_eq!(proxy.get("/").send().await.status, 200);
    let calls = app.calls();
    let told: Vec<_> = calls.iter().map(|call| call.header("x-envoy-is-timeout-retry")).collect();
    assert_eq!(told, [None, Some("true"), Some("false")]);
}

async fn a_retry_goes_to_another_priority(program: Program) {
    let first = Backend::scripted("first", |_| Answer::status(500)).await;
    let second = Backend::echo("second").await;
    let name = "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";
    let priority = |often: u32| {
        json!({"name": "p", "typed_config":
            {"@type": format!("type.googleapis.com/{name}"), "update_frequency": often}})
    };
    let endpoints = |backend: &Backend, priority: u32| {
        let address = harness::bootstrap::socket_address(backend.address());
        json!({"priority": priority, "lb_endpoints": [{"endpoint": {"address": address}}]})
    };
    let in_vain = Backend::scripted("in vain", |_| Answer::status(500)).await;
    for (often, retries, attempts) in [(1, 5, (3, 3)), (2, 5, (4, 2)), (3, 4, (3, 2))] {
        let policy = json!({"retry_on": "5xx", "num_retries": retries, "retry_priority": priority(often),
                "retry_back_off": {"base_interval": "0.001s"}});
        let cluster = Cluster::new("app").with(
            "load_assignment.endpoints",
            json!([endpoints(&first, 0), endpoints(&in_vain, 1)]),
        );
        let proxy = Bootstrap::routing([Route::prefix("/").to("app").retry(policy)])
            .cluster(cluster)
            .start(program)
            .await;
        let before = (first.count(), in_vain.count());
        assert_eq!(proxy.get("/").send().await.status, 500);
        let made = (first.count() - before.0, in_vain.count() - before.1);
        assert_eq!(made, attempts, "once all were tried, it begins anew: {often} {retries}");
    }
    for (often, retries, status, attempts) in [(1, 1, 200, 1), (2, 1, 500, 2), (2, 2, 200, 2)] {
        let policy =
            json!({"retry_on": "5xx", "num_retries": retries, "retry_priority": priority(often)});
        let cluster = Cluster::new("app").with(
            "load_assignment.endpoints",
            json!([endpoints(&first, 0), endpoints(&second, 1)]),
        );
        let proxy = Bootstrap::routing([Route::prefix("/").to("app").retry(policy)])
            .cluster(cluster)
            .start(program)
            .await;
        let before = first.count();
        let reply = proxy.get("/").send().await;
        assert_eq!((reply.status, first.count() - before), (status, attempts), "{often} {retries}");
    }
}
