//! What happens within a subset: priorities, localities, hashes, connections, and change.

use std::collections::BTreeSet;

use harness::discovery_files::DiscoveryFile;
use harness::eventually::eventually_true;
use harness::{Bootstrap, Cluster, Everywhere, Program, Proxy, RawConnection, Tcp, Value, json};
use proxy::cluster::load_balancer::hash_table::{Entry, HashTable};
use proxy::config::cluster::{HashLb, HashTableKind};
use proxy::route::hash;

use super::{NOBODY, answering, cluster, endpoint, route, start, users, wanting};

on_both!(
    priorities_and_localities_count_within_a_subset,
    a_hash_finds_its_endpoint_within_a_subset,
    connections_go_to_subsets_too,
    subsets_come_and_go_with_their_endpoints,
);

/// How many of `count` requests to `path` endpoint `number` answers.
async fn share(proxy: &Proxy, path: &str, number: u8, count: usize) -> usize {
    let mut answers = 0;
    for _ in 0..count {
        answers += usize::from(answering(proxy, path).await == Some(number));
    }
    answers
}

async fn priorities_and_localities_count_within_a_subset(program: Program) {
    let app = Everywhere::start().await;
    let zone = |zone: &str, weight: u32, priority: u32, endpoints: Value| json!({"locality": {"zone": zone}, "load_balancing_weight": weight, "priority": priority, "lb_endpoints": endpoints});
    let v = |number, v: u8| endpoint(&app, number, json!({"v": v}));
    let localities = json!([
        zone("a", 60, 0, json!([v(1, 1), v(2, 2), v(3, 2), v(4, 2)])),
        zone("b", 15, 0, json!([v(5, 1)])),
        zone("c", 1, 1, json!([v(6, 3), v(7, 1)])),
    ]);
    let proxy = async |aware: bool, scale: bool| {
        let subsets = json!({"subset_selectors": [{"keys": ["v"]}], "locality_weight_aware": aware, "scale_locality_weight": scale});
        let cluster = Cluster::new("app")
            .with("load_assignment.endpoints", localities.clone())
            .with("common_lb_config.locality_weighted_lb_config", json!({}))
            .with("lb_subset_config", subsets);
        let routes = vec![route("/v1", json!({"v": 1})), route("/v3", json!({"v": 3}))];
        start(program, cluster, routes).await
    };
    // Localities a and b have 60 and 15, one to one if not heeded, and 15 and 15 if scaled. Bounds are beyond five
    // standard deviations where chance decides at all.
    let blind = proxy(false, false).await;
    assert!(share(&blind, "/v1", 5, 100).await.abs_diff(50) <= 1);
    assert_eq!(share(&blind, "/v3", 6, 10).await, 10, "the other priority has no such endpoint");
    let aware = proxy(true, false).await;
    assert!(share(&aware, "/v1", 5, 100).await.abs_diff(20) <= 1);
    let scaled = proxy(true, true).await;
    assert!(share(&scaled, "/v1", 5, 100).await.abs_diff(50) <= 1);
}

async fn a_hash_finds_its_endpoint_within_a_subset(program: Program) {
    let app = Everywhere::start().await;
    let labels: [Value; 8] = std::array::from_fn(|at| json!({"half": at % 2}));
    let cluster = cluster(&app, labels, json!({"subset_selectors": [{"keys": ["half"]}]}));
    let policies = json!([{"header": {"header_name": "x-user"}}]);
    let route = route("/odd", json!({"half": 0})).with("route.hash_policy", policies);
    let proxy = start(program, cluster.with("lb_policy", "MAGLEV"), vec![route]).await;
    let odd = [1, 3, 5, 7];
    let entries = odd.map(|it| Entry { key: app.address(it).to_string().into(), weight: 0.25 });
    let kind = HashTableKind::Maglev { size: 65_537 };
    let rules = HashLb { table: kind, use_hostname: false, balance_factor: None };
    let table = HashTable::new(entries.into(), rules);
    for user in 0..40 {
        let user = format!("user-{user}");
        let place = table.pick(hash::bytes(user.as_bytes()), 0, || 0, |_| 0).unwrap();
        let expected = app.address(odd[place as usize]).ip().to_string();
        assert_eq!(proxy.get("/odd").header("x-user", &user).send().await.text(), expected);
    }
}

