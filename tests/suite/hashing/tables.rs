//! RING_HASH and MAGLEV send every key to the endpoint Envoy sends it to: what the balancer alone picks is what
//! both programs do, so each agrees with the other.

use std::net::IpAddr;
use std::time::Duration;

use fastrand::Rng;
use harness::{Bootstrap, Cluster, Everywhere, Program, Proxy, RawConnection, Route, Value, json};
use proxy::cluster::load_balancer::hash_table::HashTables;
use proxy::cluster::load_balancer::{Balancer, Candidate, Event, Health, Rules, View};
use proxy::config::cluster::{HashFunction, HashLb, HashTableKind, LbPolicy, LocalityLb};
use proxy::route::hash;

use super::full_load;

on_both!(
    equal_endpoints,
    weighted_endpoints,
    localities_and_priorities_with_an_unhealthy_endpoint,
    names_and_keys_in_place_of_addresses,
    a_retry_goes_where_the_next_attempt_hashes_to,
    an_overloaded_endpoint_is_relieved,
);

/// One endpoint of a cluster.
#[derive(Debug, Clone, Copy)]
struct Host {
    weight: u32,
    priority: u32,
    zone: usize,
    zone_weight: u32,
    healthy: bool,
}

/// One of an unremarkable cluster.
const HOST: Host = Host { weight: 1, priority: 0, zone: 0, zone_weight: 0, healthy: true };

/// A cluster: endpoint number `n` (from 0) is at address `n + 1`.
#[derive(Debug, Clone)]
struct Shape {
    hosts: Vec<Host>,
    locality: LocalityLb,
    hashing: HashLb,
}

const RING: HashTableKind =
    HashTableKind::Ring { minimum: 1024, maximum: 8 << 20, function: HashFunction::XxHash };
const MURMUR: HashTableKind =
    HashTableKind::Ring { minimum: 100, maximum: 500, function: HashFunction::MurmurHash2 };
const MAGLEV: HashTableKind = HashTableKind::Maglev { size: 65_537 };
const SMALL_MAGLEV: HashTableKind = HashTableKind::Maglev { size: 1009 };

impl Shape {
    fn new(hosts: Vec<Host>, table: HashTableKind) -> Self {
        let hashing = HashLb { table, use_hostname: false, balance_factor: None };
        Self { hosts, locality: LocalityLb::default(), hashing }
    }

    /// The cluster as configured.
    fn cluster(&self, name: &str, app: &Everywhere) -> Cluster {
        let mut localities: Vec<Value> = Vec::new();
        for (number, host) in (1..).zip(&self.hosts) {
            let zone = json!({"region": "r", "zone": format!("z{}", host.zone)});
            let known = localities
                .iter_mut()
                .find(|it| it["locality"] == zone && it["priority"] == host.priority);
            let address = harness::bootstrap::socket_address(app.address(number));
            let endpoint = json!({
                "endpoint": {"address": address, "hostname": format!("host-{number}")},
                "load_balancing_weight": host.weight,
                "health_status": if host.healthy { "HEALTHY" } else { "UNHEALTHY" },
            });
            match known {
                Some(known) => known["lb_endpoints"].as_array_mut().unwrap().push(endpoint),
                None => {
                    let mut locality = json!({
                        "locality": zone, "priority": host.priority, "lb_endpoints": [endpoint],
                    });
                    if host.zone_weight > 0 {
                        locality["load_balancing_weight"] = host.zone_weight.into();
                    }
                    localities.push(locality);
                }
            }
        }
        self.balanced(Cluster::new(name).with("load_assignment.endpoints", localities))
    }

