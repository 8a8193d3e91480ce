//! How requests are kept in the proxy's own zone.

use harness::bootstrap::typed;
use harness::{Bootstrap, Cluster, Program, Proxy, Route, Value, json};

use super::{REQUESTS, assert_shares, backends, cluster, counts, endpoint, send};

on_both!(
    traffic_stays_in_its_zone,
    a_zone_sends_away_what_it_cannot_take,
    zones_do_not_matter_to_a_proxy_whose_own_zone_is_unknown,
    a_zone_can_be_made_to_keep_its_traffic,
);

fn zone(name: &str, hosts: &[Value]) -> Value {
    json!({"locality": {"zone": name}, "lb_endpoints": hosts})
}

fn zoned(hosts: &[(&str, &[Value])]) -> Value {
    hosts.iter().map(|(name, hosts)| zone(name, hosts)).collect()
}

/// The cluster of the proxies, so many in each zone.
fn fleet(proxies: &[(&str, usize)]) -> Cluster {
    let fleet = proxies.iter().map(|(name, count)| {
        let proxy = |port: usize| {
            let address = json!({"address": "127.0.0.1", "port_value": port});
            json!({"endpoint": {"address": {"socket_address": address}}})
        };
        zone(name, &(1..=*count).map(proxy).collect::<Vec<_>>())
    });
    Cluster::new("mesh").with("load_assignment.endpoints", fleet.collect::<Value>())
}

/// `app` with so many endpoints in each zone, in a mesh that has `proxies` in each; the proxy is in zone `here`.
async fn in_zones(
    program: Program,
    hosts: &[(&str, &[Value])],
    proxies: &[(&str, usize)],
) -> Proxy {
    let app = zoned(hosts);
    let fleet = fleet(proxies);
    let app =
        cluster(app).with("common_lb_config.zone_aware_lb_config", json!({"min_cluster_size": 2}));
    in_mesh(program, app, fleet).await
}

async fn in_mesh(program: Program, app: Cluster, fleet: Cluster) -> Proxy {
    Bootstrap::routing([Route::prefix("/").to("app")])
        .with("node.locality", json!({"zone": "here"}))
        .with("cluster_manager", json!({"local_cluster_name": "mesh"}))
        .cluster(app)
        .cluster(fleet)
        .start(program)
        .await
}

async fn traffic_stays_in_its_zone(program: Program) {
    let hosts = backends::<2>().await;
    let [here, there] = &hosts;
    let (near, far) = ([endpoint(here)], [endpoint(there)]);
    let proxy =
        in_zones(program, &[("there", &far), ("here", &near)], &[("here", 1), ("there", 1)]).await;
    send(&proxy, 50).await;
    assert_eq!(counts(&hosts), [50, 0]);
    assert_eq!(proxy.stat("cluster.app.lb_zone_routing_all_directly").await, 50);
    assert!(proxy.stat("cluster.app.lb_recalculate_zone_structures").await >= 1);
}

async fn a_zone_sends_away_what_it_cannot_take(program: Program) {
    let hosts = backends::<4>().await;
    let [here, a, b, c] = &hosts;
    let (near, far, farther) = ([endpoint(here)], [endpoint(a), endpoint(b)], [endpoint(c)]);
    // Half of the proxies and a quarter of the endpoints are here; elsewhere it is 25 to 50 and 25 to 25.
    let proxy = in_zones(
        program,
        &[("here", &near), ("there", &far), ("yonder", &farther)],
        &[("here", 2), ("there", 1), ("yonder", 1)],
    )
    .await;
    send(&proxy, REQUESTS).await;
    assert_shares(&hosts, [50, 25, 25, 0]);
    let sampled = proxy.stat("cluster.app.lb_zone_routing_sampled").await as usize;
    let cross = proxy.stat("cluster.app.lb_zone_routing_cross_zone").await as usize;
    assert_eq!((sampled, cross), (here.count(), REQUESTS - here.count()));
}

async fn zones_do_not_matter_to_a_proxy_whose_own_zone_is_unknown(program: Program) {
    let hosts = backends::<2>().await;
    let [here, there] = &hosts;
    let (near, far) = ([endpoint(here)], [endpoint(there)]);
    let proxy =
        in_zones(program, &[("here", &near), ("there", &far)], &[("there", 1), ("yonder", 1)])
            .await;
    send(&proxy, 50).await;
    assert_eq!(counts(&hosts), [25, 25]);
    assert!(proxy.stat("cluster.app.lb_local_cluster_not_ok").await >= 1);
}

async fn a_zone_can_be_made_to_keep_its_traffic(program: Program) {
    let hosts = backends::<3>().await;
    let [here, a, b] = &hosts;
    let (near, far) = ([endpoint(here)], [endpoint(a), endpoint(b)]);
    let policy = |force: Value| {
        let config = typed(
            "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
            json!({"locality_lb_config": {"zone_aware_lb_config": {
                "min_cluster_size": 2, "force_local_zone": force,
            }}}),
        );
        let config = json!({"name": "round robin", "typed_config": config});
        json!({"policies": [{"typed_extension_config": config}]})
    };
    // Half of the proxies are here, but a third of the endpoints: by itself the zone would send some away.
    for (min_size, stay) in [(1, true), (2, false)] {
        let app = cluster(zoned(&[("here", &near), ("there", &far)]))
            .with("load_balancing_policy", policy(json!({"min_size": min_size})));
        let fleet = fleet(&[("here", 1), ("there", 1)]);
        let proxy = in_mesh(program, app, fleet).await;
        let before = here.count();
        send(&proxy, 100).await;
        assert_eq!(here.count() - before == 100, stay, "{min_size}: {}", here.count() - before);
    }
}