async fn connections_go_to_subsets_too(program: Program) {
    let app = Everywhere::start().await;
    let answering = async |tcp: Tcp| {
        let labels = [json!({"v": 1}), json!({"v": 2, "s": 1}), json!({"v": 3, "s": 1})];
        let subsets = json!({"subset_selectors": [{"keys": ["v"]}, {"keys": ["s", "v"]}]});
        let proxy =
            Bootstrap::tcp(tcp).cluster(cluster(&app, labels, subsets)).start(program).await;
        let mut seen = BTreeSet::new();
        for _ in 0..24 {
            let mut client = RawConnection::open(proxy.address("main")).await;
            client.write("GET / HTTP/1.1\r\n\r\n").await;
            let reply = client.read_response().await;
            seen.insert(reply.rsplit('.').next().unwrap().parse().unwrap());
        }
        seen.into_iter().collect::<Vec<u8>>()
    };
    let one = Tcp::to("app").with("metadata_match", wanting(json!({"v": 1})));
    assert_eq!(answering(one).await, [1]);
    let mut clusters = json!([{"name": "app", "weight": 1}, {"name": "app", "weight": 1}]);
    for (cluster, v) in clusters.as_array_mut().unwrap().iter_mut().zip(2..) {
        cluster["metadata_match"] = wanting(json!({"v": v}));
    }
    let weighted = Tcp::to_weighted([])
        .with("weighted_clusters.clusters", clusters)
        .with("metadata_match", wanting(json!({"s": 1})));
    assert_eq!(answering(weighted).await, [2, 3]);
}

async fn subsets_come_and_go_with_their_endpoints(program: Program) {
    let app = Everywhere::start().await;
    let routes = [route("/v1", json!({"v": 1})), route("/v2", json!({"v": 2}))];
    let bootstrap = Bootstrap::routing(routes);
    let file = DiscoveryFile::endpoints(bootstrap.dir());
    let publish = |versions: &[u8]| {
        let endpoints = (1..).zip(versions).map(|(at, v)| endpoint(&app, at, json!({"v": v})));
        let endpoints: Vec<Value> = endpoints.collect();
        file.publish([json!({"cluster_name": "app", "endpoints": [{"lb_endpoints": endpoints}]})]);
    };
    publish(&[1, 1]);
    let cluster = Cluster::from_file("app", file.path())
        .with("lb_subset_config", json!({"subset_selectors": [{"keys": ["v"]}]}));
    let proxy = bootstrap.cluster(cluster).start(program).await;
    assert_eq!(users(&proxy, "/v1").await, [1, 2]);
    assert_eq!(users(&proxy, "/v2").await, NOBODY);
    let active = proxy.stat("cluster.app.lb_subsets_active").await;
    assert!(active >= 1, "one for each thread that has it");

    publish(&[1, 2]);
    eventually_true("the other subset", async || answering(&proxy, "/v2").await == Some(2)).await;
    assert_eq!(users(&proxy, "/v1").await, [1], "the same endpoint with another label");
    proxy.until_stat("cluster.app.lb_subsets_active", |count| count == 2 * active).await;
    assert_eq!(proxy.stat("cluster.app.lb_subsets_removed").await, 0);

    publish(&[2, 2]);
    eventually_true("the subset is gone", async || answering(&proxy, "/v1").await.is_none()).await;
    assert_eq!(users(&proxy, "/v2").await, [1, 2]);
    proxy.until_stat("cluster.app.lb_subsets_active", |count| count == active).await;
    assert_eq!(proxy.stat("cluster.app.lb_subsets_created").await, 2 * active);
    assert_eq!(proxy.stat("cluster.app.lb_subsets_removed").await, active);
}