    /// `cluster` with the policy: two tables are asked for in the one way, two in the other.
    fn balanced(&self, cluster: Cluster) -> Cluster {
        let mut common = json!({"consistent_hashing_lb_config": {
            "use_hostname_for_hashing": self.hashing.use_hostname,
        }});
        if let Some(factor) = self.hashing.balance_factor {
            common["consistent_hashing_lb_config"]["hash_balance_factor"] = factor.into();
        }
        if self.locality == LocalityLb::Weighted {
            common["locality_weighted_lb_config"] = json!({});
        }
        let (name, message) = match self.hashing.table {
            RING => return cluster.with("lb_policy", "RING_HASH").with("common_lb_config", common),
            MAGLEV => return cluster.with("lb_policy", "MAGLEV").with("common_lb_config", common),
            HashTableKind::Ring { minimum, maximum, .. } => {
                common["hash_function"] = "MURMUR_HASH_2".into();
                common["minimum_ring_size"] = minimum.into();
                common["maximum_ring_size"] = maximum.into();
                ("ring_hash", "RingHash")
            }
            HashTableKind::Maglev { size } => {
                common["table_size"] = size.into();
                ("maglev", "Maglev")
            }
        };
        let message = format!("envoy.extensions.load_balancing_policies.{name}.v3.{message}");
        let config = harness::bootstrap::typed(&message, common);
        let name = format!("envoy.load_balancing_policies.{name}");
        let policy = json!({"typed_extension_config": {"name": name, "typed_config": config}});
        cluster.with("load_balancing_policy", json!({"policies": [policy]}))
    }

    /// What picks, outside of any proxy; `key` as endpoints are hashed by.
    fn balancer(&self, key: impl Fn(usize) -> Box<str>) -> Balancer {
        let candidates: Vec<Candidate> = self.hosts.iter().map(Host::candidate).collect();
        let rules = Rules {
            policy: LbPolicy::Hash(self.hashing),
            locality: self.locality,
            ..Rules::default()
        };
        Balancer::hashing(&candidates, &rules, self.hashing, key, &HashTables::default())
    }
}

impl Host {
    fn candidate(&self) -> Candidate {
        Candidate {
            weight: self.weight,
            warmth: 1.0,
            health: if self.healthy { Health::Healthy } else { Health::Unhealthy },
            priority: self.priority,
            locality: self.zone,
            locality_weight: self.zone_weight,
        }
    }
}

/// What a request brings to its pick.
#[derive(Default)]
struct Request {
    hash: u64,
    avoided: Option<usize>,
    active: Vec<u32>,
}

impl View for Request {
    fn active(&self, index: usize) -> u32 {
        self.active.get(index).copied().unwrap_or(0)
    }

    fn warmth(&self, _: usize) -> f64 {
        1.0
    }

    fn avoids(&self, index: usize) -> bool {
        self.avoided == Some(index)
    }

    fn hash(&self) -> Option<u64> {
        Some(self.hash)
    }

    fn notes(&self, _: Event) {}
}

/// The endpoint for `request`, by its place, once the table is built.
fn pick_for(balancer: &mut Balancer, request: &Request, attempts: u32) -> usize {
    loop {
        match balancer.pick(request, attempts, &mut Rng::with_seed(1)) {
            Ok(picked) => return picked.unwrap(),
            Err(_unready) => std::thread::yield_now(),
        }
    }
}

/// The endpoint for `key`, by its place.
fn pick(balancer: &mut Balancer, key: &str) -> usize {
    let request = Request { hash: hash::bytes(key.as_bytes()), ..Request::default() };
    pick_for(balancer, &request, 1)
}

fn ip(app: &Everywhere, place: usize) -> IpAddr {
    app.address(u8::try_from(place).unwrap() + 1).ip()
}

fn by_address(app: &Everywhere) -> impl Fn(usize) -> Box<str> {
    |place| app.address(u8::try_from(place).unwrap() + 1).to_string().into()
}

/// A proxy for these clusters, each reached by its own path.
async fn start(program: Program, clusters: Vec<Cluster>, retry: Option<Value>) -> Proxy {
    let route = |number: usize| {
        let route = Route::prefix(&format!("/{number}/")).to(&format!("c{number}"));
        let policies = json!([{"header": {"header_name": "x-key"}}]);
        let route = route.with("route.prefix_rewrite", "/").with("route.hash_policy", policies);
        match &retry {
            Some(retry) => route.retry(retry.clone()),
            None => route,
        }
    };
    let routes: Vec<_> = (0..clusters.len()).map(route).collect();
    clusters.into_iter().fold(Bootstrap::routing(routes), Bootstrap::cluster).start(program).await
}

