//! Requests that go where their hash says: sticky shares, consistent hashing, sessions.

use harness::{Backend, Bootstrap, Cluster, Program, Route, json};
use proxy::route::hash;

on_both!(users_stay_where_the_weights_sent_them);

/// Which of `users` the canary gets at `weight` percent.
async fn on_canary(program: Program, weight: u32, users: u32) -> Vec<bool> {
    let (stable, canary) = (Backend::echo("stable").await, Backend::echo("canary").await);
    let policies = json!([{"header": {"header_name": "x-user"}}]);
    let proxy = Bootstrap::routing([Route::prefix("/")
        .to_weighted([("stable", 100 - weight), ("canary", weight)])
        .with("route.weighted_clusters.use_hash_policy", true)
        .with("route.hash_policy", policies)])
    .cluster(Cluster::new("stable").endpoint(&stable))
    .cluster(Cluster::new("canary").endpoint(&canary))
    .start(program)
    .await;
    let client = proxy.client();
    let mut connection = client.connect().await.unwrap();
    let mut chosen = Vec::new();
    for user in 0..users {
        let call = client.get("/").header("x-user", &format!("user-{user}"));
        chosen.push(connection.send(call).await.unwrap().echo().backend() == "canary");
    }
    chosen
}

async fn users_stay_where_the_weights_sent_them(program: Program) {
    let users = if full_load() { 10_000 } else { 500 };
    let mut before = vec![false; users as usize];
    for weight in [5, 20, 50, 100] {
        let now = on_canary(program, weight, users).await;
        let back = before.iter().zip(&now).filter(|(before, now)| **before && !**now).count();
        assert_eq!(back, 0, "users went back when the weight rose to {weight}");
        let border = u64::from(100 - weight);
        let expected =
            (0..users).map(|user| hash::bytes(format!("user-{user}").as_bytes()) % 100 >= border);
        assert!(now.iter().copied().eq(expected), "not by the hash at {weight}");
        // Few users are spread less evenly.
        let share = f64::from(now.iter().map(|canary| u32::from(*canary)).sum::<u32>());
        let share = 100.0 * share / f64::from(users);
        let allowed = if full_load() { 0.5 } else { 6.0 };
        assert!((share - f64::from(weight)).abs() <= allowed, "{share} % of {weight} %");
        before = now;
    }
}

fn full_load() -> bool {
    std::env::var("LOAD").is_ok_and(|load| load == "full")
}
