//! A host that keeps failing is left out for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use harness::port::Port;
use harness::{Answer, Backend, Bootstrap, Cluster, Program, Proxy, Route, Value, json};

on_both!(
    a_host_with_5xx_in_a_row_is_ejected,
    gateway_failures_eject_when_enforced,
    an_unreachable_host_is_ejected,
    an_ejected_host_comes_back,
    no_more_than_the_allowed_share_is_ejected,
    panic_sends_to_all_hosts,
);

/// A proxy over `hosts` with this outlier detection and without panic mode.
async fn watching(program: Program, hosts: &[&Backend], detection: Value) -> Proxy {
    let cluster = hosts.iter().fold(Cluster::new("app"), |cluster, host| cluster.endpoint(*host));
    start(program, cluster, detection).await
}

async fn start(program: Program, cluster: Cluster, detection: Value) -> Proxy {
    let cluster = cluster
        .with("outlier_detection", detection)
        .with("common_lb_config.healthy_panic_threshold.value", 0);
    Bootstrap::routing([Route::prefix("/").to("app")]).cluster(cluster).start(program).await
}

async fn failing(status: u16) -> Backend {
    Backend::scripted("bad", move |_| Answer::status(status)).await
}

async fn a_host_with_5xx_in_a_row_is_ejected(program: Program) {
    let (good, bad) = (Backend::echo("good").await, failing(500).await);
    let detection = json!({"consecutive_5xx": 3, "max_ejection_percent": 50});
    let proxy = watching(program, &[&good, &bad], detection).await;
    until_ejected(&proxy, 1).await;
    assert_eq!(bad.count(), 3);
    for _ in 0..20 {
        assert_eq!(proxy.get("/").send().await.status, 200);
    }
    assert_eq!(
        proxy.stat("cluster.app.outlier_detection.ejections_enforced_consecutive_5xx").await,
        1
    );
    assert_eq!(proxy.stat("cluster.app.outlier_detection.ejections_enforced_total").await, 1);
    let clusters = proxy.admin().get("/clusters").send().await.text();
    let flags = format!("app::{}::health_flags::/failed_outlier_check", bad.address());
    assert!(clusters.contains(&flags), "{clusters}");
    proxy.until_stat("cluster.app.membership_healthy", |count| count == 1).await;
}

async fn gateway_failures_eject_when_enforced(program: Program) {
    let (good, bad) = (Backend::echo("good").await, failing(503).await);
    let detection = json!({"consecutive_gateway_failure": 2,
        "enforcing_consecutive_gateway_failure": 100, "enforcing_consecutive_5xx": 0,
        "max_ejection_percent": 50});
    let proxy = watching(program, &[&good, &bad], detection).await;
    until_ejected(&proxy, 1).await;
    let name = "cluster.app.outlier_detection.ejections_enforced_consecutive_gateway_failure";
    assert_eq!(proxy.stat(name).await, 1);
    assert_eq!(bad.count(), 2);
}

async fn an_unreachable_host_is_ejected(program: Program) {
    let (good, nobody) = (Backend::echo("good").await, Port::reserve());
    let detection = json!({"split_external_local_origin_errors": true,
        "consecutive_local_origin_failure": 2, "max_ejection_percent": 50});
    let cluster = Cluster::new("app").endpoint(&good).endpoint(&nobody);
    let proxy = start(program, cluster, detection).await;
    until_ejected(&proxy, 1).await;
    let name = "cluster.app.outlier_detection.ejections_enforced_consecutive_local_origin_failure";
    assert_eq!(proxy.stat(name).await, 1);
}

async fn an_ejected_host_comes_back(program: Program) {
    let healed = Arc::new(AtomicBool::new(false));
    let flag = healed.clone();
    let bad = Backend::scripted("bad", move |_| match flag.load(Relaxed) {
        true => Answer::echo(),
        false => Answer::status(500),
    })
    .await;
    let good = Backend::echo("good").await;
    let detection = json!({"consecutive_5xx": 1, "interval": "0.05s",
        "base_ejection_time": "0.1s", "max_ejection_percent": 50});
    let proxy = watching(program, &[&good, &bad], detection).await;
    until_ejected(&proxy, 1).await;
    healed.store(true, Relaxed);
    until_ejected(&proxy, 0).await;
    let before = bad.count();
    harness::eventually("traffic on the healed host", async || {
        assert_eq!(proxy.get("/").send().await.status, 200);
        (bad.count() > before).then_some(())
    })
    .await;
}

async fn no_more_than_the_allowed_share_is_ejected(program: Program) {
    let hosts = [failing(500).await, failing(500).await, failing(500).await];
    let detection = json!({"consecutive_5xx": 1, "max_ejection_percent": 34});
    let proxy = watching(program, &[&hosts[0], &hosts[1], &hosts[2]], detection).await;
    for _ in 0..30 {
        proxy.get("/").send().await;
    }
    assert_eq!(proxy.stat("cluster.app.outlier_detection.ejections_active").await, 1);
    assert!(proxy.stat("cluster.app.outlier_detection.ejections_overflow").await > 0);
}

async fn panic_sends_to_all_hosts(program: Program) {
    let (one, two) = (failing(500).await, failing(500).await);
    let cluster = Cluster::new("app")
        .endpoint(&one)
        .endpoint(&two)
        .with("outlier_detection", json!({"consecutive_5xx": 1, "max_ejection_percent": 100}));
    let proxy =
        Bootstrap::routing([Route::prefix("/").to("app")]).cluster(cluster).start(program).await;
    until_ejected(&proxy, 2).await;
    harness::eventually("panic mode", async || {
        assert_eq!(proxy.get("/").send().await.status, 500, "never 503: no healthy upstream");
        (proxy.stat("cluster.app.lb_healthy_panic").await > 0).then_some(())
    })
    .await;
}

/// Sends requests until `count` hosts are ejected.
async fn until_ejected(proxy: &Proxy, count: u64) {
    harness::eventually("ejections", async || {
        proxy.get("/").send().await;
        let active = proxy.stat("cluster.app.outlier_detection.ejections_active").await;
        (active == count).then_some(())
    })
    .await;
}
