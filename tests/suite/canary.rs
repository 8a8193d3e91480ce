//! A share of the traffic to a new version, or the people who ask for it.

use harness::{Backend, Bootstrap, Cluster, Program, Route, json};

on_both!(weights_are_kept, a_header_overrides_the_weights, a_fraction_of_a_route);

/// Requests of one measurement; a split is met if it is within five standard deviations.
const REQUESTS: u32 = 2_000;

async fn weights_are_kept(program: Program) {
    let (stable, canary) = (Backend::echo("v1").await, Backend::echo("v2").await);
    let proxy = Bootstrap::routing([Route::prefix("/").to_weighted([
        ("v1", 90),
        ("v2", 10),
        ("never", 0),
    ])])
    .cluster(Cluster::new("v1").endpoint(&stable))
    .cluster(Cluster::new("v2").endpoint(&canary))
    .cluster(Cluster::new("never"))
    .start(program)
    .await;
    send_all(&proxy, |client| client.get("/")).await;
    assert_share(canary.count(), 0.10);
    assert_share(stable.count(), 0.90);
}

async fn a_header_overrides_the_weights(program: Program) {
    let (stable, canary) = (Backend::echo("v1").await, Backend::echo("v2").await);
    let proxy = Bootstrap::routing([
        Route::prefix("/").when_header("x-user-type", "premium").to("v2"),
        Route::prefix("/").to_weighted([("v1", 100), ("v2", 0)]),
    ])
    .cluster(Cluster::new("v1").endpoint(&stable))
    .cluster(Cluster::new("v2").endpoint(&canary))
    .start(program)
    .await;
    for _ in 0..50 {
        let premium = proxy.get("/").header("x-user-type", "premium").send().await;
        assert_eq!(premium.echo().backend(), "v2");
        let free = proxy.get("/").header("x-user-type", "free").send().await;
        assert_eq!(free.echo().backend(), "v1");
    }
}

async fn a_fraction_of_a_route(program: Program) {
    let (old, new) = (Backend::echo("old").await, Backend::echo("new").await);
    let share = json!({"default_value": {"numerator": 25, "denominator": "HUNDRED"}});
    let proxy = Bootstrap::routing([
        Route::matching(json!({"prefix": "/", "runtime_fraction": share})).to("new"),
        Route::prefix("/").to("old"),
    ])
    .cluster(Cluster::new("old").endpoint(&old))
    .cluster(Cluster::new("new").endpoint(&new))
    .start(program)
    .await;
    send_all(&proxy, |client| client.get("/")).await;
    assert_share(new.count(), 0.25);
}

async fn send_all(
    proxy: &harness::Proxy,
    call: impl Fn(&harness::Client) -> harness::client::Call,
) {
    let client = proxy.client();
    let mut connection = client.connect().await.unwrap();
    for _ in 0..REQUESTS {
        assert_eq!(connection.send(call(&client)).await.unwrap().status, 200);
    }
}

fn assert_share(count: usize, share: f64) {
    let total = f64::from(REQUESTS);
    let deviation = (total * share * (1.0 - share)).sqrt();
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let off = (count as f64 - total * share).abs();
    assert!(off <= 5.0 * deviation, "{count} of {REQUESTS} instead of {:.0}", total * share);
}