/// The answers of cluster `number` to `keys`, many at once on one connection.
async fn answers(proxy: &Proxy, number: usize, keys: &[String]) -> Vec<String> {
    let mut connection = RawConnection::open(proxy.address("main")).await;
    let mut answers = Vec::with_capacity(keys.len());
    for keys in keys.chunks(50) {
        let request =
            |key: &String| format!("GET /{number}/ HTTP/1.1\r\nhost: a\r\nx-key: {key}\r\n\r\n");
        connection.write(keys.iter().map(request).collect::<String>()).await;
        for _ in keys {
            let reply = connection.read_response().await;
            assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
            answers.push(reply.rsplit('\n').next().unwrap_or_default().to_owned());
        }
    }
    answers
}

/// Every key goes to the same endpoint by whichever table, for which `figures` are the ends of names and values of
/// statistics.
async fn every_key_goes_to_its_endpoint(
    program: Program,
    hosts: Vec<Host>,
    locality: LocalityLb,
    figures: &[(&str, u64)],
) {
    let app = Everywhere::start().await;
    let shapes = [RING, MAGLEV, MURMUR, SMALL_MAGLEV]
        .map(|table| Shape { locality, ..Shape::new(hosts.clone(), table) });
    let clusters = (0..).zip(&shapes).map(|(it, shape)| shape.cluster(&format!("c{it}"), &app));
    let proxy = start(program, clusters.collect(), None).await;
    let keys: Vec<String> =
        (0..if full_load() { 100_000 } else { 2_000 }).map(|key| format!("key-{key}")).collect();
    for (number, shape) in shapes.iter().enumerate() {
        // The other two show what the first two do not; they need not be as many.
        let keys = if number < 2 { &keys[..] } else { &keys[..500] };
        let mut balancer = shape.balancer(by_address(&app));
        let answers = answers(&proxy, number, keys).await;
        let differs = |(key, answer): &(&String, &String)| {
            ip(&app, pick(&mut balancer, key)).to_string() != **answer
        };
        let different: Vec<_> = keys.iter().zip(&answers).filter(differs).take(5).collect();
        assert!(different.is_empty(), "{:?}: {different:?}", shape.hashing);
    }
    for (name, value) in figures {
        assert_eq!(proxy.stat(&format!("cluster.{name}")).await, *value, "{name}");
    }
}

async fn equal_endpoints(program: Program) {
    let figures = [
        ("c0.ring_hash_lb.size", 1026),
        ("c0.ring_hash_lb.min_hashes_per_host", 342),
        ("c0.ring_hash_lb.max_hashes_per_host", 342),
        ("c1.maglev_lb.min_entries_per_host", 21_845),
        ("c1.maglev_lb.max_entries_per_host", 21_846),
    ];
    every_key_goes_to_its_endpoint(program, vec![HOST; 3], LocalityLb::default(), &figures).await;
}

async fn weighted_endpoints(program: Program) {
    let weights = [1, 2, 3, 5, 8, 13, 21, 1, 7, 100];
    let hosts = weights.map(|weight| Host { weight, ..HOST });
    every_key_goes_to_its_endpoint(program, hosts.to_vec(), LocalityLb::default(), &[]).await;
}

async fn localities_and_priorities_with_an_unhealthy_endpoint(program: Program) {
    let host = |priority, zone, weight| Host {
        weight,
        priority,
        zone,
        zone_weight: 3 - zone as u32,
        ..HOST
    };
    let hosts = vec![
        host(0, 1, 1),
        Host { healthy: false, ..host(0, 1, 3) },
        host(0, 0, 2),
        host(1, 0, 1),
        host(1, 0, 4),
        host(1, 1, 1),
        host(1, 2, 2),
    ];
    every_key_goes_to_its_endpoint(program, hosts.clone(), LocalityLb::default(), &[]).await;
    every_key_goes_to_its_endpoint(program, hosts, LocalityLb::Weighted, &[]).await;
}

