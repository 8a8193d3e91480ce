//! The failover drill: three localities of real processes, killed one by one under load. Traffic shifts as the
//! health figures say, and no request is lost that may be sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use harness::eventually::eventually_true;
use harness::{Bootstrap, Cluster, Program, Proxy, Route, Value, json};
use tokio::task::JoinSet;

on_both!(traffic_moves_down_the_priorities, traffic_moves_between_weighted_localities);

/// What one healthy host can carry beyond its share.
const OVERPROVISIONING: f64 = 1.4;

/// Three localities of two processes each, called `a` to `c`.
struct Drill {
    localities: Vec<Vec<Proxy>>,
}

impl Drill {
    async fn new() -> Self {
        let mut localities = Vec::new();
        for name in ["a", "b", "c"] {
            let host = || {
                let header = json!([{"header": {"key": "x-backend", "value": name}}]);
                let route =
                    Route::prefix("/").direct(200, "").with("response_headers_to_add", header);
                // A process of its own, that can be killed.
                Bootstrap::routing([route]).start(Program::Outrigger)
            };
            localities.push(vec![host().await, host().await]);
        }
        Self { localities }
    }

    /// The localities, each with what `says` adds by its number.
    fn endpoints(&self, says: impl Fn(usize) -> Value) -> Value {
        let localities = self.localities.iter().enumerate().map(|(number, hosts)| {
            let endpoint = |host: &Proxy| {
                let address = harness::bootstrap::socket_address(host.address("main"));
                json!({"endpoint": {"address": address}})
            };
            let mut locality = says(number);
            locality["lb_endpoints"] = hosts.iter().map(endpoint).collect();
            locality["locality"] = json!({"zone": number.to_string()});
            locality
        });
        localities.collect()
    }

    /// Kills hosts one by one in order of their localities, as long as more than one is left, and looks
    /// each time whether shares are as `wanted` says of the health of each locality.
    async fn run(self, proxy: &Proxy, wanted: impl Fn(&[f64]) -> Vec<f64>) {
        let mut health = vec![1.0; self.localities.len()];
        let mut left = 2 * self.localities.len() as u64;
        assert_shares(&measure(proxy).await, &wanted(&health));
        for (number, hosts) in self.localities.iter().enumerate() {
            for host in hosts {
                if left == 1 {
                    return;
                }
                left -= 1;
                let clients = Clients::start(proxy, 4);
                clients.get_further(50).await;
                host.signal("KILL");
                proxy.until_stat("cluster.app.membership_healthy", |now| now == left).await;
                clients.get_further(50).await;
                clients.stop().await;
                health[number] -= 0.5;
                assert_shares(&measure(proxy).await, &wanted(&health));
            }
        }
    }
}

/// Clients that send one request after the other until they are stopped.
struct Clients {
    answered: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Clients {
    fn start(proxy: &Proxy, count: usize) -> Self {
        let (answered, stopped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let (client, answered, stopped) = (proxy.client(), answered.clone(), stopped.clone());
            tasks.spawn(async move {
                let mut connection = client.connect().await.unwrap();
                while !stopped.load(Relaxed) {
                    let reply = connection.send(client.get("/")).await.unwrap();
                    assert_eq!(reply.status, 200, "a request was lost: {}", reply.text());
                    answered.fetch_add(1, Relaxed);
                }
            });
        }
        Self { answered, stopped, tasks }
    }

    /// Waits for `count` more answers.
    async fn get_further(&self, count: usize) {
        let before = self.answered.load(Relaxed);
        eventually_true("answers", async || self.answered.load(Relaxed) >= before + count).await;
    }

    /// Fails if any request was lost.
    async fn stop(self) {
        self.stopped.store(true, Relaxed);
        self.tasks.join_all().await;
    }
}

/// The share of each locality now.
async fn measure(proxy: &Proxy) -> Vec<f64> {
    const REQUESTS: u32 = 600;
    let client = proxy.client();
    let mut connection = client.connect().await.unwrap();
    let mut counts = BTreeMap::from(["a", "b", "c"].map(|name| (name.to_owned(), 0)));
    for _ in 0..REQUESTS {
        let reply = connection.send(client.get("/")).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        *counts.get_mut(&reply.header("x-backend").unwrap()).unwrap() += 1;
    }
    counts.into_values().map(|count: u32| f64::from(count) / f64::from(REQUESTS)).collect()
}

/// Chance moves a share of so many requests by 0.02 (one standard deviation).
fn assert_shares(seen: &[f64], wanted: &[f64]) {
    let near = seen.iter().zip(wanted).all(|(seen, wanted)| (seen - wanted).abs() < 0.1);
    assert!(near, "wanted {wanted:?}, seen {seen:?}");
}

/// A proxy that checks its hosts, ejects them if they fail, and tries again elsewhere.
async fn start(program: Program, cluster: Cluster) -> Proxy {
    let check = json!({
        "timeout": "2s", "interval": "0.1s", "no_traffic_interval": "0.1s",
        "unhealthy_threshold": 2, "healthy_threshold": 2, "http_health_check": {"path": "/"},
    });
    let cluster = cluster
        .with("health_checks", json!([check]))
        .with("outlier_detection", json!({"consecutive_5xx": 5, "max_ejection_percent": 100}))
        // The default of 3 would be reached by the four clients alone.
        .with("circuit_breakers.thresholds", json!([{"max_retries": 100}]));
    let policy = json!({
        "retry_on": "5xx,reset,connect-failure", "num_retries": 5,
        "retry_host_predicate": [{
            "name": "previous_hosts",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }],
        "host_selection_retry_max_attempts": 5,
    });
    let routes = [Route::prefix("/").to("app").retry(policy)];
    Bootstrap::routing(routes).cluster(cluster).start(program).await
}

async fn traffic_moves_down_the_priorities(program: Program) {
    let drill = Drill::new().await;
    let localities = drill.endpoints(|number| json!({"priority": number}));
    let cluster = Cluster::new("app").with("load_assignment.endpoints", localities);
    let proxy = start(program, cluster).await;
    // Each priority takes what it can carry, and the next what is left.
    drill
        .run(&proxy, |health| {
            let able: Vec<f64> =
                health.iter().map(|health| (health * OVERPROVISIONING).min(1.0)).collect();
            let all = able.iter().sum::<f64>().min(1.0);
            let mut rest = 1.0;
            let shares = able.iter().map(|able| {
                let share = f64::min(able / all, rest);
                rest -= share;
                share
            });
            shares.collect()
        })
        .await;
}

async fn traffic_moves_between_weighted_localities(program: Program) {
    let weights = BTreeMap::from([(0, 50), (1, 30), (2, 20)]);
    let drill = Drill::new().await;
    let localities = drill.endpoints(|number| json!({"load_balancing_weight": weights[&number]}));
    let cluster = Cluster::new("app")
        .with("load_assignment.endpoints", localities)
        .with("common_lb_config.locality_weighted_lb_config", json!({}))
        .with("common_lb_config.healthy_panic_threshold.value", 0);
    let proxy = start(program, cluster).await;
    // A locality has its weight as far as its hosts can carry it.
    drill
        .run(&proxy, |health| {
            let weight = |(number, health): (usize, &f64)| {
                f64::from(weights[&number]) * (health * OVERPROVISIONING).min(1.0)
            };
            let effective: Vec<f64> = health.iter().enumerate().map(weight).collect();
            let total: f64 = effective.iter().sum();
            effective.iter().map(|weight| weight / total).collect()
        })
        .await;
}