async fn names_and_keys_in_place_of_addresses(program: Program) {
    let app = Everywhere::start().await;
    let mut named = Shape::new(vec![HOST; 5], RING);
    named.hashing.use_hostname = true;
    let keyed = Shape::new(vec![HOST; 5], MAGLEV);
    let mut cluster = keyed.cluster("c1", &app);
    for place in [1, 3] {
        let path = format!("load_assignment.endpoints.0.lb_endpoints.{place}.metadata");
        let metadata = json!({"filter_metadata": {"envoy.lb": {"hash_key": format!("k{place}")}}});
        cluster = cluster.with(&path, metadata);
    }
    let proxy =
        start(program, vec![named.cluster("c0", &app).with("type", "STRICT_DNS"), cluster], None)
            .await;
    let keys: Vec<String> = (0..500).map(|key| format!("key-{key}")).collect();
    let mut by_name = named.balancer(|place| format!("host-{}", place + 1).into());
    let mut by_key = keyed.balancer(|place| match place {
        1 | 3 => format!("k{place}").into(),
        _ => by_address(&app)(place),
    });
    for (number, balancer) in [&mut by_name, &mut by_key].into_iter().enumerate() {
        let expected: Vec<_> =
            keys.iter().map(|key| ip(&app, pick(balancer, key)).to_string()).collect();
        assert_eq!(answers(&proxy, number, &keys).await, expected);
    }
}

async fn a_retry_goes_where_the_next_attempt_hashes_to(program: Program) {
    let app = Everywhere::start().await;
    let shapes = [RING, MAGLEV].map(|table| Shape::new(vec![HOST; 4], table));
    let previous = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
    let retry = json!({
        "retry_on": "5xx",
        "num_retries": 1,
        "retry_back_off": {"base_interval": "0.001s"},
        "host_selection_retry_max_attempts": 3,
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": format!("type.googleapis.com/{previous}")},
        }],
    });
    let clusters = (0..).zip(&shapes).map(|(it, shape)| shape.cluster(&format!("c{it}"), &app));
    let proxy = start(program, clusters.collect(), Some(retry)).await;
    for (number, shape) in shapes.iter().enumerate() {
        let mut balancer = shape.balancer(by_address(&app));
        for key in 0..20 {
            let key = format!("key-{key}");
            let first = pick(&mut balancer, &key);
            let hash = hash::bytes(key.as_bytes());
            let request = Request { hash, avoided: Some(first), ..Request::default() };
            let second = pick_for(&mut balancer, &request, 3);
            let before = app.arrivals().len();
            let call = proxy.get(&format!("/{number}/fail")).header("x-key", &key);
            assert_eq!(call.send().await.text(), ip(&app, second).to_string(), "{key}");
            assert_eq!(app.arrivals()[before..], [first, second].map(|place| ip(&app, place)));
        }
    }
}

async fn an_overloaded_endpoint_is_relieved(program: Program) {
    let app = Everywhere::start().await;
    let mut shape = Shape::new(vec![HOST, Host { weight: 2, ..HOST }, HOST, HOST], RING);
    shape.hashing.balance_factor = Some(110);
    let proxy = start(program, vec![shape.cluster("c0", &app)], None).await;
    let mut balancer = shape.balancer(by_address(&app));
    let mut request =
        Request { hash: hash::bytes(b"one"), active: vec![0; 4], ..Request::default() };
    let mut waiting = Vec::new();
    for nth in 0..16 {
        let expected = pick_for(&mut balancer, &request, 1);
        request.active[expected] += 1;
        let mut client = RawConnection::open(proxy.address("main")).await;
        client.write("GET /0/hold HTTP/1.1\r\nhost: a\r\nx-key: one\r\n\r\n").await;
        waiting.push(client);
        let arrived = harness::eventually("the request to arrive", async || {
            tokio::time::sleep(Duration::from_millis(1)).await;
            app.arrivals().get(nth).copied()
        });
        assert_eq!(arrived.await, ip(&app, expected), "request {nth}");
    }
    let used = request.active.iter().filter(|active| **active > 0).count();
    assert!(used > 2, "{:?}", request.active);
}
